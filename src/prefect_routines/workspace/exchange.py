"""The host's end of the frames: requests to a sandbox's supervisor and what comes back, none of it believed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from prefect_routines.errors import SandboxLost, ToolError
from prefect_routines.workspace import frames
from prefect_routines.workspace.container import Container

GRACE = 15.0
"""Seconds that the supervisor may be late with an answer (a busy machine) before it counts as lost."""
STDIN_WINDOW = 4 * 1024 * 1024
STRAYS_MAX = 100_000
"""Frames of calls given up meanwhile: some are on their way then, a flood is an attack on the host."""

Parsed = TypeVar("Parsed", frames.BashResult, frames.RunResult, frames.ToolResult)


class Call:
    """A request on its way."""

    def __init__(self, max_output: int = 0, on_output: Callable[[int, bytes], None] | None = None) -> None:
        self.result: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.on_output = on_output
        self.streams = {1: bytearray(), 2: bytearray()}
        self.left = max_output
        self.truncated = False
        self.unacknowledged = 0
        self.taken = asyncio.Event()
        self.stopped: str | None = None
        """Why the host had it stopped before its end."""


class Exchange:
    """Requests and answers of one sandbox. Whatever no honest supervisor would send ends it.

    Args:
        container: The running process. It is killed when it breaks the rules.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        self._calls: dict[int, Call] = {}
        self._next = 1
        self._lost: str | None = None
        self._strays = 0
        self._listener = asyncio.create_task(self._listen(), name="sandbox frames")

    async def _ask(
        self,
        model: type[Parsed],
        request: Mapping[str, Any],
        timeout: float,
        *,
        call: Call | None = None,
        stdin: Iterator[bytes] | None = None,
    ) -> Parsed:
        call = call or Call()
        number = self._number(call)
        feeder = None
        try:
            async with asyncio.timeout(timeout + GRACE):
                await self._send({"id": number, **request})
                if stdin is not None:
                    feeder = asyncio.create_task(self._feed(number, call, stdin))
                body = await asyncio.shield(call.result)
        except TimeoutError:
            self._fail(f"the sandbox did not answer within {timeout + GRACE:.0f} s and was stopped")
            self._container.kill()
            raise SandboxLost(self._lost or "") from None
        except asyncio.CancelledError:
            if self._lost is None:
                self._container.writer.write(frames.encode({"id": number, "op": "cancel"}))
            raise
        finally:
            if feeder is not None:
                feeder.cancel()
            del self._calls[number]
            if call.result.done() and not call.result.cancelled():
                call.result.exception()  # seen, also when nobody waits for it any more
        return self._parse(model, body, call)

    def _number(self, call: Call) -> int:
        """Register a call that is about to be made."""
        if self._lost is not None:
            raise SandboxLost(self._lost)
        number, self._next = self._next, self._next + 1
        self._calls[number] = call
        return number

    def _parse(self, model: type[Parsed], body: bytes, call: Call) -> Parsed:
        try:
            parsed = frames.parse(model, body)
        except SandboxLost as error:
            self._fail(str(error))
            self._container.kill()
            raise
        if call.stopped is not None:
            raise ToolError(call.stopped)
        if isinstance(parsed, frames.Refusal):
            raise ToolError(parsed.error)
        return parsed

    async def _send(self, header: Mapping[str, Any], body: bytes = b"") -> None:
        try:
            self._container.writer.write(frames.encode(header, body))
            await self._container.writer.drain()
        except ConnectionError as error:
            raise SandboxLost(self._lost or "the sandbox has ended") from error

    async def _feed(self, number: int, call: Call, chunks: Iterator[bytes]) -> None:
        try:
            for chunk in chunks:
                while call.unacknowledged > STDIN_WINDOW:
                    call.taken.clear()
                    await call.taken.wait()
                call.unacknowledged += len(chunk)
                await self._send({"id": number, "op": "stdin", "last": False}, chunk)
            await self._send({"id": number, "op": "stdin", "last": True})
        except (SandboxLost, OSError) as error:
            if not call.result.done():
                failure = error if isinstance(error, SandboxLost) else ToolError(f"cannot read what should be written: {error}")
                call.result.set_exception(failure)

    async def _listen(self) -> None:
        try:
            while True:
                header, body = await frames.read(self._container.reader)
                call = self._calls.get(header.id)
                if header.id >= self._next or header.kind == "ready":
                    raise SandboxLost("the sandbox answered what nobody asked and was stopped: something in it took over its supervisor")
                self._check_wanted(header, body, call)
                if call is None:
                    continue  # given up meanwhile
                if header.kind == "chunk":
                    kept = body[: call.left]
                    call.left -= len(kept)
                    call.truncated |= len(kept) < len(body)
                    if call.on_output is not None:
                        call.on_output(header.stream, kept)
                    else:
                        call.streams[header.stream] += kept
                elif header.kind == "credit":
                    call.unacknowledged -= header.bytes
                    call.taken.set()
                elif not call.result.done():
                    call.result.set_result(body)
        except SandboxLost as error:
            self._container.kill()
            self._fail(f"{error}{await self._container.last_words()}")

    def _check_wanted(self, header: frames.Header, body: bytes, call: Call | None) -> None:
        """Refuse what no honest supervisor sends, or not so often: each frame takes time of the host's loop, which serves others too."""
        empty = header.kind == "credit" and not header.bytes  # the end of some stdin
        self._strays += call is None or empty
        unwanted = call is not None and (
            (header.kind == "chunk" and not (body and call.left)) or (header.kind == "credit" and header.bytes > call.unacknowledged)
        )
        if unwanted or self._strays > STRAYS_MAX:
            raise SandboxLost("the sandbox sent frames that nobody waits for and was stopped: something in it took over its supervisor")

    def _fail(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
        for call in self._calls.values():
            if not call.result.done():
                call.result.set_exception(SandboxLost(self._lost))
