"""What operations work with; built in :mod:`gatekeeper.app`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gatekeeper.management.decisions import DecisionDesk
from gatekeeper.sources import rules_archive
from gatekeeper.storage.admin_keys import AdminKeys
from gatekeeper.storage.audit import AuditTrail
from gatekeeper.storage.campaigns import CampaignBook
from gatekeeper.storage.notes import Notes
from gatekeeper.storage.organizations import Organizations
from gatekeeper.storage.secrets import derive
from gatekeeper.storage.usage import UsageTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.live.desk import RuleDesk
    from gatekeeper.live.fleet import Live
    from gatekeeper.live.modes import ModeDesk
    from gatekeeper.management.status import Node
    from gatekeeper.policy.model import Moment
    from gatekeeper.settings import Settings
    from gatekeeper.storage.database import Database
    from gatekeeper.storage.records import Records
    from gatekeeper.verification.desk import CaseDesk


@dataclass(frozen=True, slots=True)
class Subkeys:
    """What digests of keys are made with."""

    credentials: bytes
    """For the keys of callers."""
    admin: bytes


@dataclass(frozen=True, slots=True)
class Services:
    """Everything behind the operations."""

    settings: Settings
    clock: Callable[[], Moment]
    random_bytes: Callable[[int], bytes]
    subkeys: Subkeys
    database: Database
    records: Records
    notes: Notes
    organizations: Organizations
    admin_keys: AdminKeys
    trail: AuditTrail
    usage: UsageTable
    rules: RuleDesk
    mode: ModeDesk
    cases: CaseDesk
    campaigns: CampaignBook
    reload: Callable[[], None]
    """Reads rule files and network data again, as SIGHUP does."""
    decisions: DecisionDesk
    node: Node
    """This process: what it serves and how it is."""

    @classmethod
    def over(
        cls,
        settings: Settings,
        secret: bytes,
        records: Records,
        *,
        live: Live,
        cases: CaseDesk,
        node: Node,
        clock: Callable[[], Moment],
        random_bytes: Callable[[int], bytes],
    ) -> Services:
        """Put them together over the records and the parts of a running gate."""
        database = records.database
        return cls(
            settings=settings,
            clock=clock,
            random_bytes=random_bytes,
            subkeys=Subkeys(derive(secret, "credentials"), derive(secret, "admin-keys")),
            database=database,
            records=records,
            notes=Notes(database),
            organizations=Organizations(database),
            admin_keys=AdminKeys(database),
            trail=AuditTrail(database),
            usage=UsageTable(database),
            rules=live.rule_desk,
            mode=live.mode_desk,
            cases=cases,
            campaigns=CampaignBook(database),
            reload=live.reload,
            decisions=DecisionDesk(
                settings.decision_log.directory,
                rules_archive(settings),
                lambda: node.gate.snapshot.rules,
            ),
            node=node,
        )
