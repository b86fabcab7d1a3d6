"""Follows the journals of sessions as they grow, from the store: in any process, whoever runs the session."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from prefect_routines.errors import StoreError

if TYPE_CHECKING:
    from prefect_routines.store import Entry, SessionRecord, Store

INTERVAL = 0.15
"""Seconds between two looks at the store."""
ASK_EVERY = 5.0
"""Seconds between two requests for live text; the store keeps one for three times as long."""


class News(NamedTuple):
    """One new entry of one session; `earlier`: written by a run before the one that is followed."""

    session: SessionRecord
    entry: Entry
    earlier: bool = False


class Written(NamedTuple):
    """What Claude has written so far in a turn that is under way."""

    session_id: str
    turn: int
    text: str


class Follower:
    """Reads what is new in the sessions of one flow run, or in one session.

    Args:
        store: Opened in the event loop that asks.
        flow_run_id: Sessions of this run, also those that begin later.
        session_id: This session, whatever its run is.

    Example:
        ```python
        follower = Follower(store, flow_run_id)
        for session, entry, earlier in await follower.news():
            print(entry.kind)
        ```
    """

    def __init__(self, store: Store, flow_run_id: str = "", *, session_id: str | None = None) -> None:
        self._store, self._flow_run_id, self._session_id = store, flow_run_id, session_id
        self._seen: dict[str, int] = {}
        self._mine: set[str] = set()
        self._asked_at = -ASK_EVERY
        self.sessions: list[SessionRecord] = []
        """The sessions, as they were at the last look, the oldest first."""

    async def news(self) -> list[News]:
        """All entries since the last call, session after session."""
        found: list[News] = []
        self.sessions = await self._look()
        for session in self.sessions:
            entries = await self._store.entries(session.id, after=self._seen.get(session.id, 0))
            if entries:
                self._seen[session.id] = entries[-1].seq
            begun = session.id in self._mine or self._session_id is not None
            for entry in entries:
                begun = begun or (entry.kind == "session.status_running" and entry.data.get("flow_run") == self._flow_run_id)
                found.append(News(session, entry, not begun))
            if begun:
                self._mine.add(session.id)
        return found

    async def texts(self) -> list[Written]:
        """What Claude is writing just now in the sessions that are at work; asking for it keeps it coming."""
        found = []
        ask = time.monotonic() - self._asked_at >= ASK_EVERY
        for session in self.sessions:
            if session.status == "running" and session.leased_until is not None:
                turn, said = await (self._store.watch(session.id) if ask else self._store.live(session.id))
                self._asked_at = time.monotonic() if ask else self._asked_at
                if turn:
                    found.append(Written(session.id, turn, said))
        return found

    async def _look(self) -> list[SessionRecord]:
        if self._session_id is None:
            return list(reversed(await self._store.sessions(flow_run_id=self._flow_run_id)))
        record = await self._store.session(self._session_id)
        return [record] if record is not None else []


class Watch:
    """Follows a flow run in a thread of its own while the block runs, to the last entry.

    The thread has its own event loop and store, so that nothing the run does - not even a flow that blocks - holds up the news.

    Args:
        flow_run_id: The run.
        on_news: Called with each entry, in the thread.
        on_look: Called after each look at the store, also when there was nothing new.

    Example:
        ```python
        with Watch(flow_run_id, progress.show):
            run_flow(flow, flow_run=run)
        ```
    """

    def __init__(self, flow_run_id: str, on_news: Callable[[News], None], on_look: Callable[[], None] = lambda: None) -> None:
        self._flow_run_id, self._on_news, self._on_look = flow_run_id, on_news, on_look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._follow()), name="follow", daemon=True)
        self.error: StoreError | None = None
        """Why the news stopped, if the store failed."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    async def _follow(self) -> None:
        from prefect_routines.store import Store

        try:
            async with await Store.open() as store:
                await self._show(store, Follower(store, self._flow_run_id))
        except StoreError as error:
            self.error = error

    async def _show(self, store: Store, follower: Follower) -> None:
        last = False
        while True:
            for news in await follower.news():
                self._on_news(news)
            self._on_look()
            if last:
                return
            last = await asyncio.to_thread(self._stop.wait, INTERVAL)  # then one more look: nothing is written after the run
