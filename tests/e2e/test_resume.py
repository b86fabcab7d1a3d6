"""Two processes at one session, one that was stopped for too long, and disks that are full: one line each, and nothing twice."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from waiting import until

from .harness.case import Case
from .harness.pool import Pool
from .harness.processes import alive
from .harness.routine import STEPS, bash, play, waits

WAITING = [(waits("wait"),), *STEPS]
SMALL = 24  # MB


def test_of_two_processes_one_works_and_the_other_says_who_does(pool: Pool, tmp_path: Path) -> None:
    """The second one fails with one line and leaves the session alone."""
    with Case(pool, tmp_path, script=play(WAITING)) as case:
        first = case.start()
        until(lambda: case.has_session() and case.ran() == ["wait"], what="the first process works")
        second = case.start()
        assert second.wait() == 0
        assert f"failed: session {case.found().record.id} is being run by process {first.pid} on" in second.said
        assert "Traceback" not in second.said
        case.go()
        assert first.wait() == 0
        case.judge(kills=0)


def test_of_two_processes_that_resume_at_once_one_wins(pool: Pool, tmp_path: Path) -> None:
    """Both see that the killed holder is dead; the lease goes to one of them."""
    with Case(pool, tmp_path) as case:
        killed = case.start(kill=20)
        killed.wait()
        case.crash()
        runs = [case.start(), case.start()]
        assert [run.wait() for run in runs] == [0, 0]
        said = sorted("is being run by process" in run.said for run in runs)
        assert said in ([False, True], [False, False])  # the loser may come when all is done: then it has nothing to do
        case.judge(killed.tree, kills=1)


def test_a_process_that_was_stopped_beyond_its_lease_does_nothing_more(pool: Pool, tmp_path: Path) -> None:
    """Another one takes over; the first one, going on, finds its fencing number old and ends."""
    with Case(pool, tmp_path, script=play(WAITING), ROUTINES_LEASE_SECONDS="2") as case:
        first = case.start()
        until(lambda: case.has_session() and case.ran() == ["wait"], what="the first process works")
        tree = first.tree_now()
        first.signal(signal.SIGSTOP)
        until(case.lease_ran_out, what="its lease runs out")
        second = case.retry()
        until(lambda: case.ran("again.log") == ["wait"], what="the second process has taken over")
        first.signal(signal.SIGCONT)
        assert first.wait() == 0
        assert "another process has taken it over" in first.said
        case.go()
        assert second.wait() == 0
        case.judge(tree)
        assert case.ran().count("wait") == 1


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}m,mode=0711", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Write until nothing more goes in."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    assert shutil.disk_usage(disk).free == 0
    return ballast


def test_a_store_on_a_full_disk_fails_in_one_line_and_goes_on_when_there_is_room(pool: Pool, tmp_path: Path) -> None:
    """No entry is half-written, and what was done stays done."""
    with (
        small_disk(tmp_path / "disk") as disk,
        Case(pool, tmp_path, script=play(WAITING), database_url=f"sqlite+aiosqlite:///{disk / 'store.db'}") as case,
    ):
        run = case.start()
        until(lambda: case.has_session() and case.ran() == ["wait"], what="the session works")
        ballast = fill(disk)
        case.go()
        assert run.wait() == 0
        assert case.state.name == "Failed"
        assert "the disk is full or fails" in str(case.state.message)
        assert "\n" not in str(case.state.message)
        ballast.unlink()
        assert case.retry().wait() == 0
        case.judge()


def test_a_full_workspace_is_told_to_claude_who_makes_room(pool: Pool, tmp_path: Path) -> None:
    """A command that finds no space fails like any command; the session goes on."""
    steps = [(bash("fill", "head -c 100M /dev/zero > /workspace/big"),), (bash("tidy", "rm /workspace/big"),), *STEPS]
    with small_disk(tmp_path / "disk") as disk, Case(pool, tmp_path, script=play(steps), ROUTINES_WORKSPACES=str(disk)) as case:
        case.workspaces = disk
        run = case.start()
        assert run.wait() == 0, run.said
        assert "No space left on device" in case.claude.requests[1].results[0].text
        case.judge(kills=0)


def test_a_workspace_that_cannot_be_made_fails_in_one_line_and_is_made_when_there_is_room(pool: Pool, tmp_path: Path) -> None:
    """Nothing was asked of Claude; the retry begins anew."""
    with small_disk(tmp_path / "disk") as disk, Case(pool, tmp_path, ROUTINES_WORKSPACES=str(disk)) as case:
        case.workspaces = disk
        ballast = fill(disk)
        run = case.start()
        assert run.wait() == 0
        assert case.state.name == "Failed"
        assert "the disk is full" in str(case.state.message)
        assert "\n" not in str(case.state.message)
        assert "Traceback" not in run.said
        assert case.claude.requests == []
        ballast.unlink()
        assert case.retry().wait() == 0
        case.judge(kills=0)


def test_nothing_is_left_of_a_session_that_ended(pool: Pool, tmp_path: Path) -> None:
    """Its processes are gone when the run is."""
    with Case(pool, tmp_path, script=play(WAITING)) as case:
        run = case.start()
        until(lambda: case.has_session() and case.ran() == ["wait"], what="the session works")
        tree = run.tree_now()
        case.go()
        assert run.wait() == 0
        assert not alive(tree)
        case.judge(kills=0)
