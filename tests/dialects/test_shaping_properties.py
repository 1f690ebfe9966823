"""What shaping does to any answer, held against a plain reference that works on parsed JSON."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.dialects.answer import AnswerReader
from gatekeeper.dialects.base import AnswerPlan, Ask
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.shaping.chat import REASONING, ChatShaper
from gatekeeper.dialects.shaping.messages import MessagesShaper
from gatekeeper.dialects.shaping.responses import ResponsesShaper
from gatekeeper.dialects.usage import text_pattern
from gatekeeper.policy.model import Shaping
from gatekeeper.policy.words import LogprobsChange

REMOVE = Shaping(logprobs=LogprobsChange.REMOVE)
DROP = Shaping(drop_reasoning=True)
BOTH = Shaping(logprobs=LogprobsChange.REMOVE, drop_reasoning=True)
ROUND = Shaping(logprobs=LogprobsChange.ROUND, decimals=1)
NOISE = Shaping(logprobs=LogprobsChange.NOISE, decimals=1, epsilon=4.0)
THOUGHTS = sorted(name.decode() for name in REASONING)
MARKS = {*THOUGHTS, "logprobs", "prompt_logprobs", "completion_probabilities", "probs"}

STYLES = st.sampled_from(
    [
        {"separators": (",", ":"), "ensure_ascii": False},
        {"separators": (", ", ": "), "ensure_ascii": True},
        {"separators": (" , ", " : "), "ensure_ascii": False},
    ]
)
TEXTS = st.text(max_size=6) | st.sampled_from(
    ['"logprobs":{"x":1}', "\\", '\\"', "data: ", "\n\n", "[DONE]", "thinking", '"reasoning":"x"']
)
SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | TEXTS
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def some(**members: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Draw objects with any of these members, in any order."""
    pairs = st.fixed_dictionaries({}, optional=members)
    return pairs.flatmap(lambda drawn: st.permutations(list(drawn.items())).map(dict))


def read(shaper: Any, plan: AnswerPlan, chunks: list[bytes], *, stream: bool) -> bytes:
    """Read chunks through a whole reader."""
    family = Family(text_pattern("content"), frozenset(), shaper=shaper)
    kind = "text/event-stream" if stream else "application/json"
    reading = AnswerReader(family, Ask(max_output_tokens=9), {"content-type": kind}, plan)
    return b"".join([*map(reading.feed, chunks), reading.end()])


def cut(said: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes at places."""
    at = sorted({place % (len(said) + 1) for place in places})
    return [said[a:b] for a, b in zip([0, *at], [*at, len(said)], strict=True)]


def write(value: Any, style: dict[str, Any]) -> bytes:
    """Write JSON in a style."""
    return json.dumps(value, **style).encode()


# --- what is not shaped is identical ---


def unmarked(value: Any) -> bool:
    """Tell whether no member and no type asks to be shaped."""
    if isinstance(value, list):
        return all(map(unmarked, value))
    if not isinstance(value, dict):
        return True
    kinds = {"thinking", "redacted_thinking", "thinking_delta", "signature_delta", "reasoning"}
    if isinstance(kind := value.get("type"), str) and (
        kind in kinds or kind.startswith("response.reasoning")
    ):
        return False
    return not MARKS & value.keys() and all(map(unmarked, value.values()))


ANSWERS = some(
    id=TEXTS,
    choices=st.lists(
        some(index=st.integers(0, 3), delta=some(content=TEXTS, role=TEXTS), message=ANY)
    ),
    content=st.lists(some(type=TEXTS, text=TEXTS)),
    output=st.lists(some(type=TEXTS, content=ANY)),
    item=some(type=TEXTS),
    index=st.integers(0, 9),
    output_index=st.integers(0, 9),
    type=TEXTS,
    data=ANY,
    usage=ANY,
).filter(unmarked)


@given(
    shaper=st.sampled_from([ChatShaper, ResponsesShaper, MessagesShaper]),
    shaping=st.sampled_from([REMOVE, DROP, BOTH, ROUND, NOISE]),
    answers=st.lists(ANSWERS, min_size=1, max_size=3),
    style=STYLES,
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    places=st.lists(st.integers(0, 10_000), max_size=6),
)
def test_what_is_not_shaped_is_identical(
    *,
    shaper: Any,
    shaping: Shaping,
    answers: list[Any],
    style: dict[str, Any],
    end: bytes,
    places: list[int],
) -> None:
    """An answer with nothing of it passes to the byte, in stream and not, wherever it is cut."""
    plan = AnswerPlan(shaping=shaping, seed=b"s")
    document = write(answers[0], style)
    assert read(shaper, plan, cut(document, places), stream=False) == document
    lines = [b"event: x" + end + b"data: " + write(each, style) for each in answers]
    events = b"".join(line + end + end for line in [b": hi", *lines, b"data: [DONE]"])
    assert read(shaper, plan, cut(events, places), stream=True) == events


# --- what is shaped is what a reference takes out ---

ENTRY = some(
    token=TEXTS, logprob=st.floats(-99, 0), bytes=st.none() | st.lists(st.integers(0, 255))
)
POSITIONS = st.none() | st.lists(
    st.builds(lambda entry, top: {**entry, "top_logprobs": top}, ENTRY, st.lists(ENTRY))
)
LOGPROBS = st.none() | some(content=POSITIONS, refusal=st.none(), reasoning_content=POSITIONS)
THOUGHT = st.none() | TEXTS | st.lists(some(type=TEXTS))
SPEECH = some(
    role=st.just("assistant"),
    content=st.none()
    | TEXTS
    | st.lists(some(type=st.sampled_from(["text", "thinking"]), text=TEXTS), max_size=3),
    refusal=st.none(),
    **dict.fromkeys(THOUGHTS[:3], THOUGHT),
)
CHAT = some(
    id=TEXTS,
    choices=st.lists(
        some(
            index=st.integers(0, 2),
            message=SPEECH,
            delta=SPEECH,
            logprobs=LOGPROBS,
            token_ids=st.none() | st.lists(st.integers(0, 9)),
            finish_reason=st.none() | st.just("stop"),
            text=TEXTS,
        ),
        max_size=3,
    ),
    usage=st.none() | st.just({"prompt_tokens": 1, "completion_tokens": 1}),
    prompt_logprobs=st.none() | st.just([None, {"5": {"logprob": -1.5, "rank": 2}}]),
    completion_probabilities=POSITIONS,
    __verbose=ANY,
)


def reference_chat(said: Any, shaping: Shaping) -> Any:
    """Take out of a chat completion what is asked for, as one would by hand."""
    removes = shaping.logprobs is LogprobsChange.REMOVE
    answer = {name: copy.deepcopy(value) for name, value in said.items() if name != "__verbose"}
    if removes and answer.get("completion_probabilities") is not None:
        del answer["completion_probabilities"]
    if removes and "prompt_logprobs" in answer:
        answer["prompt_logprobs"] = None
    for choice in answer.get("choices", ()):
        thought = shaping.drop_reasoning and without_thought(choice)
        if thought and "token_ids" in choice:
            choice["token_ids"] = None
        apart = "reasoning_content" in (choice.get("logprobs") or ())
        if "logprobs" in choice and (removes or (thought and not apart)):
            choice["logprobs"] = None
        elif shaping.drop_reasoning and apart:
            del choice["logprobs"]["reasoning_content"]
    return answer


def without_thought(choice: dict[str, Any]) -> bool:
    """Take reasoning out of a choice; tell whether there was any."""
    before = copy.deepcopy(choice)
    for speech in (choice.get("message"), choice.get("delta")):
        for name in THOUGHTS:
            if speech is not None and speech.get(name) is not None:
                del speech[name]
        if speech is not None and isinstance(speech.get("content"), list):
            speech["content"] = [p for p in speech["content"] if p.get("type") != "thinking"]
    return choice != before


def says_something(answer: dict[str, Any]) -> bool:
    """Tell whether a chunk has more than empty strings for its reader."""
    if "choices" not in answer or answer.get("usage") is not None:
        return True
    for choice in answer["choices"]:
        speeches = [choice.get("message") or {}, choice.get("delta") or {}]
        if choice.get("text") or choice.get("finish_reason"):
            return True
        if any(speech.get(name) for speech in speeches for name in ("content", "refusal")):
            return True
    return False


@given(shaping=st.sampled_from([REMOVE, DROP, BOTH]), said=CHAT, style=STYLES)
def test_a_chat_document_is_what_a_reference_makes_of_it(
    shaping: Shaping, said: dict[str, Any], style: dict[str, Any]
) -> None:
    """Written in the same style, the two are the same to the byte."""
    got = read(ChatShaper, AnswerPlan(shaping=shaping), [write(said, style)], stream=False)
    assert got == write(reference_chat(said, shaping), style)


@given(
    shaping=st.sampled_from([DROP, BOTH]),
    said=st.lists(CHAT, max_size=3),
    style=STYLES,
    places=st.lists(st.integers(0, 999), max_size=5),
)
def test_a_chat_stream_is_what_a_reference_makes_of_it(
    shaping: Shaping, said: list[Any], style: dict[str, Any], places: list[int]
) -> None:
    """Event by event; left out are only those that held reasoning and nothing else."""
    events = [b"data: %b\n\n" % write(each, style) for each in said]
    got = read(ChatShaper, AnswerPlan(shaping=shaping), cut(b"".join(events), places), stream=True)
    rest = got
    for each in said:
        answer = reference_chat(each, shaping)
        event = b"data: %b\n\n" % write(answer, style)
        if rest.startswith(event):
            rest = rest.removeprefix(event)
        else:
            assert shaping.drop_reasoning
            assert answer != each
            assert not says_something(answer)
    assert rest == b""


@given(said=CHAT, style=STYLES, shaping=st.sampled_from([ROUND, NOISE]))
def test_blurring_changes_numbers_and_nothing_else(
    said: dict[str, Any], style: dict[str, Any], shaping: Shaping
) -> None:
    """With every log probability and rank masked, and alternatives in one order, all is equal."""
    plan = AnswerPlan(shaping=shaping, seed=b"s")
    got = json.loads(read(ChatShaper, plan, [write(said, style)], stream=False))
    want = {name: value for name, value in said.items() if name != "__verbose"}
    assert masked(got) == masked(want)


def masked(value: Any) -> Any:
    """Return JSON without what blurring changes."""
    if isinstance(value, list):
        items = [masked(item) for item in value]
        entries = bool(items) and all(isinstance(item, dict) for item in items)
        return sorted(items, key=json.dumps) if entries else items
    if isinstance(value, dict):
        hidden = {"logprob": 0, "rank": 0}
        return {name: hidden.get(name, masked(inner)) for name, inner in sorted(value.items())}
    return value


# --- Anthropic: a stream is that of the message without its thinking ---

BLOCKS = st.lists(
    st.sampled_from(
        [
            {"type": "thinking", "thinking": "a", "signature": "s"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": '"index":0'},
            {"type": "tool_use", "id": "t", "name": "n", "input": {"type": "thinking"}},
        ]
    ),
    max_size=6,
)


def kept(blocks: list[Any]) -> list[Any]:
    """Return the blocks that are not reasoning."""
    return [block for block in blocks if "thinking" not in block["type"]]


def message_events(blocks: list[Any], style: dict[str, Any]) -> bytes:
    """Write the stream of a message."""
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "content": []}}
    ]
    for index, block in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        deltas = {"thinking": ["thinking_delta", "signature_delta"], "text": ["text_delta"]}
        events += [
            {"type": "content_block_delta", "index": index, "delta": {"type": kind}}
            for kind in deltas.get(block["type"], [])
        ]
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_stop"})
    return b"".join(b"event: e\ndata: %b\n\n" % write(event, style) for event in events)


@given(blocks=BLOCKS, style=STYLES, places=st.lists(st.integers(0, 999), max_size=5))
def test_a_message_is_the_one_without_thinking(
    blocks: list[Any], style: dict[str, Any], places: list[int]
) -> None:
    """Streamed or not, byte for byte, as if the model had not thought."""
    plan = AnswerPlan(shaping=DROP)
    document = write({"content": blocks, "usage": {"output_tokens": 1}}, style)
    got = read(MessagesShaper, plan, cut(document, places), stream=False)
    assert got == write({"content": kept(blocks), "usage": {"output_tokens": 1}}, style)
    events = cut(message_events(blocks, style), places)
    assert read(MessagesShaper, plan, events, stream=True) == message_events(kept(blocks), style)


# --- responses: as well, with the gaps in its numbers left ---

ITEMS = st.lists(
    st.sampled_from(
        [
            {"type": "reasoning", "summary": [], "encrypted_content": "x"},
            {"type": "message", "content": [{"type": "output_text", "logprobs": []}]},
            {"type": "function_call", "arguments": '{"output_index":0}'},
        ]
    ),
    max_size=5,
)


def response_events(items: list[Any], style: dict[str, Any], *, drop: bool) -> bytes:
    """Write the stream of a response; without its reasoning if ``drop``."""
    shown = [item for item in items if not (drop and item["type"] == "reasoning")]
    events: list[dict[str, Any]] = []
    number = at = 0
    for item in items:
        thinks = item["type"] == "reasoning"
        own = ["response.reasoning_text.delta"] if thinks else ["response.content_part.added"]
        for kind in ("response.output_item.added", *own, "response.output_item.done"):
            event: dict[str, Any] = {"type": kind, "output_index": at, "sequence_number": number}
            event |= {"item": item} if "item" in kind else {}
            number += 1
            if not (drop and thinks):
                events.append(event)
        at += not (drop and thinks)
    last = {"id": "r", "reasoning": {"effort": "low"}, "output": shown}
    events.append({"type": "response.completed", "sequence_number": number, "response": last})
    return b"".join(b"data: %b\n\n" % write(event, style) for event in events)


@given(items=ITEMS, style=STYLES, places=st.lists(st.integers(0, 999), max_size=5))
def test_a_response_is_the_one_without_reasoning(
    items: list[Any], style: dict[str, Any], places: list[int]
) -> None:
    """Streamed or not, byte for byte."""
    plan = AnswerPlan(shaping=DROP)
    shown = [item for item in items if item["type"] != "reasoning"]
    document = write({"output": items, "tools": [{"type": "reasoning"}]}, style)
    got = read(ResponsesShaper, plan, cut(document, places), stream=False)
    assert got == write({"output": shown, "tools": [{"type": "reasoning"}]}, style)
    events = cut(response_events(items, style, drop=False), places)
    want = response_events(items, style, drop=True)
    assert read(ResponsesShaper, plan, events, stream=True) == want
