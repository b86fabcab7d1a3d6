"""One start of a part: its process under a guard, its log, its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

GUARD = Path(__file__).with_name("guard.py")
LINE_MAX = 16384
"""Bytes after which a line of the log is cut in two."""


class Process:
    """A running part. Made by `start`.

    Attributes:
        pid: Of the part itself; None if it could not be started.
    """

    def __init__(self, guard: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._guard, self._reader, self._writer = guard, reader, writer
        self.pid: int | None = None
        self._exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str], heard: Callable[[bytes], None]) -> Process:
        """Start a command; `heard` gets each line that it or its children write.

        Args:
            command: Program and arguments. No secrets: everybody on the machine can read them.
            environment: All its variables.
            heard: Called in the event loop, with the newline.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            guard = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(GUARD), str(theirs.fileno())),
                *command,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                limit=LINE_MAX,
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        process = cls(guard, reader, writer)
        process._tasks = [asyncio.create_task(process._listen(heard)), asyncio.create_task(process._follow())]
        return process

    async def _listen(self, heard: Callable[[bytes], None]) -> None:
        stream = self._guard.stdout
        assert stream is not None
        rest = b""
        while data := await stream.read(LINE_MAX):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                heard(line + b"\n")
            if len(rest) > LINE_MAX:
                heard(rest + b"\n")
                rest = b""
        if rest:
            heard(rest + b"\n")

    async def _follow(self) -> None:
        """What the guard tells. When it is gone without a word, so is the part (PR_SET_PDEATHSIG)."""
        with contextlib.suppress(ConnectionError):  # it ended with an order unread
            while line := await self._reader.readline():
                word, number = line.decode().split()
                if word == "started":
                    self.pid = int(number)
                elif not self._exited.done():
                    self._exited.set_result(int(number))
        self._writer.close()
        if not self._exited.done():
            self._exited.set_result(-9)

    async def exited(self) -> int:
        """Wait for the end of the part itself: its exit status, or minus the signal's number. Its children may live on."""
        return await asyncio.shield(self._exited)

    @property
    def status(self) -> int | None:
        """The exit status of the part, or minus the signal's number; None while it runs."""
        return self._exited.result() if self._exited.done() else None

    async def gone(self) -> None:
        """Wait until the part and everything that it started has ended."""
        await self._guard.wait()
        await asyncio.gather(*self._tasks)

    def stop(self) -> None:
        """Tell the part to stop (SIGTERM); when it has, the same to what it left behind, which is killed 10 s later."""
        self._order(b"T")

    def kill(self) -> None:
        """Kill the part and everything that it started."""
        self._order(b"K")

    def _order(self, letter: bytes) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write(letter)
