"""A person's terminal at the sessions of a run: shows what comes, takes what is typed, answers the forms that wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING

from prefect_routines.cli.data import shown_status
from prefect_routines.cli.deciding import Draft
from prefect_routines.cli.editing import LineEditor
from prefect_routines.cli.follow import INTERVAL, Follower, Watch
from prefect_routines.cli.steer import cancelled
from prefect_routines.cli.terminal import text
from prefect_routines.errors import RoutinesError
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from prefect_routines.cli.progress import Progress
    from prefect_routines.cli.view import View
    from prefect_routines.steering.acts import Person
    from prefect_routines.store import SessionRecord, Store

HINT = "type a message to Claude, Enter sends it"
ASK = "Ctrl-C: [i]nterrupt Claude · [d]etach · [c]ancel the session · any other key: go on"
CANCELLING = 600.0
"""Seconds for which the end of a cancelled session is looked after."""
NOTICE = 4.0
"""Seconds for which a notice stays."""


class Attached:
    """One terminal at one follower.

    Args:
        store: Opened in this event loop.
        follower: Of what.
        view: Shows it.
        person: In whose name is sent what is typed.
        typing: Whether somebody can type.
    """

    def __init__(self, store: Store, follower: Follower, view: View, person: Person, *, typing: bool) -> None:
        self._store, self._follower, self._view, self._person = store, follower, view, person
        self._editor = LineEditor() if typing else None
        self._lines: list[str] = []
        self._keys: list[str] = []
        self._asking = False
        self._awake, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self._drafts: dict[str, Draft] = {}
        self._notice, self._notice_until = "", 0.0
        self._cancelling: asyncio.Task[None] | None = None
        self.detached = False
        """Whether the person wants to see no more."""

    async def follow(self, over: Callable[[list[SessionRecord]], bool]) -> None:
        """Show what comes until it is over, to the last entry; or the person detaches.

        Args:
            over: Asked with the sessions at each look, before their news is read; after it has said yes there is one more look.
        """
        from prefect_routines.cli.keyboard import Keyboard

        with ExitStack() as stack:
            if self._editor is not None:
                stack.enter_context(Keyboard(self.typed))
            last = False
            while not self.detached:
                for news in await self._follower.news():
                    self._view.show(news)
                if last:
                    return
                for written in await self._follower.texts():
                    self._view.stream(*written)
                await self._do_what_was_typed()
                self._draw()
                self._view.without_process = self._without_process()
                self._view.tick()
                last = over(self._follower.sessions)
                if not last:
                    await self._wait()

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._awake.wait(), INTERVAL)
        except TimeoutError:
            return
        self._awake.clear()

    def wake(self) -> None:
        """Look at once; from any thread."""
        self._loop.call_soon_threadsafe(self._awake.set)

    # what is typed

    def typed(self, data: bytes) -> None:
        """Bytes from the keyboard; called by the event loop."""
        assert self._editor is not None
        if not data:
            self._editor = None  # the terminal is closed: only follow
        elif self._asking:
            self._keys.append(data.decode("utf-8", "replace")[:1])
            self._awake.set()
        else:
            self._lines += self._editor.feed(data)
            if self._lines:
                self._awake.set()
        self._draw()
        self._view.screen.refresh()

    def interrupted(self) -> None:
        """Ctrl-C: ask what is meant; a second one detaches."""
        if self._asking or self._editor is None:
            self.detached = True
        self._asking = True
        self._awake.set()
        self._draw()
        self._view.screen.refresh()

    def leave(self) -> None:
        """Show no more."""
        self.detached = True
        self._awake.set()

    def _draw(self) -> None:
        screen = self._view.screen
        if self._editor is None:
            screen.typed = None
            return
        screen.typed = (self._editor.text, self._editor.cursor)
        if self._asking:
            screen.hint = ASK
        elif time.monotonic() < self._notice_until:
            screen.hint = self._notice
        elif (draft := self._draft()) is not None:
            screen.hint = draft.hint
        else:
            screen.hint = "" if self._editor.text else HINT

    async def _do_what_was_typed(self) -> None:
        keys, self._keys = self._keys, []
        if keys and self._asking:
            self._asking = False
            await self._tell(self._choose(keys[0].lower()))
        lines, self._lines = self._lines, []
        for line in lines:
            await self._tell(self._line(line))

    async def _tell(self, work: object) -> None:
        """Do it; what is wrong with it is told in a line."""
        try:
            await work  # type: ignore[misc]
        except RoutinesError as error:
            self._view.screen.print(text(("  ! ", "red"), one_line(str(error), 1000)))

    async def _choose(self, key: str) -> None:
        from prefect_routines.steering import acts

        record = self._current()
        if key == "d":
            self.detached = True
        elif key == "i" and record is not None:
            await acts.interrupt(self._store, record, self._person)
            self._say("interrupt sent")
        elif key == "c" and record is not None:
            self._say("cancelling")
            self._cancelling = asyncio.create_task(self._tell(cancelled(self._store, record, self._person, CANCELLING)))

    async def _line(self, line: str) -> None:
        from prefect_routines.steering import acts

        record = self._current()
        if record is None:
            self._say("no session yet; nothing was sent")
            return
        draft, form = self._draft(), self._view.forms.get(record.id)
        if draft is not None and form is not None and draft.take(line):
            if draft.answer is not None:
                await self._answer(str(form["form"]), draft)
            return
        if line.strip():
            await acts.send(self._store, record, line, self._person)
            self._say(f"sent, joins the next turn: {one_line(line, 200)}")

    async def _answer(self, form_id: str, draft: Draft) -> None:
        from prefect_routines.steering import acts

        self._drafts.pop(form_id, None)  # whatever becomes of it, the next answer begins anew
        form = await self._store.form(form_id)
        if form is None:
            self._say("the form is not open yet; answer it again in a moment")
            return
        await acts.answer(self._store, form, draft.answer or {}, self._person)

    def _draft(self) -> Draft | None:
        record = self._current()
        form = self._view.forms.get(record.id) if record is not None else None
        if form is None:
            return None
        return self._drafts.setdefault(str(form["form"]), Draft(str(form["kind"]), form.get("content") or {}))

    def _current(self) -> SessionRecord | None:
        """Whom a line is for: the session that waits for a person, else the newest that has not ended."""
        alive = [record for record in self._follower.sessions if record.status != "ended"]
        waiting = [record for record in alive if record.id in self._view.forms]
        return next(iter(waiting), alive[-1] if alive else next(iter(reversed(self._follower.sessions)), None))

    def _without_process(self) -> str:
        """What is said of a session at which nobody works and which waits for nobody; empty for any other."""
        record = self._current()
        status = shown_status(record) if record is not None and record.started_at is not None else ""
        return f"{status}: no process is at it" if status in ("stopped", "idle") else ""

    def _say(self, what: str) -> None:
        """Tell the person something that is no part of the session, beside what he types: text that streams is not broken off."""
        self._notice, self._notice_until = f"✓ {what}", time.monotonic() + NOTICE


class AttachedWatch(Watch):
    """Follows a flow run on a terminal while the block runs: what is typed goes to its sessions.

    Args:
        flow_run_id: The run.
        view: Shows it.

    Example:
        ```python
        with View(console()) as view, AttachedWatch(flow_run_id, view):
            run_flow(flow, flow_run=run)
        ```
    """

    def __init__(self, flow_run_id: str, view: View) -> None:
        from prefect_routines.cli.keyboard import Keyboard

        super().__init__(flow_run_id, view.show, view.tick)
        self._view, self._typing = view, Keyboard.there()
        self._attached: Attached | None = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._attached is not None:
            with suppress(RuntimeError):  # its loop has ended
                self._attached.wake()
        super().__exit__(kind, error, trace)

    async def _show(self, store: Store, follower: Follower) -> None:
        from prefect_routines.cli.session_name import person

        self._attached = Attached(store, follower, self._view, person(), typing=self._typing)
        await self._attached.follow(lambda _: self._stop.is_set())


def watching(flow_run_id: str, out: Console) -> tuple[Progress, Watch]:
    """What shows a run as it goes, and what follows it: on a terminal Claude's text as it is written, and the keyboard."""
    from prefect_routines.cli.progress import Progress
    from prefect_routines.cli.view import View

    if out.is_terminal:
        view = View(out)
        return view, AttachedWatch(flow_run_id, view)
    progress = Progress(out)
    return progress, Watch(flow_run_id, progress.show, progress.tick)
