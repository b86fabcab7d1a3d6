"""Any MCP server as a connector: over streamable HTTP, or over stdio in a sandbox of its own."""

from prefect_routines.connectors.mcp.block import MCP

__all__ = ["MCP"]
