"""The secret that keys everything derived from credentials, and the secrets of others."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gatekeeper.policy.mistake import Mistake

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gatekeeper.settings import SecretSource

MIN_SECRET_BYTES: Final = 32
"""Shortest master secret: as long as the keys derived from it."""

_MAX_SECRET_BYTES: Final = 65_536
_DERIVED_BYTES: Final = 32


def read_secret(
    source: SecretSource, environ: Mapping[str, str], *, min_bytes: int = 1
) -> bytes | Mistake:
    """Read a secret without the white space around it; the mistake never repeats it."""
    if source.env is not None:
        if source.env not in environ:
            return Mistake("environment", None, source.env, "This variable is not set.")
        found = os.fsencode(environ[source.env])
        return _checked(found, min_bytes, Mistake("environment", None, source.env, ""))
    if source.file is None:
        return Mistake("settings", None, "", "A secret needs exactly one of env and file.")
    return _read_file(source.file, min_bytes)


def load_or_create_secret(
    data_dir: Path, *, random_hex: Callable[[int], str] = secrets.token_hex
) -> bytes | Mistake:
    """Return the secret in ``data_dir/secret``, made first (mode 0600) when there is none.

    Of several processes that make it at once, one wins and all return the same. A secret that
    others than owner and group may read, or that was cut short, is refused. Raises OSError when
    the directory cannot be written.
    """
    path = data_dir / "secret"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        _create(path, f"{random_hex(MIN_SECRET_BYTES)}\n".encode())
    # Group access is let be: Kubernetes grants it on volumes with an fsGroup.
    if stat.S_IMODE(path.stat().st_mode) & stat.S_IRWXO:
        return Mistake(str(path), None, "", "Everybody may open this secret; chmod it to 600.")
    return _read_file(path, MIN_SECRET_BYTES)


def derive(secret: bytes, purpose: str) -> bytes:
    """Derive a 32-byte key for one purpose (HKDF-SHA256, RFC 5869), unrelated to any other's."""
    info = f"gatekeeper/{purpose}".encode()
    return HKDF(algorithm=SHA256(), length=_DERIVED_BYTES, salt=None, info=info).derive(secret)


def _create(path: Path, content: bytes) -> None:
    # Written aside and linked: the name appears with its content or not at all, and never twice.
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first: its secret is the secret
            path.hardlink_to(aside)
    finally:
        aside.unlink()
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_file(path: Path, min_bytes: int) -> bytes | Mistake:
    try:
        with path.open("rb") as file:
            found = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        return Mistake(str(path), None, "", f"This secret cannot be read: {error.strerror}.")
    return _checked(found, min_bytes, Mistake(str(path), None, "", ""))


def _checked(found: bytes, min_bytes: int, origin: Mistake) -> bytes | Mistake:
    secret = found.strip()
    message = ""
    if not secret:
        message = "This secret is empty."
    elif len(secret) < min_bytes:
        message = f"This secret is shorter than {min_bytes} bytes."
    elif len(found) > _MAX_SECRET_BYTES:
        message = f"This secret is longer than {_MAX_SECRET_BYTES} bytes."
    elif any(byte < ord(" ") or byte == 0x7F for byte in secret):  # noqa: PLR2004 - DEL
        message = "This secret has a control character or a second line in it."
    if message:
        return Mistake(origin.file, origin.line, origin.path, message)
    return secret
