"""What a dialect is: how one family of APIs asks, answers, counts and refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from gatekeeper.dialects.estimate import estimate_tokens
from gatekeeper.policy.model import NO_PARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gatekeeper.dialects.body import Fields
    from gatekeeper.dialects.evidence import Evidence
    from gatekeeper.policy.model import Shaping, Usage, UsageParts
    from gatekeeper.policy.words import Reason


class Incoming(Struct, frozen=True, gc=False):
    """A request as a dialect reads it."""

    body: bytes
    """Whole, its content coding undone."""
    path: str = ""
    """Canonical."""
    query: str = ""
    """As it stands in the target, without the question mark."""
    content_type: str = "application/json"
    count: Callable[[bytes], int] = estimate_tokens
    """Counts the tokens of UTF-8 text."""
    look: Callable[[Fields], tuple[Evidence, ...]] | None = None
    """Looks at a prompt for what accounts can share; ``None``: nobody wants to know."""

    def with_evidence(self, ask: Ask, fields: Fields) -> Ask:
        """Return what is asked with what the prompt shows, where a model is to answer it."""
        if self.look is None or not ask.generates:
            return ask
        return replace(ask, evidence=self.look(fields))


class Ask(Struct, frozen=True, gc=False):
    """What a request body asks for, as far as it bears on limits; never the prompt."""

    model: str | None = None
    stream: bool = False
    input_tokens: int = 0
    """Estimated; see :mod:`gatekeeper.dialects.estimate`."""
    max_output_tokens: int | None = 0
    """Worst case over all choices; ``None`` when the caller names no bound."""
    choices: int = 1
    """Answers in all: those to one prompt times the prompts."""
    prompts: int = 1
    parts: UsageParts = NO_PARTS
    """Worst case of what has a price of its own."""
    price_factor: float = 1.0
    """What the whole is multiplied by, such as 0.5 for a batch."""
    wants_usage: bool | None = None
    """Whether a stream is asked to report its usage; ``None`` where it always or never does."""
    fixed_output: bool = False
    """Whether no field can bound the output: it is what it is, as of an image."""
    file: str | None = None
    """Id of a file at the upstream that tells the rest (:meth:`Dialect.read_file`)."""
    unreported: bool = False
    """Whether the answer does not tell what the call will have consumed: the hold is charged."""
    held_unless_reported: bool = False
    """Whether an answer that reports nothing is charged as held: what was delivered of it does not
    tell (work in the background, speech)."""
    outlasts: bool = False
    """Whether the upstream works on when its caller leaves, who may fetch what comes of it later:
    the hold is charged even if no answer was waited for."""
    endless: bool = False
    """Whether the upstream writes without end when no bound is named, or may not heed the one that
    is: one must be put in."""
    logit_bias: bool = False
    prefill: bool = False
    logprobs: bool = False
    evidence: tuple[Evidence, ...] = ()
    """What the prompt shows of what accounts can share: digests, none of its text."""

    @property
    def generates(self) -> bool:
        """Whether a model writes anything, so that shaping and bounds have a meaning."""
        return self.max_output_tokens != 0


class Changes(Struct, frozen=True, gc=False):
    """What the gate changes in a request before it goes on."""

    max_output_tokens: int | None = None
    """Bound of one choice: put in where the caller names none or a larger one."""
    bound_field: str | None = None
    """How the upstream calls that bound where there are several names; ``None``: as the family."""
    max_choices: int | None = None
    """Most answers to one prompt."""
    report_usage: bool = False
    """Whether a stream is made to report its usage."""
    report_continuously: bool = False
    """Whether it is made to report it with every chunk."""


class AnswerPlan(Struct, frozen=True, gc=False):
    """How an answer is read, and what is changed in it on its way to the caller."""

    count: Callable[[bytes], int] = estimate_tokens
    """Counts the tokens of UTF-8 text."""
    hide_usage: bool = False
    """Whether the report of usage in a stream is taken out again: the caller did not ask for it."""
    leave_last_usage: bool = False
    """Whether its last chunk is left, as the caller asked for that one."""
    shaping: Shaping | None = None
    seed: bytes = b""
    """Seed of the noise: secret, and the same whenever the same decision is replayed."""
    budget_tokens: int | None = None
    """Output tokens after which the answer is ended in the dialect's own word; ``None``: never."""

    @property
    def changes(self) -> bool:
        """Whether bytes of the answer may be changed."""
        return self.hide_usage or self.shaping is not None or self.budget_tokens is not None


NO_CHANGES: Final = Changes()
UNCHANGED: Final = AnswerPlan()


@dataclass(frozen=True, slots=True)
class RefusalText:
    """A refusal before it is written in a dialect."""

    status: int
    reason: Reason
    message: str
    """Whole text for the caller; names the verification URL, as SDKs may show nothing else."""
    decision_id: str
    verification_url: str | None = None
    verification_expires_at: float | None = None
    """Unix seconds."""
    retry_after_s: float | None = None
    """``math.inf`` when waiting never helps."""
    documentation_url: str | None = None
    """Where the reason is explained (``docs/reasons.md`` has a heading for each)."""


class AnswerError(Exception):
    """An answer that has to be changed cannot be read, so nothing more of it may be passed on."""


class AnswerReader(Protocol):
    """Reads along an answer, changes in it what must be changed, and tells what it consumed."""

    @property
    def changes(self) -> bool:
        """Whether bytes are changed at all; length, digests and content coding then do not hold."""
        ...

    @property
    def whole(self) -> bool:
        """Whether nothing can be passed on before the end: ``feed`` returns nothing till then."""
        ...

    @property
    def shapes(self) -> bool:
        """Whether what it reveals is changed, so that the reader may become :attr:`heavy`."""
        ...

    @property
    def heavy(self) -> bool:
        """Whether ``feed`` or ``end`` may now take so long that they belong on a thread."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the answer's own end was seen; true where only the framing can tell."""
        ...

    @property
    def mid_event(self) -> bool:
        """Whether the caller's stream stands inside an event, where no other event can be put."""
        ...

    @property
    def may_stop(self) -> bool:
        """Whether there is a budget that may end the answer: else ``stopped`` need not be asked."""
        ...

    @property
    def stopped(self) -> bool:
        """Whether the budget is used up: what was returned last ends the answer properly."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the body, cut anywhere; return what is passed on now.

        Where nothing is changed that is ``chunk`` itself. Raises :class:`AnswerError`.
        """
        ...

    def end(self) -> bytes:
        """Return what was held back, once the body has come to its proper end."""
        ...

    def result(self, most_output: int | None = None) -> Usage | None:
        """Return the usage up to now, or ``None`` when the answer cannot be read.

        Reported numbers win; what is missing is estimated from what was delivered and marked so.
        An estimate of the output is no more than ``most_output``.
        """
        ...


class Dialect(Protocol):
    """One family of routes."""

    @property
    def name(self) -> str:
        """The word in records, rules and metrics."""
        ...

    def matches(self, method: str, path: str) -> bool:
        """Tell whether a call speaks this dialect.

        ``path`` is canonical, in lower case and without a slash at its end.
        """
        ...

    @property
    def reads_body(self) -> bool:
        """Whether :meth:`read` needs the body; otherwise it streams through, whatever its size."""
        ...

    def read(self, incoming: Incoming) -> Ask | str:
        """Read a request; a string is a sentence on what is wrong with it."""
        ...

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:
        """Return the body with ``changes`` made, and no other byte changed."""
        ...

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader for a 2xx answer with these (case-insensitive) headers."""
        ...

    def refusal_body(self, refusal: RefusalText) -> bytes:
        """Return the body from which the family's SDK raises its right exception."""
        ...

    def refusal_headers(self, refusal: RefusalText) -> dict[str, str]:
        """Return content type, request id and retry headers that go with the body."""
        ...

    def stream_error(self) -> bytes:
        """Return the event that ends a stream whose upstream died; empty where there is none.

        Only to be sent between events (:attr:`AnswerReader.mid_event`).
        """
        ...
