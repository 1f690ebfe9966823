"""What the upstream of a conservation test answers, family by family."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from support.conservation.plan import Family, Fault
from support.conservation.scripts import Script, Writer

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH_FILE = b"".join(
    json.dumps(
        {
            "custom_id": str(number),
            "method": "POST",
            "url": Family.CHAT.path,
            "body": {
                "model": "demo-small",
                "messages": [{"role": "user", "content": "people water"}],
                "max_tokens": 30,
            },
        }
    ).encode()
    + b"\n"
    for number in range(2)
)
"""Content of every file of calls."""


def script_of(play: dict[str, Any], fields: dict[str, Any]) -> Script:
    """Return the answer to a request with these fields."""
    writer = Writer(play, fields)
    _FAMILIES[writer.family](writer)
    return writer.out


def _chat(writer: Writer) -> None:
    _choices(
        writer,
        ("chat.completion", "chat.completion.chunk"),
        lambda text: {"message": {"role": "assistant", "content": text}},
        lambda text: {"delta": {"content": text} if text else {}},
    )


def _completions(writer: Writer) -> None:
    kinds = ("text_completion", "text_completion")
    _choices(writer, kinds, lambda text: {"text": text}, lambda text: {"text": text})


def _choices(
    writer: Writer,
    kinds: tuple[str, str],
    whole: Callable[[str], dict[str, Any]],
    piece: Callable[[str], dict[str, Any]],
) -> None:
    base = {"id": "x", "object": kinds[0], "created": 1, "model": writer.fields["model"]}
    usage: dict[str, Any] = {
        "prompt_tokens": writer.given,
        "completion_tokens": writer.output,
        "total_tokens": writer.given + writer.output,
    }
    if writer.cached:
        usage["prompt_tokens_details"] = {"cached_tokens": writer.cached}
    if not writer.streams:
        choices = [
            {"index": index, **whole("".join(words)), "finish_reason": "stop"}
            for index, words in enumerate(writer.texts)
        ]
        told = {"usage": usage} if writer.reports else {}
        writer.document({**base, "choices": choices, **told})
        return
    base["object"] = kinds[1]
    asked = writer.reports and writer.fields.get("stream_options", {}).get("include_usage")
    null = {"usage": None} if asked else {}

    def say(index: int, text: str, finish: str | None) -> None:
        choice = {"index": index, **piece(text), "finish_reason": finish}
        writer.event({**base, "choices": [choice], **null})

    for index, text in writer.pieces():
        say(index, text, None)
    if writer.fault is Fault.NO_END:
        return
    for index in range(writer.choices):
        say(index, "", "stop")
    if asked:
        for _ in range(writer.times):
            writer.event({**base, "choices": [], "usage": usage})
        writer.told_input()
        writer.told_output(writer.output)
    writer.out.events.append(b"data: [DONE]\n\n")


def _responses(writer: Writer) -> None:
    usage = {
        "input_tokens": writer.given,
        "input_tokens_details": {"cached_tokens": writer.cached},
        "output_tokens": writer.output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": writer.given + writer.output,
    }
    part = {"type": "output_text", "text": writer.text, "annotations": []}
    whole: dict[str, Any] = {
        "id": "resp_x",
        "object": "response",
        "status": "completed",
        "model": writer.fields["model"],
        "output": [{"type": "message", "role": "assistant", "content": [part]}],
    }
    if writer.reports:
        whole["usage"] = usage
    if not writer.streams:
        writer.document(whole)
        return
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    writer.event({"type": "response.created", "response": begun}, named=True)
    for _, text in writer.pieces():
        delta = {"type": "response.output_text.delta", "output_index": 0, "delta": text}
        writer.event(delta, named=True)
    if writer.fault is Fault.NO_END:
        return
    # From here on the same text stands in it again.
    writer.event({"type": "response.output_text.done", "text": writer.text}, named=True)
    for _ in range(writer.times):
        writer.event({"type": "response.completed", "response": whole}, named=True)
    if writer.reports:
        writer.told_input()
        writer.told_output(writer.output)


def _messages(writer: Writer) -> None:
    whole: dict[str, Any] = {
        "id": "msg_x",
        "type": "message",
        "role": "assistant",
        "model": writer.fields["model"],
        "content": [{"type": "text", "text": writer.text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
    }
    fresh = writer.given - writer.cached
    given = {"input_tokens": fresh, "cache_read_input_tokens": writer.cached}
    if writer.streams:
        _message_stream(writer, whole, given)
        return
    if writer.reports:
        whole["usage"] = {**given, "output_tokens": writer.output}
    writer.document(whole)


def _message_stream(writer: Writer, whole: dict[str, Any], given: dict[str, Any]) -> None:
    begun = {**whole, "content": [], "stop_reason": None}
    if writer.reports:
        begun["usage"] = {**given, "output_tokens": min(1, writer.output)}
    writer.event({"type": "message_start", "message": begun}, named=True)
    if writer.reports:
        writer.told_input()
    block = {"type": "text", "text": ""}
    writer.event({"type": "content_block_start", "index": 0, "content_block": block}, named=True)
    for _, text in writer.pieces():
        delta = {"type": "text_delta", "text": text}
        writer.event({"type": "content_block_delta", "index": 0, "delta": delta}, named=True)
    writer.event({"type": "content_block_stop", "index": 0}, named=True)
    endless = writer.fault is Fault.NO_END
    if endless and writer.chance.random() < 0.5:
        return
    last: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    if writer.reports:
        last["usage"] = {"output_tokens": writer.output}
    for _ in range(writer.times):
        writer.event(last, named=True)
    if writer.reports:
        writer.told_output(writer.output)
    if not endless:
        writer.event({"type": "message_stop"}, named=True)


def _embeddings(writer: Writer) -> None:
    document: dict[str, Any] = {"object": "list", "data": [{"embedding": [0.5] * 8}]}
    writer.cached = 0
    if writer.reports:
        document["usage"] = {"prompt_tokens": writer.given, "total_tokens": writer.given}
    writer.document(document, writes=False)


def _images(writer: Writer) -> None:
    _counted(writer, {"created": 1, "data": [{"b64_json": "aaaa"}]})


def _transcripts(writer: Writer) -> None:
    _counted(writer, {"text": writer.text})


def _counted(writer: Writer, document: dict[str, Any]) -> None:
    writer.cached = 0
    if writer.reports:
        document["usage"] = {
            "type": "tokens",
            "input_tokens": writer.given,
            "output_tokens": writer.output,
        }
    writer.document(document)


def _binary(writer: Writer) -> None:
    speech = writer.family is Family.SPEECH
    writer.out.kind = "audio/mpeg" if speech else "application/octet-stream"
    writer.out.events = [writer.chance.randbytes(writer.chance.randint(1, 3_000))]


def _always(document: dict[str, Any]) -> Callable[[Writer], None]:
    return lambda writer: writer.document(document)


_FAMILIES: dict[Family, Callable[[Writer], None]] = {
    Family.CHAT: _chat,
    Family.COMPLETIONS: _completions,
    Family.RESPONSES: _responses,
    Family.MESSAGES: _messages,
    Family.EMBEDDINGS: _embeddings,
    Family.IMAGES: _images,
    Family.TRANSCRIPTS: _transcripts,
    Family.SPEECH: _binary,
    Family.PLAIN: _binary,
    Family.MODERATIONS: _always({"id": "modr", "results": [{"flagged": False}]}),
    Family.MODELS: _always({"object": "list", "data": [{"id": "demo-small", "object": "model"}]}),
    Family.COUNT_TOKENS: _always({"input_tokens": 7}),
    Family.FILES: _always({"id": "file-x", "object": "file"}),
    Family.BATCHES: _always({"id": "msgbatch_x", "type": "message_batch"}),
    Family.FILE_BATCHES: _always({"id": "batch_x", "object": "batch"}),
}
