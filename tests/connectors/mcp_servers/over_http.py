"""MCP servers over streamable HTTP, in a thread with a loop of their own: one of the SDK, one that misbehaves, one for tokens."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

READ = ToolAnnotations(read_only_hint=True)
Place = dict[str, Any]


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The address of an application while the block lasts."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(15)
        listener.close()


class Weather(BaseModel):
    """A structured answer."""

    celsius: float
    where: str


def good_server(**options: Any) -> Any:
    """A server made with the SDK."""
    server = MCPServer("good", version="2.1")
    kept: list[str] = []

    @server.tool(annotations=READ)
    def echo(text: str) -> str:
        """Say the text again."""
        return text

    @server.tool(annotations=READ)
    def weather(where: str) -> Weather:
        """The weather somewhere."""
        return Weather(celsius=21.5, where=where)

    @server.tool()
    def note(text: str) -> str:
        """Keep a text."""
        kept.append(text)
        return f"{len(kept)} kept"

    @server.tool(annotations=READ)
    async def slow(seconds: float) -> str:
        """Take some time."""
        await asyncio.sleep(seconds)
        return "at last"

    @server.tool(annotations=READ)
    def fails() -> str:
        """Raise an error."""
        raise ValueError("no such thing")

    return server.streamable_http_app(**options)


def with_bearer(app: Any, tokens: set[str], seen: list[str]) -> Any:
    """The application behind a check of the bearer token; `seen` gets what came."""

    async def checked(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"").decode()
            seen.append(given)
            if given.removeprefix("Bearer ") not in tokens:
                await Response("no", status_code=401, headers={"www-authenticate": "Bearer"})(scope, receive, send)
                return
        await app(scope, receive, send)

    return checked


def token_server(tokens: set[str], asked: list[Place], *, lasts: int = 3600, body_only: bool = False) -> Starlette:
    """An OAuth token endpoint for client 'me' with the secret 'p:w/d'; each token it gives is added to `tokens`."""

    async def token(request: Request) -> Response:
        form = dict(await request.form())
        asked.append(form)
        login = base64.b64decode(request.headers.get("authorization", "").removeprefix("Basic ")).decode()
        right = form.get("client_secret") == "p:w/d" if body_only or not login else login == "me:p%3Aw%2Fd"
        if not right or form.get("grant_type") != "client_credentials":
            return JSONResponse({"error": "invalid_client", "error_description": "unknown\x1b[31m client"}, 401)
        made = f"token-{len(asked)}"
        tokens.add(made)
        return JSONResponse({"access_token": made, "token_type": "Bearer", "expires_in": lasts})

    return Starlette(routes=[Route("/token", token, methods=["POST"])])


def bad_server(state: Place) -> Starlette:
    """A server whose tools misbehave as their names say. `state` holds what the test changes and sees."""
    state.setdefault("requests", [])

    async def endpoint(request: Request) -> Response:  # noqa: PLR0911  # one for each method
        if request.method != "POST":
            state["requests"].append(request.method)
            return Response(status_code=state.get("get", 405))
        message = await request.json()
        method, number = message["method"], message.get("id")
        state["requests"].append(method)
        if number is None:
            return Response(status_code=202)
        if method == "initialize":
            about = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "bad", "version": "0"}}
            return JSONResponse({"jsonrpc": "2.0", "id": number, "result": about}, headers={"mcp-session-id": state.get("session", "s1")})
        if method == "tools/list":
            return JSONResponse({"jsonrpc": "2.0", "id": number, "result": state.get("list") or listed()})
        if method == "tools/call":
            if request.headers["mcp-session-id"] != state.get("session", "s1"):
                return Response(status_code=404)
            return await MISDEEDS[message["params"]["name"]](number)
        return JSONResponse({"jsonrpc": "2.0", "id": number, "error": {"code": -32601, "message": "no such method"}}, 400)

    return Starlette(routes=[Route("/mcp", endpoint, methods=["POST", "GET", "DELETE"])])


def listed() -> Place:
    """Its tools."""
    schema = {"type": "object", "properties": {}}
    reading = {"annotations": {"readOnlyHint": True}}
    tools = [{"name": name, "description": name, "inputSchema": schema, **reading} for name in MISDEEDS if not name.startswith("write")]
    return {"tools": [*tools, *({"name": name, "inputSchema": schema} for name in MISDEEDS if name.startswith("write"))]}


def _result(number: Any, text: str) -> Place:
    return {"jsonrpc": "2.0", "id": number, "result": {"content": [{"type": "text", "text": text}]}}


async def _fine(number: Any) -> Response:
    return JSONResponse(_result(number, "fine"))


async def _huge(number: Any) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "'
        for _ in range(100):
            yield b"x" * 1_000_000
        yield b'"}]}}'

    return StreamingResponse(body(), media_type="application/json")


async def _huge_event(number: Any) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"data: "
        for _ in range(100):
            yield b"x" * 1_000_000
        yield b"\n\n"

    return StreamingResponse(body(), media_type="text/event-stream")


async def _event_flood(number: Any) -> Response:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b'id: 1\ndata: {"jsonrpc":"2.0","id":1,"method":"ping"}\n\n' * 100
            await asyncio.sleep(0.001)

    return StreamingResponse(body(), media_type="text/event-stream")


async def _packed(number: Any) -> Response:
    import gzip

    packed = gzip.compress(b" " * 50_000_000 + json.dumps(_result(number, "x")).encode())
    return Response(packed, media_type="application/json", headers={"content-encoding": "gzip"})


async def _malformed(number: Any) -> Response:
    return Response(b'{"jsonrpc": "2.0", "id":', media_type="application/json")


async def _hang(number: Any) -> Response:
    await asyncio.sleep(3600)
    return Response()


async def _html(number: Any) -> Response:
    return Response("<h1>Please log in</h1>", media_type="text/html")


async def _elsewhere(number: Any) -> Response:
    return RedirectResponse("http://169.254.169.254/latest/meta-data", 307)


async def _cut(number: Any) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"jsonrpc": "2.0", '
        raise ConnectionResetError

    return StreamingResponse(body(), media_type="application/json")


def _status(status: int, **headers: str) -> Callable[[Any], Awaitable[Response]]:
    async def answer(number: Any) -> Response:
        return Response("internals \x1b[2J", status, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return answer


MISDEEDS: dict[str, Callable[[Any], Awaitable[Response]]] = {
    "fine": _fine,
    "huge": _huge,
    "huge_event": _huge_event,
    "event_flood": _event_flood,
    "packed": _packed,
    "malformed": _malformed,
    "hang": _hang,
    "html": _html,
    "elsewhere": _elsewhere,
    "cut": _cut,
    "forbidden": _status(403),
    "limited": _status(429, retry_after="30"),
    "broken": _status(503),
    "write_broken": _status(503),
    "write_limited": _status(429),
    "write_cut": _cut,
}
