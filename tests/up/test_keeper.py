"""One part kept running, with small programs in the place of servers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prefect_routines.up.keeper import Keeper, Part, PartFailed, Patience
from prefect_routines.up.logs import RotatingLog
from waiting import until_async

ANSWERS = "import pathlib, os, time; pathlib.Path('answers').write_text(str(os.getpid())); time.sleep(600)"
DIES = "import sys; sys.exit('no such database: \\x1b[31mred')"


class World:
    """A keeper whose part answers by writing its pid to a file."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.told: list[str] = []
        self.keepers: list[Keeper] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.needed: str | None = None
        self.patience = Patience()

    async def answers(self) -> str | None:
        return None if self.pid() is not None else "no file"

    async def need(self) -> str | None:
        return self.needed

    def pid(self) -> int | None:
        """Of the living part that answers."""
        try:
            pid = int((self.place / "answers").read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid

    def keep(self, code: str, **more: object) -> Keeper:
        command = [sys.executable, "-c", f"import os; os.chdir({str(self.place)!r}); {code}"]
        part = Part(name="part", command=command, environment=dict(os.environ), check=self.answers, remedy="mend it", **more)  # type: ignore[arg-type]
        log = RotatingLog(self.place / "part.log")
        keeper = Keeper(part, log, lambda name, text: self.told.append(f"{name} {text}"), patience=self.patience)
        self.keepers.append(keeper)
        self.tasks.append(asyncio.create_task(keeper.keep()))
        return keeper


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A place for one part."""
    world = World(tmp_path)
    yield world
    for task, keeper in zip(world.tasks, world.keepers, strict=True):
        task.cancel()
        hurry = asyncio.Event()
        hurry.set()
        await keeper.stop(hurry)


async def test_a_part_that_is_killed_returns(world: World) -> None:
    """Three times, each pause longer than the one before."""
    keeper = world.keep(ANSWERS)
    before = 0
    for _ in range(3):
        await until_async(lambda: keeper.answers.is_set() and world.pid() not in (None, before))  # noqa: B023
        before = world.pid() or 0
        os.kill(before, signal.SIGKILL)
        await until_async(lambda: not keeper.answers.is_set())
    ends = [line for line in world.told if "SIGKILL" in line]
    assert ends == [f"part was ended by SIGKILL; starting it again in {pause} s" for pause in ("0.5", "1", "2")]


async def test_a_part_that_cannot_start_ends_it_with_one_line(world: World) -> None:
    """It names the log, its last words - harmless - and the remedy."""
    world.keep(DIES)
    with pytest.raises(PartFailed) as failure:
        await asyncio.wait_for(asyncio.shield(world.tasks[0]), 60)
    said = str(failure.value)
    assert "the part could not be started (3 tries; it has ended with status 1)" in said
    assert "no such database: \\x1b[31mred" in said
    assert str(world.place / "part.log") in said
    assert said.endswith("mend it")
    assert "\n" not in said
    assert (world.place / "part.log").read_text().count("no such database") == 3


async def test_a_part_waits_for_what_it_needs(world: World) -> None:
    """It is not started before, and not blamed for a start that failed because of that."""
    world.needed = "away"
    keeper = world.keep(ANSWERS, needs=world.need)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(keeper.answers.wait(), 1)
    assert world.pid() is None
    world.needed = None
    await asyncio.wait_for(keeper.answers.wait(), 30)
    assert world.pid() is not None


async def test_a_stopped_part_is_not_started_again(world: World) -> None:
    """stop() ends it for good."""
    keeper = world.keep(ANSWERS)
    await until_async(keeper.answers.is_set)
    world.tasks[0].cancel()
    await asyncio.wait_for(keeper.stop(asyncio.Event()), 30)
    assert world.pid() is None
    assert world.told[-1] == "part stopping"
    world.tasks.clear()
    world.keepers.clear()


async def test_hurry_does_not_wait(world: World) -> None:
    """A part that ignores SIGTERM has a minute, unless somebody is in a hurry."""
    keeper = world.keep(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {ANSWERS}", patience=60)
    await until_async(keeper.answers.is_set)
    world.tasks[0].cancel()
    hurry = asyncio.Event()
    stopping = asyncio.create_task(keeper.stop(hurry))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(stopping), 0.5)
    hurry.set()
    await asyncio.wait_for(stopping, 10)
    assert world.pid() is None
    world.tasks.clear()
    world.keepers.clear()


async def test_a_part_that_stops_answering_is_told_and_started_anew(world: World) -> None:
    """It lives, but nobody is served."""
    world.patience = Patience(ask=0.05, silent=0.2, hung=1.0)
    keeper = world.keep(ANSWERS)
    await until_async(keeper.answers.is_set)
    before = world.pid()
    (world.place / "answers").unlink()
    await until_async(lambda: world.pid() not in (None, before))
    assert world.told[1] == f"part does not answer (no file); log: {world.place / 'part.log'}"
    assert world.told[2] == "part has not answered for 1 s; starting it again in 0.5 s"


async def test_a_part_is_not_blamed_for_the_absence_of_what_it_needs(world: World) -> None:
    """It is left running, and what it waits for is told; so is that it goes on."""
    world.patience = Patience(ask=0.05, silent=0.2, hung=1.0)
    keeper = world.keep(ANSWERS, needs=world.need)
    await until_async(keeper.answers.is_set)
    pid = str(world.pid())
    (world.place / "answers").unlink()
    world.needed = "away"
    await until_async(lambda: "part waits for the Prefect server" in world.told)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(world.tasks[0]), 1.5)
    (world.place / "answers").write_text(pid)
    await until_async(lambda: world.told[-1] == "part answers again")
    assert len(world.told) == 3


async def test_a_part_that_does_not_answer_in_time_is_killed(world: World) -> None:
    """A start that hangs counts as one that failed."""
    world.patience = Patience(start=0.5)
    world.keep("import time; time.sleep(600)")
    with pytest.raises(PartFailed, match=r"3 tries; it has not answered within 0\.5 s"):
        await asyncio.wait_for(asyncio.shield(world.tasks[0]), 60)
