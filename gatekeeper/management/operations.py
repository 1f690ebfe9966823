"""Every operation of the API, in the order in which the document tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatekeeper.management import (
    accounts,
    audit_log,
    campaigns,
    cases,
    decisions,
    keys,
    lists,
    mode,
    organizations,
    rules,
    status,
    usage,
)

if TYPE_CHECKING:
    from gatekeeper.management.operation import Operation

OPERATIONS: Final[tuple[Operation, ...]] = (
    *accounts.OPERATIONS,
    *keys.OPERATIONS,
    *organizations.OPERATIONS,
    *cases.OPERATIONS,
    *campaigns.OPERATIONS,
    *rules.OPERATIONS,
    *mode.OPERATIONS,
    *lists.OPERATIONS,
    *decisions.OPERATIONS,
    *usage.OPERATIONS,
    *status.OPERATIONS,
    *audit_log.OPERATIONS,
)
