"""The warm process: a child does nothing without orders, a dead one is replaced, a new installation makes a new one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prefect_routines.workers.child import Orders
from prefect_routines.workers.warm import Warm, installed
from waiting import until_async

from .place import alive


@pytest.fixture
async def warm() -> AsyncIterator[Warm]:
    made = Warm()
    yield made
    await made.close()


async def until_gone(pid: int) -> None:
    await until_async(lambda: not alive(pid), 10)


def orders(place: Path, command: str) -> Orders:
    return Orders(env=dict(os.environ), cwd=str(place), command=command, quiet=False, hooks=None, run=None)


async def test_children_run_their_orders_and_their_end_is_told(warm: Warm, tmp_path: Path) -> None:
    """Exit status and signal come as `subprocess` gives them."""
    for command, status in (("sh -c 'exit 7'", 7), ("sh -c 'kill -9 $$'", -signal.SIGKILL), ("true", 0)):
        child = await warm.fork()
        assert child.returncode is None
        await child.go(orders(tmp_path, command))
        await asyncio.wait_for(child.ended.wait(), 10)
        assert child.returncode == status
    with pytest.raises(ProcessLookupError):
        child.graceful_kill(child.pid)


async def test_a_child_whose_worker_is_gone_before_the_orders_does_nothing(warm: Warm) -> None:
    """It ends by itself."""
    child = await warm.fork()
    assert alive(child.pid)
    child.forget()
    await until_gone(child.pid)


async def test_a_dead_warm_process_is_replaced_and_its_children_live_on(warm: Warm, tmp_path: Path) -> None:
    """A child with orders ends as it would; that it ended is noticed without the process that forked it."""
    child = await warm.fork()
    await child.go(orders(tmp_path, f"{sys.executable} -c \"import time; time.sleep(3); open('done', 'w')\""))
    first = warm.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    other = await warm.fork()
    assert warm.pid not in (first, None)
    other.forget()
    await asyncio.wait_for(child.ended.wait(), 20)
    assert (tmp_path / "done").exists()


async def test_a_warm_process_that_stops_answering_is_replaced(warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork that does not come in time is asked of another; the late child gets no orders."""
    monkeypatch.setenv("ROUTINES_NOTHING", "1")
    await warm.start()
    first = warm.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    try:
        child = await warm.fork()
        assert warm.pid != first
        child.forget()
    finally:
        os.kill(first, signal.SIGCONT)
    await until_gone(first)


async def test_something_newly_installed_makes_a_new_warm_process(warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed changed: the next child comes from a process that has imported the new state; the old one ends."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    monkeypatch.syspath_prepend(str(packages))
    await warm.start()
    first = warm.pid
    assert first is not None
    before = installed()
    (packages / "thing-2.0.dist-info").mkdir()
    assert installed() != before
    child = await warm.fork()
    assert warm.pid != first
    child.forget()
    await until_gone(first)


async def test_the_warm_process_has_one_thread_and_no_code_of_a_user(warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread makes the fork safe; a module in the worker's directory is not picked up in place of an installed one."""
    (tmp_path / "anthropic.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    await warm.start()
    assert len(os.listdir(f"/proc/{warm.pid}/task")) == 1


_REHEARSED_AND_AFTER = """
import asyncio, sys, threading
from prefect_routines.session.claude import rehearse
asyncio.run(rehearse())
assert threading.active_count() == 1, threading.enumerate()
known = set(sys.modules)
asyncio.run(rehearse())
print(sorted(set(sys.modules) - known))
"""


def test_the_rehearsal_is_played_to_its_end_and_leaves_no_thread() -> None:
    """The warm process takes no notice of what goes wrong in it; and a second reply finds all that the first one needed."""
    done = subprocess.run([sys.executable, "-c", _REHEARSED_AND_AFTER], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
