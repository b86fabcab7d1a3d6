"""One MCP server as a session uses it: connected when it is first called, by one task that holds the connection for the session.

The library's scopes belong to the task that opened them, so one task opens and closes a connection; calls go through it from theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    REQUEST_TIMEOUT,
    CallToolResult,
    Implementation,
    ToolListChangedNotification,
)
from pydantic import ValidationError

from prefect_routines.connectors.mcp.approval import Approved, Offer, compare, offer
from prefect_routines.connectors.mcp.gate import Gate
from prefect_routines.connectors.mcp.login import Login
from prefect_routines.connectors.mcp.streams import Received, Written
from prefect_routines.connectors.mcp.trouble import ANSWER_MAX, Failed, Trouble, from_message, reason
from prefect_routines.errors import OutcomeUnknown, RoutinesError, ToolError
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect_routines.workspace.spec import SandboxSpec

START_SECONDS = 60.0
LIST_EVERY = 60.0
"""Seconds after which the server is asked for its tools again: not each one says when they change."""
PAGES_MAX, TOOLS_MAX = 50, 1000
GRACE = 15.0
REFUSALS = frozenset({INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS})
"""Errors that say that a call was not made. After any other it may have been, in part: https://www.jsonrpc.org/specification#error_object"""

Transport = AbstractAsyncContextManager[Any]
Open = Callable[[Trouble, "SandboxSpec | None"], Transport]
Install = Callable[["SandboxSpec"], Coroutine[Any, Any, "SandboxSpec"]]


@contextlib.asynccontextmanager
async def over_http(url: str, login: Login, timeout: float) -> AsyncIterator[Any]:
    """The streams to a server over streamable HTTP."""
    gate = Gate(url, login, timeout + 2 * GRACE)
    async with (
        httpx2.AsyncClient(transport=gate, timeout=None) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=ANSWER_MAX) as streams,
    ):
        yield streams


@dataclass
class Link:
    """A living connection."""

    client: Client
    trouble: Trouble
    ended: asyncio.Event
    owner: asyncio.Task[None] | None = None
    offers: list[Offer] = field(default_factory=list)
    listed: float = 0.0
    relisting: asyncio.Lock = field(default_factory=asyncio.Lock)


class Server:
    """The server of one block, for one session.

    Args:
        name: Name of the block, for errors.
        open_streams: Gives the streams to it; takes a place for its troubles and the sandbox it may use.
        timeout: Seconds for one call.
        approved: The tools that the author approved.
        install: Makes the sandbox that the server needs of the session's. It may take minutes, beyond the time to start and to call.
    """

    def __init__(
        self, name: str, open_streams: Open, timeout: float, approved: Mapping[str, Approved], install: Install | None = None
    ) -> None:
        self.name, self._open, self._timeout, self._approved, self._install = name, open_streams, timeout, approved, install
        self._installing: asyncio.Task[SandboxSpec] | None = None
        self._link: Link | None = None
        self._connecting = asyncio.Lock()
        self._owners: set[asyncio.Task[None]] = set()
        for library in ("mcp", "httpx2"):  # they log what servers send, with its control characters
            logging.getLogger(library).setLevel(logging.CRITICAL)

    async def offers(self, spec: SandboxSpec | None = None) -> list[Offer]:
        """The tools that the server lists now.

        Raises:
            ToolError: It cannot be asked.
        """
        return (await self._linked(spec)).offers

    async def about(self, spec: SandboxSpec | None = None) -> str:
        """What the server calls itself.

        Raises:
            ToolError: It cannot be asked.
        """
        info = (await self._linked(spec)).client.server_info
        return one_line(f"{info.name} {info.version or ''}", 100) if info is not None else "an unnamed server"

    async def call(self, tool: str, arguments: dict[str, Any], spec: SandboxSpec | None, *, writes: bool) -> CallToolResult:
        """Call a tool.

        Args:
            tool: The server's name of it.
            arguments: Checked arguments.
            spec: The sandbox that the server may use, if it needs one.
            writes: Whether the tool writes: then it is told apart whether a failed call may have been carried out.

        Raises:
            ToolError: It was not carried out, or it failed.
            OutcomeUnknown: It writes, and may have been carried out.
        """
        for attempt in (1, 2):
            link = await self._linked(spec)
            self._unchanged(tool, link)
            try:
                return await self._called(link, tool, arguments)
            except Failed as failure:
                if failure.gone:
                    await self._drop(link)
                    if attempt == 1:
                        continue  # it was not carried out
                said = f"mcp/{self.name}: {failure.said}"
                if writes and failure.taken:
                    raise OutcomeUnknown(f"{said}; whether {one_line(tool, 60)} was carried out is unknown") from failure
                raise ToolError(said) from failure
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """End the connection, and the server's sandbox with it."""
        if self._installing is not None:
            self._installing.cancel()
            await asyncio.wait([self._installing], timeout=GRACE)
        if self._link is not None:
            self._link.ended.set()
        for owner in list(self._owners):
            if self._link is None or owner is not self._link.owner:
                owner.cancel()  # it is still connecting
            with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                await asyncio.wait_for(owner, GRACE)

    # -- calls ------------------------------------------------------------------------------------------------------------------------

    async def _called(self, link: Link, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        heard = link.trouble.heard
        try:
            async with asyncio.timeout(self._timeout + GRACE):  # the library's own time begins when the request was sent
                return await link.client.call_tool(tool, arguments, read_timeout_seconds=self._timeout)
        except (MCPError, TimeoutError) as error:
            if isinstance(error, TimeoutError) or error.code == REQUEST_TIMEOUT:
                if link.trouble.replaceable and link.trouble.heard == heard and not link.ended.is_set():
                    link.trouble.fault = link.trouble.fault or "it hung"
                    await self._drop(link)  # the next call begins with a new one
                raise Failed(f"it did not answer within {self._timeout:g} s{link.trouble.told()}", taken=True) from error
            if error.code == CONNECTION_CLOSED and error.message == "Connection closed":  # the code is used for lost streams too
                raise Failed(await self._obituary(link), taken=True, gone=False) from error
            refused = error.code in REFUSALS
            said = f"the server {'refused' if refused else 'reported an error'}: {one_line(error.message, 500)} (code {error.code})"
            raise from_message(error.message, error.data) or Failed(said, taken=not refused) from error
        except (ValidationError, RuntimeError, ValueError, RecursionError) as error:
            raise Failed(f"its answer is not of a form that MCP has ({one_line(str(error), 200)})", taken=True) from error

    async def _obituary(self, link: Link) -> str:
        """Why a connection ended; its owner has a moment to find out."""
        if link.owner is not None:
            await asyncio.wait([link.owner], timeout=GRACE)
        return f"it died during the call: {link.trouble.fault or 'the connection ended'}{link.trouble.told()}; the next call starts it anew"

    def _unchanged(self, tool: str, link: Link) -> None:
        state = compare({tool: self._approved[tool]}, [found for found in link.offers if found.name == tool])[tool]
        if state == "same":
            return
        what = "is gone from the server" if state == "gone" else "has changed"
        raise ToolError(
            f"the tool `{one_line(tool, 80)}` of mcp/{self.name} {what} since it was approved; "
            f"the author must look at it with `routines mcp approve {self.name}`"
        )

    # -- the connection ---------------------------------------------------------------------------------------------------------------

    async def _linked(self, spec: SandboxSpec | None) -> Link:
        async with self._connecting:
            link = self._link
            if link is None or link.ended.is_set():
                link = self._link = await self._connect(await self._installed(spec))
        if link.trouble.tools_changed or time.monotonic() > link.listed + LIST_EVERY:
            async with link.relisting:
                if link.trouble.tools_changed or time.monotonic() > link.listed + LIST_EVERY:
                    await self._relist(link)
        return link

    async def _installed(self, spec: SandboxSpec | None) -> SandboxSpec | None:
        """The sandbox with what the server needs. When a call is cut off meanwhile the installation goes on, and the next one has it."""
        if self._install is None or spec is None:
            return spec
        if self._installing is None:
            self._installing = asyncio.create_task(self._install(spec), name=f"setup of mcp/{self.name}")
            self._installing.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, also when nobody waits any more
        installing = self._installing
        try:
            return await asyncio.shield(installing)
        except RoutinesError as error:
            raise ToolError(f"mcp/{self.name} cannot be used: {error}") from error
        finally:
            if installing.done():
                self._installing = None  # one that failed is tried again; the result of the other is kept

    async def _relist(self, link: Link) -> None:
        link.trouble.tools_changed = False
        try:
            link.offers = await _listed(link.client)
        except (MCPError, TimeoutError, ValidationError, RuntimeError, ValueError) as error:
            link.trouble.fault = link.trouble.fault or reason(error)
            await self._drop(link)
            raise ToolError(f"mcp/{self.name} cannot be asked for its tools: {link.trouble.fault}{link.trouble.told()}") from error
        link.listed = time.monotonic()

    async def _connect(self, spec: SandboxSpec | None) -> Link:
        ready: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        owner = asyncio.create_task(self._own(spec, ready), name=f"mcp/{self.name}")
        self._owners.add(owner)
        owner.add_done_callback(self._owners.discard)
        try:
            link = await asyncio.shield(ready)
        except asyncio.CancelledError:
            owner.cancel()
            raise
        link.owner = owner
        return link

    async def _own(self, spec: SandboxSpec | None, ready: asyncio.Future[Link]) -> None:
        """Open the connection, hold it until it ends, close it: all in this task."""
        trouble, ended = Trouble(), asyncio.Event()

        async def heard(message: object) -> None:
            trouble.tools_changed |= isinstance(message, ToolListChangedNotification)

        @contextlib.asynccontextmanager
        async def streams() -> AsyncIterator[Any]:
            async with self._open(trouble, spec) as (read, write):
                received = Received(read, trouble, ended)
                yield received, Written(write, received)

        client = Client(
            streams(),
            read_timeout_seconds=self._timeout,
            client_info=Implementation(name="prefect-routines", version="1"),
            message_handler=heard,
            cache=None,
        )
        try:
            async with asyncio.timeout(START_SECONDS) as starting, client:
                # The check of structured answers runs regular expressions of the server's, which may never end.
                client.session.validate_tool_result = _unchecked  # type: ignore[method-assign]
                link = Link(client, trouble, ended, offers=await _listed(client), listed=time.monotonic())
                starting.reschedule(None)
                if not ready.done():
                    ready.set_result(link)
                await ended.wait()
        except BaseException as error:
            trouble.fault = trouble.fault or reason(error)
            if not ready.done():
                ready.set_exception(ToolError(f"mcp/{self.name} cannot be used: {trouble.fault}{trouble.told()}"))
                ready.exception()  # seen, also when nobody waits any more
            if isinstance(error, asyncio.CancelledError | KeyboardInterrupt | SystemExit):
                raise
        finally:
            ended.set()

    async def _drop(self, link: Link) -> None:
        link.ended.set()
        if link.owner is not None:
            await asyncio.wait([link.owner], timeout=GRACE)


async def _unchecked(name: str, result: CallToolResult) -> None:
    """Take the answer as it is."""


async def _listed(client: Client) -> list[Offer]:
    """All pages of the server's tools."""
    offers: list[Offer] = []
    cursor: str | None = None
    for _ in range(PAGES_MAX):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            read_only = bool(tool.annotations and tool.annotations.read_only_hint)
            offers.append(offer(tool.name, tool.description, tool.input_schema, read_only=read_only))
        cursor = page.next_cursor
        if cursor is None:
            break
        if len(offers) > TOOLS_MAX:
            break
    if cursor is not None or len(offers) > TOOLS_MAX:
        raise Failed(f"it has more than {TOOLS_MAX:,} tools, or lists them without end", taken=False)
    if len({found.name for found in offers}) < len(offers):
        raise Failed("it lists two tools of one name", taken=False)
    return offers
