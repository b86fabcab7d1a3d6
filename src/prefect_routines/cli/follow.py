"""Follows the journals of sessions as they grow, from the store: in any process, whoever runs the session."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from prefect_routines.errors import StoreError

if TYPE_CHECKING:
    from prefect_routines.store import Entry, SessionRecord, Store

INTERVAL = 0.15
"""Seconds between two looks at the store."""


class News(NamedTuple):
    """One new entry of one session; `earlier`: written by a run before the one that is followed."""

    session: SessionRecord
    entry: Entry
    earlier: bool = False


class Follower:
    """Reads what is new in the sessions of one flow run.

    Args:
        store: Opened in the event loop that asks.
        flow_run_id: Sessions of this run, also those that begin later.

    Example:
        ```python
        follower = Follower(store, flow_run_id)
        for session, entry in await follower.news():
            print(entry.kind)
        ```
    """

    def __init__(self, store: Store, flow_run_id: str) -> None:
        self._store, self._flow_run_id = store, flow_run_id
        self._seen: dict[str, int] = {}
        self._mine: set[str] = set()

    async def news(self) -> list[News]:
        """All entries since the last call, session after session."""
        found: list[News] = []
        for session in reversed(await self._store.sessions(flow_run_id=self._flow_run_id)):
            entries = await self._store.entries(session.id, after=self._seen.get(session.id, 0))
            if entries:
                self._seen[session.id] = entries[-1].seq
            begun = session.id in self._mine
            for entry in entries:
                begun = begun or (entry.kind == "session.status_running" and entry.data.get("flow_run") == self._flow_run_id)
                found.append(News(session, entry, not begun))
            if begun:
                self._mine.add(session.id)
        return found


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
                follower = Follower(store, self._flow_run_id)
                last = False
                while True:
                    for news in await follower.news():
                        self._on_news(news)
                    self._on_look()
                    if last:
                        return
                    last = await asyncio.to_thread(self._stop.wait, INTERVAL)  # then one more look: nothing is written after the run
        except StoreError as error:
            self.error = error
