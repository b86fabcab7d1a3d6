"""`routines watch`: attach to a session that runs, waits or has ended."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Annotated

import typer

from prefect_routines.cli.session_name import SessionName, Who, person, with_session
from prefect_routines.cli.terminal import DONE, INTERRUPTED, NOT_DONE, console, note

if TYPE_CHECKING:
    from prefect_routines.store import SessionRecord, Store

LAST = 60
PATIENCE = 10.0
"""Seconds for which a session may be without a process before a watch that nobody looks at ends: a retry takes it up within that."""


def watch(
    context: typer.Context,
    name: SessionName,
    last: Annotated[int | None, typer.Option("--last", "-n", min=0, help="How many of the former entries are shown.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show it from its beginning.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and entry, from the beginning.")] = False,
    who: Who = None,
) -> int:
    """Watch a session: what was, then Claude's text as it is written, calls, cost, what waits for you.

    In a terminal a typed line goes to Claude, answers what waits, and Ctrl-C asks what you mean. Exit status 0 if the work is done.
    """

    async def work(store: Store, record: SessionRecord) -> int:
        if as_json:
            return await _json(store, record, 0 if everything or last is None else last)
        return await _attach(store, record, None if everything else LAST if last is None else last, who)

    try:
        return with_session(context, name, work)
    except KeyboardInterrupt:
        note("The session goes on; `routines watch` attaches again.")
        return INTERRUPTED


async def _attach(store: Store, record: SessionRecord, last: int | None, who: str | None) -> int:
    from prefect_routines.cli.attached import Attached
    from prefect_routines.cli.follow import Follower
    from prefect_routines.cli.keyboard import Keyboard
    from prefect_routines.cli.view import View

    typing = Keyboard.there() and record.status != "ended"
    skip = {} if last is None else {record.id: await _newest(store, record) - last}
    follower = Follower(store, session_id=record.id)
    with View(console(), skip) as view:
        attached = Attached(store, follower, view, person(who), typing=typing)
        if typing:
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, attached.interrupted)
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, attached.leave)  # not without giving the terminal back
        await attached.follow(Over(for_ever=typing))
    if attached.detached:
        note(f"Detached; the session goes on. Attach again with: routines watch {record.id}")
        return DONE
    return await _ended(store, record)


async def _newest(store: Store, record: SessionRecord) -> int:
    entries = await store.entries(record.id)
    return entries[-1].seq if entries else 0


class Over:
    """Whether there is nothing more to see: the session has ended, or its process is gone and nobody takes it up.

    Args:
        for_ever: Only its end counts: a person watches, and can leave.
    """

    def __init__(self, *, for_ever: bool) -> None:
        self._for_ever = for_ever
        self._without_process: float | None = None

    def __call__(self, sessions: list[SessionRecord]) -> bool:
        from prefect_routines.cli.data import shown_status

        status = shown_status(sessions[0]) if sessions else "ended"
        if status == "ended":
            return True
        gone = status in ("stopped", "idle") and sessions[0].started_at is not None
        self._without_process = (self._without_process or time.monotonic()) if gone else None
        return not self._for_ever and self._without_process is not None and time.monotonic() - self._without_process > PATIENCE


async def _ended(store: Store, record: SessionRecord) -> int:
    """The exit status, and how it ended if that was without a verdict."""
    from prefect_routines.cli.data import shown_status
    from prefect_routines.verdict import GREEN

    now = await store.session(record.id)
    if now is None:
        return NOT_DONE
    if now.status != "ended":
        note(f"session {now.id} is {shown_status(now)}: no process is at it; `routines sessions` shows it")
    elif now.verdict is None:
        note(f'session {now.id} has ended without a verdict; go on with: routines resume {now.id} "..."')
    return DONE if now.verdict in GREEN else NOT_DONE


async def _json(store: Store, record: SessionRecord, last: int) -> int:
    """Each entry as one line, as they come."""
    import json
    import sys

    from prefect_routines.cli.follow import INTERVAL, Follower

    follower, over, ended = Follower(store, session_id=record.id), Over(for_ever=False), False
    after = max(0, await _newest(store, record) - last) if last else 0
    while True:
        for session, entry, _ in await follower.news():
            if entry.seq > after:
                line = {"session": session.id, "seq": entry.seq, "at": entry.at.isoformat(), "kind": entry.kind, "data": entry.data}
                sys.stdout.write(json.dumps(line, ensure_ascii=True) + "\n")
        sys.stdout.flush()
        if ended:
            return await _ended(store, record)
        ended = over(follower.sessions)
        if not ended:
            await asyncio.sleep(INTERVAL)
