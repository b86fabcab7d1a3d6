"""An MCP server over HTTP that keeps tickets. What it keeps judges a test: nothing gets there but by a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mcp.server.mcpserver import MCPServer

from .over_http import READ


class Tickets:
    """The server, made with the SDK, and its state."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str]] = []
        self.says = ""
        """What it adds to each list, as a server that tells too much."""
        self._server = MCPServer("tickets", version="1.0")
        self._server.add_tool(self.list, description="List the tickets of a project.", annotations=READ)
        self._server.add_tool(self.create, description="Create a ticket.")
        self._server.add_tool(self.create_labelled, description="Create a ticket with a label.")

    @property
    def app(self) -> Any:
        """The application to serve."""
        return self._server.streamable_http_app()

    def list(self, project: str) -> str:
        return "\n".join([*(title for where, title in self.kept if where == project), self.says]) or "none"

    def create(self, project: str, title: str) -> str:
        self.kept.append((project, title))
        return f"created number {len(self.kept)}"

    def create_labelled(self, project: str, title: str, label: str) -> str:
        self.kept.append((project, title))
        raise ValueError(f"there is no label {label}")

    def create_by_severity(self, project: str, title: str, severity: str) -> str:
        return self.create(project, f"{title} ({severity})")

    def change(self, tool: str, how: str | Callable[..., str]) -> None:
        """Describe a tool otherwise, or do something else under its name."""
        self._server.remove_tool(tool)
        if isinstance(how, str):
            self._server.add_tool(getattr(self, tool), name=tool, description=how)
        else:
            self._server.add_tool(how, name=tool, description="Create a ticket of some severity.")
