"""Budgets: checked before each request, an orderly end, and nothing after it."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_routines.testing import Request, ScriptedClaude, attempts, call, cut, say
from prefect_routines.tools.tool import tool

from .world import run

pytestmark = pytest.mark.usefixtures("prefect")


def working(request: Request) -> list[Any]:
    """A Claude that never ends."""
    return [say("On and on.", call("bash", command="echo step >> log; wc -l < log"))] * 50


@pytest.mark.parametrize(
    ("budget", "requests", "says"),
    [
        ({"turns": 2}, 2, "The budget of 2 turns is used up"),
        ({"tokens": 1}, 1, "The budget of 1 tokens is used up"),
        ({"dollars": 0.000001}, 1, "The budget of $0.00 is used up"),
        ({"turns": 1, "tokens": 10**9, "dollars": 1000}, 1, "The budget of 1 turns is used up"),
    ],
)
async def test_a_budget_ends_the_session(budget: dict[str, Any], requests: int, says: str) -> None:
    """After the calls of the last reply were made and answered; with what was done; not as done."""
    with ScriptedClaude(working) as claude:
        ran = await run(claude, budget=budget)
    assert ran.state.is_failed()
    assert ran.outcome.verdict == "needs_attention"
    assert says in ran.message
    assert "Nothing was pushed" in ran.outcome.summary
    assert len(ran.requests) == requests
    assert len(ran.entries("tool.result")) == requests


async def test_minutes_end_the_session() -> None:
    """Wall time: of the tools, too."""
    with ScriptedClaude([say(call("bash", command="sleep 0.7"))] * 3) as claude:
        ran = await run(claude, budget={"minutes": 0.01})
    assert ran.outcome.verdict == "needs_attention"
    assert "The budget of 0.01 minutes is used up" in ran.message
    assert len(ran.requests) == 1


async def test_broken_attempts_count() -> None:
    """What they had used was billed: a service that breaks off for ever cannot spend for ever."""
    with ScriptedClaude([attempts(cut(after=4), say(call("bash", command="true"))), *working(None)]) as claude:  # type: ignore[arg-type]
        whole = await run(claude, budget={"turns": 1})
    [failed], [reply] = whole.entries("turn.failed"), whole.entries("agent.message")
    with ScriptedClaude([attempts(cut(after=4), say(call("bash", command="true"))), *working(None)]) as claude:  # type: ignore[arg-type]
        ran = await run(claude, budget={"dollars": failed["dollars"] + reply["dollars"] / 2})
    assert len(ran.requests) == 2
    assert "is used up" in ran.message


async def test_a_report_in_the_last_turn_counts() -> None:
    """The budget is looked at before a request, not after a reply."""
    with ScriptedClaude([say(call("bash", command="true")), say(call("report", verdict="nothing_to_do", summary="Nothing."))]) as claude:
        ran = await run(claude, budget={"turns": 2})
    assert ran.state.is_completed()


async def test_many_calls_of_one_reply_are_one_turn() -> None:
    """Calls cost no turn."""

    @tool(idempotent=True)
    def one(number: int) -> str:
        """Count.

        Args:
            number: Which.
        """
        return str(number)

    with ScriptedClaude(lambda request: [say(*(call("one", number=i) for i in range(20)))] * 2) as claude:
        ran = await run(claude, tools=[one], budget={"turns": 1})
    assert len(ran.entries("tool.result")) == 20
    assert ran.outcome.turns == 1


async def test_the_budget_holds_between_the_attempts_of_one_turn() -> None:
    """No second attempt is made with money that the first one has spent."""
    with ScriptedClaude([attempts(cut(after=4))]) as claude:
        ran = await run(claude, budget={"dollars": 0.000001})
    assert ran.outcome.verdict == "needs_attention"
    assert "is used up" in ran.message
    assert len(ran.requests) == 1
