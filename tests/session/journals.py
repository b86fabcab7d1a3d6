"""Journals written by hand: what the pure tests fold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from prefect_routines.session.transcript import Transcript
from prefect_routines.store import Entry

START = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG = {
    "model": "claude-opus-5-5",
    "max_tokens": 999,
    "effort": None,
    "system": [{"type": "text", "text": "Work."}],
    "tools": [{"name": "bash", "description": "b", "input_schema": {"type": "object", "properties": {"z": {}, "a": {}}}}],
}
TOKENS = {"input": 10, "cache_read": 20, "cache_write": 30, "output": 40}
Written = tuple[str, dict[str, Any]]


def config() -> Written:
    return "session.config", CONFIG


def user(text: str, prompt: int | None = None) -> Written:
    return "user.message", {"content": [{"type": "text", "text": text}], **({"prompt": prompt} if prompt else {})}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def thought(signature: str = "sig") -> dict[str, Any]:
    return {"type": "thinking", "thinking": "", "signature": signature}


def use(id: str, name: str = "bash", **input: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": input}


def agent(*content: dict[str, Any], stop: str | None = None, dollars: float = 0.5, **more: Any) -> Written:
    called = any(block["type"] == "tool_use" for block in content)
    reason = stop or ("tool_use" if called else "end_turn")
    return "agent.message", {"turn": 1, "content": list(content), "stop_reason": reason, "dollars": dollars, "tokens": TOKENS, **more}


def started(id: str, rule: str | None = None) -> Written:
    return "tool.start", {"id": id, "name": "bash", "rule": rule}


def result(id: str, content: str = "ok", is_error: bool = False, **data: Any) -> Written:
    return "tool.result", {"id": id, "name": "bash", "content": content, "is_error": is_error, "note": "", "seconds": 0.1, "data": data}


def verdict(word: str = "done") -> Written:
    return "session.verdict", {"verdict": word, "claimed": word, "summary": "It is done.", "evidence": [], "links": []}


def compacted(summary: str = "So far.") -> Written:
    content = [{"type": "compaction", "content": summary, "signature": "s"}]
    return "session.compacted", {"content": content, "stop_reason": "compaction", "dollars": 0.25, "tokens": TOKENS}


def entries(*written: Written, seconds: float = 1.0) -> list[Entry]:
    """The entries, that many seconds apart."""
    return [Entry(i + 1, kind, data, START + timedelta(seconds=i * seconds)) for i, (kind, data) in enumerate(written)]


def fold(*written: Written, seconds: float = 1.0) -> Transcript:
    return Transcript.of(entries(*written, seconds=seconds))
