"""Sessions that somebody watches: one reader of the store for each, shared by all who look, and gone with the last of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from prefect_routines.errors import StoreError
from prefect_routines.gateway.limits import Room
from prefect_routines.gateway.transcript_view import TranscriptView
from prefect_routines.store import Act, Entry, Form, SessionRecord, Store
from prefect_routines.visible import one_line

EVERY = 0.3
"""Seconds between two looks at the store."""
_ASKED = 15.0  # seconds for which a session is asked for its live text
_AGAIN = 5.0  # seconds after which it is asked again
_KEPT = 500  # entries that are kept for those who watch
_log = logging.getLogger(__name__)


class Watched:
    """A session as it is now, for those who watch it.

    Attributes:
        record: Its record.
        forms: All its forms, oldest first.
        waiting: What was sent to it and it has not taken yet.
        live: The turn under way, and its text so far.
        view: Its journal as the page shows it.
    """

    def __init__(self, store: Store, record: SessionRecord) -> None:
        self._store = store
        self.record = record
        self.forms: list[Form] = []
        self.waiting: list[Act] = []
        self.live = (0, "")
        self.view = TranscriptView(record.id)
        self.viewers = 0
        self.closed = False
        self._recent: deque[Entry] = deque(maxlen=_KEPT)
        self._news = asyncio.Event()
        self._asked = -_AGAIN
        self._ready = asyncio.Event()
        self._failed: Exception | None = None

    async def run(self) -> None:
        """Look at the store again and again, until cancelled."""
        while True:
            try:
                if await self._look():
                    self.tell()
            except StoreError as error:
                if not self._ready.is_set():
                    self._failed = error
                _log.warning("Session %s cannot be read just now: %s", self.record.id, one_line(str(error), 200))
            self._ready.set()
            await asyncio.sleep(EVERY)

    async def ready(self) -> None:
        """Wait for the first look.

        Raises:
            StoreError: It failed.
        """
        await self._ready.wait()
        if self._failed is not None:
            raise self._failed

    async def _look(self) -> bool:
        """Read what is new; whether anything is. The record first: when that says ended, the journal that is read next is whole."""
        session_id = self.record.id
        record = await self._store.session(session_id) or self.record
        forms = await self._store.forms(session_id=session_id)
        waiting = await self._store.acts(session_id)
        entries = await self._store.entries(session_id, after=self.view.seq)
        live = await self._live(record)
        for entry in entries:
            self.view.apply(entry.seq, entry)
            self._recent.append(entry)
        if live[0] <= self.view.transcript.turns:
            live = (0, "")  # that turn is in the journal by now
        now, before = (record, forms, waiting, live), (self.record, self.forms, self.waiting, self.live)
        changed = bool(entries) or not self._ready.is_set() or now != before
        self.record, self.forms, self.waiting, self.live = now
        return changed

    async def _live(self, record: SessionRecord) -> tuple[int, str]:
        """What Claude is writing. To ask for it is a write, to look is not."""
        if record.state != "running":
            return 0, ""
        if time.monotonic() - self._asked < _AGAIN:
            return await self._store.live(self.record.id)
        self._asked = time.monotonic()
        return await self._store.watch(self.record.id, _ASKED)

    def tell(self) -> None:
        """Wake all who wait for news."""
        self._news.set()
        self._news = asyncio.Event()

    @property
    def news(self) -> asyncio.Event:
        """Set when something has changed after it was asked for."""
        return self._news

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.record.status == "ended"

    async def entries(self, after: int, limit: int = 200) -> Sequence[Entry]:
        """Entries behind `after`: from memory if they are new, else from the store; never beyond what the view shows."""
        if self._recent and self._recent[0].seq <= after + 1:
            return [entry for entry in self._recent if entry.seq > after][:limit]
        return [entry for entry in await self._store.entries(self.record.id, after=after, limit=limit) if entry.seq <= self.view.seq]


class Watching:
    """All sessions that are watched through this gateway."""

    def __init__(self, store: Store, places: int) -> None:
        self._store = store
        self._room = Room(places, "too many people and programs watch sessions")
        self._watched: dict[str, tuple[Watched, asyncio.Task[None]]] = {}
        self._closing = False

    @asynccontextmanager
    async def of(self, record: SessionRecord) -> AsyncIterator[Watched]:
        """Watch a session for the time of the block.

        Raises:
            Busy: Too many do.
            StoreError: The session cannot be read.
        """
        with self._room.place():
            watched, reading = self._watched.get(record.id) or self._start(record)
            watched.viewers += 1
            watched.closed |= self._closing
            try:
                await watched.ready()
                yield watched
            finally:
                watched.viewers -= 1
                if not watched.viewers:
                    if self._watched.get(record.id, (None, None))[0] is watched:
                        del self._watched[record.id]
                    reading.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait([reading])

    def _start(self, record: SessionRecord) -> tuple[Watched, asyncio.Task[None]]:
        watched = Watched(self._store, record)
        self._watched[record.id] = watched, asyncio.create_task(watched.run())
        return self._watched[record.id]

    @property
    def sessions(self) -> int:
        """How many sessions are being read."""
        return len(self._watched)

    def close(self) -> None:
        """Let all go who watch: the gateway ends."""
        self._closing = True
        for watched, _ in self._watched.values():
            watched.closed = True
            watched.tell()
