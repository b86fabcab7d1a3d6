"""A run without a deployment waits in its process; killed there, it goes on with the answer that came meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from prefect_routines.testing import ScriptedClaude, call, say
from prefect_routines.testing.api import Scripts

from .terminal import Terminal

ROUTINE = """\
from pathlib import Path
from prefect_routines import Policy, routine, tool

@tool(writes=True, target="room")
def tell(room: str) -> str:
    \"\"\"Tell people.

    Args:
        room: Where.
    \"\"\"
    with Path("told").open("a") as told:
        told.write(room + "\\n")
    return "told"

@routine(tools=[tell], policy=Policy(ask=["tell"]))
def asks() -> str:
    \"\"\"Asks before it acts.\"\"\"
    return "Tell them."
"""


@pytest.mark.timeout(300)
def test_killed_while_it_waits_then_approved_it_goes_on_once(online: Terminal, claude: Callable[[Scripts], ScriptedClaude]) -> None:
    """The answer is taken with no process there; `--continue` makes the call, once, and asks Claude nothing again."""
    (online.directory / "asks.py").write_text(ROUTINE)
    played = claude([say(call("tell", room="all")), say(call("report", verdict="nothing_to_do", summary="Told."))])
    with online.start("run", "asks.py", **played.environment()) as process:
        deadline = time.monotonic() + 120
        while "tell" not in online.run("waiting").out:
            assert time.monotonic() < deadline
        os.killpg(process.pid, signal.SIGKILL)
    told = online.directory / "told"
    assert not told.exists()
    session = online.run("sessions", "--json").out.split('"id": "')[1].split('"')[0]
    approved = online.run("approve", session, "--as", "ada")
    assert approved.status == 0, approved.err
    while "being run by another process" in (gone_on := online.run("run", "asks.py", "--continue", session, **played.environment())).err:
        assert time.monotonic() < deadline
    assert gone_on.status == 0, gone_on.out + gone_on.err
    assert told.read_text() == "all\n"
    assert len(played.requests) == 2
    again = online.run("approve", session)
    assert again.status == 2
