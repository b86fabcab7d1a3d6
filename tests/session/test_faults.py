"""Streams that break, services that are busy, requests that are refused: nothing is lost, nothing is done twice, nothing hangs."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from prefect_routines.errors import ModelError
from prefect_routines.session.claude import wait_before_retry
from prefect_routines.testing import Request, ScriptedClaude, attempts, call, cut, fail, say

from .world import NOTHING, is_continued, run

pytestmark = pytest.mark.usefixtures("prefect")

RUNNING = say("I run it.", call("bash", command="echo ran >> /workspace/log"))
LOOK = say(call("bash", command="cat /workspace/log"))
SOON: dict[str, Any] = {"deadlines": {"stall": 0.5, "retry": 60}}


@pytest.mark.parametrize("how", ["reset", "eof", "error", "silence"])
async def test_a_stream_that_breaks_is_asked_for_again(how: Any) -> None:
    """Each way of breaking, when all but `message_stop` has come: it was never executed, the whole reply is, once."""
    script = [attempts(cut(RUNNING, after=16, how=how), RUNNING), LOOK, NOTHING]
    with ScriptedClaude(script) as claude:
        ran = await run(claude, **SOON)
    assert ran.state.is_completed(), ran.message
    assert ran.requests[2].result("bash").text == "[no output]"
    assert ran.requests[3].result("bash").text == "ran"
    assert ran.requests[0].raw == ran.requests[1].raw
    assert [entry["turn"] for entry in ran.entries("turn.failed")] == [1]
    assert [entry["attempt"] for entry in ran.entries("turn.start")][:2] == [1, 2]
    assert len(ran.entries("agent.message")) == 3
    assert is_continued(ran.requests)


@pytest.mark.parametrize("after", [0, 1, 2, 4, 7])
async def test_wherever_a_stream_ends_politely_it_is_not_taken_for_the_end(after: int) -> None:
    """The SDK raises nothing then: what had come looks like a reply."""
    with ScriptedClaude([attempts(cut(RUNNING, after=after, how="eof"), NOTHING)]) as claude:
        ran = await run(claude)
    assert ran.state.is_completed()
    assert ran.entries("tool.start")[0]["name"] == "report"


async def test_what_a_broken_stream_had_used_is_paid() -> None:
    """Its prompt was billed although nothing came of it; the store's spend is the sum of all attempts."""
    with ScriptedClaude([attempts(cut(RUNNING, after=9), NOTHING)]) as claude:
        ran = await run(claude)
    [failed], [reply] = ran.entries("turn.failed"), ran.entries("agent.message")
    assert failed["dollars"] > 0
    assert ran.transcript.dollars == pytest.approx(failed["dollars"] + reply["dollars"])
    assert ran.spent.dollars == pytest.approx(failed["dollars"] + reply["dollars"], abs=2e-6)
    assert (ran.spent.attempts, ran.spent.reserved_dollars) == (2, 0)


async def test_a_long_setup_leaves_time_for_a_busy_service() -> None:
    """The deadline of the first reply is Claude's; preparations have limits of their own."""
    with ScriptedClaude([attempts(fail(429), NOTHING)]) as claude:
        ran = await run(claude, setup=f"sleep 2.5 # {uuid4()}", deadlines={"first_reply": 2})
    assert ran.state.is_completed(), ran.message


@pytest.mark.parametrize("outcome", [cut(after=5), cut(how="eof"), fail(529), fail(500), fail(429), fail(503)])
async def test_attempts_are_bounded(outcome: Any) -> None:
    """When every attempt fails the run fails with the cause, in one line, and says how often it tried."""
    with ScriptedClaude([outcome]) as claude:
        ran = await run(claude, deadlines={"first_reply": 2.5})
    assert ran.state.is_failed()
    assert isinstance(ran.error, ModelError)
    assert f"no reply from Claude after {len(ran.requests)} attempts" in ran.message
    assert 1 <= len(ran.requests) <= 6
    assert len(ran.entries("turn.failed")) == len(ran.requests)
    assert len({request.raw for request in ran.requests}) == 1


async def test_a_service_that_stays_busy_is_not_asked_for_ever() -> None:
    """However short the waits that it asks for: the deadline holds."""

    def busy(request: Request) -> Any:
        return fail(529, retry_after_ms=50) if len(claude.requests) < 100 else NOTHING

    with ScriptedClaude([busy]) as claude:
        ran = await run(claude, deadlines={"first_reply": 2})
    assert ran.state.is_failed()
    assert "no reply from Claude after" in ran.message


@pytest.mark.parametrize(
    "failure",
    [
        fail(529, retry_after_ms=5),
        fail(429, retry_after_ms=5),
        fail(500, retry_after_ms=5),
        fail(504, retry_after_ms=5),
        fail(408, retry_after_ms=5),
        fail(409, retry_after_ms=5),
    ],
)
async def test_a_busy_service_is_asked_again(failure: Any) -> None:
    """Also many times in a row: it is the loop that counts, not the SDK."""
    with ScriptedClaude([attempts(failure, failure, failure, failure, NOTHING)]) as claude:
        ran = await run(claude)
    assert ran.state.is_completed()
    assert len(ran.requests) == 5
    assert len(ran.entries("turn.failed")) == 4
    assert ran.transcript.dollars == pytest.approx(ran.entries("agent.message")[0]["dollars"])


async def test_retry_after_is_honoured() -> None:
    """An attempt is made no sooner than the service asked, and one it asks for too late is not waited for."""
    with ScriptedClaude([attempts(fail(429, retry_after=0), fail(529, retry_after_ms=1), NOTHING)]) as claude:
        ran = await run(claude, deadlines={"first_reply": 30})
    assert ran.state.is_completed()
    with ScriptedClaude([attempts(fail(429, retry_after=3600), NOTHING)]) as claude:
        late = await run(claude, deadlines={"first_reply": 30})
    assert late.state.is_failed()
    assert "asks to wait 3600 s" in late.message
    assert len(late.requests) == 1


async def test_the_wait_is_as_long_as_asked_for() -> None:
    """By the loop's clock: what the service says, else half a second doubled each time, and never past the deadline."""
    slept: list[float] = []
    clock = asyncio.get_running_loop()
    for attempt, retry_after, remaining in [(1, 0.05, 10.0), (9, 0.0, 10.0), (1, 1.0, 1.0), (1, None, 0.3), (20, None, 20.0)]:
        began = clock.time()
        waited = await wait_before_retry(attempt, retry_after, remaining)
        slept.append(clock.time() - began)
        assert waited == (retry_after in (0.05, 0.0))
    assert slept[0] >= 0.05


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (fail(400, "messages.0: odd"), "Claude refused the request (400 invalid_request_error: messages.0: odd"),
        (fail(402, "no money"), "spend limit is reached: no money"),
        (fail(429, "limit", details={"error_code": "enforced_spend_limit_reached"}), "spend limit is reached"),
        (fail(403, "not yours"), "Claude refused the login (403: not yours"),
        (fail(401, "gone"), "Claude refused the login (401: gone"),
        (fail(404, "no such model"), "check `model`"),
    ],
)
async def test_what_asking_again_does_not_mend_fails_at_once(failure: Any, says: str) -> None:
    """One request, one line that says what to do."""
    with ScriptedClaude([failure]) as claude:
        ran = await run(claude, deadlines={"first_reply": 6})
    assert ran.state.is_failed()
    assert says in ran.message
    assert "\n" not in ran.message
    assert len(ran.requests) == 1
    assert len(ran.entries("turn.failed")) == 1


async def test_an_error_event_that_is_no_passing_one_fails_at_once() -> None:
    """Inside a stream, whose status is 200, an error means what its type says."""
    with ScriptedClaude([cut(how="error", error="invalid_request_error")]) as claude:
        ran = await run(claude)
    assert ran.state.is_failed()
    assert len(ran.requests) == 1


async def test_silence_before_the_first_word_fails_with_the_cause() -> None:
    """Nothing comes, not even pings: the deadline of the first reply holds, and nothing hangs."""
    with ScriptedClaude([cut(after=0, how="silence")]) as claude:
        ran = await run(claude, deadlines={"stall": 0.3, "first_reply": 2})
    assert ran.state.is_failed()
    assert "Claude said nothing for 0.3 s" in ran.message
    assert all(request.disconnected.wait(5) for request in ran.requests)


async def test_pings_alone_are_no_word() -> None:
    """A stream that lives but says nothing has stalled."""
    with ScriptedClaude([attempts(cut(RUNNING, after=3, how="silence", ping=0.05), NOTHING)]) as claude:
        ran = await run(claude, deadlines={"stall": 0.6})
    assert ran.state.is_completed()
    assert "said nothing for 0.6 s" in ran.entries("turn.failed")[0]["error"]


async def test_a_slow_reply_is_no_stall() -> None:
    """Each word begins the deadline anew: a long reply may take longer than that in all."""
    with ScriptedClaude([say("word " * 40, call("bash", command="true"), delay=0.04), NOTHING]) as claude:
        ran = await run(claude, deadlines={"stall": 0.4, "first_reply": 12})
    assert ran.state.is_completed()
    assert ran.entries("turn.failed") == []


async def test_a_failure_late_in_a_session_goes_on_from_there() -> None:
    """Turns that were journaled are not asked for again; a failing turn keeps its number."""

    def script(request: Request) -> list[Any]:
        return [LOOK, RUNNING, attempts(fail(529, retry_after_ms=1), cut(LOOK, after=6), LOOK), NOTHING]

    with ScriptedClaude(script) as claude:
        ran = await run(claude)
    assert [entry["turn"] for entry in ran.entries("turn.start")] == [1, 2, 3, 3, 3, 4]
    assert ran.requests[5].result("bash").text == "ran"
    assert is_continued(ran.requests)


@pytest.mark.parametrize("failure", [fail(413), fail(400, "prompt is too long: 1000001 tokens > 1000000 maximum")])
async def test_a_request_that_is_too_long_is_compacted(failure: Any) -> None:
    """Whether the service says so by its status or in words."""
    with ScriptedClaude(lambda request: [LOOK, NOTHING if request.summary else failure]) as claude:
        ran = await run(claude)
    assert ran.state.is_completed(), ran.message
    assert len(ran.entries("session.compacted")) == 1


async def test_a_request_that_stays_too_long_fails() -> None:
    """A summary that is too long itself is not summarised for ever."""
    with ScriptedClaude([LOOK, fail(413)]) as claude:
        ran = await run(claude)
    assert ran.state.is_failed()
    assert "not even its summary fits" in ran.message
    assert len(ran.entries("session.compacted")) == 1
