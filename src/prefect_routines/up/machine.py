"""The whole: all parts kept running until somebody says stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from prefect_routines.up.keeper import Keeper, Say
from prefect_routines.up.logs import RotatingLog
from prefect_routines.up.plan import Plan

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Machine:
    """All parts of a plan.

    Args:
        plan: What to run.
        logs: Directory of the parts' logs.
        say: Gets the name of a part and what happened to it.
        ready: Called once, when everything answers.
        heard: Gets each line of the parts' logs; None: they go to the files only.
    """

    def __init__(
        self,
        plan: Plan,
        logs: Path,
        say: Say,
        ready: Callable[[], None],
        heard: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self._ready = ready
        self._keepers = [Keeper(part, RotatingLog(logs / f"{part.name}.log"), say, heard) for part in plan.parts]
        self._signals: list[int] = []
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()

    async def run(self) -> int:
        """Until a signal comes: its number.

        Raises:
            PartFailed: A part could not be started; the others are stopped by then.
        """
        loop = asyncio.get_running_loop()
        caught = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # `nohup` wants SIGHUP ignored
        for number in caught:
            loop.add_signal_handler(number, self._signalled, number)
        try:
            return await self._keep()
        finally:
            for number in caught:
                loop.remove_signal_handler(number)

    def _signalled(self, number: int) -> None:
        self._signals.append(number)
        self._stop.set()
        if len(self._signals) > 1:
            self._hurry.set()

    async def _keep(self) -> int:
        keeping = [asyncio.create_task(keeper.keep()) for keeper in self._keepers]
        stopped = asyncio.create_task(self._stop.wait())
        announcing = asyncio.create_task(self._announce())
        try:
            done, _ = await asyncio.wait([stopped, *keeping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (announcing, stopped, *keeping):
                task.cancel()
            for task in (announcing, *keeping):
                with suppress(asyncio.CancelledError, Exception):  # the first that failed is raised below
                    await task
            for keeper in reversed(self._keepers):
                await keeper.stop(self._hurry)
        for task in done - {stopped}:
            await task
        return self._signals[0]

    async def _announce(self) -> None:
        for keeper in self._keepers:
            await keeper.answers.wait()
        self._ready()
