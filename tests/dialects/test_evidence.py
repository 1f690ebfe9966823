"""What is seen in a prompt: digests, shape and what it asks for; its text stays where it is."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import Ask, Incoming
from gatekeeper.dialects.body import read_fields
from gatekeeper.dialects.evidence import Evidence, Look

LOOK = Look(b"k" * 32)
TOOLS = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}]
CHAT: dict[str, Any] = {
    "model": "m",
    "temperature": 0.2,
    "messages": [
        {"role": "system", "content": "You are a careful assistant."},
        {"role": "user", "content": "What is the capital of France?"},
    ],
}


def seen(body: dict[str, Any], look: Look = LOOK) -> Evidence:
    """Return the evidence in a body."""
    fields = read_fields(json.dumps(body).encode())
    assert isinstance(fields, dict)
    return look.at(fields)


def said(text: str, **more: Any) -> dict[str, Any]:
    """Return the chat with another question."""
    return {**CHAT, **more, "messages": [CHAT["messages"][0], {"role": "user", "content": text}]}


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.text(max_size=200))
def test_the_scaffold_does_not_go_by_the_question(one: str, other: str) -> None:
    """Callers of one program have one scaffold, whatever they ask; blocks tell them apart."""
    first, second = seen(said(one)), seen(said(other))
    assert first.scaffold == second.scaffold != 0
    assert (first.blocks == second.blocks) == (one == other)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"messages": [{"role": "system", "content": "Another."}, CHAT["messages"][1]]}, "system"),
        ({"tools": TOOLS}, "tools"),
        ({"response_format": {"type": "json_object"}}, "format"),
        ({"text": {"format": {"type": "json_schema"}}}, "format"),
    ],
)
def test_each_part_of_the_scaffold_has_a_digest(changed: dict[str, Any], part: str) -> None:
    """Whatever part differs, so does the whole, and no other part."""
    plain, other = seen(CHAT), seen({**CHAT, **changed})
    parts = ("system", "tools", "format")
    assert plain.scaffold != other.scaffold
    differing = [each for each in parts if getattr(plain, each) != getattr(other, each)]
    assert differing == [part]


def test_families_name_the_same_things_differently() -> None:
    """The system prompt of a message and the instructions of a response are seen as well."""
    message = {"model": "m", "max_tokens": 9, "system": "S", "messages": CHAT["messages"][1:]}
    response = {"model": "m", "instructions": "S", "input": CHAT["messages"][1:]}
    assert seen(message).system == seen(response).system != 0
    assert seen(message).blocks == seen(response).blocks != ()


def test_nothing_is_nothing() -> None:
    """Who sends no scaffold shares none."""
    bare = seen({"model": "m", "prompt": "Once upon a time", "tools": [], "system": ""})
    assert bare.scaffold == bare.system == bare.tools == bare.format == 0
    assert len(bare.blocks) == 1


def test_blocks_are_chained() -> None:
    """Conversations that begin alike share digests exactly as far as they do."""
    turns = [{"role": "user", "content": str(n)} for n in range(5)]
    other = [*turns[:1], {"role": "assistant", "content": "x"}, *turns[2:]]
    first, second = (seen({"model": "m", "messages": each}).blocks for each in (turns, other))
    assert first[0] == second[0]
    assert not set(first[1:]) & set(second[1:])
    assert len(first) == 3


def test_another_key_gives_other_digests() -> None:
    """Nobody without the key can tell what a digest is of."""
    mine, theirs = seen(CHAT), seen(CHAT, Look(b"other key" * 3))
    pairs = zip(msgspec.structs.astuple(mine)[:4], msgspec.structs.astuple(theirs)[:4], strict=True)
    assert all(one != other or one == 0 for one, other in pairs)
    assert mine.shape != theirs.shape


def bits(one: Evidence, other: Evidence) -> int:
    """Return in how many bits two shapes differ."""
    return (one.shape ^ other.shape).bit_count()


def test_shapes_are_close_where_structure_is() -> None:
    """A paraphrase keeps the shape; another program's conversation does not."""

    def turns(words: str, count: int) -> dict[str, Any]:
        roles = ("user", "assistant")
        return {
            **CHAT,
            "tools": TOOLS,
            "messages": [
                {"role": "system", "content": f"You are {words}. " * 20},
                *({"role": roles[n % 2], "content": f"{words} {n} " * 30} for n in range(count)),
            ],
        }

    program = seen(turns("an expert", 8))
    paraphrased = seen(turns("a master", 8))
    longer = seen(turns("an expert", 9))
    stranger = seen(said("Hi", top_p=0.9))
    assert bits(program, paraphrased) <= 3
    assert bits(program, longer) < bits(program, stranger)
    assert bits(program, stranger) > 12


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("Hello there", ()),
        ("Think STEP-BY-STEP and show all your reasoning.", ("reasoning",)),
        ("Grade the answer by this rubric, on a scale of 1 to 5.", ("grading",)),
        ("Generate 50 diverse instruction-following examples as JSONL.", ("synthetic",)),
        ("Refactor this: ```def f(): ...```", ("code",)),
        ("Generate 20 unit tests as training data", ("code", "synthetic")),
    ],
)
def test_what_is_asked_for(text: str, asks: tuple[str, ...]) -> None:
    """Words are enough for a hint; conditions and the watcher make more of it."""
    assert seen(said(text)).asks == asks


@pytest.mark.parametrize(
    ("changed", "ask"),
    [
        ({"tools": TOOLS}, "tools"),
        ({"reasoning_effort": "high"}, "reasoning"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "reasoning"),
        ({"messages": [*CHAT["messages"], {"role": "tool", "content": "42"}]}, "agentic"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "4"}]}]},
            "agentic",
        ),
        ({"messages": None, "input": [{"type": "function_call_output", "output": "4"}]}, "agentic"),
    ],
)
def test_fields_tell_what_is_asked_for(changed: dict[str, Any], ask: str) -> None:
    """Whatever the words are."""
    assert ask in seen({**CHAT, **changed}).asks


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
NAMES = ("messages", "input", "prompt", "system", "instructions", "tools", "text", "thinking")


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_any_body_can_be_looked_at(body: dict[str, Any]) -> None:
    """What is no prompt as we know it yields digests all the same, and never an error."""
    found = seen(body)
    digests = (found.system, found.tools, found.format, found.scaffold, *found.blocks, found.shape)
    assert all(0 <= digest < 2**63 for digest in digests)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "x"}] * 20_000},
        {"messages": [{"role": "r" * 100_000, "content": "x" * 1_000_000}]},
        {"system": "s" * 5_000_000, "tools": [{"name": "t" * 1_000_000}]},
        {"messages": [["no object"]], "input": 3},
        {"messages": [{"role": 3, "content": {}}]},
    ],
    ids=["many", "long", "large parts", "no messages", "odd role"],
)
def test_hostile_prompts_cost_no_more(body: dict[str, Any]) -> None:
    """Of each part both ends and the length are told: the middle is not read."""
    found = seen(body)
    assert len(found.blocks) <= 3
    assert found == seen(body)


def test_what_lies_in_the_middle_is_told_by_its_length() -> None:
    """A change in the middle of a large part is not seen, one of its length is."""
    large = ["a" * 9_000, "a" * 4_000 + "b" + "a" * 4_999, "a" * 9_001]
    one, other, longer = (seen({**CHAT, "system": text}).system for text in large)
    assert one == other != longer


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/responses", {"model": "m", "input": "Hi", "max_output_tokens": 9}),
        ("/v1/completions", {"model": "m", "prompt": "Hi", "max_tokens": 9}),
        ("/v1/messages", {**CHAT, "messages": CHAT["messages"][1:], "max_tokens": 9}),
    ],
)
def test_dialects_look_where_a_model_answers(path: str, body: dict[str, Any]) -> None:
    """Each family that generates hands its fields over; without a look nothing is seen."""
    text = json.dumps(body).encode()
    dialect = dialect_for("POST", path)
    ask = dialect.read(Incoming(text, path, look=lambda fields: (LOOK.at(fields),)))
    assert isinstance(ask, Ask)
    assert ask.evidence == (seen(body),)
    blind = dialect.read(Incoming(text, path))
    assert isinstance(blind, Ask)
    assert blind.evidence == ()


def test_what_only_embeds_is_not_looked_at() -> None:
    """Nobody distils a model from embeddings of their own text."""
    text = b'{"model": "m", "input": "Hi"}'
    dialect = dialect_for("POST", "/v1/embeddings")
    ask = dialect.read(Incoming(text, "/v1/embeddings", look=lambda fields: (LOOK.at(fields),)))
    assert isinstance(ask, Ask)
    assert ask.evidence == ()
