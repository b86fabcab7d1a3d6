"""The stdio transport of MCP, with the server in a sandbox of its own: one JSON message a line.

https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#stdio
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse, jsonrpc_message_adapter

from prefect_routines.connectors.mcp.trouble import ANSWER_MAX, Trouble
from prefect_routines.errors import RoutinesError
from prefect_routines.visible import one_line
from prefect_routines.workspace.sandbox import Sandbox, SandboxSpec

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from prefect_routines.workspace.conversation import Pipe

REQUESTS_MAX, LINES_MAX = 1_000, 20_000
"""Requests to us, and lines of any kind, that may come between two answers of the server: more is a flood, and costs the host time."""


@asynccontextmanager
async def server_in_sandbox(spec: SandboxSpec, command: Sequence[str], trouble: Trouble) -> AsyncIterator[Any]:
    """Start the server, and give the pair of streams that the MCP library wants of a transport. At the end nothing of it is left.

    Args:
        spec: Its sandbox.
        command: Program and arguments, as found inside.
        trouble: Gets what goes wrong.

    Raises:
        SandboxUnavailable: There is no sandbox here.
        ToolError: It could not be started.
    """
    trouble.replaceable = True
    async with await Sandbox.start(spec) as box, box.talk(command) as pipe:
        read_in, read_out = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write_in, write_out = anyio.create_memory_object_stream[SessionMessage](0)
        traffic = _Traffic(pipe, trouble)
        async with read_in, read_out, write_in, write_out, anyio.create_task_group() as group:
            group.start_soon(traffic.read, read_in)
            group.start_soon(traffic.write, write_out)
            try:
                yield read_out, write_in
            finally:
                group.cancel_scope.cancel()


class _Traffic:
    """Messages in both directions. The stream to the library ends when the server does, or breaks the rules; `trouble` then says why."""

    def __init__(self, pipe: Pipe, trouble: Trouble) -> None:
        self._pipe, self._trouble = pipe, trouble
        self._requests = self._lines = 0

    async def read(self, to_library: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        async with to_library:
            try:
                async with aclosing(self._pipe.lines(ANSWER_MAX)) as lines:
                    async for line in lines:
                        message = self._message(line)
                        if self._trouble.fault is not None:
                            return
                        if message is not None:
                            await to_library.send(message)
                self._trouble.stderr = self._pipe.stderr
                self._fail(f"it ended with exit status {self._pipe.exit_code}")
            except RoutinesError as error:
                self._fail(str(error))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # the library has no use for more

    def _message(self, line: bytes) -> SessionMessage | None:
        self._lines += 1
        if self._lines > LINES_MAX:
            self._fail("it talks and talks, and does not answer")
        text = line.strip()
        if not text.startswith(b"{"):
            if text:  # something that it should have written to stderr
                first, count = self._trouble.junk or (one_line(text[:400].decode("utf-8", "replace")), 0)
                self._trouble.junk = first, count + 1
            return None
        try:
            message = jsonrpc_message_adapter.validate_json(text, by_name=False)
        except ValueError:
            self._fail(f"it sent malformed JSON: {one_line(text[:400].decode('utf-8', 'replace'))!r}")
            return None
        self._requests += isinstance(message, JSONRPCRequest)
        if isinstance(message, JSONRPCResponse | JSONRPCError):
            self._requests = self._lines = 0
        elif self._requests > REQUESTS_MAX:
            self._fail("it asks and asks, and does not answer")
        return SessionMessage(message)

    async def write(self, from_library: MemoryObjectReceiveStream[SessionMessage]) -> None:
        async with from_library:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                async for item in from_library:
                    data = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                    with suppress(RoutinesError):  # the reader tells why
                        await self._pipe.send(data.encode() + b"\n")

    def _fail(self, fault: str) -> None:
        self._trouble.fault = self._trouble.fault or fault
