"""A session's side of an MCP server in tests: a real workspace, approval as the command line makes it, calls as a session makes them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect_routines.connectors.connector import Connection
from prefect_routines.connectors.mcp import MCP
from prefect_routines.connectors.mcp.approval import Choice, approve
from prefect_routines.settings import Settings
from prefect_routines.tools.tool import ToolContext, ToolResult
from prefect_routines.workspace.sandbox import Sandbox, SandboxSpec
from prefect_routines.workspace.workspace import Workspace

SERVERS = Path(__file__).with_name("mcp_servers")
_ids = itertools.count()


@dataclass
class Talk:
    """An open connection and what its tools are called with."""

    block: MCP
    connection: Connection
    workspace: Workspace
    directory: Path
    names: list[str] = field(default_factory=list)

    async def call(self, name: str, **arguments: Any) -> ToolResult:
        """Call a tool of the server as a session does: checked first."""
        tool = next(tool for tool in self.connection.tools if tool.name == f"mcp__there__{name}")
        context = ToolContext(session_id="s1", tool_use_id=f"t{next(_ids)}", workspace=self.workspace)
        result = await tool(context, tool.check(arguments))
        assert isinstance(result, ToolResult)
        return result


async def approved(block: MCP, spec: SandboxSpec | None = None, choice: Choice | None = None) -> MCP:
    """The block with all that its server offers approved."""
    async with block.connected("there", spec) as (server, given):
        block.approved = approve(await server.offers(given), choice or Choice())
    return block


@asynccontextmanager
async def talking(block: MCP, directory: Path, **spec: Any) -> AsyncIterator[Talk]:
    """A session with the block's tools; `directory` is its workspace."""
    own = SandboxSpec(directory, **spec)
    async with await Sandbox.start(own) as box:
        connection = block.open("there")
        try:
            yield Talk(block, connection, Workspace("s1", Settings(), box, own, {}), directory)
        finally:
            await connection.close()


def text_of(result: ToolResult) -> str:
    """The text of a result that is text."""
    assert isinstance(result.content, str), result
    return result.content


def command(script: str, *arguments: str) -> Sequence[str]:
    """A script of this directory, copied into the workspace by the test, in the interpreter that the sandbox sees."""
    return ["python3", f"/workspace/{script}", *arguments]
