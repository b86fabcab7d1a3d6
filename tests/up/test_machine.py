"""All parts together, with small programs in the place of servers: the order of the end, the second Ctrl-C, a part that fails."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from prefect_routines.up import Machine
from prefect_routines.up.keeper import Part, PartFailed
from prefect_routines.up.plan import Plan
from waiting import until_async

NAMES = ["first", "second", "third"]
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


class World:
    """A machine whose parts answer by writing their pids to files."""

    def __init__(self, place: Path, **code: str) -> None:
        self.place = place
        self.told: list[str] = []
        self.ready = asyncio.Event()
        plan = Plan([self.part(name, code.get(name, "")) for name in NAMES], {})
        self.machine = Machine(plan, place / "logs", lambda name, text: self.told.append(f"{name} {text}"), self.ready.set)

    def part(self, name: str, before: str) -> Part:
        file = self.place / name
        code = f"{before}import pathlib, os, time; pathlib.Path({str(file)!r}).write_text(str(os.getpid())); time.sleep(600)"

        async def check() -> str | None:
            return None if self.lives(name) else "it does not live"

        return Part(name=name, command=[sys.executable, "-c", code], environment=dict(os.environ), check=check, patience=60)

    def lives(self, name: str) -> bool:
        """Whether a part has come up and lives."""
        try:
            os.kill(int((self.place / name).read_text()), 0)
        except (OSError, ValueError):
            return False
        return True

    def living(self) -> list[str]:
        return [name for name in NAMES if self.lives(name)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_stops_the_parts_the_last_one_first(tmp_path: Path, number: signal.Signals) -> None:
    """The signal is told, so that the exit status can say it; its handler is gone afterwards."""
    before = signal.getsignal(number)
    world = World(tmp_path)
    running = asyncio.create_task(world.machine.run())
    await asyncio.wait_for(world.ready.wait(), 60)
    os.kill(os.getpid(), number)
    assert await asyncio.wait_for(running, 60) == number
    assert [line for line in world.told if line.endswith("stopping")] == [f"{name} stopping" for name in reversed(NAMES)]
    assert world.living() == []
    assert signal.getsignal(number) in (before, signal.SIG_DFL, signal.default_int_handler)


async def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    """A part that does not listen is killed then; the first signal is the one that counts."""
    world = World(tmp_path, second=STUBBORN)
    running = asyncio.create_task(world.machine.run())
    await asyncio.wait_for(world.ready.wait(), 60)
    os.kill(os.getpid(), signal.SIGTERM)
    await until_async(lambda: world.told[-1] == "second stopping")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(running), 0.5)
    assert world.living() == ["first", "second"]
    os.kill(os.getpid(), signal.SIGINT)
    assert await asyncio.wait_for(running, 30) == signal.SIGTERM
    assert world.living() == []


async def test_one_part_that_cannot_start_ends_all(tmp_path: Path) -> None:
    """The others are stopped before the failure is told."""
    world = World(tmp_path, third="raise SystemExit('no room'); ")
    with pytest.raises(PartFailed, match=r'the third could not be started .* Its last words: "no room"'):
        await asyncio.wait_for(world.machine.run(), 60)
    assert world.living() == []
    assert not world.ready.is_set()
