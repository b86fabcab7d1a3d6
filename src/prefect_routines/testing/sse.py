"""From a scripted reply to the wire: the message object, and the stream of events that builds the same message piece by piece.

https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prefect_routines.testing.cache import tokens
from prefect_routines.testing.prefix import Json, Row, link, meaning, sign_thinking, text_of
from prefect_routines.testing.script import Call, Raw, Reply, Request, Thought

PIECES = 8
"""A block's text or input comes in about this many deltas, however long it is."""


@dataclass(frozen=True, slots=True)
class Message:
    """A reply made concrete for one request: ids given, thinking signed, usage counted."""

    body: Json
    events: tuple[Json, ...]


def encode(event: Json) -> bytes:
    """One server-sent event."""
    return f"event: {event['type']}\ndata: {text_of(event)}\n\n".encode("utf-8", "surrogatepass")


def compose(reply: Reply, request: Request, row: Row, serial: str, *, thinking: bool, dropped: Sequence[str] = ()) -> Message:
    """Make a message of a reply.

    Args:
        reply: What is said.
        request: The request it answers.
        row: The request as blocks; thinking is bound to its end.
        serial: Unique per response; ids derive from it.
        thinking: Whether a turn without a `think` starts with a short signed thought, as always-thinking models do.
        dropped: Paths of thinking blocks of the request that were left out because they belong elsewhere.
    """
    parts = reply.parts
    if thinking and reply.thinking and not any(isinstance(part, Thought) for part in parts):
        parts = (Thought("Let me see."), *parts)
    shown = (request.body.get("thinking") or {}).get("display") == "summarized"
    content: list[Json] = []
    events: list[Json] = []
    bound = row.bound
    for number, part in enumerate(parts):
        if isinstance(part, Raw) and part.event:
            events.append(dict(part.value))
            continue
        if isinstance(part, Thought):
            text = part.text if shown else ""
            made: Json = {"type": "thinking", "thinking": text, "signature": sign_thinking(row, bound, text)}
        elif isinstance(part, Call):
            made = {"type": "tool_use", "id": part.id or f"toolu_{serial}{number:02d}", "name": part.name, "input": _parsed(part.input)}
        elif isinstance(part, Raw):
            made = dict(part.value)
        else:
            made = {"type": "text", "text": part}
        if made["type"] != "compaction":
            bound = link(bound, "assistant", meaning(made))
        events += _block_events(len(content), made, part.input if isinstance(part, Call) and isinstance(part.input, str) else None)
        content.append(made)
    written = sum(len(text_of(made).encode("utf-8", "surrogatepass")) for made in content)
    usage = {**request.cached.usage(tokens(written)), **reply.usage}
    body: Json = {"id": f"msg_{serial}", "type": "message", "role": "assistant", "model": request.body.get("model"), "content": content}
    if "thinking-binding-controls-2026-08-01" in request.betas:
        reason = {"type": "thinking_dropped", "reason": "prefix_binding_mismatch"}
        body["input_transformations"] = [{**reason, "path": path} for path in dropped]
    return _finish(reply, body, events, usage)


def _finish(reply: Reply, body: Json, events: list[Json], usage: Json) -> Message:
    ending: Json = {"stop_reason": reply.stop_reason, "stop_sequence": reply.stop_sequence}
    if reply.stop_details is not None:
        ending["stop_details"] = dict(reply.stop_details)
    opened = {**body, "content": [], "stop_reason": None, "stop_sequence": None, "usage": {**usage, "output_tokens": 1}}
    body |= {**ending, "usage": usage}
    final_usage = {key: value for key, value in usage.items() if key not in {"cache_creation", "service_tier"}}
    return Message(
        body,
        (
            {"type": "message_start", "message": opened},
            {"type": "ping"},
            *events,
            {"type": "message_delta", "delta": ending, "usage": final_usage},
            {"type": "message_stop"},
        ),
    )


def _parsed(given: Any) -> Any:
    """Input as a non-streaming response shows it; JSON that was cut has no such form, and becomes an empty object."""
    if not isinstance(given, str):
        return dict(given)
    try:
        return json.loads(given)
    except ValueError:
        return {}


def _block_events(index: int, made: Json, raw_input: str | None) -> Iterator[Json]:
    """Start, deltas, stop of one block. Blocks of other kinds come whole in their start, as server tools' results do."""
    start, deltas = _pieces(made, raw_input)
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _pieces(made: Json, raw_input: str | None) -> tuple[Json, list[Json]]:
    kind = made["type"]
    if kind == "text":
        return {**made, "text": ""}, [{"type": "text_delta", "text": piece} for piece in _chop(made["text"])]
    if kind == "thinking":
        signature = {"type": "signature_delta", "signature": made["signature"]}
        thought = [{"type": "thinking_delta", "thinking": piece} for piece in _chop(made["thinking"])]
        return {**made, "thinking": "", "signature": ""}, [*thought, signature]
    if kind == "tool_use":
        given = text_of(made["input"]) if raw_input is None else raw_input
        pieces = ["", *_chop(given if given != "{}" else "")]
        return {**made, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    if kind == "compaction":
        delta = {"type": "compaction_delta", "content": made["content"], "encrypted_content": made["encrypted_content"]}
        return {**made, "content": None}, [delta]
    return made, []


def _chop(text: str) -> list[str]:
    size = max(12, -(-len(text) // PIECES))
    return [text[start : start + size] for start in range(0, len(text), size)]
