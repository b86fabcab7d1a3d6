"""The test's hand on another process that has the store open; what runs there is actor.py."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any


class ActorProcess:
    """Another process with a store; see actor.py."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self) -> Any:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 60)
        assert line, f"the other process ended with {await self._process.wait()}"
        return json.loads(line)

    def tell(self, verb: str, *arguments: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([verb, *arguments]).encode() + b"\n")

    async def does(self, verb: str, *arguments: object) -> Any:
        self.tell(verb, *arguments)
        return await self.says()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    async def kill(self) -> None:
        """kill -9, and wait until it is dead."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


StartActor = Callable[..., Awaitable[ActorProcess]]
