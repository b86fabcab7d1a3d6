"""Keeps one part running: starts it, waits until it answers, starts it again when it dies, stops it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from prefect_routines.errors import RoutinesError
from prefect_routines.up.checks import Check
from prefect_routines.up.logs import RotatingLog
from prefect_routines.up.process import Process
from prefect_routines.visible import one_line

TRIES = 3
"""Starts in a row that may come to nothing."""
PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a part is started again: longer each time, until it has lived for `STEADY` seconds."""
STEADY = 60.0
LOOK_EVERY = 0.3
NOTE_EVERY = 15.0
NEED_NOTE_EVERY = 60.0
"""Seconds between two lines about a start, and about waiting for another part, which tells of itself."""

Say = Callable[[str, str], None]
"""Gets the name of a part and what happened to it."""


@dataclass(frozen=True)
class Patience:
    """How long a part may keep us waiting, in seconds.

    Args:
        start: Until it answers. A first start of Prefect's server takes 20 s on a quiet machine.
        ask: Between two looks at a part that has come up.
        silent: Without an answer, until that is told.
        hung: Without an answer, until the part is started anew.
    """

    start: float = 180.0
    ask: float = 10.0
    silent: float = 30.0
    hung: float = 300.0


class PartFailed(RoutinesError):
    """A part of `routines up` could not be started."""


async def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Part:
    """One of the processes that make a machine of routines.

    Args:
        name: As the user sees it.
        command: Program and arguments; no secrets.
        environment: All its variables.
        check: Whether it answers.
        prepare: Awaited before each start: what the user should know, or None; may raise a RoutinesError that ends everything.
        needs: What must answer before it is started; None if it can live alone.
        patience: Seconds that it gets to stop.
        keeps_children: Processes that it started live on when it dies (a worker's runs report for themselves).
        stopping: What is told while it stops.
        remedy: What to do when it does not start.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    check: Check
    prepare: Callable[[], Awaitable[str | None]] = _nothing
    needs: Check | None = None
    patience: float = 20.0
    keeps_children: bool = False
    stopping: str = "stopping"
    remedy: str = "correct what it says there"


class Keeper:
    """Keeps one part running.

    Args:
        part: The part.
        log: Gets what it says.
        say: Gets what happens to it.
        heard: Gets each line of its log, too.
        patience: How long it may keep us waiting.
    """

    def __init__(
        self,
        part: Part,
        log: RotatingLog,
        say: Say,
        heard: Callable[[str, bytes], None] | None = None,
        patience: Patience = Patience(),
    ) -> None:
        self.part, self.log, self._heard, self._patience = part, log, heard, patience
        self.answers = asyncio.Event()
        self._say = say
        self._process: Process | None = None
        self._left: list[Process] = []
        self._pause = 0

    def say(self, text: str) -> None:
        self._say(self.part.name, text)

    def _hear(self, line: bytes) -> None:
        self.log.write(line)
        if self._heard is not None:
            self._heard(self.part.name, line)

    async def keep(self) -> None:
        """Until cancelled.

        Raises:
            PartFailed: It could not be started.
        """
        failed = 0
        while True:
            await self._wait_for_need()
            if known := await self.part.prepare():
                self.say(known)
            began = time.monotonic()
            try:
                process = self._process = await Process.start(self.part.command, self.part.environment, self._hear)
            except OSError as error:  # no memory, no descriptors
                failed += 1
                await self._again(failed, f"cannot be started ({error.strerror})")
                continue
            failure = await self._come_up(process)
            if failure is None:
                failed = 0
                self.answers.set()
                self.say(f"answers after {time.monotonic() - began:.1f} s (process {process.pid})")
                up_since = time.monotonic()
                ending = await self._watch(process)
                self._pause = 0 if time.monotonic() - up_since > STEADY else self._pause
            else:
                needed = self.part.needs is None or await self.part.needs() is None
                failed += needed  # else it is not to blame
                ending = failure
            self.answers.clear()
            self._process = None
            self._left.append(process)
            if not self.part.keeps_children:
                process.kill()
                await process.gone()
            await self._again(failed, ending)

    async def _again(self, failed: int, ending: str) -> None:
        """Wait before the next start, if there is to be one."""
        if failed >= TRIES:
            raise PartFailed(self._failure(ending))
        pause = PAUSES[min(self._pause, len(PAUSES) - 1)]
        self._pause += 1
        self.say(f"{ending}; starting it again in {pause:g} s")
        await asyncio.sleep(pause)

    async def _wait_for_need(self) -> None:
        if self.part.needs is None:
            return
        waiting = time.monotonic()
        while await self.part.needs() is not None:
            if time.monotonic() - waiting > NEED_NOTE_EVERY:
                self.say("waits for the Prefect server")
                waiting = time.monotonic()
            await asyncio.sleep(LOOK_EVERY)

    async def _come_up(self, process: Process) -> str | None:
        """Wait until it answers; if it does not, what to tell about that."""
        exited = asyncio.create_task(process.exited())
        began = told = time.monotonic()
        try:
            while time.monotonic() - began < self._patience.start:
                if await self.part.check() is None and not exited.done():
                    return None
                await asyncio.wait([exited], timeout=LOOK_EVERY)
                if exited.done():
                    return self._ending(process)
                if time.monotonic() - told > NOTE_EVERY:
                    told = time.monotonic()
                    self.say(f"still starting ({told - began:.0f} s)")
            process.kill()
            return f"has not answered within {self._patience.start:g} s"
        finally:
            exited.cancel()

    async def _watch(self, process: Process) -> str:
        """Wait for its end; what to tell about it."""
        exited = asyncio.create_task(process.exited())
        silent_since: float | None = None
        told = False
        try:
            while True:
                await asyncio.wait([exited], timeout=self._patience.ask)
                if exited.done():
                    return self._ending(process)
                reason = await self.part.check()
                if reason is None:
                    if told:
                        self.say("answers again")
                    silent_since, told = None, False
                    continue
                blameless = self.part.needs is not None and await self.part.needs() is not None
                silent_since = silent_since or time.monotonic()
                silent = time.monotonic() - silent_since
                if silent > self._patience.silent and not told:
                    told = True
                    self.say("waits for the Prefect server" if blameless else f"does not answer ({reason}); log: {self.log.path}")
                if silent > self._patience.hung and not blameless:
                    process.kill()
                    return f"has not answered for {silent:.0f} s"
        finally:
            exited.cancel()

    @staticmethod
    def _ending(process: Process) -> str:
        status = process.status
        if status is not None and status < 0:
            with suppress(ValueError):
                return f"was ended by {signal.Signals(-status).name}"
        return f"has ended with status {status}"

    def _failure(self, ending: str) -> str:
        said = one_line(self.log.last_line(), 200)
        last = f' Its last words: "{said}".' if said else ""
        return f"the {self.part.name} could not be started ({TRIES} tries; it {ending}).{last} Read {self.log.path}; {self.part.remedy}"

    async def stop(self, hurry: asyncio.Event) -> None:
        """Stop the part and all that it left behind; with `hurry` set, at once."""
        processes = [process for process in [self._process, *self._left] if process is not None]
        if self._process is not None and not hurry.is_set():
            self.say(self.part.stopping)
        for process in processes:
            process.stop()
        gone: asyncio.Future[Any] = asyncio.gather(*(process.gone() for process in processes))
        hurried: asyncio.Future[Any] = asyncio.create_task(hurry.wait())
        try:
            await asyncio.wait([gone, hurried], timeout=self.part.patience, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done():
                for process in processes:
                    process.kill()
            await gone
        finally:
            hurried.cancel()
            self.log.close()
