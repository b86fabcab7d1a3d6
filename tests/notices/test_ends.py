"""Every end is told, also the one that is no verdict: an error."""

from __future__ import annotations

import os
from typing import Any

from prefect_routines.routines import Routine
from prefect_routines.settings import Settings
from prefect_routines.testing import ScriptedClaude, attempts, fail
from session.world import REPORT, Ran, found

from .receiver import Receiver


async def run(claude: ScriptedClaude, hook: str, *, retries: int = 0, **fields: Any) -> Ran:
    """A run of a routine that tells the hook."""
    os.environ.update(claude.environment())

    def work() -> str:
        return "Do the work."

    flow = Routine(work, settings=Settings(notify=[hook], **fields), retries=retries, retry_delay_seconds=0)
    return await found(await flow(return_state=True), claude)


def ends(receiver: Receiver) -> list[dict[str, Any]]:
    return [one.body["data"] for one in receiver.got if one.body["type"] == "session.finished"]


async def test_an_error_while_it_works(hook: str, receiver: Receiver) -> None:
    """Claude's service refuses: told once, in one line; the session can be gone on with, and is not called ended."""
    with ScriptedClaude([fail(400, "no such thing")]) as claude:
        ran = await run(claude, hook)
    assert ran.state.is_failed()
    [told] = ends(receiver)
    assert (told["status"], told["verdict"]) == ("idle", None)
    assert "no such thing" in told["error"]
    assert told["summary"] == told["error"]
    assert "\n" not in told["error"]


async def test_an_error_before_it_works(hook: str, receiver: Receiver) -> None:
    """Who heard that it started hears that nothing came of it."""
    with ScriptedClaude([]) as claude:
        ran = await run(claude, hook, setup="exit 3")
    assert ran.state.is_failed()
    assert sorted(one.body["type"] for one in receiver.got) == ["session.finished", "session.started"]  # sent side by side
    assert (ends(receiver)[0]["status"], ends(receiver)[0]["error"] in ran.message) == ("idle", True)


async def test_a_run_that_is_tried_again_has_not_ended(hook: str, receiver: Receiver) -> None:
    """Only the verdict of the second attempt is told, without the error of the first."""
    with ScriptedClaude([attempts(fail(400, "no such thing"), REPORT)]) as claude:
        ran = await run(claude, hook, retries=1)
    assert ran.state.is_completed()
    [told] = ends(receiver)
    assert (told["verdict"], told["error"]) == ("done", None)


async def test_the_last_attempt_is_an_end(hook: str, receiver: Receiver) -> None:
    """After it nothing is tried again: that is told, once."""
    with ScriptedClaude([fail(400, "no such thing")]) as claude:
        ran = await run(claude, hook, retries=1)
    assert ran.state.is_failed()
    assert len(claude.requests) == 2
    assert len(ends(receiver)) == 1
