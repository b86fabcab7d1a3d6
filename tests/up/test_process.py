"""A part under its guard: how it ends is told, and whatever happens nothing of it stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from prefect_routines.up.process import Process
from waiting import until_async

ALONE = "import time; print('here', flush=True); time.sleep(600)"
WITH_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import os, time; os.setsid(); print('child', os.getpid(), flush=True); time.sleep(600)"])
time.sleep(600)
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(600)"


class Started:
    """A process with the lines that it has said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.said = asyncio.Event()
        self.process: Process

    def hear(self, line: bytes) -> None:
        self.lines.append(line.decode().strip())
        self.said.set()

    async def child(self) -> int:
        """The pid that the part says its child has."""
        await asyncio.wait_for(self.said.wait(), 20)
        return int(self.lines[0].split()[1])


Start = Callable[[str], "asyncio.Future[Started]"]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start Python code as a part; it is killed at the end."""
    all_of_them: list[Started] = []

    async def begin(code: str) -> Started:
        started = Started()
        all_of_them.append(started)
        started.process = await Process.start([sys.executable, "-c", code], dict(os.environ), started.hear)
        return started

    yield begin  # type: ignore[misc]
    for started in all_of_them:
        started.process.kill()
        await started.process.gone()


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


async def until_dead(pid: int) -> None:
    """Wait for the end of a process."""
    await until_async(lambda: not lives(pid), 30)


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9), ("pass", 0)])
async def test_the_end_is_told(start: Start, code: str, status: int) -> None:
    """Exit status, or minus the signal's number."""
    started = await start(code)
    assert await asyncio.wait_for(started.process.exited(), 20) == status
    assert started.process.status == status


async def test_a_program_that_is_not_there_ends_at_once_and_says_so(start: Start) -> None:
    """As a shell says it: 127, and a line in the log."""
    started = Started()
    started.process = await Process.start(["/nowhere/at-all"], {}, started.hear)
    assert await asyncio.wait_for(started.process.exited(), 20) == 127
    await started.process.gone()
    assert started.lines == ["/nowhere/at-all: No such file or directory"]


async def test_stop_reaches_what_left_the_session(start: Start) -> None:
    """A child in a session of its own ends with the part."""
    started = await start(WITH_CHILD)
    child = await started.child()
    started.process.stop()
    await asyncio.wait_for(started.process.gone(), 20)
    assert not lives(child)
    assert started.process.status == -signal.SIGTERM


async def test_children_outlive_a_part_that_dies_until_they_are_to_stop(start: Start) -> None:
    """A worker that is killed leaves its runs at work."""
    started = await start(WITH_CHILD)
    child = await started.child()
    assert started.process.pid is not None
    os.kill(started.process.pid, signal.SIGKILL)
    assert await asyncio.wait_for(started.process.exited(), 20) == -9
    assert lives(child)
    started.process.stop()
    await asyncio.wait_for(started.process.gone(), 20)
    assert not lives(child)


async def test_kill_ends_what_does_not_listen(start: Start) -> None:
    """SIGTERM ignored: SIGKILL is not."""
    started = await start(STUBBORN)
    await asyncio.wait_for(started.said.wait(), 20)
    started.process.stop()
    started.process.kill()
    assert await asyncio.wait_for(started.process.exited(), 20) == -9


async def test_a_killed_guard_takes_the_part_along(start: Start) -> None:
    """The part counts as dead, and it is."""
    started = await start(ALONE)
    await asyncio.wait_for(started.said.wait(), 20)
    part = started.process.pid
    assert part is not None
    guard = int(Path(f"/proc/{part}/stat").read_text().rpartition(") ")[2].split()[1])
    os.kill(guard, signal.SIGKILL)
    assert await asyncio.wait_for(started.process.exited(), 20) == -9
    await until_dead(part)


async def test_nothing_stays_when_the_starter_is_killed(tmp_path: Path) -> None:
    """kill -9 of the process that started the part: part and child end, without anybody telling them."""
    code = f"""
import asyncio, os, sys
from prefect_routines.up.process import Process
from waiting import until_async
from waiting import until_async
async def main():
    process = await Process.start([sys.executable, "-c", {WITH_CHILD!r}], dict(os.environ), lambda line: print(line.decode(), flush=True))
    await asyncio.sleep(600)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as starter:  # noqa: ASYNC220
        assert starter.stdout is not None
        child = int((await asyncio.to_thread(starter.stdout.readline)).split()[1])
        part = int(Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2].split()[1])
        starter.kill()
    await until_dead(part)
    await until_dead(child)


async def test_a_part_can_be_interrupted_though_its_starter_ignores_it(tmp_path: Path) -> None:
    """`nohup` and `&` in a script make SIGINT ignored, and Prefect's worker would then never stop."""
    started = Started()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
        started.process = await Process.start([sys.executable, "-c", code], dict(os.environ), started.hear)
        await asyncio.wait_for(started.process.gone(), 20)
    finally:
        signal.signal(signal.SIGINT, before)
    assert started.lines == ["True"]
