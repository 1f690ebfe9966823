"""The reference of all settings, as a page and as a schema; ``make docs`` writes both."""

from __future__ import annotations

import json
import sys
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from gatekeeper.settings import Settings
from gatekeeper.settings.load import FILE_VARIABLE, FLAGS
from gatekeeper.settings.shape import PREFIX, Place, core, is_model, variable_of

_HEAD: Final = f"""\
# Settings

<!-- Written by `make docs` from gatekeeper/settings/: change that, not this. -->

Settings come from a YAML file (`--settings FILE` or `{FILE_VARIABLE}`), from environment variables
and from flags. Flags beat the environment, the environment beats the file, and the file beats the
defaults below. All mistakes of all sources are told at once, each with its file and line, variable
or flag; a gate with a mistake in its settings does not start.

- **File.** YAML 1.2 without anchors, tags or duplicate keys. Values keep their type (`port: "80"`
  is a mistake) and a key without a value is one too. Relative paths start from the file's
  directory. For an editor that completes and checks, put this on the first line:
  `# yaml-language-server: $schema=settings.schema.json` (the schema is beside this page).
- **Environment.** `{PREFIX}` and the place of the setting in capitals, with `__` between steps and
  items of lists counted from 0: `{PREFIX}LISTENERS__0__PORT=8081`. Lists and mappings are written
  as JSON, and replace what the file says: `{PREFIX}CORS__ALLOW_ORIGINS='["*"]'`. A variable with
  this prefix that is no setting is a mistake, unless a secret is read from it or Kubernetes set it
  to announce a service. Relative paths start from the current directory.
- **Flags.** The few that one changes by hand; see the table at the end.

Secrets are never written here: a setting names the variable (`env`) or the file (`file`) that
holds one.
"""


def settings_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a settings file, for editors."""
    schema = Settings.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def settings_page() -> str:
    """Return the reference of all settings in Markdown."""
    parts = [
        _HEAD,
        *_sections(Settings, (), "Top level"),
        "## Flags\n\n| flag | sets |\n|---|---|\n",
    ]
    flags = "".join(f"| `{flag}` | `{_shown_place(place)}` |\n" for flag, place in FLAGS.items())
    return "\n".join(parts) + flags


def _sections(model: Any, above: Place, title: str) -> list[str]:
    intro = "" if model is Settings else f"{(model.__doc__ or '').strip()}\n\n".replace("``", "`")
    lines = [f"## {title}\n\n{intro}| setting | type | default | meaning |\n|---|---|---|---|\n"]
    inner: list[str] = []
    for name, info in model.model_fields.items():
        kind, place = core(info.annotation), (*above, name)
        meaning = (info.description or "").replace("\n", " ").replace("``", "`")
        lines.append(f"| `{name}` | {_type(info.annotation)} | {_default(info)} | {meaning} |\n")
        if get_origin(kind) is tuple:
            kind, place = core(get_args(kind)[0]), (*place, 0)
        if is_model(kind):
            shown = f"`{_shown_place(place)}` (`{variable_of(place)}__...`)"
            inner += _sections(kind, place, shown)
    return ["".join(lines), *inner]


def _shown_place(place: Place) -> str:
    text = ""
    for step in place:
        text += "[]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _type(annotation: Any) -> str:
    kind = core(annotation)
    if get_origin(kind) is tuple:
        return f"list of {_type(get_args(kind)[0])}"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if is_model(kind):
        return "mapping"
    if issubclass(kind, Enum):
        return ", ".join(f"`{choice.value}`" for choice in kind)
    return {str: "text", int: "whole number", float: "number", bool: "true, false"}.get(
        kind, "path"
    )


def _default(info: Any) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None:
        return ""
    if is_model(type(value)) or (
        isinstance(value, tuple) and any(is_model(type(v)) for v in value)
    ):
        return "see below"
    return f"`{json.dumps(value, default=str)}`"


def main() -> None:
    """Write ``settings.md`` and ``settings.schema.json`` into the directory that is named."""
    directory = Path(sys.argv[1])
    schema = json.dumps(settings_schema(), indent=2)
    (directory / "settings.md").write_text(settings_page(), encoding="utf-8")
    (directory / "settings.schema.json").write_text(f"{schema}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
