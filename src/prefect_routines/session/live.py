"""What Claude is writing in the turn under way, passed on to those who watch: only while somebody does, and never a secret of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from prefect_routines.errors import StoreError
from prefect_routines.redaction import RedactedStream, Redactor
from prefect_routines.store import Lease, Store
from prefect_routines.visible import storable

INTERVAL = 0.3
"""Seconds between two writes, at least."""


class LiveText:
    """The text of one turn as it grows. Costs nothing while nobody watches.

    Args:
        store: Where those who watch find it.
        lease: Of the session.
        redactor: Gives what knows the secrets at the moment.

    Example:
        ```python
        live.begin(turn)
        reply = await claude.sample(request, live.feed)
        live.end()
        ```
    """

    def __init__(self, store: Store, lease: Lease, redactor: Callable[[], Redactor]) -> None:
        self._store, self._lease, self._redactor = store, lease, redactor
        self._watched = False
        self._turn = 0
        self._pieces: list[str] = []
        self._taken = 0  # so many of them went into `_shown`
        self._shown = ""
        self._stream: RedactedStream | None = None
        self._writing: asyncio.Task[None] | None = None
        self._wrote_at = 0.0
        self._closing = asyncio.Event()
        self._left_behind = False  # whether the store holds text of ours

    @property
    def watched(self) -> bool:
        """Whether somebody watches; whoever reads the session's pulse sets it."""
        return self._watched

    @watched.setter
    def watched(self, value: bool) -> None:
        came, self._watched = value and not self._watched, value
        if came and self._turn:
            self._soon()

    def begin(self, turn: int) -> None:
        """A turn, or another attempt at it, begins with nothing."""
        self._turn, self._pieces, self._taken, self._shown, self._stream = turn, [], 0, "", None
        if self._watched or self._left_behind:
            self._soon()

    def feed(self, text: str) -> None:
        """Claude wrote this."""
        self._pieces.append(text)
        if self._watched:
            self._soon()

    @property
    def written(self) -> str:
        """All that Claude has written in this turn so far, without secrets."""
        return self._redactor().text(storable("".join(self._pieces)))

    def end(self) -> None:
        """The turn is over: its text stands in the journal, or nowhere."""
        self._turn, self._pieces, self._taken, self._shown, self._stream = 0, [], 0, "", None
        if self._left_behind:
            self._soon()

    async def close(self) -> None:
        """Leave nothing behind; waits for what is being written."""
        self.end()
        self._closing.set()
        if self._writing is not None:
            await asyncio.wait([self._writing])

    def _soon(self) -> None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_on(), name="live text")

    async def _write_on(self) -> None:
        """Write what there is, not more often than every `INTERVAL`, until nothing new is there."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), max(0.0, self._wrote_at + INTERVAL - time.monotonic()))
            turn = self._turn
            if fresh := self._pieces[self._taken :]:
                self._taken = len(self._pieces)
                self._stream = self._stream or self._redactor().stream()
                self._shown += self._stream.feed(storable("".join(fresh)))
            try:
                await self._store.show_live(self._lease, turn, self._shown)
                self._left_behind = bool(turn)
            except StoreError:  # those who watch see the turn when it is journaled
                return
            finally:
                self._wrote_at = time.monotonic()
            if self._turn == turn and not (self._watched and self._taken < len(self._pieces)):
                return
