"""Settings from a YAML file, the environment and flags: flags beat environment beats file.

Every source is laid over the ones below it and the result validated after each, so that a mistake
in a value that is overridden is told as well, at its own place. Values of the file keep their YAML
type: ``port: "80"`` is a mistake.

Relative paths in a file start from the file's directory; those of defaults, variables and flags
start from the current directory.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

from pydantic import ValidationError

from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.strict_yaml import read_yaml, walk
from gatekeeper.policy.validation import did_you_mean
from gatekeeper.settings import Settings
from gatekeeper.settings.check import CONSISTENCY
from gatekeeper.settings.check_machine import SERVING
from gatekeeper.settings.layer import Layer, say
from gatekeeper.settings.shape import (
    PREFIX,
    core,
    is_model,
    is_text,
    leaves,
    place_of,
    type_at,
    variable_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gatekeeper.settings.problems import Check
    from gatekeeper.settings.shape import Place

FILE_VARIABLE: Final = "GATEKEEPER_SETTINGS"
"""Names the settings file; for the command line to read, not a setting itself."""

FLAGS: Final[dict[str, Place]] = {
    "--host": ("listeners", 0, "host"),
    "--port": ("listeners", 0, "port"),
    "--ops-port": ("ops", "port"),
    "--admin-port": ("admin", "port"),
    "--mode": ("mode",),
    "--name": ("name",),
    "--data-dir": ("data_dir",),
    "--rules-dir": ("rules_dir",),
    "--public-url": ("public_url",),
    "--log-level": ("log", "level"),
    "--log-format": ("log", "format"),
    "--upstream": ("upstreams",),
}
"""Flags that set one thing. ``--upstream`` takes URLs of equal endpoints, replacing the table."""

_ENVIRONMENT: Final = "environment"
_COMMAND_LINE: Final = "command line"

# Kubernetes announces a Service called gatekeeper (or gatekeeper-x) to every pod in these.
_SERVICE_LINK: Final = re.compile(
    r"GATEKEEPER_([A-Z0-9]+_)*"
    r"(SERVICE_HOST=|SERVICE_PORT(_[A-Z0-9_]+)?=|PORT=[a-z]+://|PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?=)"
)


def load_settings(
    file: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    *,
    to_serve: bool = False,
) -> Settings | list[Mistake]:
    """Read, merge and check all sources; any mistake anywhere means no settings.

    ``flags`` are keyed as in :data:`FLAGS`; a value of None means not given. ``to_serve`` asks for
    the checks of this machine too: an upstream is named, files open, secrets are set.
    """
    base, found = _from_file(file)
    middle, wrong_variables = _with_environment(base, environ)
    top, wrong_flags = _with_flags(middle, flags)
    for layer in (base, middle):  # what is missing there, a higher source may add
        found += [mistake for mistake, kind in layer.mistakes() if kind != "missing"]
    found += [mistake for mistake, kind in top.mistakes() if base.whole or kind != "missing"]
    secrets = {value for path, value in walk(top.tree) if path[-1:] == ("env",)}
    found += [mistake for name, mistake in wrong_variables.items() if name not in secrets]
    found += wrong_flags
    checks = (*CONSISTENCY, *SERVING) if to_serve else CONSISTENCY
    found += _failed(top, checks, environ)
    order = {_ENVIRONMENT: 1, _COMMAND_LINE: 2}
    found.sort(key=lambda mistake: (order.get(mistake.file, 0), mistake.line or 0))
    return list(dict.fromkeys(found)) or Settings.model_validate_json(top.json(), strict=True)


def _from_file(file: Path | None) -> tuple[Layer, list[Mistake]]:
    if file is None:
        return Layer(), []
    unread = Layer(whole=False)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        return unread, [Mistake(str(file), None, "", f"This cannot be read: {why}.")]
    document = read_yaml(text, str(file), require_end=False)
    if isinstance(document, list):
        return unread, document
    if document.value is None:
        return Layer(), []
    if not isinstance(document.value, dict):
        return unread, [Mistake(str(file), 1, "", "This must be a mapping of settings.")]
    layer = Layer(_anchored(document.value, Settings, file.parent), document, str(file))
    nothing = "There is no value; write one."
    nulls = [at for at, value in walk(document.value) if value is None and isinstance(at[-1], str)]
    return layer, [layer.mistake(at, nothing) for at in nulls]


def _with_environment(below: Layer, environ: Mapping[str, str]) -> tuple[Layer, dict[str, Mistake]]:
    """Lay variables over ``below``; also return a mistake for each that is no setting."""
    layer, wrong = below.copy(), dict[str, Mistake]()
    for name in sorted(environ):  # a list comes before its items
        if not name.startswith(PREFIX) or name == FILE_VARIABLE:
            continue
        if _SERVICE_LINK.match(f"{name}={environ[name]}"):
            continue
        origin, at = Mistake(_ENVIRONMENT, None, name, ""), place_of(name)
        kind = type_at(at)
        if kind is None or variable_of(at) != name:
            wrong[name] = say(origin, f"This is not a setting{_nearest(name)}")
            continue
        value = _from_text(environ[name], kind)
        if isinstance(value, _Unreadable):
            wrong[name] = say(origin, value.reason)
        elif refusal := layer.put(at, value, origin):
            wrong[name] = refusal
    return layer, wrong


def _with_flags(below: Layer, flags: Mapping[str, object]) -> tuple[Layer, list[Mistake]]:
    layer, wrong = below.copy(), list[Mistake]()
    for name, value in flags.items():
        if value is None or value == ():
            continue
        origin = Mistake(_COMMAND_LINE, None, name, "")
        if name not in FLAGS:
            wrong.append(
                say(origin, f"This is not a flag for a setting{did_you_mean(name, FLAGS)}")
            )
            continue
        if not _is_unicode(str(value)):
            wrong.append(say(origin, "This is not UTF-8 text."))
            continue
        if name == "--upstream":
            urls = [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]
            value = [{"name": "upstream", "urls": urls}]  # noqa: PLW2901 - told as a table
        mistake = layer.put(FLAGS[name], value, origin)
        wrong += [] if mistake is None else [mistake]
    return layer, wrong


def _nearest(variable: str) -> str:
    known = [variable_of(each) for each in leaves()]
    inner = [each for each in known if each.endswith(variable.replace(PREFIX, "__", 1))]
    return f"; did you mean `{inner[0]}`?" if inner else did_you_mean(variable, known)


@dataclass(frozen=True, slots=True)
class _Unreadable:
    reason: str


def _from_text(text: str, kind: Any) -> object:
    if is_text(kind) and (text or kind is str):
        return text if _is_unicode(text) else _Unreadable("This is not UTF-8 text.")
    if not text.strip():
        return _Unreadable("There is no value; write one, or unset the variable.")
    document = read_yaml(text, _ENVIRONMENT, require_end=False)  # JSON is YAML
    if isinstance(document, list):
        return _Unreadable(f"This must be JSON. {document[0].message}")
    return document.value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # an undecodable byte of the environment or command line
        return False
    return True


def _anchored(value: Any, kind: Any, directory: Path) -> Any:
    """Return ``value`` with relative paths starting from ``directory``, and without nulls."""
    kind = core(kind)
    if kind is Path and isinstance(value, str):
        return str(directory / value)
    if isinstance(value, list) and get_origin(kind) is tuple:
        return [_anchored(item, get_args(kind)[0], directory) for item in value]
    if isinstance(value, dict) and is_model(kind):
        fields = kind.model_fields
        return {
            key: _anchored(item, fields[key].annotation, directory) if key in fields else item
            for key, item in value.items()
            if item is not None
        }
    return value


def _failed(
    layer: Layer, checks: tuple[Check, ...], environ: Mapping[str, str]
) -> Iterator[Mistake]:
    """Run the checks whose fields are sound."""
    if not layer.whole:
        return
    bad: set[str | int] = set()
    try:
        settings = Settings.model_validate_json(layer.json(), strict=True)
    except ValidationError as error:
        at = [detail["loc"] for detail in error.errors(include_url=False)]
        if () in at:
            return
        bad = {each[0] for each in at}
        sound = {key: value for key, value in layer.tree.items() if key not in bad}
        settings = Settings.model_validate_json(json.dumps(sound, default=str), strict=True)
    for check in checks:
        if check.reads.isdisjoint(bad):
            for problem in check.run(settings, environ):
                yield layer.mistake(problem.place, problem.message)
