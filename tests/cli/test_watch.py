"""`routines watch` and the terminal of `routines run`: what is shown while it is written, and what is typed meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from prefect_routines.redaction import Redactor
from prefect_routines.session.live import LiveText
from prefect_routines.store import Lease, Store
from prefect_routines.testing import ScriptedClaude, call, say
from prefect_routines.testing.api import Scripts
from waiting import until_async

from .sessions_by_hand import Home, a_call, result, turn, verdict, waits
from .terminal import Terminal
from .tty import Typist, screen

SESSION = "ses-aa11"
StartClaude = Callable[[Scripts], ScriptedClaude]
Sit = Callable[..., Typist]
FIRST = "I look at the documentation first, all of it, and then at the code that it describes, which has changed since. "
SECOND = "Then I write.\n\n- one\n- two"


@pytest.fixture
def home(terminal: Terminal) -> Home:
    """The store of the terminal."""
    return Home(terminal.directory / "home")


@pytest.fixture
def sit(terminal: Terminal) -> Iterator[Sit]:
    """Sit down at a terminal and give a command."""
    seated: list[Typist] = []

    def down(*arguments: str, **environment: str) -> Typist:
        seated.append(Typist(terminal.directory, {**terminal.environment, **environment}, *arguments))
        return seated[-1]

    yield down
    for typist in seated:
        typist.stop()


class Acting:
    """A session at work, played by the test: what it journals and writes is what a real one does."""

    def __init__(self, store: Store, lease: Lease) -> None:
        self.store, self.lease = store, lease
        self.live = LiveText(store, lease, lambda: Redactor(()))

    async def record(self, *entries: tuple[str, dict[str, Any]]) -> None:
        """Journal."""
        await self.store.append(self.lease, entries)

    async def watched(self) -> None:
        """Wait until somebody watches."""
        await until_async(self._pulse)

    async def _pulse(self) -> bool:
        self.live.watched = (await self.store.pulse(self.lease.session_id)).watched
        return self.live.watched

    async def end(self, word: Any = "done") -> None:
        """Come to a verdict."""
        await self.record(verdict(word))
        await self.store.update_session(self.lease, status="ended", verdict=word)
        await self.live.close()


@asynccontextmanager
async def acting(home: Home, **record: Any) -> AsyncIterator[Acting]:
    """Play a session."""
    async with home.at_work(SESSION, **record) as (store, lease):
        act = Acting(store, lease)
        await act.record(
            ("session.status_running", {"flow_run": "r", "again": False, "budget": {"turns": 9, "dollars": 2.5}}),
            ("user.message", {"prompt": 1, "content": [{"type": "text", "text": "Bring it up to date."}]}),
        )
        yield act


async def test_text_is_shown_while_it_is_written_and_once(home: Home, sit: Sit) -> None:
    """A watcher on a terminal and one in a pipe both see the beginning before the end is written, and nothing twice."""
    async with acting(home) as act:
        typist = sit("watch", SESSION)
        await act.record(("turn.start", {"turn": 1, "attempt": 1, "reserved": 0.1}))
        act.live.begin(1)
        act.live.feed(FIRST)
        await act.watched()
        await asyncio.to_thread(typist.until, "I look at the documentation first")
        await asyncio.to_thread(typist.until, "Claude is replying")
        act.live.feed(SECOND)
        act.live.end()
        await act.record(turn(1, FIRST + SECOND, ("bash", {"command": "ls \x1b[2J"})), result(1, 0, "bash"))
        await asyncio.to_thread(typist.until, "0.25 s  bash: ls \\x1b[2J")
        await act.record(turn(2, "That was all."))
        await act.end()
        status = await asyncio.to_thread(typist.end)
    shown = typist.shown
    assert status == 0, shown
    assert "\x1b[2J" not in typist.raw
    for words in ("Bring it up to date.", "I look at the documentation", "- two", "That was all.", "✓ done"):
        assert shown.count(words) == 1, shown
    assert "Claude is replying" not in shown, "the last rows go"
    words = " ".join(shown.split())
    assert " ".join((FIRST + SECOND).split()) in words, "all of it, wrapped between words"
    assert max(map(len, shown.splitlines())) <= 90


async def test_a_line_is_typed_while_output_streams(home: Home, sit: Sit) -> None:
    """It stays together whatever is printed above it; Enter sends it, and it shows when the session takes it."""
    async with acting(home) as act:
        typist = sit("watch", SESSION, "--last", "0")
        await act.watched()
        typist.type("There is a pul")
        for number in range(1, 5):
            await act.record(turn(number, f"This is turn {number}."))
        await asyncio.to_thread(typist.until, "This is turn 4.")
        shown = await asyncio.to_thread(typist.until, "› There is a pul")
        assert "Bring it up to date" not in shown
        typist.type("x\x7fl request already.\r")
        acts = await until_async(lambda: act.store.acts(SESSION))
        assert [(one.kind, one.text, one.via) for one in acts] == [("message", "There is a pull request already.", "cli")]
        message = {"content": [{"type": "text", "text": f"[Message from {acts[0].person}]\n{acts[0].text}"}], "by": "ada", "via": "cli"}
        await act.record(("user.message", message))
        await asyncio.to_thread(typist.until, "ada (cli) There is a pull request already.")
        await act.end("nothing_to_do")
        assert await asyncio.to_thread(typist.end) == 0


async def test_a_form_is_answered_where_it_is_shown(home: Home, sit: Sit) -> None:
    """All arguments, hidden characters visible, nothing cut; a letter and Enter decide; who decided is shown."""
    async with acting(home) as act:
        typist = sit("watch", SESSION)
        await act.watched()
        body = "\n".join(["A hidden \u202e one.", *(f"Line {number}." for number in range(30))])
        form = await waits(act.store, act.lease, calls=[a_call(7, body=body)], questions=[{"id": "q", "question": "Sure?", "choices": []}])
        shown = await asyncio.to_thread(typist.until, "Sure?")
        for words in (
            "waits for approval",
            "github_comment → acme/docs#7",
            "A hidden \\u202e one.",
            "Line 0.",
            "Line 29.",
            "repository: acme/docs",
        ):
            assert words in shown
        assert "\u202e" not in typist.raw
        await asyncio.to_thread(typist.until, "a: approve")
        typist.type("a\r")
        await asyncio.to_thread(typist.until, "your answer")
        typist.type("quite sure\r")

        async def answered() -> Any:
            found = await act.store.form(form.id)
            return found if found and found.status == "answered" else None

        now = await until_async(answered)
        assert now.answer["decisions"]["toolu_7"]["decision"] == "approve"
        assert now.answer["replies"] == {"q": "quite sure"}
        await act.record(
            (
                "form.answered",
                {
                    "form": form.id,
                    "key": form.key,
                    "kind": form.kind,
                    "answer": now.answer,
                    "person": "ada",
                    "via": "page",
                    "status": "answered",
                },
            )
        )
        await asyncio.to_thread(typist.until, "ada (page) approved github_comment: acme/docs#7")
        await act.end()
        assert await asyncio.to_thread(typist.end) == 0


async def test_ctrl_c_asks_what_is_meant(home: Home, sit: Sit) -> None:
    """Interrupt sends one and the watch goes on; detach leaves the session alone; the terminal is given back as it was."""
    async with acting(home) as act:
        typist = sit("watch", SESSION)
        await act.watched()
        await asyncio.to_thread(typist.until, "type a message")
        typist.type("\x03")
        await asyncio.to_thread(typist.until, "[i]nterrupt")
        typist.type("i")
        acts = await until_async(lambda: act.store.acts(SESSION))
        assert [one.kind for one in acts] == ["interrupt"]
        await act.record(("turn.interrupted", {"turn": 1, "attempt": 1, "text": "", "person": "ada", "via": "cli"}))
        await asyncio.to_thread(typist.until, "interrupted by ada (cli)")
        typist.type("\x03")
        await asyncio.to_thread(typist.until, "[d]etach")
        typist.type("d")
        assert await asyncio.to_thread(typist.end) == 0
        assert "Attach again with: routines watch" in typist.shown
        assert len(await act.store.acts(SESSION)) == 1


async def test_several_watch_one_session_and_programs_read_it(home: Home, terminal: Terminal) -> None:
    """In a pipe it follows to the end, with the verdict as exit status; --json is one object per entry; a past session is just shown."""
    async with acting(home) as act:
        watchers = [terminal.start("watch", SESSION), terminal.start("watch", SESSION, "--json")]
        await act.watched()
        await act.record(turn(1, "Something \x1b[31m else."))
        await act.end("needs_attention")
        (plain, _), (lines, _) = [await asyncio.to_thread(watcher.communicate, timeout=100) for watcher in watchers]
    assert [watcher.returncode for watcher in watchers] == [1, 1]
    assert "Something \\x1b[31m else." in plain
    assert "\x1b" not in plain + lines
    entries = [json.loads(line) for line in lines.splitlines()]
    assert [entry["kind"] for entry in entries] == ["session.status_running", "user.message", "agent.message", "session.verdict"]
    assert [entry["seq"] for entry in entries] == [1, 2, 3, 4]
    past = await asyncio.to_thread(terminal.run, "watch", SESSION, "--last", "2")
    assert past.status == 1
    assert "2 earlier entries" in past.out
    assert "Bring it up to date" not in past.out
    assert "needs attention" in past.out


def test_a_real_session_is_watched_and_told_while_it_streams(online: Terminal, claude: StartClaude, ask: str, sit: Sit) -> None:
    """`routines run` on a terminal streams; `routines watch` sees the same; a line typed there is in the next request."""
    script = claude(
        [
            say(*[f"{FIRST}And here it goes on. " * 3], call("bash", command="true"), delay=0.5),
            lambda request: say(f"You said: {'STOP' if 'please stop' in request.text else 'nothing'}.", call("bash", command="true")),
            say(call("report", verdict="done", summary="It was done.")),
        ]
    )
    running = sit("run", ask, "--param", "prompt=Look around", **script.environment())
    shown = running.until("Session ses-", 120)
    flow_run_name = shown.splitlines()[0].partition(" · ")[2]
    watching = sit("watch", flow_run_name)
    running.until("I look at the documentation", 120)
    watching.until("I look at the documentation", 120)
    assert "It was done" not in watching.shown
    watching.until("type a message")
    watching.type("please stop\r")
    watching.until("✓ done", 120)
    assert (watching.end(), running.end()) == (0, 0)
    for shown in (watching.shown, running.shown):
        assert "You said: STOP." in shown, shown
        assert " ".join(shown.split()).count("I look at the documentation first") == 3, shown
        assert "(cli) please stop" in shown
    assert [len(request.results) for request in script.requests[1:]] == [1, 1]


def test_the_terminal_of_the_tests_shows_what_a_terminal_does() -> None:
    """Rows are drawn over and erased."""
    assert screen("one\r\ntwo\r\x1b[2K\x1b[1A\x1b[2Kthree\r\n") == "three\n"
