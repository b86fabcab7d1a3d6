"""Who is called crashed: a run whose process is gone and whom nobody keeps; never one that lives."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from prefect_routines.store import Store
from prefect_routines.store.holder import Holder
from prefect_routines.testing import ScriptedClaude, call, say
from prefect_routines.workers.orphans import Fate, Seen, Sight, fate, look
from waiting import until

from .place import ENDED, Place, alive
from .test_worker import ROOT

MINUTE, SECOND, OVER = timedelta(minutes=1), timedelta(seconds=1), timedelta(seconds=-1)
RUNNING = Seen(state="RUNNING", age=5 * MINUTE, process=Sight.DEAD, leases=(), worker_silent=False)
PENDING = dataclasses.replace(RUNNING, state="PENDING")
CANCELLING = dataclasses.replace(RUNNING, state="CANCELLING")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (RUNNING, Fate.CRASHED),
        (dataclasses.replace(RUNNING, age=SECOND), Fate.CRASHED),
        (dataclasses.replace(RUNNING, leases=(OVER,)), Fate.CRASHED),
        (dataclasses.replace(RUNNING, leases=(OVER, SECOND)), Fate.LEAVE),
        (dataclasses.replace(RUNNING, process=Sight.ALIVE, leases=(OVER,), worker_silent=True), Fate.LEAVE),
        (dataclasses.replace(RUNNING, process=Sight.UNKNOWN, leases=(OVER,), worker_silent=True), Fate.LEAVE),
        (dataclasses.replace(RUNNING, process=Sight.ELSEWHERE, leases=(OVER,)), Fate.LEAVE),
        (dataclasses.replace(RUNNING, process=Sight.ELSEWHERE, worker_silent=True), Fate.LEAVE),
        (dataclasses.replace(RUNNING, process=Sight.ELSEWHERE, leases=(OVER,), worker_silent=True), Fate.CRASHED),
        (dataclasses.replace(RUNNING, process=Sight.ELSEWHERE, leases=(SECOND,), worker_silent=True), Fate.LEAVE),
        (PENDING, Fate.AGAIN),
        (dataclasses.replace(PENDING, age=30 * SECOND), Fate.LEAVE),
        (dataclasses.replace(PENDING, process=Sight.UNKNOWN), Fate.AGAIN),
        (dataclasses.replace(PENDING, process=Sight.ALIVE), Fate.LEAVE),
        (dataclasses.replace(PENDING, process=Sight.ELSEWHERE), Fate.LEAVE),
        (dataclasses.replace(PENDING, process=Sight.ELSEWHERE, worker_silent=True), Fate.AGAIN),
        (CANCELLING, Fate.CANCELLED),
        (dataclasses.replace(CANCELLING, leases=(SECOND,)), Fate.LEAVE),
        (dataclasses.replace(CANCELLING, process=Sight.ALIVE), Fate.STOP),
        (dataclasses.replace(CANCELLING, process=Sight.ALIVE, age=30 * SECOND), Fate.LEAVE),
    ],
)
def test_the_fate_of_a_run(seen: Seen, expected: Fate) -> None:
    """In doubt it is left alone."""
    assert fate(seen) is expected


def test_a_process_is_dead_only_when_that_can_be_seen() -> None:
    """Another machine's is not ours to judge; a stopped one lives."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = Holder.current()
    holder = dataclasses.replace(here, pid=process.pid, started=started(process.pid))
    os.kill(process.pid, signal.SIGSTOP)
    assert look(holder) is Sight.ALIVE
    process.kill()
    process.wait()
    assert look(holder) is Sight.DEAD
    assert look(dataclasses.replace(holder, host="elsewhere")) is Sight.ELSEWHERE
    assert look(dataclasses.replace(holder, boot_id="other")) is Sight.ELSEWHERE
    assert look(None) is Sight.UNKNOWN


def started(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()[19])


@pytest.mark.timeout(400)
def test_a_worker_killed_with_its_run_is_found_out_and_a_live_run_is_left_alone(make_place: Callable[[str], Place], tmp_path: Path) -> None:
    """Another worker calls the dead session crashed within a minute; a stopped process, a live session and its own run it leaves alone."""
    place = make_place("orphans")
    script = [say(call("bash", command="sleep 75")), say(call("report", verdict="nothing_to_do", summary="Nothing."))]
    with ScriptedClaude(script) as claude:
        env = {**claude.environment(), "ROUTINES_LEASE_SECONDS": "20"}
        deployment = place.deploy("flows/ask.py:ask", directory=ROOT, parameters={"prompt": "Wait."}, job_variables={"env": env})
        first = place.worker()
        zygote = first.zygote()
        dead, lives = place.start(deployment), place.start(deployment)
        stopped = place.waiting()
        pids = {run: process(place, run) for run in (dead, lives)} | {stopped: place.pid(stopped)}
        until(lambda: len(claude.requests) == 2, what=lambda: first.said)
        os.kill(pids[stopped], signal.SIGSTOP)
        first.kill()
        os.kill(pids[dead], signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: not alive(zygote), 10)
        assert alive(pids[lives])
        place.worker()
        message = place.until(dead, *ENDED, seconds=90)["state"]["message"]
        assert "is gone" in message
        assert time.monotonic() - killed < 60
        assert {place.run(run)["state_type"] for run in (lives, stopped)} == {"RUNNING"}
        os.kill(pids[stopped], signal.SIGCONT)
        place.go()
        for run in (lives, stopped):
            assert place.until(run, *ENDED, seconds=120)["state_type"] == "COMPLETED"


def process(place: Place, run: str) -> int:
    """The process of a started run, as its worker wrote it down."""
    return int(json.loads(until(lambda: place.run(run)["labels"].get("routines.process")))["pid"])


@pytest.mark.timeout(300)
def test_a_living_lease_keeps_a_run_alive_whatever_else_is_seen(make_place: Callable[[str], Place]) -> None:
    """The process is gone, its session is still kept: nothing is said until the lease has ended."""
    place = make_place("leases")
    first = place.worker()
    run = place.waiting()
    pid = place.pid(run)
    ends = asyncio.run(keep(run, seconds=25))
    first.kill()
    os.kill(pid, signal.SIGKILL)
    place.worker()
    place.until(run, "CRASHED", seconds=60)
    assert datetime.fromisoformat(place.run(run)["state"]["timestamp"]) >= ends


async def keep(run: str, *, seconds: float) -> datetime:
    """Make a session of the run and take it; gives when the lease ends."""
    async with await Store.open() as store:
        record = await store.create_session(session_id=f"ses-{run}", routine="waits", flow_run_id=run)
        await store.acquire(record.id, lease_seconds=seconds)
        record = (await store.sessions(flow_run_id=run))[0]
        assert record.leased_until is not None
        assert record.leased_until > datetime.now(UTC)
        return record.leased_until


@pytest.mark.timeout(300)
def test_a_run_cancelled_after_its_worker_died_is_stopped_by_another(make_place: Callable[[str], Place]) -> None:
    """The orphan is found on this machine, stopped, and called cancelled."""
    place = make_place("stop")
    first = place.worker()
    run = place.waiting()
    pid = place.pid(run)
    first.kill()
    place.set_state(run, type="CANCELLING")
    place.worker()
    place.until(run, "CANCELLED", seconds=150)
    until(lambda: not alive(pid))


@pytest.mark.timeout(300)
def test_a_run_claimed_by_a_worker_that_died_at_once_is_due_again(make_place: Callable[[str], Place]) -> None:
    """Pending, and no process was ever written down for it: it starts, on another worker, and only once."""
    place = make_place("claimed")
    run = place.waiting()
    place.set_state(run, type="PENDING")
    place.go()
    place.worker()
    ended = place.until(run, *ENDED, seconds=150)
    assert (ended["state_type"], ended["run_count"]) == ("COMPLETED", 1)
