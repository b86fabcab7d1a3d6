"""Sessions put into a store by hand: at work, waiting, ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prefect_routines.steering.form import call_hash
from prefect_routines.store import Form, Lease, Store

T = TypeVar("T")
NO_TOKENS = {"input": 0, "cache_read": 0, "cache_write": 0, "output": 0}


@dataclass(frozen=True)
class Home:
    """A store in a directory of its own."""

    directory: Path

    @property
    def url(self) -> str:
        """Where it is."""
        self.directory.mkdir(exist_ok=True)
        return f"sqlite+aiosqlite:///{self.directory}/store.db"

    def do(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Do something with the store."""

        async def opened() -> T:
            async with await Store.open(self.url) as store:
                return await work(store)

        return asyncio.run(opened())

    @asynccontextmanager
    async def at_work(self, session_id: str, **record: Any) -> AsyncIterator[tuple[Store, Lease]]:
        """A session that this process is at, as any other process sees it."""
        async with await Store.open(self.url) as store:
            known = {"routine": "docs-sync", "flow_run_id": None, **record}
            await store.create_session(session_id=session_id, **known)
            lease = await store.acquire(session_id, lease_seconds=3600)
            await store.update_session(lease, status="running")
            yield store, lease


def a_call(number: int = 1, **arguments: Any) -> dict[str, Any]:
    """A call that asks, as forms have it."""
    given = {"repository": "acme/docs", "number": number, **arguments}
    return {
        "id": f"toolu_{number}",
        "tool": "github_comment",
        "title": f"github_comment: acme/docs#{number}",
        "arguments": given,
        "hash": call_hash("github_comment", given),
        "target": f"acme/docs#{number}",
        "reason": "the rule github_comment asks",
        "like": "github_comment(repository=acme/docs)",
        "editable": True,
    }


async def waits(store: Store, lease: Lease, *, kind: Any = "approval", seconds: float | None = 3600, **content: Any) -> Form:
    """Have a session wait for a form."""
    told = {"calls": [], "questions": [], **content}
    form_id = f"frm-{lease.session_id}-{kind}-{len(await store.forms(session_id=lease.session_id))}"
    form = await store.open_form(lease, form_id, key=f"turn-{form_id}", kind=kind, content=told, flow_run_id=None, seconds=seconds)
    await store.append(lease, [("form.opened", {"form": form.id, "key": form.key, "kind": kind, "content": told})])
    return form


def turn(number: int, text: str, *calls: tuple[str, dict[str, Any]], dollars: float = 0.01) -> tuple[str, dict[str, Any]]:
    """The entry of a turn."""
    used = [{"type": "tool_use", "id": f"t{number}-{at}", "name": name, "input": given} for at, (name, given) in enumerate(calls)]
    said = [{"type": "text", "text": text}] if text else []
    data = {"turn": number, "content": [*said, *used], "stop_reason": "tool_use", "tokens": NO_TOKENS, "dollars": dollars}
    return "agent.message", data


def result(number: int, at: int, name: str, note: str = "") -> tuple[str, dict[str, Any]]:
    """The entry of a call's result."""
    data = {"id": f"t{number}-{at}", "name": name, "content": "ok", "is_error": False, "note": note, "seconds": 0.25, "data": {}}
    return "tool.result", data


def verdict(word: str = "done", **more: Any) -> tuple[str, dict[str, Any]]:
    """The entry of a verdict."""
    return "session.verdict", {"verdict": word, "claimed": word, "summary": "That is it.", "evidence": [], "links": [], **more}
