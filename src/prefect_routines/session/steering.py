"""What people send to a session at work: noticed within a fraction of a second, taken into the journal between two steps.

A watcher reads the store's pulse a few times a second. A message only waits for the next step; an interrupt, a suspension or a
cancellation cuts what is under way - the reply that streams, the tool calls that run - and then the step ends in good order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from prefect_routines.errors import StoreError
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect_routines.session.session import Session
    from prefect_routines.store import Act

T = TypeVar("T")
PULSE = 0.2  # seconds between two looks
CUTTING = ("interrupt", "suspend", "cancel")
INTERRUPTED = "{who} interrupted you. What was under way has been stopped; what is finished is kept. Go on with what is left of the task."
PREFECT_UI = "somebody in the Prefect UI"


@dataclass(frozen=True)
class Cut(Exception):
    """A person wants what is under way to stop."""

    kind: str
    person: str


class Steering:
    """The ear of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._cut: Cut | None = None
        self._cutting = asyncio.Event()
        self._news = True  # something may have been sent before there was anybody to hear it
        self._seen = 0
        self.watched = False
        """Whether somebody watches the session's text as it is written."""

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[None]:
        """Listen while the block runs."""
        watching = asyncio.create_task(self._watch(), name="steering")
        try:
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    @property
    def cut(self) -> Cut | None:
        """What a person wants to stop, until the next `take`."""
        return self._cut

    async def cuttable(self, work: Awaitable[T]) -> T:
        """Do `work` unless a person stops it.

        Raises:
            Cut: A person did; the work was cancelled and has ended.
        """
        doing, cutting = asyncio.ensure_future(work), asyncio.ensure_future(self._cutting.wait())
        try:
            await asyncio.wait({doing, cutting}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                assert self._cut is not None
                raise self._cut
            return doing.result()
        finally:
            for future in (doing, cutting):
                future.cancel()
            await asyncio.gather(doing, cutting, return_exceptions=True)

    async def take(self) -> None:
        """Take what was sent into the journal, in order. A suspension or cancellation is then the session's next step.

        After an interrupt, calls of the turn that have not begun yet are not begun any more.
        """
        calls = bool(self._session.transcript.open_calls)
        if not self._news and not calls:  # what was sent until now must be in the next request
            await self._look()
        if self._news:
            await self._take_acts()
        elif not calls:
            self._go_on()

    async def _take_acts(self) -> None:
        self._news = False
        session, acts = self._session, await self._session.store.acts(self._session.id)
        sent = [Cut(act.kind, act.person) for act in acts if act.kind in CUTTING]
        cut = self._cut or next(iter(sent), None)
        self._go_on()
        entries: list[tuple[str, dict[str, Any]]] = []
        for act in acts:
            self._seen = max(self._seen, act.id)
            entries += _entries(act)
            session.log(f"{_who(act)}: {act.kind}{f' - {one_line(act.text, 120)}' if act.text else ''}")
        if entries:
            await session.record(*entries, acts=[act.id for act in acts])
        if cut is not None and cut.kind == "interrupt" and session.transcript.open_calls:
            self._stop(cut)
            self._news = False
        wanted = next((one for one in (cut, *sent) if one is not None and one.kind == "suspend"), None)
        if wanted is not None and session.transcript.form is None and session.transcript.cancelled is None:
            await session.ask("pause", {"person": wanted.person, "calls": [], "questions": []})

    def _go_on(self) -> None:
        self._cut = None
        self._cutting.clear()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PULSE)
            if self._session.flow_run.is_suspended() and self._cut is None:
                self._stop(Cut("suspend", PREFECT_UI))
            with contextlib.suppress(StoreError):  # whether the store is there is for those who write to find out
                await self._look()

    async def _look(self) -> None:
        session = self._session
        pulse = await session.store.pulse(session.id)
        self.watched = session.live.watched = pulse.watched
        if pulse.fence != session.lease.fence:
            session.lease.mark_lost()
        if pulse.act is None or pulse.act <= self._seen:
            return
        self._news = True
        cutting = [act for act in await session.store.acts(session.id) if act.kind in CUTTING and act.id > self._seen]
        if cutting and self._cut is None:
            worst = max(cutting, key=lambda act: CUTTING.index(act.kind))
            self._stop(Cut(worst.kind, worst.person))

    def _stop(self, cut: Cut) -> None:
        self._news, self._cut = True, cut
        self._cutting.set()


def _entries(act: Act) -> list[tuple[str, dict[str, Any]]]:
    """What becomes of an act in the journal."""
    told: dict[str, Any] = {"act": act.id, "person": act.person, "via": act.via}
    if act.kind == "cancel":
        return [("session.cancelled", told)]
    if act.kind == "suspend":
        return [("session.suspend_asked", told)]
    text = f"[Message from {_who(act)}]\n{act.text}" if act.text else INTERRUPTED.format(who=_who(act))
    message = {"content": [{"type": "text", "text": text}], "by": act.person, "via": act.via, "act": act.id}
    return [*([("session.interrupted", told)] if act.kind == "interrupt" else []), ("user.message", message)]


def _who(act: Act) -> str:
    return one_line(act.person, 80) or "a person"
