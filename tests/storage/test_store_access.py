"""What it takes to reach the store: addresses, secrets, certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gatekeeper.policy.mistake import Mistake
from gatekeeper.settings import SecretSource, Store, StoreTls
from gatekeeper.storage.store_access import Address, StoreAccess, read_access

if TYPE_CHECKING:
    from pathlib import Path


def access(environ: dict[str, str] | None = None, **fields: object) -> StoreAccess:
    """Return the access that settings and environment give."""
    found = read_access(Store.model_validate(fields), environ or {})
    assert isinstance(found, StoreAccess), found
    return found


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("valkey.internal:6379", Address("valkey.internal", 6379)),
        ("[::1]:6379", Address("::1", 6379)),
        ("unix:/run/valkey.sock", Address("/run/valkey.sock", 0)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    """Names, IPv6 in brackets, Unix sockets."""
    assert Address.parse(text) == address


def test_secrets_that_are_missing_are_told_and_never_shown(tmp_path: Path) -> None:
    """A variable that is not set is a mistake; what was read does not appear when printed."""
    password = SecretSource(env="STORE_PASSWORD")
    missing = read_access(Store(kind="standalone", addresses=("a:1",), password=password), {})
    assert isinstance(missing, Mistake)
    tls = StoreTls(ca_file=tmp_path / "none.pem")
    assert isinstance(
        read_access(Store(kind="standalone", addresses=("a:1",), tls=tls), {}), Mistake
    )
    found = access(
        {"STORE_PASSWORD": "hush"}, kind="standalone", addresses=("a:1",), password=password
    )
    assert "hush" not in repr(found)
