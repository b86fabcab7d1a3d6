"""`routines cancel` on a session that a worker runs: nothing of it is left, whether it listens or hangs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from prefect_routines.store import SessionRecord, Store
from prefect_routines.testing import ScriptedClaude, call, say
from waiting import until

from .place import ENDED, Place

ROUTINE = """\
import time
from prefect_routines import routine, tool

@tool(idempotent=True)
async def hang() -> str:
    \"\"\"Hang, and let nothing else in the process go on.\"\"\"
    time.sleep(600)
    return "never"

@routine(name={name!r}, tools=[hang])
def works() -> str:
    \"\"\"Works for long.\"\"\"
    return "Go."
"""


BY_HAND = """\
from prefect import flow
from prefect_routines import Session

@flow
async def works():
    try:
        async with Session("works") as session:
            await session.run("Go.")
    except Exception:
        pass
    return "went on"
"""


def on_store(work: Any) -> Any:
    """Do something with the store."""

    async def do() -> Any:
        async with await Store.open() as store:
            return await work(store)

    return asyncio.run(do())


def cancel(session: SessionRecord) -> subprocess.CompletedProcess[str]:
    """The command, as a person gives it."""
    command = [str(Path(sys.executable).with_name("routines")), "cancel", session.id, "--as", "ada"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def running(words: str) -> list[str]:
    """Processes of this machine that have the words in their command line."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = place.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:  # it has ended
            continue
        if words in command:
            found.append(command)
    return found


def started(place: Place, code: str, claude: ScriptedClaude, **env: str) -> tuple[str, SessionRecord]:
    """A run of the flow whose first call is under way, and its session."""
    place.flow("works", code)
    deployment = place.deploy("works.py:works", job_variables={"env": {**claude.environment(), **env}})
    run = place.start(deployment)
    session: SessionRecord = until(lambda: next(iter(on_store(lambda store: store.sessions(flow_run_id=run))), None), 90)

    def begun() -> bool:
        return any(entry.kind == "tool.start" for entry in on_store(lambda store: store.entries(session.id)))

    until(begun, 90)
    return run, session


@pytest.mark.timeout(300)
def test_a_cancelled_session_leaves_no_process(place: Place) -> None:
    """Not even one that left its process group; the run is Cancelled, the workspace is kept, Claude is asked nothing more."""
    mark = f"98765.{os.getpid()}"
    with ScriptedClaude([say(call("bash", command=f"setsid sleep {mark} & sleep {mark}")), say("Never said.")]) as claude:
        run, session = started(place, ROUTINE.format(name="cancel-works"), claude)
        until(lambda: len(running(f"sleep {mark}")) > 1, 30)
        began = time.monotonic()
        done = cancel(session)
        took = time.monotonic() - began
        assert done.returncode == 0, done.stderr
        assert "is cancelled" in done.stdout
        until(lambda: not running(f"sleep {mark}"), 5)
        place.until(run, "Cancelled")
        assert took < 30, "the command starts slowly here, but it does not wait for a time-out"
        now = on_store(lambda store: store.session(session.id))
        assert (now.status, now.verdict) == ("ended", None)
        assert len(claude.requests) == 1
        assert (Path(os.environ["ROUTINES_WORKSPACES"]) / session.id).is_dir()


@pytest.mark.timeout(300)
def test_a_session_that_hangs_is_ended_by_its_worker(place: Place) -> None:
    """It cannot hear anybody; its worker is told by way of Prefect, and the session still ends as cancelled."""
    with ScriptedClaude([say(call("hang")), say("Never said.")]) as claude:
        run, session = started(place, ROUTINE.format(name="cancel-hangs"), claude)
        done = cancel(session)
        assert done.returncode == 0, done.stderr + done.stdout
        place.until(run, "Cancelled")
        assert on_store(lambda store: store.session(session.id)).status == "ended"
        cancelled = [entry.data for entry in on_store(lambda store: store.entries(session.id)) if entry.kind == "session.cancelled"]
        assert [told["person"] for told in cancelled] == ["ada"]


@pytest.mark.timeout(300)
def test_cancelled_in_prefect_while_it_works(place: Place) -> None:
    """As the button of the UI does it: the session ends as cancelled, not between runs, and whoever hears of ends is told."""
    with ScriptedClaude([say(call("bash", command="sleep 600")), say("Never said.")]) as claude:
        run, session = started(place, ROUTINE.format(name="cancel-ui"), claude, ROUTINES_NOTIFY="notice-webhook/nowhere")

        def ended() -> SessionRecord | None:
            now: SessionRecord = on_store(lambda store: store.session(session.id))
            return now if now.status == "ended" else None

        place.set_state(run, type="CANCELLING")
        place.until(run, "CANCELLED")
        now = until(ended, 60, lambda: place.workers[0].said[-6000:])
        assert (now.status, now.summary) == ("ended", "Cancelled by somebody in the Prefect UI")
        cancelled = [entry for entry in on_store(lambda store: store.entries(session.id)) if entry.kind == "session.cancelled"]
        assert [entry.data["via"] for entry in cancelled] == ["prefect"]
        assert [one.kind for one in on_store(lambda store: store.notices(session_id=session.id))] == ["started", "finished"]
        assert len(claude.requests) == 1


@pytest.mark.timeout(300)
def test_a_hand_written_flow_ends_as_cancelled_with_its_session(place: Place) -> None:
    """Though its author swallows errors: the process ends in order, and its worker has no crash to report."""
    with ScriptedClaude([say(call("bash", command="sleep 600")), say("Never said.")]) as claude:
        run, session = started(place, BY_HAND, claude)
        done = cancel(session)
        assert done.returncode == 0, done.stderr + done.stdout
        ended = place.until(run, *ENDED)
        assert (ended["state_name"], ended["state"]["message"]) == ("Cancelled", "cancelled by ada (cli)")
        until(lambda: "aborted by orchestrator" in place.workers[0].said, 30)
        assert place.run(run)["state_name"] == "Cancelled"
        assert on_store(lambda store: store.session(session.id)).status == "ended"
