"""One reply after another: calls and their results, every stop reason, and how a session ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import pytest
from prefect import flow

from prefect_routines import Outcome, Routine, Session, Settings
from prefect_routines.errors import SandboxLost
from prefect_routines.testing import Request, ScriptedClaude, attempts, block, call, event, say, think
from prefect_routines.tools.tool import tool

from .world import NOTHING, REPORT, is_continued, run

pytestmark = pytest.mark.usefixtures("prefect")


class Meeting:
    """A tool whose calls each wait until that many are under way."""

    def __init__(self, size: int) -> None:
        self.size, self.here, self.all_here = size, 0, asyncio.Event()

        @tool(idempotent=True)
        async def meet(name: str) -> str:
            """Wait for the others.

            Args:
                name: Who comes.
            """
            self.here += 1
            if self.here == self.size:
                self.all_here.set()
            await self.all_here.wait()
            return f"{name} met the others"

        self.tool = meet


@tool
async def fall(how: str) -> str:
    """Fail.

    Args:
        how: In which way.
    """
    raise ValueError(f"fell {how}")


async def test_calls_of_one_reply_run_side_by_side() -> None:
    """Each waits for the others, so one after the other they would never end; the results come in Claude's order."""
    meeting = Meeting(4)
    names = ["d", "a", "c", "b"]
    with ScriptedClaude([say("All at once.", *(call("meet", name=name) for name in names)), NOTHING]) as claude:
        ran = await run(claude, tools=[meeting.tool], deadlines={"tool": 5})
    assert [result.text for result in ran.requests[1].results] == [f"{name} met the others" for name in names]
    assert [result.is_error for result in ran.requests[1].results] == [False] * 4
    assert ran.outcome.verdict == "nothing_to_do"


async def test_every_call_is_answered_whatever_becomes_of_it() -> None:
    """A good one, one that raises, one of an unknown tool, one whose arguments do not fit: in order, failures marked."""
    calls = [
        call("bash", command="echo fine"),
        call("fall", how="down"),
        call("teleport", to="Mars"),
        call("bash", comand="ls"),
        call("read", path="nowhere.txt"),
        call("glob", pattern="*", path="/workspace"),
    ]
    with ScriptedClaude([say(*calls), NOTHING]) as claude:
        ran = await run(claude, tools=[fall])
    results = ran.requests[1].results
    assert [result.name for result in results] == ["bash", "fall", "teleport", "bash", "read", "glob"]
    assert [result.is_error for result in results] == [False, True, True, True, True, False]
    assert results[0].text == "fine"
    assert "ValueError: fell down" in results[1].text
    assert "There is no tool 'teleport'" in results[2].text
    assert "bash" in results[2].text
    assert "command: Field required" in results[3].text
    assert "comand: Extra inputs are not permitted" in results[3].text
    assert len(ran.entries("tool.result")) == 7


@pytest.mark.parametrize("input", ['{"command": "touch x"', '{"command": "touch x', '["touch x"]', '"touch x"', "{]", "null"])
async def test_malformed_input_is_never_executed(input: str) -> None:
    """JSON that is cut, broken or no object: the SDK would complete some of it. The reply is asked for again."""
    script = [attempts(say(call("bash", input)), say(call("bash", command="ls"))), NOTHING]
    with ScriptedClaude(script) as claude:
        ran = await run(claude)
    assert ran.state.is_completed()
    assert "malformed" in ran.entries("turn.failed")[0]["error"]
    assert ran.entries("turn.failed")[0]["dollars"] > 0
    assert ran.requests[2].result("bash").text == "[no output]"


async def test_two_calls_with_one_id_are_not_executed() -> None:
    """Their results could not be told apart; the reply is asked for again."""
    twice = say(call("bash", command="touch /workspace/x").with_id("toolu_1"), call("bash", command="ls").with_id("toolu_1"))
    with ScriptedClaude([attempts(twice, say(call("bash", command="ls"))), NOTHING]) as claude:
        ran = await run(claude)
    assert ran.state.is_completed()
    assert ran.entries("turn.failed")[0]["error"] == "Claude's reply used one tool id twice"
    assert ran.requests[2].results[0].text == "[no output]"


async def test_a_reply_that_was_cut_off_executes_nothing() -> None:
    """`max_tokens` in the middle of a call: even calls that look whole are answered as not run."""
    script = [
        say(call("bash", command="touch /workspace/ran"), call("bash", '{"command": "rm -r'), stop_reason="max_tokens"),
        say(call("bash", command="ls /workspace")),
        NOTHING,
    ]
    with ScriptedClaude(script) as claude:
        ran = await run(claude)
    assert all(result.is_error and "cut off" in result.text for result in ran.requests[1].results)
    assert len(ran.requests[1].results) == 2
    assert ran.requests[2].result("bash").text == "[no output]"
    assert len(ran.entries("tool.start")) == 2


async def test_text_that_was_cut_off_is_continued() -> None:
    """`max_tokens` without a call: Claude is told, and goes on."""
    with ScriptedClaude([say("And then and then", stop_reason="max_tokens"), NOTHING]) as claude:
        ran = await run(claude)
    assert "cut off at its length limit" in ran.requests[1].text
    assert ran.state.is_completed()


async def test_a_refusal_ends_the_session() -> None:
    """With its category; nothing more is asked, and no call in the reply is executed."""
    details = {"type": "refusal", "category": "cyber", "explanation": "no"}
    with ScriptedClaude([say("No.", stop_reason="refusal", stop_details=details)]) as claude:
        ran = await run(claude)
    assert ran.state.is_failed()
    assert (ran.outcome.verdict, len(ran.requests)) == ("failed", 1)
    assert "Claude declined to go on (cyber)" in ran.message


async def test_a_refusal_in_the_middle_of_a_call_executes_nothing() -> None:
    """The reply is not whole."""
    with ScriptedClaude([say("Hm", call("bash", command="touch /workspace/x"), stop_reason="refusal")]) as claude:
        ran = await run(claude)
    assert ran.entries("tool.start") == []
    assert ran.outcome.verdict == "failed"
    assert len(ran.requests) == 1


async def test_a_paused_turn_is_sent_back_as_it_stands() -> None:
    """`pause_turn`: no word is added, and the rest joins the same message."""
    search = block({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "prefect"}})
    with ScriptedClaude([say("I search.", search, stop_reason="pause_turn"), NOTHING]) as claude:
        ran = await run(claude)
    assert [message["role"] for message in ran.requests[1].messages] == ["user", "assistant"]
    assert ran.state.is_completed()


async def test_a_full_window_is_compacted() -> None:
    """`model_context_window_exceeded`: the conversation is summarised and goes on."""
    with ScriptedClaude([say("So much", stop_reason="model_context_window_exceeded"), NOTHING]) as claude:
        ran = await run(claude)
    assert ran.state.is_completed(), ran.message
    assert len(ran.entries("session.compacted")) == 1


async def test_an_end_without_a_report_is_asked_about() -> None:
    """An `end_turn`, empty or not, is no verdict."""
    with ScriptedClaude([say("All done, I think."), attempts(say(thinking=False), NOTHING)]) as claude:
        ran = await run(claude)
    assert ran.requests[1].text.count("call `report`") == 1
    assert ran.requests[2].text.count("call `report`") == 2
    assert ran.state.is_completed()


@pytest.mark.parametrize("words", [("Still thinking.",), ()])
async def test_endless_ends_need_attention(words: tuple[str, ...]) -> None:
    """After a few questions the session ends by itself, and not as done."""

    def script(request: Request) -> list[Any]:
        return [say(*words, thinking=bool(words))] * 20

    with ScriptedClaude(script) as claude:
        ran = await run(claude)
    assert ran.state.is_failed()
    assert ran.outcome.verdict == "needs_attention"
    assert "stopped without reporting" in ran.message
    assert len(ran.requests) == 3


async def test_thinking_and_unknown_blocks_come_back_unchanged() -> None:
    """Signed thinking, blocks and events of kinds that do not exist yet, and 1.0 that stays 1.0."""
    odd = {"type": "sketch", "lines": [1.0, {"z": 1, "a": 2}]}
    script = [
        say(
            think("Let me see."),
            "Look.",
            block(odd),
            event({"type": "weather", "sky": "blue"}),
            call("bash", {"timeout": 5.0, "command": "true"}),
        ),
        say(think("Fine."), call("bash", command="true")),
        NOTHING,
    ]
    with ScriptedClaude(script) as claude:
        ran = await run(claude)
    assert ran.state.is_completed()
    assert is_continued(ran.requests)
    [reply] = [message for message in ran.requests[1].messages if message["role"] == "assistant"]
    assert [part["type"] for part in reply["content"]] == ["thinking", "text", "sketch", "tool_use"]
    assert list(reply["content"][2]["lines"][1]) == ["z", "a"]
    assert b'"timeout": 5.0' in ran.requests[1].raw or b'"timeout":5.0' in ran.requests[1].raw


async def test_calls_that_must_be_alone_keep_claudes_order() -> None:
    """Writes and edits of one reply happen one after the other, reads between them see what they should."""
    script = [
        say(
            call("write", path="a.txt", content="one"),
            call("read", path="a.txt"),
            call("edit", path="a.txt", old_string="one", new_string="two"),
            call("read", path="a.txt"),
            call("edit", path="a.txt", old_string="two", new_string="three"),
            call("bash", command="cat a.txt"),
        ),
        NOTHING,
    ]
    with ScriptedClaude(script) as claude:
        ran = await run(claude)
    results = ran.requests[1].results
    assert [result.is_error for result in results] == [False] * 6
    assert "one" in results[1].text
    assert "two" in results[3].text
    assert results[5].text == "three"


async def test_a_call_that_must_be_alone_is_waited_for() -> None:
    """What comes behind it begins when it has ended, however long that takes."""
    behind = asyncio.Event()
    seen: list[bool] = []

    @tool(alone=True, idempotent=True)
    async def first() -> str:
        """Wait for the other one, in vain."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(behind.wait(), 0.5)
        seen.append(behind.is_set())
        return "first"

    @tool(idempotent=True)
    async def second() -> str:
        """Come behind."""
        behind.set()
        return "second"

    with ScriptedClaude([say(call("first"), call("second")), NOTHING]) as claude:
        await run(claude, tools=[first, second])
    assert seen == [False]


async def test_a_call_that_takes_too_long_is_stopped() -> None:
    """Its deadline passes; Claude hears of it and goes on."""

    @tool
    async def wait_for_ever() -> str:
        """Wait."""
        await asyncio.Event().wait()
        return ""

    with ScriptedClaude([say(call("wait_for_ever")), NOTHING]) as claude:
        ran = await run(claude, tools=[wait_for_ever], deadlines={"tool": 0.2})
    [result] = ran.requests[1].results
    assert result.is_error
    assert "longer than 0.2 s" in result.text


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_call_that_was_interrupted(idempotent: bool) -> None:
    """The machinery breaks in the middle of it and the run is retried: it is made again only if it says that this is fine."""
    made: list[str] = []

    @tool(idempotent=idempotent)
    def launch(rocket: str) -> str:
        """Launch.

        Args:
            rocket: Which.
        """
        made.append(rocket)
        if len(made) == 1:
            raise SandboxLost("the sandbox was killed")
        return "launched"

    def work() -> str:
        return "Launch it."

    flow = Routine(work, settings=Settings(), tools=[launch], retries=1)
    with ScriptedClaude([say(call("launch", rocket="Vega")), NOTHING]) as claude:
        os.environ.update(claude.environment())
        state = await flow(return_state=True)  # type: ignore[misc]  # Prefect types what an async flow returns as its value
    assert state.is_completed(), state.message
    [result] = claude.requests[1].results
    assert made == ["Vega"] * (2 if idempotent else 1)
    assert result.is_error is not idempotent
    assert result.text == "launched" if idempotent else "outcome is unknown" in result.text
    assert len(claude.requests) == 2


async def test_a_report_beside_other_calls_ends_the_session_after_them() -> None:
    """All of the reply is answered, nothing more is asked."""
    report = call("report", verdict="nothing_to_do", summary="Nothing.")
    with ScriptedClaude([say(call("bash", command="echo 1"), report, call("bash", command="echo 2"))]) as claude:
        ran = await run(claude)
    assert ran.outcome.verdict == "nothing_to_do"
    assert len(ran.entries("tool.result")) == 3
    assert len(ran.requests) == 1


async def test_the_final_state_tells_the_verdict() -> None:
    """Green is Completed; the first sentence of the summary is in the state's message."""
    with ScriptedClaude([REPORT]) as claude:
        ran = await run(claude)
    assert ran.state.is_completed()
    assert ran.message == "done: All is done. And well."
    assert ran.outcome.turns == 1
    assert ran.outcome.dollars == pytest.approx(ran.spent.dollars, abs=1e-5)


async def test_a_follow_up_after_a_refusal_is_asked() -> None:
    """The refusal ended one piece of work, not the session."""
    ended: list[Outcome] = []

    @flow
    async def two() -> None:
        async with Session("main", Settings()) as session:
            ended.append(await session.run("First."))
            ended.append(await session.run("Second."))

    with ScriptedClaude([say("No.", stop_reason="refusal"), NOTHING]) as claude:
        os.environ.update(claude.environment())
        await two()
    assert [outcome.verdict for outcome in ended] == ["failed", "nothing_to_do"]
