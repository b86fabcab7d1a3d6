"""The block that holds how an MCP server is reached, and which of its tools the author approved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field, HttpUrl, SecretStr, field_validator, model_validator

from prefect_routines.connectors.address import Address
from prefect_routines.connectors.connector import Connection, Connector, revealed
from prefect_routines.connectors.mcp.approval import Approved, compare, properties, required, tool_name
from prefect_routines.connectors.mcp.arguments import check
from prefect_routines.connectors.mcp.login import Login
from prefect_routines.errors import SettingsError, ToolError
from prefect_routines.tools.tool import Tool, ToolContext, ToolResult
from prefect_routines.visible import visible

if TYPE_CHECKING:
    from prefect_routines.connectors.mcp.server import Server, Transport
    from prefect_routines.connectors.mcp.trouble import Trouble
    from prefect_routines.workspace.spec import SandboxSpec


@dataclass(frozen=True)
class ServerTool(Tool):
    """A tool of a server: its schema comes from outside, so the check of the arguments is bounded."""

    def check(self, arguments: Any) -> dict[str, Any]:
        return check(self.name, self.schema, arguments)


class MCP(Connector):
    """An MCP server: its tools become tools of the session, named `mcp__NAME__tool`.

    Only tools that the author approved with `routines mcp approve NAME` can be used, as long as the server leaves them as they were.

    A server over stdio runs in a sandbox of its own, with the session's workspace, without secrets, and with no network but the
    hosts named here. What its `setup` installs takes the place of the session's own setup; without one it has that of the session.

    Example:
        ```python
        from prefect_routines.connectors.mcp import MCP

        MCP(url="https://mcp.example.com/mcp", token="...").save("tickets")
        MCP(
            command=["mcp-server-memory"],
            setup="npm install -g @modelcontextprotocol/server-memory",
            network=["@node"],
        ).save("memory")
        ```

        A routine names it: `@routine(connectors=["mcp/tickets"])`.
    """

    _block_type_name = "MCP Server"
    _block_type_slug = "mcp"
    _documentation_url = HttpUrl("https://modelcontextprotocol.io/specification/2025-11-25/basic/transports")

    url: Address | None = Field(default=None, description="Address of a server over streamable HTTP.")
    command: list[str] | None = Field(default=None, description="Program and arguments of a server over stdio, as the sandbox finds it.")
    token: SecretStr | None = Field(default=None, description="Bearer token.")
    oauth_client_id: str | None = Field(default=None, description="Client for OAuth client credentials, instead of a token.")
    oauth_client_secret: SecretStr | None = Field(default=None, description="Its secret.")
    oauth_token_url: Address | None = Field(default=None, description="Where its tokens are fetched.")
    oauth_scope: str = Field(default="", description="Scopes to ask for, with spaces between.")
    network: list[str] = Field(default_factory=list, description="Hosts and presets that a server over stdio may reach, e.g. @node.")
    setup: str | None = Field(
        default=None, description="Shell script that installs a server over stdio into /opt/setup; its result is kept."
    )
    timeout: float = Field(default=60.0, gt=0, le=3600, description="Seconds that one call may take.")
    approved: dict[str, Approved] = Field(default_factory=dict, description="Written by `routines mcp approve`.")

    @field_validator("network")
    @classmethod
    def _are_hosts(cls, value: list[str]) -> list[str]:
        from prefect_routines.workspace.allowlist import AllowList

        try:
            AllowList(value)
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _is_one_server(self) -> MCP:
        if bool(self.url) == bool(self.command):
            raise ValueError("set either url (a server over HTTP) or command (one over stdio)")
        oauth = [self.oauth_client_id, self.oauth_client_secret, self.oauth_token_url]
        if self.command and (self.token or any(oauth)):
            raise ValueError("a server over stdio gets no secrets: Claude could read them in its sandbox; use one over HTTP")
        if self.url and self.network:
            raise ValueError("network is for a server over stdio; one over HTTP is reached by its url alone")
        if self.url and self.setup:
            raise ValueError("setup installs a server over stdio; one over HTTP runs elsewhere")
        if any(oauth) and (not all(oauth) or self.token):
            raise ValueError("OAuth client credentials are oauth_client_id, oauth_client_secret and oauth_token_url, without a token")
        return self

    def open(self, name: str) -> Connection:
        """The approved tools; nothing is asked of the server yet."""
        login = self._login()
        held: list[Server] = []

        def server() -> Server:
            if not held:
                held.append(self.server(name, login))
            return held[0]

        async def close() -> None:
            for one in held:
                await one.close()

        tools = [_tool(name, called, approved, server) for called, approved in sorted(self.approved.items())]
        host = urlsplit(self.url).hostname if self.url else None
        fixed = revealed(self.token, self.oauth_client_secret)
        return Connection(tools=list(tools), hosts=(host,) if host else (), secrets=lambda: {*fixed, *login.secrets}, close=close)

    async def check(self) -> str:
        """The server's name, and what of its tools may be used."""
        name = self._block_document_name or "?"
        async with self.connected(name) as (server, spec):
            about = await server.about(spec)
            states = list(compare(self.approved, await server.offers(spec)).items())
        usable = [tool for tool, state in states if state == "same"]
        writing = sum(self.approved[tool].writes for tool in usable)
        changed = [visible(tool) for tool, state in states if state in ("changed", "gone")]
        told = f"{about}: {len(usable)} of {sum(state != 'gone' for _, state in states)} tools approved, {writing} of them write"
        if changed:
            told += f"; changed since: {', '.join(changed[:5])}, see `routines mcp approve {name}`"
        elif not usable:
            told += f"; approve some with `routines mcp approve {name}`"
        return told

    @asynccontextmanager
    async def connected(self, name: str, workspace: SandboxSpec | None = None) -> AsyncIterator[tuple[Server, SandboxSpec | None]]:
        """The server outside of a session, with the sandbox that it is to use.

        Args:
            name: Name of the block, for errors.
            workspace: The sandbox for a server over stdio. Default: one with an empty workspace that is gone afterwards.
        """
        import tempfile
        from pathlib import Path

        from prefect_routines.workspace.spec import SandboxSpec

        with tempfile.TemporaryDirectory(prefix="routines-mcp-") as place:
            Path(place).chmod(0o711)
            spec = workspace or SandboxSpec(Path(place) / "workspace")
            server = self.server(name, self._login())
            try:
                yield server, spec
            finally:
                await server.close()

    def server(self, name: str, login: Login) -> Server:
        """The server, not connected yet."""
        from prefect_routines.connectors.mcp.server import Server, over_http

        def open_streams(trouble: Trouble, spec: SandboxSpec | None) -> Transport:
            if self.url:
                return over_http(self.url, login, self.timeout)
            from prefect_routines.connectors.mcp.stdio import server_in_sandbox

            if spec is None:
                raise ToolError("a server over stdio needs a sandbox, and here is none")
            return server_in_sandbox(spec, self.command or [], trouble)

        return Server(name, open_streams, self.timeout, self.approved, None if self.url else self._sandbox)

    async def _sandbox(self, spec: SandboxSpec) -> SandboxSpec:
        """The sandbox of a server over stdio: the session's, with the hosts and the setup that this block names."""
        own = replace(spec, environment={}, network=tuple(self.network))
        if not self.setup:
            return own
        from prefect_routines.settings import Settings
        from prefect_routines.workspace.setup import prepared

        hosts = self.network if spec.mode != "none" else []  # nothing holds a process without a sandbox to them
        return replace(own, setup=await prepared(Settings(setup=self.setup, network=hosts, sandbox=spec.mode)))

    def _login(self) -> Login:
        return Login(
            token=self.token.get_secret_value() if self.token else None,
            client_id=self.oauth_client_id,
            client_secret=self.oauth_client_secret.get_secret_value() if self.oauth_client_secret else None,
            token_url=self.oauth_token_url,
            scope=self.oauth_scope,
            resource=self.url or "",
        )


def _tool(name: str, called: str, approved: Approved, server: Any) -> ServerTool:
    """A tool for Claude. What it is told is what the author approved, with nothing hidden in it."""

    async def call(context: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        from prefect_routines.connectors.mcp.results import converted, half_done

        workspace = context.workspace
        spec = replace(workspace.spec, shared=True) if workspace is not None else None
        result = converted(await server().call(called, arguments, spec, writes=approved.writes))
        return half_done(result) if result.is_error and approved.writes else result

    first = required(approved.input_schema) or list(properties(approved.input_schema))
    return ServerTool(
        name=tool_name(name, called),
        description=visible(approved.description),
        schema=_plain(approved.input_schema),
        call=call,
        main=first[0] if first else None,
        targets=tuple(approved.targets),
        idempotent=not approved.writes,
        writes=approved.writes,
        alone=approved.writes,
        outside=True,
    )


def _plain(value: Any) -> Any:
    """A schema with nothing hidden in its prose."""
    if isinstance(value, dict):
        prose = ("description", "title", "$comment")
        return {key: visible(item) if key in prose and isinstance(item, str) else _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
