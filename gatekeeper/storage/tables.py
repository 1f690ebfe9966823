"""Every table of the records on one metadata: what a new database is made of.

A module that declares tables is imported here, or its tables would be missing from new databases.
"""

from __future__ import annotations

from gatekeeper.storage import (
    admin_keys,
    audit,
    campaigns,
    cases_schema,
    controls,
    nodes,
    notes,
    organizations,
    records_schema,
    rule_history,
    usage,
)
from gatekeeper.storage.schema import METADATA

__all__ = [
    "METADATA",
    "admin_keys",
    "audit",
    "campaigns",
    "cases_schema",
    "controls",
    "nodes",
    "notes",
    "organizations",
    "records_schema",
    "rule_history",
    "usage",
]
