"""A program in the sandbox that one talks to: both its pipes stay open, and neither side can make the other hold more than a window."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from prefect_routines.errors import SandboxLost, ToolError
from prefect_routines.workspace import frames
from prefect_routines.workspace.exchange import GRACE, STDIN_WINDOW, Call, Exchange

WINDOW = 4 * 1024 * 1024
"""Bytes of stdout that wait here unread; the supervisor reads no more from the program until some were taken."""
STDERR_TAIL = 8192
"""Bytes of stderr that the supervisor keeps, and sends when the program has ended."""
UNLIMITED = 1 << 50  # bytes: the window is the bound


class Pipe:
    """The host's end of a running program."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._unread = bytearray()
        self._stderr = bytearray()
        self._news = asyncio.Event()
        self._closing = False
        self._call = Call(UNLIMITED, self._heard)
        self._call.result.add_done_callback(self._ended)
        self._number = 0

    @property
    def ended(self) -> bool:
        """Whether the program has ended, or the sandbox with it."""
        return self._call.result.done()

    @property
    def stderr(self) -> str:
        """The last of what the program wrote to stderr; known when it has ended."""
        return self._stderr.decode("utf-8", "replace")

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it; 126 or 127: it could not be started.

        Raises:
            ToolError: It could not be started, or was stopped because the workspace grew too large.
            SandboxLost: The sandbox died.
        """
        if not self.ended:
            return None
        return self._exchange._parse(frames.RunResult, self._call.result.result(), self._call).exit_code

    def _heard(self, stream: int, data: bytes) -> None:
        if self._closing:
            return
        held = self._unread if stream == 1 else self._stderr
        held += data
        if len(held) > (WINDOW if stream == 1 else STDERR_TAIL):
            raise SandboxLost("the sandbox sent more than it was told to and was stopped: something in it took over its supervisor")
        self._news.set()

    def _ended(self, _: object) -> None:
        self._news.set()
        self._call.taken.set()

    async def send(self, data: bytes) -> None:
        """Write to the program's stdin; waits while it does not read.

        Raises:
            ToolError: The program has ended.
            SandboxLost: The sandbox died.
        """
        for chunk in frames.chunks(data):
            while self._call.unacknowledged > STDIN_WINDOW and not self.ended:
                self._call.taken.clear()
                await self._call.taken.wait()
            if self.ended:
                raise ToolError(f"the program has ended (exit status {self.exit_code})")
            self._call.unacknowledged += len(chunk)
            await self._exchange._send({"id": self._number, "op": "stdin", "last": False}, chunk)

    async def lines(self, max_bytes: int) -> AsyncGenerator[bytes, None]:
        """Each line of the program's stdout as it comes, without its end, until the program ends.

        Args:
            max_bytes: Bytes of the longest line.

        Raises:
            ToolError: A line is longer.
            SandboxLost: The sandbox died.
        """
        rest = bytearray()
        while chunk := await self._take():
            first, *others = chunk.split(b"\n")
            if len(rest) + len(first) > max_bytes:
                raise ToolError(f"the program wrote a line of more than {max_bytes:,} bytes")
            rest += first
            for part in others:
                yield bytes(rest)
                if len(part) > max_bytes:
                    raise ToolError(f"the program wrote a line of more than {max_bytes:,} bytes")
                rest = bytearray(part)
        if rest:
            yield bytes(rest)

    async def _take(self) -> bytes:
        """What came meanwhile; nothing: it has ended."""
        while not self._unread and not self.ended:
            self._news.clear()
            await self._news.wait()
        if not self._unread:
            error = self._call.result.exception()
            if error is not None:
                raise error
            return b""
        taken, self._unread = bytes(self._unread), bytearray()
        if not self.ended:
            await self._exchange._send({"id": self._number, "op": "taken", "bytes": len(taken)})
        return taken

    async def _open(self, request: Mapping[str, Any]) -> None:
        self._number = self._exchange._number(self._call)
        bounds = {"stdin": True, "timeout": None, "max_output": UNLIMITED, "merge_stderr": False, "window": WINDOW}
        await self._exchange._send({"id": self._number, **request, **bounds})

    async def _close(self) -> None:
        """Have its tree killed and wait for that, so that nothing of it comes later."""
        self._closing = True
        if not self.ended:
            try:
                await self._exchange._send({"id": self._number, "op": "cancel"})
                await asyncio.wait_for(asyncio.shield(self._call.result), GRACE)
            except TimeoutError:
                self._exchange._fail(f"the sandbox did not end a program within {GRACE:.0f} s and was stopped")
                self._exchange._container.kill()
            except (SandboxLost, ToolError):
                pass
        self._exchange._calls.pop(self._number, None)
        if self.ended:
            self._call.result.exception()  # seen, also when nobody asks


@asynccontextmanager
async def conversation(exchange: Exchange, request: Mapping[str, Any]) -> AsyncIterator[Pipe]:
    """Start what `request` names and talk to it until the block is left."""
    pipe = Pipe(exchange)
    await pipe._open(request)
    try:
        yield pipe
    finally:
        closing = asyncio.ensure_future(pipe._close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing
            raise
