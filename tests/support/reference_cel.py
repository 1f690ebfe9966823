"""Google's CEL implementation, asked the way Gatekeeper asks its own."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from cel_expr_python import cel

from gatekeeper.policy.view import FIELDS

if TYPE_CHECKING:
    from gatekeeper.policy.model import View


@cache
def _environment() -> Any:
    group = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    return cel.NewEnv(variables={name.partition(".")[0]: group for name in FIELDS})


def evaluate_reference(source: str, view: View) -> bool | None:
    """Evaluate ``source`` by the reference; None for its run-time errors.

    Raises RuntimeError where the source does not parse or its types do not fit: such a condition
    should never have compiled on our side.
    """
    # Unchecked, because a group is a map to anything: types then count at run time only.
    expression = _environment().compile(source, disable_check=True)
    groups: dict[str, dict[str, Any]] = {name.partition(".")[0]: {} for name in FIELDS}
    for name, value in view.items():
        group, _, field = name.partition(".")
        groups[group][field] = list(value) if isinstance(value, tuple) else value
    result = expression.eval(data=groups)
    if result.type() == cel.Type.BOOL:
        return bool(result.value())
    error = str(result.value())
    if result.type() != cel.Type.ERROR or "No matching overloads" in error:
        raise RuntimeError(f"{source!r} gives {error}")
    return None
