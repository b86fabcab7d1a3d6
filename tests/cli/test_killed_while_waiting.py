"""A run without a deployment waits in its process; killed there, it goes on with the answer that came meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from prefect_routines.testing import ScriptedClaude
from prefect_routines.testing.api import Scripts
from waiting import until
from workers.asking_world import TELLS, routine_that_asks

from .terminal import Finished, Terminal


@pytest.mark.timeout(300)
def test_killed_while_it_waits_then_approved_it_goes_on_once(online: Terminal, claude: Callable[[Scripts], ScriptedClaude]) -> None:
    """The answer is taken with no process there; `--continue` makes the call, once, and asks Claude nothing again."""
    told = online.directory / "told"
    (online.directory / "asks.py").write_text(routine_that_asks(told))
    played = claude(TELLS)
    with online.start("run", "asks.py", **played.environment()) as process:
        until(lambda: "tell" in online.run("waiting").out)
        os.killpg(process.pid, signal.SIGKILL)
    assert not told.exists()
    session = online.run("sessions", "--json").out.split('"id": "')[1].split('"')[0]
    approved = online.run("approve", session, "--as", "ada")
    assert approved.status == 0, approved.err

    def go_on() -> Finished | None:
        done = online.run("run", "asks.py", "--continue", session, **played.environment())
        return None if "being run by another process" in done.err else done

    gone_on = until(go_on)
    assert gone_on.status == 0, gone_on.out + gone_on.err
    assert told.read_text() == "all: Hello\n"
    assert len(played.requests) == 2
    again = online.run("approve", session)
    assert again.status == 2
