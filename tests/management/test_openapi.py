"""The document is valid OpenAPI 3.1, complete, and what is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from openapi_spec_validator import validate

from gatekeeper.management.openapi import document
from gatekeeper.management.operation import Audit, Method, Operation
from gatekeeper.management.operations import OPERATIONS
from gatekeeper.management.problems import KINDS, Code

if TYPE_CHECKING:
    from support.admin import Admins


def test_the_document_is_valid() -> None:
    """A validator of OpenAPI 3.1 finds nothing wrong with it."""
    validate(document(OPERATIONS))


async def test_it_is_served_without_a_key(admins: Admins) -> None:
    """It holds no secret, and tells how to get a key."""
    served = await admins.get("/v1/openapi.json", key=None)
    assert served.status == 200
    assert served.json == document(OPERATIONS)
    assert "gatekeeper admin-keys create" in served.json["info"]["description"]


def test_every_operation_is_told_once() -> None:
    """Ids and places are unique; each names its role, whether it is audited, and an answer."""
    told = document(OPERATIONS)["paths"]
    named = [each for path in told.values() for each in path.values()]
    assert len(named) == len(OPERATIONS)
    assert len({each["operationId"] for each in named}) == len(OPERATIONS)
    for each in named:
        assert each["x-required-role"] in {"viewer", "operator", "admin"}
        assert any(status.startswith("2") for status in each["responses"])
        assert {"401", "403", "503"} <= set(each["responses"])


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.id)
def test_what_changes_something_is_audited(operation: Operation) -> None:
    """GET reads and leaves no trace; every other method does."""
    assert (operation.audit is Audit.NO) == (operation.method is Method.GET)


def test_every_code_has_its_status() -> None:
    """No problem lacks a status and title, and no two of them say the same."""
    assert set(KINDS) == set(Code)
    assert len({kind.title for kind in KINDS.values()}) == len(Code)
