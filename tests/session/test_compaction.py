"""Room is made near the end of the window: a summary of the service's own, on demand, between turns."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_routines.testing import Request, ScriptedClaude, call, cut, fail, say
from prefect_routines.testing.models import Model

from .world import NOTHING, PROMPT, REPORT, Ran, run

pytestmark = pytest.mark.usefixtures("prefect")

FULL = {"input_tokens": 700_000}  # of a window of a million
LOOK = call("bash", command="echo looked")


def compactions(ran: Ran) -> list[Request]:
    return [request for request in ran.requests if request.body.get("compaction")]


async def test_a_conversation_near_its_end_is_summarised() -> None:
    """After the calls are answered, never before; it goes on from the summary, with the task repeated in the author's words."""
    with ScriptedClaude([say(LOOK, LOOK, usage=FULL), REPORT], summary="We looked.") as claude:
        ran = await run(claude)
    assert ran.state.is_completed(), ran.message
    assert [bool(request.body.get("compaction")) for request in ran.requests] == [False, True, False]
    asked, after = ran.requests[1], ran.requests[2]
    assert [result.text for result in asked.results] == ["looked", "looked"]
    assert [part["type"] for part in after.messages[0]["content"]] == ["compaction"]
    assert after.messages[0]["content"][0]["content"] == "We looked."
    assert PROMPT in after.text
    assert "compact-2026-09-04" in asked.betas & after.betas


async def test_the_journal_keeps_what_was_summarised() -> None:
    """And the summary is paid for like any turn."""
    with ScriptedClaude([say(LOOK, usage=FULL), REPORT]) as claude:
        ran = await run(claude)
    [summary] = ran.entries("session.compacted")
    assert summary["dollars"] > 0
    assert ran.kinds.index("tool.result") < ran.kinds.index("session.compacted")
    assert ran.transcript.dollars == pytest.approx(summary["dollars"] + sum(reply["dollars"] for reply in ran.entries("agent.message")))
    assert ran.spent.dollars == pytest.approx(ran.transcript.dollars, abs=5e-6)


async def test_a_conversation_far_from_its_end_is_left_alone() -> None:
    """A summary loses detail and costs: none without need."""
    with ScriptedClaude([say(LOOK, usage={"input_tokens": 600_000}), NOTHING]) as claude:
        ran = await run(claude)
    assert compactions(ran) == []


async def test_it_is_summarised_again_when_it_has_grown_again() -> None:
    """The window is watched anew after each summary."""
    with ScriptedClaude([say(LOOK, usage=FULL), say(LOOK, usage=FULL), NOTHING]) as claude:
        ran = await run(claude)
    assert ran.state.is_completed(), ran.message
    assert len(compactions(ran)) == 2


async def test_the_window_is_that_of_the_model() -> None:
    """As the service tells it: a smaller model is summarised sooner."""
    with ScriptedClaude([say(LOOK, usage={"input_tokens": 150_000}), NOTHING], models=["claude-small-1"]) as claude:
        claude._models["claude-small-1"] = Model("claude-small-1", context=200_000)
        ran = await run(claude, model="claude-small-1")
    assert ran.state.is_completed(), ran.message
    assert len(compactions(ran)) == 1


async def test_no_summary_fails_with_the_cause() -> None:
    """Nothing is lost: the journal has it all, and the run says what to do."""
    with ScriptedClaude([say(LOOK, usage=FULL), NOTHING], summary=None) as claude:
        ran = await run(claude)
    assert ran.state.is_failed()
    assert "no summary" in ran.message
    assert ran.entries("session.compacted") == []


@pytest.mark.parametrize("outcome", [cut(after=1), fail(529, retry_after_ms=1)])
async def test_a_summary_is_tried_again_like_any_turn(outcome: Any) -> None:
    """It may break off, too."""
    answers = [outcome, "We looked."]
    with ScriptedClaude([say(LOOK, usage=FULL), NOTHING], summary=lambda request: answers.pop(0)) as claude:
        ran = await run(claude)
    assert ran.state.is_completed(), ran.message
    assert len(compactions(ran)) == 2
    assert len(ran.entries("turn.failed")) == 1


async def test_what_not_even_fits_for_a_summary_fails_with_the_cause() -> None:
    """The very request for it is too long."""
    with ScriptedClaude([say(LOOK, usage=FULL), NOTHING], summary=lambda request: fail(413)) as claude:
        ran = await run(claude)
    assert ran.state.is_failed()
    assert "not even a summary fits" in ran.message
