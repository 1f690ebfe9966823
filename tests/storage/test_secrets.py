"""Secrets: read strictly, made once, derived per purpose."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from gatekeeper.policy.mistake import Mistake
from gatekeeper.settings import SecretSource
from gatekeeper.storage.secrets import derive, load_or_create_secret, read_secret

if TYPE_CHECKING:
    from pathlib import Path


def test_a_secret_comes_from_a_variable() -> None:
    """White space around it, such as a last newline, does not belong to it."""
    assert read_secret(SecretSource(env="K"), {"K": " sk-1\n"}) == b"sk-1"


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    """The file's last newline does not belong to it."""
    file = tmp_path / "key"
    file.write_bytes(b"sk-2\r\n")
    assert read_secret(SecretSource(file=file), {}) == b"sk-2"


@pytest.mark.parametrize("value", ["", "  \n", "one\ntwo", "one\x00", "sk-1", "x" * 65_537])
def test_an_unfit_secret_is_a_mistake_that_does_not_tell_it(value: str) -> None:
    """Empty, two lines, control characters, too short, too long: refused without a quote."""
    found = read_secret(SecretSource(env="K"), {"K": value}, min_bytes=8)
    assert isinstance(found, Mistake)
    assert found.path == "K"
    assert not value.strip() or value.strip() not in str(found)


def test_a_missing_secret_is_a_mistake(tmp_path: Path) -> None:
    """The variable or file that is not there is named."""
    assert "NOT_SET" in str(read_secret(SecretSource(env="NOT_SET"), {}))
    assert "nowhere" in str(read_secret(SecretSource(file=tmp_path / "nowhere"), {}))
    assert isinstance(read_secret(SecretSource(), {}), Mistake)


def test_the_first_start_makes_a_secret_and_later_ones_keep_it(tmp_path: Path) -> None:
    """Nobody else may read the file, and nothing is left beside it."""
    data = tmp_path / "var"
    first = load_or_create_secret(data, random_hex=lambda size: "ab" * size)
    assert first == b"ab" * 32
    assert load_or_create_secret(data) == first
    assert stat.S_IMODE((data / "secret").stat().st_mode) == 0o600
    assert list(data.iterdir()) == [data / "secret"]
    assert read_secret(SecretSource(file=data / "secret"), {}) == first


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    """However many race for it, one secret comes out."""
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(load_or_create_secret, [tmp_path] * 32))
    assert len(set(found)) == 1
    assert isinstance(found[0], bytes)


def test_a_secret_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    """It is no secret any more; the mistake says what to do."""
    load_or_create_secret(tmp_path)
    (tmp_path / "secret").chmod(0o644)
    assert "chmod" in str(load_or_create_secret(tmp_path))


def test_a_secret_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    """An empty or half file must not become the key of everything."""
    (tmp_path / "secret").touch(mode=0o600)
    assert isinstance(load_or_create_secret(tmp_path), Mistake)
    (tmp_path / "secret").write_text("abc")
    assert isinstance(load_or_create_secret(tmp_path), Mistake)


def test_derived_keys_differ_by_purpose_and_secret() -> None:
    """Knowing one derived key tells nothing of another; the known answer pins the format."""
    keys = {derive(b"a" * 32, "links"), derive(b"a" * 32, "api-keys"), derive(b"b" * 32, "links")}
    assert len(keys) == 3
    assert all(len(key) == 32 for key in keys)
    assert derive(b"a" * 32, "links").hex() == (
        "845cdfae9b086d77d591d8aa07aa6fcf7dc6bb17f53df0433060af7074a444df"
    )
