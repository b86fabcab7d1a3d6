"""What a script is made of: turns that say, call and think, and the ways a turn can go wrong.

```python
[
    say("I look at the log first.", call("bash", command="git log --oneline")),
    attempts(fail(529), cut(after=3), say(call("read", path="docs/api.md"))),
    lambda request: say(f"It says {request.result('read').text!r}.", call("report", verdict="done", summary="…")),
]
```
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from prefect_routines.testing.cache import Cached
from prefect_routines.testing.prefix import Json, content_of, read_summary


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call. `input` as a string is streamed as it stands: that is how malformed or cut JSON is scripted."""

    name: str
    input: Mapping[str, Any] | str
    id: str | None = None

    def with_id(self, id: str) -> Call:
        """The same call under a fixed id; by default each call of each response has its own, as with the real API."""
        return replace(self, id=id)


@dataclass(frozen=True, slots=True)
class Thought:
    """A thinking block. Its text is shown only to a request with `thinking.display = "summarized"`."""

    text: str


@dataclass(frozen=True, slots=True)
class Raw:
    """A content block, or with `event` a whole stream event, of a kind that this module has no word for."""

    value: Mapping[str, Any]
    event: bool = False


Part = str | Call | Thought | Raw


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of Claude. Build it with `say`."""

    parts: tuple[Part, ...]
    stop_reason: str
    stop_details: Mapping[str, Any] | None = None
    stop_sequence: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    delay: float = 0.0
    thinking: bool = True


@dataclass(frozen=True, slots=True)
class Failure:
    """An HTTP error instead of an answer. Build it with `fail`."""

    status: int
    type: str
    message: str
    headers: Mapping[str, str]
    details: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Cut:
    """A stream that does not reach its end. Build it with `cut`."""

    reply: Reply
    after: int
    how: Literal["reset", "eof", "silence", "error"]
    error: str
    ping: float


Outcome = Reply | Failure | Cut
"""What one request gets."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """Several outcomes of one turn, one per request for it. Build it with `attempts`."""

    outcomes: tuple[Outcome | Callable[[Request], Outcome], ...]


Turn = Outcome | Attempts | Callable[["Request"], Outcome | Attempts]
Script = Sequence[Turn]


def say(
    *parts: Part,
    stop_reason: str | None = None,
    stop_details: Mapping[str, Any] | None = None,
    stop_sequence: str | None = None,
    usage: Mapping[str, Any] | None = None,
    delay: float = 0.0,
    thinking: bool = True,
) -> Reply:
    """One turn of Claude: text and tool calls in order.

    Args:
        parts: Strings are text; also `call(...)`, `think(...)`, `block({...})`, `event({...})`.
        stop_reason: Default: `tool_use` if there is a call, else `end_turn`. `max_tokens` after a call with cut JSON, `pause_turn`,
            `refusal`, `model_context_window_exceeded` are said here.
        stop_details: With a refusal: `{"type": "refusal", "category": "cyber", ...}`.
        stop_sequence: The sequence met, with `stop_reason="stop_sequence"`.
        usage: Fields to put over the simulated usage, such as `{"input_tokens": 900_000}`.
        delay: Seconds between the events of the stream.
        thinking: False leaves out the signed thinking block that otherwise starts a turn without a `think`.

    Example:
        ```python
        say("I look.", call("bash", command="ls"), call("read", path="README.md"))
        say("I would rather not.", stop_reason="refusal", stop_details={"type": "refusal", "category": "cyber"})
        say(call("bash", '{"command": "rm -r'), stop_reason="max_tokens")
        ```
    """
    called = any(isinstance(part, Call) for part in parts)
    reason = stop_reason or ("tool_use" if called else "end_turn")
    return Reply(parts, reason, stop_details, stop_sequence, usage or {}, delay, thinking)


def call(name: str, raw: Mapping[str, Any] | str | None = None, /, **input: Any) -> Call:
    """A tool call: `call("bash", command="ls")`, or the input as a mapping, or as raw JSON text."""
    return Call(name, input if raw is None else raw)


def think(text: str) -> Thought:
    """A signed thinking block at this place, instead of the short one that a turn starts with by default."""
    return Thought(text)


def block(value: Mapping[str, Any]) -> Raw:
    """Any content block, sent whole: `block({"type": "sketch", "lines": []})` for a kind that clients do not know yet."""
    return Raw(value)


def event(value: Mapping[str, Any]) -> Raw:
    """Any stream event at this place: `event({"type": "weather", "sky": "blue"})`. Left out when not streaming."""
    return Raw(value, event=True)


ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""https://platform.claude.com/docs/en/api/errors#http-errors; any other status is an `api_error`."""


def fail(
    status: int,
    message: str | None = None,
    *,
    type: str | None = None,
    retry_after: float | None = None,
    retry_after_ms: int | None = None,
    headers: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | None = None,
) -> Failure:
    """An HTTP error before any stream: `fail(529)`, `fail(429, retry_after=2)`, `fail(429, details={"error_code": "..."})`.

    The SDK itself tries 408, 409, 429 and 5xx up to two times more, so three in a row reach the caller.
    """
    extra = dict(headers or {})
    if retry_after is not None:
        extra["retry-after"] = f"{retry_after:g}"
    if retry_after_ms is not None:
        extra["retry-after-ms"] = str(retry_after_ms)
    kind = type or ERROR_TYPES.get(status, "api_error")
    return Failure(status, kind, message or f"scripted {kind}", extra, details)


def cut(
    reply: Reply | None = None,
    *,
    after: int = 3,
    how: Literal["reset", "eof", "silence", "error"] = "reset",
    error: str = "overloaded_error",
    ping: float = 0.0,
) -> Cut:
    """A stream that breaks after that many events.

    Args:
        reply: What was being said; some text by default.
        after: Events that still arrive.
        how: `reset` closes the socket; `eof` ends the response cleanly but before `message_stop`; `silence` sends nothing more until the
            client leaves; `error` sends an `error` event inside the stream, whose status is 200.
        error: The error's type, with `how="error"`.
        ping: With `silence`, seconds between `ping` events; 0 sends none.

    Example:
        ```python
        attempts(cut(after=4), cut(how="error"), say("third time lucky"))
        ```
    """
    return Cut(reply or say("I was about to say something."), after, how, error, ping)


def attempts(*outcomes: Outcome | Callable[[Request], Outcome]) -> Attempts:
    """One turn that takes several requests: each one for the same turn gets the next outcome, and the last one stays."""
    return Attempts(outcomes)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool's answer, with the call it answers."""

    id: str
    name: str
    input: Any
    content: Any
    is_error: bool

    @property
    def text(self) -> str:
        """Its text blocks, joined."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part["text"] for part in self.content or [] if part.get("type") == "text")


@dataclass
class Request:
    """A request as the server received it: given to the functions of a script, kept in `ScriptedClaude.requests`."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes
    body: Json
    status: int = 0
    """Status of the answer; 0 until there is one."""
    reply: Json | None = None
    """The whole message that was said; None after an error."""
    conversation: str = ""
    """Same for all requests that share tools, system prompt and first user message."""
    cached: Cached = field(default_factory=Cached)
    disconnected: threading.Event = field(default_factory=threading.Event)
    """Set when the client closed the connection before the stream's end."""

    @property
    def messages(self) -> list[Json]:
        """The transcript."""
        messages: list[Json] = self.body.get("messages") or []
        return messages

    @property
    def summary(self) -> Json | None:
        """What the leading compaction block stands for, if there is one."""
        first = next((part for message in self.messages[:1] for part in content_of(message)), {})
        return read_summary(first) if first.get("type") == "compaction" else None

    @property
    def turn(self) -> int:
        """Assistant turns so far, those behind a compaction included: the index of the turn to be said now."""
        told = [m for m in self.messages if m.get("role") == "assistant" and any(b.get("type") != "compaction" for b in content_of(m))]
        summary = self.summary
        return len(told) + (int(summary["turns"]) if summary else 0)

    @property
    def opening(self) -> str:
        """Text of the first user message, also after a compaction."""
        if (summary := self.summary) is not None:
            return str(summary["opening"])
        first = next((message for message in self.messages if message.get("role") == "user"), {})
        return "\n".join(part.get("text", "") for part in content_of(first) if part.get("type") == "text")

    @property
    def text(self) -> str:
        """Text of the last user message, tool results aside."""
        last = next((message for message in reversed(self.messages) if message.get("role") == "user"), {})
        return "\n".join(part.get("text", "") for part in content_of(last) if part.get("type") == "text")

    @property
    def results(self) -> list[ToolResult]:
        """Tool results of the last user message, in order."""
        calls = {part.get("id"): part for message in self.messages for part in content_of(message) if part.get("type") == "tool_use"}
        last = next((message for message in reversed(self.messages) if message.get("role") == "user"), {})
        found = []
        for part in content_of(last):
            if part.get("type") == "tool_result":
                made = calls.get(part["tool_use_id"], {})
                content, failed = part.get("content"), bool(part.get("is_error"))
                found.append(ToolResult(part["tool_use_id"], made.get("name", ""), made.get("input"), content, failed))
        return found

    def result(self, name: str) -> ToolResult:
        """The last user message's first result of that tool. Raises LookupError if there is none."""
        for result in self.results:
            if result.name == name:
                return result
        raise LookupError(f"the last message has no result of {name!r}, only of {[result.name for result in self.results]}")

    @property
    def betas(self) -> frozenset[str]:
        """What the `anthropic-beta` header switches on."""
        return frozenset(name.strip() for name in self.headers.get("anthropic-beta", "").split(",") if name.strip())

    @property
    def streaming(self) -> bool:
        """Whether the client asked for a stream."""
        return bool(self.body.get("stream"))
