"""What every request goes through and every answer looks like: request id, error envelope, one line in the log, never a 500."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any
from uuid import uuid4

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prefect_routines.errors import RoutinesError, StoreError
from prefect_routines.gateway.body import BodyError
from prefect_routines.gateway.limits import Busy, Disconnected, Limits, Room, TooMany
from prefect_routines.visible import one_line

access = logging.getLogger("prefect_routines.gateway.access")
_log = logging.getLogger(__name__)

# https://platform.claude.com/docs/en/api/errors
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
MOST_HEADERS = 32_768  # bytes; GitHub's come to about 800
AWAY = "the inbox cannot be written to now; nothing was taken, send it again"


class Refused(RoutinesError):
    """A request that is answered with an error: the status, and one line that says why."""

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


def error(status: int, message: str, *, retry_after: float | None = None, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error in the envelope of Anthropic's API."""
    body = {"type": "error", "error": {"type": TYPES.get(status, "invalid_request_error"), "message": message}}
    extra = dict(headers or {})
    if retry_after is not None:
        extra["Retry-After"] = str(max(1, math.ceil(retry_after)))
    return answer(body, status, extra)


def answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A JSON answer. ASCII: whatever strangers have written, every client can read it."""
    return _Ascii(body, status, dict(headers or {}))


class _Ascii(JSONResponse):
    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=True, separators=(",", ":"), default=str).encode()


def answer_to(failure: Exception) -> Response:
    """The answer when something was raised. What nobody foresaw is no 500: the sender shall try again, and it is logged."""
    known = _answer_to_known(failure)
    if known is not None:
        return known
    if isinstance(failure, StoreError):
        _log.error("The store failed: %s", one_line(str(failure), 500))
    else:
        _log.error("Unexpected %s at %s", type(failure).__name__, _where(failure))
    return error(503, AWAY, retry_after=5)


def _answer_to_known(failure: Exception) -> Response | None:
    match failure:
        case Refused():
            return error(failure.status, str(failure), retry_after=failure.retry_after)
        case TooMany():
            return error(429, str(failure), retry_after=failure.seconds)
        case Busy():
            return error(503, str(failure), retry_after=2)
        case BodyError():
            return error(failure.status, str(failure))
        case HTTPException():  # no such path, no such method
            return error(failure.status_code, str(failure.detail), headers=failure.headers)
    return None


def _where(failure: Exception) -> str:
    """Files and lines, innermost last. The exception's own text may hold what a stranger sent."""
    frames = traceback.extract_tb(failure.__traceback__)[-6:]
    return " > ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames)


class Edge:
    """Around the application: numbers, bounds and logs its requests, and turns whatever is raised into an answer."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._room = Room(limits.concurrent, "too many requests at once")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send, self._limits.linger)
        try:
            await self._work(scope, exchange)
        finally:
            exchange.log()

    async def _work(self, scope: Scope, exchange: Exchange) -> None:
        try:
            if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEADERS:
                raise Refused(431, f"the headers are larger than {MOST_HEADERS:,} bytes")
            with contextlib.nullcontext() if _elsewhere_bounded(scope["path"]) else self._room.place():
                await self._app(scope, exchange.receive, exchange.send)
        except Disconnected:
            exchange.status = 499  # as nginx writes it down: there was nobody to answer
        except Exception as failure:
            if not exchange.status:
                await answer_to(failure)(scope, exchange.receive, exchange.send)
            else:
                _log.error("Unexpected %s at %s, after the answer", type(failure).__name__, _where(failure))


def _elsewhere_bounded(path: str) -> bool:
    """Streams last for hours; `Watching` counts them."""
    return path == "/health" or (path.endswith("/stream") and path.startswith(("/sessions/", "/v1/sessions/")))


class Exchange:
    """One request and its answer, as they go by."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, linger: float) -> None:
        self._scope, self._receive, self._send, self._linger = scope, receive, send, linger
        self.id = scope.setdefault("state", {})["request_id"] = f"req_{uuid4().hex[:24]}"
        self.status, self._began, self._bytes = 0, time.monotonic(), 0
        self._unread = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in scope["headers"]
        )

    async def receive(self) -> Message:
        """ASGI's receive."""
        message = await self._receive()
        self._bytes += len(message.get("body", b""))
        if not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """ASGI's send. When the body was refused before its end, the answer goes out and the connection is not used again."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            closing = [(b"connection", b"close")] if self._unread else []
            message["headers"] = [*message.get("headers", []), (b"request-id", self.id.encode()), *closing]
        elif message["type"] == "http.response.body" and not message.get("more_body", False) and self._unread:
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _drain(self) -> None:
        """Closing at once would reset the connection, and a sender that is still sending would never read the answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._linger):
                while (await self._receive()).get("more_body", False):
                    pass

    def log(self) -> None:
        """One line: no query, no header, no body, nothing that acts on a terminal."""
        client = (self._scope.get("client") or ("-",))[0]
        path = one_line(self._scope["path"], 200)
        took = (time.monotonic() - self._began) * 1000
        method = one_line(self._scope["method"], 10)
        access.info("%s %s %s %d %d B %.0f ms %s", one_line(client, 60), method, path, self.status, self._bytes, took, self.id)
