"""The mode of all gates: observe, and the two kill switches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field

from gatekeeper.management.operation import Answer, Asked, Audit, Method, Operation, Tag, Wire
from gatekeeper.management.problems import FieldError, Problem, invalid
from gatekeeper.management.wire import Time
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.words import GateMode
from gatekeeper.storage.admin_keys import Role

if TYPE_CHECKING:
    from gatekeeper.live.modes import ModeState
    from gatekeeper.management.services import Services


class Override(Wire):
    """What somebody set for all nodes."""

    mode: GateMode
    at: float
    by: str
    reason: str
    expires_at: float | None


class Mode(Wire):
    """The mode of this node, and why it is so. Embargoes hold in every mode."""

    mode: GateMode
    """`enforce`; `observe` decides and records but refuses only embargo and bad credentials;
    `bypass` asks no score, step-up or limits; `closed` refuses every call with 503."""
    setting: GateMode
    """What the settings of this node say."""
    override: Override | None


class NewMode(Wire):
    """The mode that all nodes are to have, and why."""

    mode: GateMode
    reason: Annotated[
        str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f-\x9f]*[!-~]")
    ]
    expires_at: Time | None = None
    """When it ends by itself; `null`: when somebody ends it."""


async def _get(services: Services, asked: Asked) -> Answer:
    return Answer(_told(services.mode.get(asked.at)))


async def _set(services: Services, asked: Asked) -> Answer | Problem:
    new: NewMode = asked.body
    before = services.mode.get(asked.at).mode
    asked.trace.of(
        "mode",
        new.mode.value,
        changed={"mode": [before.value, new.mode.value]},
        reason=new.reason,
        expires_at=new.expires_at,
    )
    done = await services.mode.set(
        new.mode,
        by=asked.actor.name,
        reason=new.reason,
        at=asked.at,
        expires_at=new.expires_at,
    )
    if isinstance(done, Mistake):
        return invalid([FieldError(f"/{done.path}", done.message)])
    return Answer(_told(done))


async def _clear(services: Services, asked: Asked) -> Answer:
    before = services.mode.get(asked.at).mode
    done = await services.mode.clear(by=asked.actor.name, at=asked.at)
    asked.trace.of("mode", done.mode.value, changed={"mode": [before.value, done.mode.value]})
    return Answer(_told(done))


def _told(state: ModeState) -> Mode:
    override = state.override
    return Mode(
        mode=state.mode,
        setting=state.setting,
        override=None
        if override is None
        else Override(
            mode=override.mode,
            at=override.at,
            by=override.by,
            reason=override.reason,
            expires_at=override.expires_at,
        ),
    )


_CHANGE: Final[dict[str, Any]] = {
    "role": Role.ADMIN,
    "tag": Tag.MODE,
    "answer": Mode,
    "tagged": True,
    "audit": Audit.AROUND,
}

OPERATIONS: Final = (
    Operation(
        "getMode",
        Method.GET,
        "/v1/mode",
        Role.VIEWER,
        Tag.MODE,
        "Which mode this node is in",
        _get,
        answer=Mode,
        tagged=True,
    ),
    Operation(
        "setMode",
        Method.PUT,
        "/v1/mode",
        summary="Set the mode of all nodes",
        handle=_set,
        description="Nodes follow within a second, and it survives restarts. `bypass` is the kill "
        "switch of the gate, `closed` that of the endpoint behind it.",
        body=NewMode,
        **_CHANGE,
    ),
    Operation(
        "clearMode",
        Method.DELETE,
        "/v1/mode",
        summary="Give the mode back to the settings",
        handle=_clear,
        **_CHANGE,
    ),
)
