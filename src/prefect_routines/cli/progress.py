"""Shows a session to the person who watches it: one line per turn, call, check and push, then the verdict."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prefect_routines.cli.steering_lines import steering_lines
from prefect_routines.cli.terminal import text
from prefect_routines.session.transcript import Transcript
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

    from prefect_routines.cli.follow import News
    from prefect_routines.store import Entry

MARKS = {"done": ("✓ done", "bold green"), "nothing_to_do": ("✓ nothing to do", "bold green")}
MARKS |= {"needs_attention": ("! needs attention", "bold yellow"), "failed": ("✗ failed", "bold red")}
INDENT = " " * 8
MAIN = ("command", "path", "pattern", "repository", "url", "verdict")
"""Arguments that tell a call apart, in the order in which they are looked for; else the first one does."""


def title(name: str, arguments: Any) -> str:
    """A call in one line, as on the run page: `bash: pytest -q`."""
    if not isinstance(arguments, Mapping) or not arguments:
        return one_line(name)
    chosen = next((arguments[key] for key in MAIN if key in arguments), next(iter(arguments.values())))
    return one_line(f"{name}: {chosen}", 110)


def entry_lines(entry: Entry, transcript: Transcript) -> Iterator[Text]:
    """The lines that an entry is worth.

    Args:
        entry: Of the journal.
        transcript: The state after it.
    """
    data = entry.data
    match entry.kind:
        case "session.status_running" if data.get("again"):
            yield text((f"{INDENT}goes on where it was", "dim"))
        case "session.forked":
            spent = f"${data['dollars']:.4f} were spent there"
            yield text((f"{INDENT}forked from {data['from']} at entry {data['at']} · {spent}", "dim"))
        case "workspace.not_kept":
            yield text((f"{INDENT}no snapshot of the workspace: {one_line(data['reason'], 200)}", "yellow"))
        case "workspace.ready" if data.get("restored"):
            yield text((f"{INDENT}the workspace was restored from a snapshot", "dim"))
        case "workspace.ready":
            for repository in data["repositories"]:
                yield text((f"{INDENT}cloned {repository['name']} ({repository['branch']} @ {repository['base_sha'][:12]})", "dim"))
        case "agent.message":
            said = next((block["text"] for block in data["content"] if block["type"] == "text" and block["text"].strip()), "")
            names = [one_line(block["name"]) for block in data["content"] if block["type"] == "tool_use"]
            first = one_line(said.strip().partition("\n")[0], 160) or (f"→ {', '.join(names)}" if names else data["stop_reason"], "dim")
            yield text((f"Turn {data['turn']:<3}", "bold cyan"), (f"${transcript.dollars:.4f}  ", "dim"), first)
        case "turn.failed":
            yield text((f"{INDENT}↻ turn {data['turn']}, attempt {data['attempt']}: {one_line(data['error'], 200)}", "yellow"))
        case "tool.result":
            yield from _result_lines(data, transcript)
        case "session.compacted":
            yield text((f"{INDENT}the conversation was summarised to make room", "dim"))


def _result_lines(data: dict[str, Any], transcript: Transcript) -> Iterator[Text]:
    call = transcript.all_calls.get(data["id"])
    failed = data["is_error"] or (data.get("note") or "").startswith("exit ")  # a command that fails is no error of the tool's
    mark = ("✗", "red") if failed else ("✓", "green")
    what = title(data["name"], call.input if call else {})
    note = one_line(data["note"], 100) if data.get("note") else ""
    said = f" · {note}" if note and not what.endswith(f": {note}") else ""
    yield text(INDENT, mark, (f" {data['seconds']:6.2f} s  ", "dim"), what, (said, "dim"))
    more = data.get("data", {})
    for check in more.get("checks", []):
        mark = ("✓", "green") if check["passed"] else ("✗", "red")
        status = "" if check["passed"] else " · stopped" if check["exit_code"] is None else f" · exit {check['exit_code']}"
        what = f"check {check['repository']}: {one_line(check['command'])}"
        yield text(INDENT, mark, (f" {check['seconds']:6.2f} s  ", "dim"), what, (status, "dim"))
    for push in more.get("pushed", []):
        what = "captured (rehearsal, nothing was sent)" if push.get("captured") else "pushed"
        files = len(push.get("files", []))
        where = f"{push['repository']}: {push['branch']} @ {push['sha'][:12]}"
        yield text(INDENT, ("↑", "cyan"), f" {what} {where}", (f" · {files} file{'s' if files != 1 else ''}", "dim"))


def verdict_lines(transcript: Transcript, session_id: str) -> Iterator[Text]:
    """The end: verdict, summary, evidence, branches, what it took."""
    verdict = transcript.verdict
    if verdict is None:
        return
    mark, style = MARKS.get(verdict["verdict"], (verdict["verdict"], "bold"))
    claimed = verdict.get("claimed")
    yield text()
    rehearsed = [" (rehearsal: nothing was sent)"] if verdict.get("rehearsal") else []
    yield text((mark, style), *rehearsed, *([f" (Claude said {one_line(claimed)})"] if claimed and claimed != verdict["verdict"] else []))
    yield from (text(f"  {line}") for line in verdict["summary"].strip().splitlines())
    for word in ("evidence", "links"):
        yield from (text(f"  · {one_line(item, 400)}") for item in verdict.get(word, []))
    for push in {push["repository"]: push for push in transcript.pushes}.values():
        captured = "  (captured, not sent)" if push.get("captured") else ""
        yield text(("  branch  ", "dim"), f"{push['repository']}: {push['branch']} @ {push['sha'][:12]}", captured)
    yield text(("  cost    ", "dim"), f"${transcript.dollars:.4f}", (f" · {totals(transcript)}", "dim"))
    yield text(("  session ", "dim"), session_id, (f" · routines show {session_id}", "dim"))


def totals(transcript: Transcript) -> str:
    """Turns, tokens and time in words."""
    minutes, seconds = divmod(round(transcript.seconds), 60)
    turns = f"{transcript.turns} turn{'s' if transcript.turns != 1 else ''}"
    return f"{turns}, {transcript.total_tokens:,} tokens, {f'{minutes} min ' if minutes else ''}{seconds} s"


class Progress:
    """Prints entries as they come; on a terminal the last line says what is under way.

    Args:
        console: Where to.

    Example:
        ```python
        with Progress(console()) as progress, Watch(flow_run_id, progress.show, progress.tick):
            ...
        ```
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._doing: dict[str, tuple[str, float]] = {}
        self._contents: dict[str, dict[str, Any]] = {}  # of the forms, by id
        self.transcripts: dict[str, Transcript] = {}

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._status = self._console.status(text(("starting", "dim")), spinner="dots")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def show(self, news: News) -> None:
        """Print what an entry is worth."""
        session, entry, earlier = news
        if session.id not in self.transcripts:
            self.transcripts[session.id] = Transcript()
            name = f" {session.name}" if session.name != "main" else ""
            self._print(text(("Session", "bold"), f"{name} {session.id}"))
        transcript = self.transcripts[session.id]
        transcript.apply(entry)
        if earlier:
            return
        self._note(session.id, entry, transcript)
        prefix = f"{session.name} " if len(self.transcripts) > 1 else ""
        if entry.kind == "form.opened":
            self._contents[str(entry.data.get("form"))] = entry.data.get("content") or {}
        for line in (*entry_lines(entry, transcript), *steering_lines(entry, self._contents)):
            self._print(text((prefix, "magenta")) + line if prefix else line)
        if entry.kind == "session.verdict":
            for line in verdict_lines(transcript, session.id):
                self._print(line)

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=not self._console.is_terminal)

    def _note(self, session_id: str, entry: Entry, transcript: Transcript) -> None:
        """Remember what is under way."""
        if entry.kind == "turn.start":
            self._doing[session_id] = (f"turn {entry.data['turn']}: Claude is replying", time.monotonic())
        elif entry.kind in ("tool.start", "tool.result"):
            under_way = [title(call.name, call.input) for call in transcript.open_calls if call.started]
            if under_way:
                self._doing[session_id] = (one_line(", ".join(under_way), 80), time.monotonic())
            else:
                self._doing.pop(session_id, None)
        elif entry.kind == "session.status_running":
            self._doing[session_id] = ("preparing: login, repositories, sandbox", time.monotonic())
        elif entry.kind in ("session.verdict", "session.status_idle"):
            self._doing.pop(session_id, None)

    def tick(self) -> None:
        """Bring the last line of the terminal up to date."""
        if self._status is None:
            return
        now = time.monotonic()
        doing = [f"{what} · {now - since:.0f} s" for what, since in self._doing.values()] or ["working"]
        dollars = sum(transcript.dollars for transcript in self.transcripts.values())
        self._status.update(text((f"{'; '.join(doing)} · ${dollars:.4f}", "dim")))
