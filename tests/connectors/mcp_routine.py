"""The routine whose process dies in the middle of its work with an MCP server."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from prefect_routines import Policy, routine
from prefect_routines.tools.tool import tool

NAME = "kept-tickets"
MARK = "TEST_MCP_MARK"  # variable with the path of a file that is there once a process has died


@tool
def die_once() -> str:
    """End the process, the first time."""
    mark = Path(os.environ[MARK])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@routine(
    name="ticketing",
    connectors=[f"mcp/{NAME}"],
    tools=[die_once],
    policy=Policy(allow=[f"mcp__{NAME}__create(project=docs) x1", f"mcp__{NAME}__create_labelled(project=docs) x1"]),
)
def ticketing() -> str:
    """Create tickets."""
    return "Create tickets."
