"""The two streams between a transport and the MCP library, watched: what comes is counted, its end noticed, a flood of requests dropped."""

from __future__ import annotations

import asyncio
from typing import Any

from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse

from prefect_routines.connectors.mcp.trouble import Trouble

UNANSWERED_MAX = 100
"""Requests of a server to us that wait for our answer. Each holds memory; more are not even refused."""


class Received:
    """What a server sends.

    Args:
        stream: From the transport.
        trouble: Counts what was heard.
        ended: Set when the stream ends.
    """

    def __init__(self, stream: Any, trouble: Trouble, ended: asyncio.Event) -> None:
        self._stream, self._trouble, self._ended = stream, trouble, ended
        self.unanswered = 0

    @property
    def last_context(self) -> Any:
        """The library runs what it makes of a message in its sender's context."""
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> Any:
        """The next message."""
        return await self._stream.receive()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Received:
        return self

    async def __anext__(self) -> Any:
        while True:
            try:
                item = await self._stream.__anext__()
            except StopAsyncIteration:
                self._ended.set()
                raise
            self._trouble.heard += 1
            if not isinstance(getattr(item, "message", None), JSONRPCRequest):
                return item
            if self.unanswered < UNANSWERED_MAX:
                self.unanswered += 1
                return item

    async def __aenter__(self) -> Received:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.aclose()


class Written:
    """What we send to a server.

    Args:
        stream: To the transport.
        received: Learns which requests are answered.
    """

    def __init__(self, stream: Any, received: Received) -> None:
        self._stream, self._received = stream, received

    async def send(self, item: Any) -> None:
        """Send a message."""
        await self._stream.send(item)
        if isinstance(item.message, JSONRPCResponse | JSONRPCError):
            self._received.unanswered -= 1

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Written:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.aclose()
