"""Sessions as a person watches them: Claude's text as it is written, calls with their duration, what waits for a person, the cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from prefect_routines.cli.progress import Progress, entry_lines, totals, verdict_lines
from prefect_routines.cli.screen import Screen
from prefect_routines.cli.steering_lines import message_of, steering_lines
from prefect_routines.cli.terminal import text
from prefect_routines.session.transcript import Transcript
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from prefect_routines.cli.follow import News
    from prefect_routines.store import Entry

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
TASK_LINES = 12


class View(Progress):
    """Prints what comes, each piece once: text that was shown while it was written is not shown again when its turn is journaled.

    Args:
        console: Where to.
        skip: Entries up to this number only count, they are not shown: the past of a long session. By session.
    """

    def __init__(self, console: Console, skip: Mapping[str, int] | None = None) -> None:
        super().__init__(console)
        self.screen = Screen(console)
        self._skip = dict(skip or {})
        self._writing: tuple[str, int] | None = None  # whose text is on the screen, and of which turn
        self._shown = ""
        self._budgets: dict[str, dict[str, Any]] = {}
        self.forms: dict[str, dict[str, Any]] = {}
        """The form for which a session waits, as its entry has it; by session."""
        self.without_process = ""
        """What to say instead of what is under way: nothing is."""

    def __enter__(self) -> Self:
        self.screen.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:  # type: ignore[override]
        self.screen.__exit__(kind, error, trace)

    def show(self, news: News) -> None:
        """Print what an entry is worth."""
        session, entry, earlier = news
        if session.id not in self.transcripts:
            self.transcripts[session.id] = Transcript()
            name = session.routine if session.name == "main" else f"{session.routine}, {session.name}"
            self._print(text(("Session ", "bold"), session.id, (f" · {name}", "dim")))
        transcript = self.transcripts[session.id]
        transcript.apply(entry)
        self._note(session.id, entry, transcript)
        self._forms(session.id, entry)
        if earlier:
            return
        if entry.seq <= self._skip.get(session.id, 0):
            if entry.seq == self._skip[session.id]:
                self._print(text((f"{'':8}{entry.seq} earlier entries; --all shows them", "dim")))
            return
        if entry.kind == "agent.message":
            self._turn(session.id, entry)
        elif entry.kind == "user.message" and not (entry.data.get("by") or entry.data.get("via")):
            self._said(entry)
        else:
            if entry.kind in ("turn.interrupted", "turn.failed"):
                self._broken_off(session.id, str(entry.data.get("text") or ""))
            lines = [*entry_lines(entry, transcript), *steering_lines(entry, self._contents)]
            if entry.kind == "session.verdict":
                lines += verdict_lines(transcript, session.id)
            for line in lines:
                self._print(line)

    def stream(self, session_id: str, turn: int, written: str) -> None:
        """Print what is new in the text of the turn under way."""
        transcript = self.transcripts.get(session_id)
        if transcript is None or turn <= transcript.turns or not written:
            return
        if self._writing is None:
            self._begin(session_id, turn)
        if self._writing != (session_id, turn):
            return  # one text at a time: that of another session is shown when its turn is over
        if not written.startswith(self._shown):  # another attempt at the turn
            self._begin(session_id, turn)
        self._go_on(written)

    def _turn(self, session_id: str, entry: Entry) -> None:
        """A turn is complete: the rest of its text, or all of it."""
        turn = entry.data["turn"]
        said = "\n\n".join(block["text"] for block in entry.data["content"] if block["type"] == "text" and block["text"])
        if self._writing != (session_id, turn):
            calls = ", ".join(one_line(block["name"]) for block in entry.data["content"] if block["type"] == "tool_use")
            instead = f"→ {calls}" if calls else entry.data["stop_reason"]
            self._begin(session_id, turn, "" if said.strip() else instead)
        if not said.startswith(self._shown):  # what hides a secret in the one does not stand in the other
            self._shown = said[: _same(said, self._shown)]
        self._go_on(said.rstrip() if len(said.rstrip()) >= len(self._shown) else said)
        self._done_writing()

    def _broken_off(self, session_id: str, written: str) -> None:
        if self._writing is not None and self._writing[0] == session_id:
            if written.startswith(self._shown):
                self._go_on(written)
            self._done_writing()

    def _begin(self, session_id: str, turn: int, more: str = "") -> None:
        self._done_writing()
        self._writing = (session_id, turn)
        name = f" {session_id[:12]}" if len(self.transcripts) > 1 else ""
        self._print(text((f"Turn {turn}", "bold cyan"), (f"{name}  {more}", "dim")))

    def _go_on(self, written: str) -> None:
        self.screen.write(written[len(self._shown) :])
        self._shown = written

    def _done_writing(self) -> None:
        self.screen.end_text()
        self._writing, self._shown = None, ""

    def _said(self, entry: Entry) -> None:
        """What the routine asks of Claude, or tells it in between."""
        lines = message_of(entry.data).strip().splitlines()
        self._print(text(("Task" if entry.data.get("prompt") else "Note", "bold")))
        for line in lines[:TASK_LINES]:
            self._print(text(f"  {one_line(line, 1000)}"))
        if len(lines) > TASK_LINES:
            self._print(text((f"  … {len(lines) - TASK_LINES} more lines", "dim")))

    def _forms(self, session_id: str, entry: Entry) -> None:
        if entry.kind == "form.opened":
            self.forms[session_id] = entry.data
            self._contents[str(entry.data.get("form"))] = entry.data.get("content") or {}
        elif entry.kind in ("form.answered", "session.cancelled", "session.verdict"):
            self.forms.pop(session_id, None)
        elif entry.kind == "session.status_running":
            self._budgets[session_id] = entry.data.get("budget") or {}
        elif entry.kind == "budget.raised":
            budget = self._budgets.setdefault(session_id, {})
            budget |= {name: budget[name] + entry.data[name] for name in entry.data if isinstance(budget.get(name), (int, float))}

    def _print(self, line: Any) -> None:
        self.screen.print(line)

    def tick(self) -> None:
        """Bring the status line up to date."""
        now = time.monotonic()
        doing = [f"{what} · {now - since:.0f} s" for what, since in self._doing.values()]
        waiting = [f"waits for you: {one_line(str(form.get('kind')))}" for form in self.forms.values()]
        if self.without_process and not waiting:
            doing = [self.without_process]
        mark = "▌" if waiting or self.without_process else SPINNER[int(now * 8) % len(SPINNER)]
        used = " · ".join(self._used(id_, transcript) for id_, transcript in self.transcripts.items())
        self.screen.status = text(
            (f"{mark} {'; '.join(waiting or doing or ['working'])}", "yellow" if waiting else "dim"), (f" · {used}", "dim")
        )
        self.screen.refresh()

    def _used(self, session_id: str, transcript: Transcript) -> str:
        """What is used of the budget."""
        budget = self._budgets.get(session_id, {})
        if not budget:
            return f"${transcript.dollars:.4f} · {totals(transcript)}"
        dollars = f" of ${budget['dollars']:g}" if budget.get("dollars") else ""
        turns = f" of {budget['turns']}" if budget.get("turns") else ""
        return f"${transcript.dollars:.4f}{dollars} · {transcript.turns}{turns} turns"


def _same(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
