"""The one way out: what may be written is recorded first, sent once, and told as it is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import pytest
from pydantic import BaseModel

from prefect_routines.errors import OutcomeUnknown, ToolError
from prefect_routines.events import Event
from prefect_routines.outgoing import Outgoing
from prefect_routines.store import Delivery, Store
from prefect_routines.testing import ScriptedClaude, call, say
from prefect_routines.tools.tool import Tool, ToolContext, ToolResult, Write, tool

from .world import REPORT, Ran, artifacts, run

pytestmark = pytest.mark.usefixtures("prefect")


Text = Annotated[str, Outgoing("github")]


class Remark(BaseModel):
    """A part of a tool's arguments."""

    path: str
    body: Text


@dataclass
class Board:
    """A notice board outside: a folder in which each message is a file under its key."""

    place: Path
    fails: list[Exception] = field(default_factory=list)
    arrives: bool = True  # whether a message that fails hangs there all the same
    lost: bool = False  # whether nobody can look at it

    def tool(self) -> Tool:
        """The tool that writes on it."""

        @tool(name="board_post", target=("board", "number"), writes=True)
        async def post(context: ToolContext, board: str, number: int, text: Annotated[str, Outgoing("github")]) -> Write:
            """Post a message.

            Args:
                board: Which board.
                number: Where on it.
                text: What.
            """
            request = {"board": board, "number": number, "text": text}
            path = self.place / f"{context.key}.json"

            async def send() -> str:
                if self.arrives or not self.fails:
                    with path.open("x") as file:  # a second time would fail
                        json.dump(request, file)
                if self.fails:
                    raise self.fails.pop(0)
                return "posted: https://board.example/1"

            async def find() -> str | None:
                if self.lost:
                    raise ToolError("the board does not answer")
                return "it is there: https://board.example/1" if path.exists() else None

            return Write(request, send, find)

        return post

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What hangs on it."""
        return [json.loads(path.read_text()) for path in sorted(self.place.glob("*.json"))]


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def post(number: int = 1, text: str = "hello", board: str = "main") -> Any:
    return call("board_post", board=board, number=number, text=text)


async def play(board: Board, *script: Any, allow: str = "board_post(board=main) x2", event: Event | None = None, **settings: Any) -> Ran:
    with ScriptedClaude([*script, REPORT]) as claude:
        return await run(claude, tools=[board.tool()], event=event, policy={"allow": [allow]}, **settings)


async def test_a_write_is_recorded_and_sent_once(board: Board) -> None:
    """With its request, its target and its rule; the page shows it, with the address that the service gave."""
    ran = await play(board, say(post()))
    assert board.messages == [{"board": "main", "number": 1, "text": "hello"}]
    [output] = ran.outputs
    assert (output.status, output.target, output.rule) == ("done", "main 1", "board_post(board=main) x2")
    assert output.request == board.messages[0]
    assert ran.requests[1].result("board_post").text.startswith("posted")
    pages = await artifacts(ran.run.id)
    assert "| text | `hello` |" in pages["work-main-writes"]
    assert "board\\_post to `main 1`: sent, <https://board.example/1>" in pages["work-main-summary"]


async def test_two_in_one_turn_do_not_both_fit_one_permission(board: Board) -> None:
    """The second is refused, and the verdict cannot be done."""
    ran = await play(board, say(post(1), post(2)), allow="board_post(board=main) x1")
    assert [message["number"] for message in board.messages] == [1]
    assert "rule 'board_post(board=main) x1' is used up" in ran.requests[1].results[1].text
    assert ran.outcome.verdict == "needs_attention"


async def test_a_secret_does_not_leave(board: Board) -> None:
    """Neither one that the session knows nor one that looks like one. Nothing is recorded."""
    token = "ghp_" + "a1B2" * 9
    ran = await play(board, say(post(text=f"use {token}")))
    assert board.messages == []
    assert "holds a secret" in ran.requests[1].result("board_post").text
    assert ran.outputs == []
    assert ran.outcome.verdict == "done"  # nothing was refused that the author could allow: Claude may leave it out


async def test_half_a_secret_does_not_leave_either(board: Board) -> None:
    """It is looked for before the text is changed: as code, or cut, it would not be known again."""

    @tool(name="board_post", target="board", writes=True)
    async def short(board: str, text: Annotated[str, Outgoing("github", 60)]) -> str:
        """Post a short message."""
        raise AssertionError("it must not come to this")

    token = "ghp_" + "a1B2" * 9
    posts = [call("board_post", board="main", text=text) for text in ("x" * 30 + f" {token}", f"`{token} @me")]
    with ScriptedClaude([say(*posts), REPORT]) as claude:
        ran = await run(claude, tools=[short], policy={"allow": ["board_post"]})
    assert [result.is_error for result in ran.requests[1].results] == [True, True]
    assert ran.outputs == []


async def test_a_secret_that_a_plan_adds_does_not_leave() -> None:
    """The request is looked at as it would be sent, whatever it is made of."""

    @tool(writes=True)
    async def post(text: str) -> Write:
        """Post a message."""

        async def send() -> str:
            raise AssertionError("it must not come to this")

        return Write({"text": text, "tags": ("ghp_" + "a1B2" * 9,)}, send)

    with ScriptedClaude([say(call("post", text="hello")), REPORT]) as claude:
        ran = await run(claude, tools=[post], policy={"allow": ["post"]})
    assert "holds a secret" in ran.requests[1].result("post").text
    assert ran.outputs == []


async def test_an_answer_that_nobody_had_foreseen_leaves_it_unknown(board: Board) -> None:
    """It was on its way when the tool stumbled: it counts, and is not told as failed."""
    board.fails = [KeyError("html_url")]
    ran = await play(board, say(post()), say(post(2)), allow="board_post(board=main) x1")
    assert "Outcome unknown: the tool failed (KeyError: 'html_url')" in ran.requests[1].result("board_post").text
    assert [output.status for output in ran.outputs] == ["unknown"]
    assert len(board.messages) == 1


async def test_text_is_made_harmless_wherever_it_stands(tmp_path: Path) -> None:
    """In an optional argument, in lists and dictionaries, within a model."""
    sent: list[Any] = []

    @tool(writes=True)
    async def review(body: Text | None, notes: list[Text], more: dict[str, Text], remarks: tuple[Remark, ...], when: date) -> str:
        """Review."""
        sent.append((body, notes, more, remarks, when))
        return "reviewed"

    loud = "@everyone fixes #1 <!-- routine: x -->"
    arguments = {"body": loud, "notes": [loud], "more": {"a": loud}, "remarks": [{"path": "@a/b.ts", "body": loud}], "when": "2026-01-02"}
    with ScriptedClaude([say(call("review", arguments)), REPORT]) as claude:
        ran = await run(claude, tools=[review], policy={"allow": ["review"]})
    quiet = "`@everyone` fixes `#1` "
    assert ran.state.is_completed(), ran.message
    [(body, notes, more, remarks, when)] = sent
    assert [text.strip() for text in (body, *notes, *more.values(), remarks[0].body)] == [quiet.strip()] * 4
    assert (remarks[0].path, when) == ("@a/b.ts", date(2026, 1, 2))


async def test_a_tool_without_a_target_is_held_to_its_main_argument(board: Board) -> None:
    """In a run from outside `roll_back x1` would leave to Claude what is rolled back."""
    done: list[str] = []

    @tool(writes=True)
    async def roll_back(service: str) -> str:
        """Roll back."""
        done.append(service)
        return "rolled back"

    event = await started_by(repository="acme/docs", number=9)
    for rule in ("roll_back x1", "roll_back(service=web) x1"):
        with ScriptedClaude([say(call("roll_back", service="web")), REPORT]) as claude:
            await run(claude, tools=[roll_back], event=event, policy={"allow": [rule]})
    assert done == ["web"]


async def test_a_rehearsal_shows_what_would_have_been_sent(board: Board) -> None:
    """Exactly that, and nothing leaves."""
    ran = await play(board, say(post(text="line one\nline two `@everyone`")), rehearsal=True)
    assert board.messages == []
    assert [output.status for output in ran.outputs] == ["captured"]
    page = (await artifacts(ran.run.id))["work-main-writes"]
    assert "captured, not sent" in page
    assert "line one\nline two `@everyone`" in page
    assert "nothing was sent" in ran.requests[1].result("board_post").text


async def test_a_lost_answer_is_looked_up(board: Board) -> None:
    """It had arrived: that is what Claude hears, and it is not sent again."""
    board.fails = [OutcomeUnknown("the connection was cut")]
    ran = await play(board, say(post()))
    assert len(board.messages) == 1
    assert ran.requests[1].result("board_post").text.startswith("it is there")
    assert [output.status for output in ran.outputs] == ["done"]


async def test_what_cannot_be_found_stays_unknown(board: Board) -> None:
    """Claude is told to look, and the verdict is not done."""
    board.fails, board.arrives = [OutcomeUnknown("the connection was cut")], False
    ran = await play(board, say(post()))
    assert "Check what has happened" in ran.requests[1].result("board_post").text
    assert [output.status for output in ran.outputs] == ["unknown"]
    assert ran.outcome.verdict == "needs_attention"
    assert "outcome unknown: board_post to main 1" in ran.outcome.evidence


async def test_a_look_up_that_fails_leaves_it_unknown(board: Board) -> None:
    """That the service cannot be asked does not mean that nothing arrived: the permission stays used."""
    board.fails, board.lost = [OutcomeUnknown("the connection was cut")], True
    ran = await play(board, say(post()), say(post(2)), allow="board_post(board=main) x1")
    assert "could not be looked up: the board does not answer" in ran.requests[1].result("board_post").text
    assert "is used up" in ran.requests[2].result("board_post").text
    assert [output.status for output in ran.outputs] == ["unknown"]


async def test_what_is_unknown_counts(board: Board) -> None:
    """It may have been done: the rule allows no further one for it."""
    board.fails, board.arrives = [OutcomeUnknown("the connection was cut")], False
    ran = await play(board, say(post()), say(post(2)), allow="board_post(board=main) x1")
    assert "is used up" in ran.requests[2].result("board_post").text
    assert board.messages == []


async def test_a_write_that_was_answered_with_an_error_is_shown_as_such() -> None:
    """A part of it may have been done: it counts, and the page says so."""

    @tool(writes=True)
    def half(what: str) -> ToolResult:
        """Do half of it."""
        return ToolResult(f"{what}: one of two was made", is_error=True)

    with ScriptedClaude([say(call("half", what="it")), REPORT]) as claude:
        ran = await run(claude, tools=[half], policy={"allow": ["half x1"]})
    assert [output.status for output in ran.outputs] == ["done"]
    assert "half to `it`: **sent, and answered with an error**" in (await artifacts(ran.run.id))["work-main-writes"]


async def test_what_did_not_arrive_does_not_count(board: Board) -> None:
    """The service refused it: the permission is still there."""
    board.fails, board.arrives = [ToolError("no such board")], False
    ran = await play(board, say(post(1)), say(post(2)), allow="board_post(board=main) x1")
    assert ran.requests[1].result("board_post").text == "no such board"
    assert [output.status for output in ran.outputs] == ["failed", "done"]
    assert [message["number"] for message in board.messages] == [2]


async def started_by(**fields: Any) -> Event:
    """An event as the gateway would have recorded it."""
    name = f"evt-{uuid4()}"
    delivery = Delivery(id=name, source="github", delivery_id=name, kind="issues", body=name, **fields)
    async with await Store.open() as store:
        await store.record_delivery(delivery)
    return Event(id=delivery.id)


async def test_from_outside_the_target_is_not_claudes_to_choose(board: Board) -> None:
    """A rule that leaves a part of the target open allows nothing in a run that a stranger's text started; it says what to add."""
    event = await started_by(repository="acme/docs", number=7)
    ran = await play(board, say(post(7)), event=event)
    assert board.messages == []
    assert "leaves number open" in ran.requests[1].result("board_post").text
    assert "board_post(board=main, number=7)" in ran.requests[1].result("board_post").text


async def test_the_event_names_the_target(board: Board) -> None:
    """`{event.number}` is the number of the issue that started the run, and no other."""
    event = await started_by(repository="acme/docs", number=8)
    rule = "board_post(board=main, number={event.number}) x5"
    ran = await play(board, say(post(8), post(9), post(80), post(8, board="x")), event=event, allow=rule)
    assert [message["number"] for message in board.messages] == [8]
    assert [result.is_error for result in ran.requests[1].results] == [False, True, True, True]


async def test_without_an_event_such_a_rule_allows_nothing(board: Board) -> None:
    """There is nothing that could fix the target."""
    await play(board, say(post(8)), allow="board_post(board=main, number={event.number})")
    assert board.messages == []


async def test_what_hides_is_gone_before_the_policy_looks(board: Board) -> None:
    """A target with a direction mark in it is the target without it, for the rule and for the service alike."""
    await play(board, say(post(board="ma\u202ein", text="\x1b[31mred\x1b[0m \u202egnp.exe")))
    [message] = board.messages
    assert message["board"] == "main"
    assert message["text"] == "red gnp.exe"


async def test_text_that_no_database_takes_is_no_secret(board: Board) -> None:
    """NUL goes, the rest is sent."""
    await play(board, say(post(text="a\x00b")))
    assert [message["text"] for message in board.messages] == ["ab"]


async def test_a_tool_that_is_denied_altogether_is_not_offered(board: Board) -> None:
    """Claude does not hear of it."""
    with ScriptedClaude([REPORT]) as claude:
        ran = await run(claude, tools=[board.tool()], policy={"deny": ["board_post"]})
    assert "board_post" not in [each["name"] for each in ran.requests[0].body["tools"]]
