"""Server-sent events: a session's journal as it grows, what Claude is writing, the forms that wait, and how it stands.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from prefect_routines.gateway.access import Visitor
from prefect_routines.gateway.answers import Refused
from prefect_routines.gateway.service import Service
from prefect_routines.gateway.session_models import entry_out, form_out, session_out
from prefect_routines.gateway.watching import Watched
from prefect_routines.store import SessionRecord

HEARTBEAT = 15.0
"""Seconds after which something is sent although nothing has happened: proxies close what is silent."""
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}
Events = Callable[[Watched, int], AsyncIterator[bytes]]


def event(kind: str, data: Any, number: int | None = None) -> bytes:
    """One event, in ASCII on one line: no text can begin another one."""
    name = f"id: {number}\n" if number is not None else ""
    return f"{name}event: {kind}\ndata: {json.dumps(data, ensure_ascii=True, separators=(',', ':'), default=str)}\n\n".encode()


async def streaming(service: Service, request: Request, who: Visitor, record: SessionRecord, events: Events) -> Response:
    """The answer that streams.

    Args:
        events: What is told to this viewer, from an entry on.

    Raises:
        Refused: 422, the place to go on from is none.
        Busy: Too many watch.
    """
    given = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
    if not (given.isascii() and given.isdigit() and len(given) < 17):
        raise Refused(422, "Last-Event-ID: must be the id of an event, a whole number")
    stack = AsyncExitStack()
    watched = await stack.enter_async_context(service.watching.of(record))
    return _Streaming(_while_allowed(service, who, watched, events(watched, int(given))), stack)


class _Streaming(StreamingResponse):
    """Gives its place back however it ends: the sender's going away cancels it in the middle."""

    def __init__(self, content: AsyncIterator[bytes], stack: AsyncExitStack) -> None:
        super().__init__(content, headers=HEADERS, media_type="text/event-stream")
        self._stack = stack

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


async def _while_allowed(service: Service, who: Visitor, watched: Watched, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The events, until there are no more, the gateway ends, or the token was revoked."""
    yield b"retry: 2000\n\n"
    checked = asyncio.get_running_loop().time()
    async for one in events:
        yield one
        moment = asyncio.get_running_loop().time()
        if moment - checked >= HEARTBEAT:
            checked = moment
            if await service.store.token(who.token.id) is None:
                return


async def changes(watched: Watched) -> AsyncIterator[bool]:
    """Once at first, and then whenever something has changed (True) or nothing has for a while (False); ends with the session."""
    changed = True
    while True:
        news = watched.news
        over = watched.over
        yield changed
        if over or watched.closed:
            return
        try:
            async with asyncio.timeout(HEARTBEAT):
                await news.wait()
            changed = True
        except TimeoutError:
            changed = False


class LiveText:
    """What Claude is writing, told piece by piece."""

    def __init__(self) -> None:
        self._turn, self._text = 0, ""

    def news(self, turn: int, text: str) -> dict[str, Any] | None:
        """What is new: the turn, and the text from the character `at` on. None if nothing is."""
        if (turn, text) == (self._turn, self._text):
            return None
        same = turn == self._turn and text.startswith(self._text)
        at = len(self._text) if same else 0
        self._turn, self._text = turn, text
        return {"turn": turn, "at": at, "text": text[at:]}


async def journal_events(service: Service, watched: Watched, after: int) -> AsyncIterator[bytes]:
    """The events of the API: `entry`, `live`, `form`, `status`; at last `end`."""
    told: dict[str, str] = {}
    status, live = None, LiveText()
    async for changed in changes(watched):
        if not changed:
            yield b": nothing new\n\n"
            continue
        while found := await watched.entries(after):
            for entry in found:
                yield event("entry", entry_out(entry), entry.seq)
            after = found[-1].seq
        for form in watched.forms:
            if form.status != told.get(form.id) and (form.status == "open" or form.id in told):
                told[form.id] = form.status
                yield event("form", form_out(form))
        if (writes := live.news(*watched.live)) is not None:
            yield event("live", writes)
        now = _status(service, watched)
        if now != status:
            status = now
            yield event("status", now)
        if watched.over:
            yield event("end", {"verdict": watched.record.verdict})


def _status(service: Service, watched: Watched) -> dict[str, Any]:
    record, state = watched.record, watched.view.transcript
    if record.status != "ended":
        record = replace(record, turns=state.turns, tokens=state.total_tokens, dollars=round(state.dollars + state.reserved, 6))
    waiting = [form.id for form in watched.forms if form.status == "open"]
    run = service.run_url(record.flow_run_id)
    return session_out(record, url=service.session_url(record.id), flow_run_url=run, waiting=waiting, last_entry=watched.view.seq)
