"""The worker's side of the warm process: keeps one alive, gets children from it, knows when and how each of them ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_routines.errors import RoutinesError
from prefect_routines.store.holder import Holder

if TYPE_CHECKING:
    from prefect_routines.workers.child import Orders

_ATTEMPTS = 3
_IMPORT_SECONDS = 60.0
_FORK_SECONDS = 15.0
_STATUS_SECONDS = 2.0
_END_SECONDS = 5.0


class CannotStart(RoutinesError):
    """No process could be started for a run. Nothing of the run was executed."""


class Child:
    """One forked process. `returncode` is None while it runs, as Prefect expects of a process.

    Attributes:
        holder: The process, told exactly enough to see later whether it still lives.
        ended: Set when the process is gone and `returncode` is known.
    """

    def __init__(self, holder: Holder, talk: socket.socket) -> None:
        self.holder, self.pid = holder, holder.pid
        self.returncode: int | None = None
        self.ended = asyncio.Event()
        self._talk = talk

    async def go(self, orders: Orders) -> None:
        """Give the child its orders; only from now on may it do anything.

        Raises:
            CannotStart: It died before it had them all.
        """
        data = json.dumps(orders).encode()
        try:
            await asyncio.get_running_loop().sock_sendall(self._talk, struct.pack("!I", len(data)) + data)
        except OSError as error:
            raise CannotStart(f"process {self.pid} died before its run began; the run was not started") from error
        finally:
            self._talk.close()

    def forget(self) -> None:
        """Let a child that got no orders end."""
        self._talk.close()

    def end(self, status: int) -> None:
        """Note how it ended."""
        if self.returncode is None:
            self.returncode = status
            self.ended.set()

    # Prefect's termination scope: a run is a process group of its own, so that what it started goes with it.
    wait_after_graceful_kill = True

    def is_alive(self, pid: int) -> bool:
        """Whether the process has not ended."""
        return self.returncode is None

    def graceful_kill(self, pid: int) -> None:
        """SIGTERM to the run's process; it ends what it started."""
        self._signal(os.kill, signal.SIGTERM)

    def hard_kill(self, pid: int) -> None:
        """SIGKILL to all of the run's process group."""
        self._signal(os.killpg, signal.SIGKILL)

    def _signal(self, send: Any, number: int) -> None:
        if self.returncode is not None:
            raise ProcessLookupError(self.pid)  # the number may be another process's by now
        send(self.pid, number)

    def close(self) -> None:
        """Nothing is kept."""


class _Zygote:
    """One warm process, from its start to its end."""

    def __init__(self) -> None:
        self.state = installed()
        self._pair, theirs = socket.socketpair()
        self._pair.setblocking(False)
        self._theirs: socket.socket | None = theirs
        self._children: dict[int, Child] = {}
        self._early: dict[int, int] = {}
        self.ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self.alive = False
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, env: dict[str, str]) -> None:
        """Start it and wait until it has imported everything."""
        assert self._theirs is not None
        with self._theirs as theirs:
            command = [sys.executable, "-P", "-m", "prefect_routines.workers.zygote", str(theirs.fileno())]
            # a session of its own: Ctrl-C in the worker's terminal is for the worker, which decides what becomes of the runs
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True, env=env
            )
        self.alive, self._process = True, process
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._await_end(process))]
        async with asyncio.timeout(_IMPORT_SECONDS):
            await self.ready

    async def _await_end(self, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        self.alive = False
        if not self.ready.done():
            self.ready.set_exception(CannotStart(f"the warm process ended with status {status} while it was starting"))

    async def _listen(self) -> None:
        loop, rest = asyncio.get_running_loop(), b""
        while True:
            with suppress(ConnectionError):
                more = await loop.sock_recv(self._pair, 65536)
                if more:
                    *lines, rest = (rest + more).split(b"\n")
                    for line in lines:
                        self._hear(json.loads(line))
                    continue
            self.alive = False
            return

    def _hear(self, message: dict[str, int]) -> None:
        if "ready" in message:
            if not self.ready.done():
                self.ready.set_result(message["ready"])
        elif message["pid"] in self._children:
            self._children.pop(message["pid"]).end(message["status"])
        else:
            self._early[message["pid"]] = message["status"]

    async def fork(self) -> Child:
        """A child that waits for its orders.

        Raises:
            OSError, TimeoutError: The zygote died; whatever it forked gets no orders and does nothing.
        """
        loop = asyncio.get_running_loop()
        talk, theirs = socket.socketpair()
        try:
            talk.setblocking(False)
            with theirs:
                socket.send_fds(self._pair, [b"f"], [theirs.fileno()])
            async with asyncio.timeout(_FORK_SECONDS):
                (length,) = struct.unpack("!I", await _exactly(talk, 4))
                holder = Holder.from_json(json.loads(await _exactly(talk, length))["process"])
        except BaseException:
            talk.close()
            raise
        child = Child(holder, talk)
        self._children[child.pid] = child
        if child.pid in self._early:
            self._children.pop(child.pid).end(self._early.pop(child.pid))
        else:
            self._watch(child, loop)
        return child

    def _watch(self, child: Child, loop: asyncio.AbstractEventLoop) -> None:
        """Notice the child's end also when nobody is left to say how it ended."""
        try:
            descriptor = os.pidfd_open(child.pid)
        except ProcessLookupError:
            loop.call_later(_STATUS_SECONDS, self._lose, child)
            return

        def gone() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            loop.call_later(_STATUS_SECONDS, self._lose, child)

        loop.add_reader(descriptor, gone)

    def _lose(self, child: Child) -> None:
        """A child ended and the zygote, dead itself, has not said how."""
        if self._children.get(child.pid) is child:
            del self._children[child.pid]
        child.end(1)

    def retire(self) -> None:
        """Have no more children; it ends when its last one has ended."""
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self.alive and self._children:
            asyncio.get_running_loop().call_later(1.0, self._close_when_idle)
        else:
            self.close()

    async def wait_closed(self) -> None:
        """Close, and wait until it is gone; one that hangs is killed."""
        self.close()
        if self._process is not None and self._process.returncode is None:
            try:
                async with asyncio.timeout(_END_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    def close(self) -> None:
        """End it: at the end of its pair it goes."""
        for task in self._tasks:
            task.cancel()
        if self._pair.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._pair)
            self._pair.close()


async def _exactly(talk: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await asyncio.get_running_loop().sock_recv(talk, count - len(data))
        if not more:
            raise ConnectionError("the child is gone")
        data += more
    return data


def _places() -> Iterator[Path]:
    """What changes when something is installed: the directories of packages, and the modules of this package itself."""
    for place in map(Path, sys.path):
        if place.name in ("site-packages", "dist-packages"):
            yield place
    yield from Path(__file__).parents[1].rglob("*.py")


def installed() -> dict[str, int]:
    """The state of what is installed. Another one means that the warm process has old code."""
    found = {}
    for place in _places():
        with suppress(OSError):
            found[str(place)] = place.stat().st_mtime_ns
    return found


class Warm:
    """Keeps a warm process and hands out its children.

    Example:
        ```python
        warm = Warm()
        await warm.start()
        child = await warm.fork()
        await child.go(orders)
        await child.ended.wait()
        ```
    """

    def __init__(self) -> None:
        self._zygote: _Zygote | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Process number of the warm process, None while there is none."""
        return self._zygote.ready.result() if self._zygote is not None and self._zygote.alive and self._zygote.ready.done() else None

    async def start(self) -> None:
        """Have a warm process that is alive and up to date."""
        await self._current()

    async def _current(self) -> _Zygote:
        async with self._turn:
            zygote = self._zygote
            if zygote is not None and zygote.alive and zygote.state == await asyncio.to_thread(installed):
                return zygote
            if zygote is not None:
                zygote.retire()
            self._zygote = fresh = _Zygote()
            # what names one run or this worker in the environment is the child's affair
            inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
            # glibc's heaps per thread (mallopt(3)) take a burst of twenty runs some 100 MB more, and no less time
            await fresh.start({"MALLOC_ARENA_MAX": "2", **inherited})
            return fresh

    async def fork(self) -> Child:
        """A child that waits for its orders. A warm process that died is replaced; what it forked without orders does nothing.

        Raises:
            CannotStart: Several in a row could not be started.
        """
        trouble: Exception | None = None
        for _ in range(_ATTEMPTS):
            zygote: _Zygote | None = None
            try:
                zygote = await self._current()
                return await zygote.fork()
            except (OSError, TimeoutError, CannotStart) as error:
                trouble = error
                if zygote is not None:
                    zygote.alive = False
        raise CannotStart(f"no process for the run: the warm process died {_ATTEMPTS} times ({trouble}); the worker's output says why")

    async def close(self) -> None:
        """End the warm process; its children go on."""
        if self._zygote is not None:
            await self._zygote.wait_closed()
