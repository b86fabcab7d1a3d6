"""What the MCP library sees of HTTP: every request logged in and kept to its server, every answer bounded, every failure a plain message.

The library ends the whole connection when a request raises. So nothing raises here: what goes wrong becomes a JSON-RPC error, which
ends the one call that it belongs to. Redirects are the library's: it follows them within the server's origin only.
https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#streamable-http
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx2

from prefect_routines.connectors.mcp.login import Login
from prefect_routines.connectors.mcp.trouble import ANSWER_MAX, Failed
from prefect_routines.visible import one_line

STREAM_MAX = 4 * ANSWER_MAX
STREAM_LINES = 30_000
"""Lines of one event stream: a flood of small events costs time."""
ERROR_MAX = 64 * 1024
RESUMES_MAX = 20
CONNECT_SECONDS = 15.0


class Gate(httpx2.AsyncBaseTransport):
    """The transport below the library's client.

    Args:
        url: Address of the server.
        login: How requests log in.
        timeout: Seconds between two pieces of an answer.
    """

    def __init__(self, url: str, login: Login, timeout: float) -> None:
        self._url, self._login = httpx2.URL(url), login
        self._inner = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout, connect=CONNECT_SECONDS), follow_redirects=False, headers={"accept-encoding": "identity"}
        )
        self._resumes = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request of the library on, and answer it whatever happens."""
        try:
            return await self._answered(request)
        except Failed as failure:
            return _refusal(failure)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            return _refusal(Failed(f"it cannot be reached ({_cause(error)}); check its address, and that it runs", taken=False))
        except httpx2.TimeoutException:
            return _refusal(Failed("it stopped answering", taken=True))
        except httpx2.HTTPError as error:
            return _refusal(Failed(f"the connection broke ({_cause(error)})", taken=True))

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _answered(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            # The stream for what a server says unasked is not opened; an answer that was cut off may be taken up, not for ever.
            self._resumes += "last-event-id" in request.headers
            if "last-event-id" not in request.headers or self._resumes > RESUMES_MAX:
                return httpx2.Response(405)
        if _place(request.url) not in (_place(self._url), ("https", self._url.host, 443)):
            raise Failed(f"a request to {request.url.host} was not sent: only {self._url.host} is this server", taken=False)
        response = await self._sent(request)
        try:
            return await self._bounded(request, response)
        except BaseException:
            await response.aclose()
            raise

    async def _sent(self, request: httpx2.Request) -> httpx2.Response:
        value = await self._login.header(self._inner)
        response = await self._inner.send(self._copy(request, value), stream=True)
        if response.status_code == 401 and self._login.renewable:
            await response.aclose()
            value = await self._login.header(self._inner, refused=value)
            response = await self._inner.send(self._copy(request, value), stream=True)
        return response

    def _copy(self, request: httpx2.Request, authorization: str | None) -> httpx2.Request:
        headers = httpx2.Headers(request.headers)
        headers["accept-encoding"] = "identity"
        if authorization is not None:
            headers["authorization"] = authorization
        elif "authorization" in headers:
            del headers["authorization"]
        headers.pop("content-length", None)
        return self._inner.build_request(request.method, request.url, headers=headers, content=request.content)

    async def _bounded(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        status, headers = response.status_code, response.headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        kept = {name: headers[name] for name in ("content-type", "mcp-session-id", "location") if name in headers}
        if status >= 400:
            return await _failure(request, response, kind)
        if status == 202 or status >= 300 or request.method == "DELETE":
            await response.aclose()
            return httpx2.Response(status, headers=kept)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Failed("its answer is compressed although we asked it not to", taken=True)
        if kind == "application/json":
            return httpx2.Response(status, headers=kept, content=await _read(response, ANSWER_MAX))
        if kind == "text/event-stream":
            return httpx2.Response(status, headers=kept, stream=_Stream(self, response))
        raise Failed(f"it answered with {one_line(kind or 'something', 60)}, which is not MCP; check its address", taken=True)


class _Stream(httpx2.AsyncByteStream):
    """An event stream that ends when it grows beyond all use; it is not taken up again then."""

    def __init__(self, gate: Gate, response: httpx2.Response) -> None:
        self._gate, self._response = gate, response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = lines = 0
        async for piece in self._response.aiter_raw():
            size += len(piece)
            lines += piece.count(b"\n") + piece.count(b"\r")
            if size > STREAM_MAX or lines > STREAM_LINES:
                self._gate._resumes = RESUMES_MAX
                return
            yield piece

    async def aclose(self) -> None:
        await self._response.aclose()


async def _read(response: httpx2.Response, largest: int) -> bytes:
    pieces, size = [], 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > largest:
            raise Failed(f"its answer is larger than {largest // 2**20} MB and was not read; ask for less", taken=True)
        pieces.append(piece)
    await response.aclose()
    return b"".join(pieces)


async def _failure(request: httpx2.Request, response: httpx2.Response, kind: str) -> httpx2.Response:
    """The server's own error where it is one, else what its status means."""
    status = response.status_code
    if status == 401:
        raise Failed("it refuses the login (401): the token is wrong or has expired; renew it in the block", taken=False)
    if status == 403:
        raise Failed("the login may not do that (403): a scope or permission is missing", taken=False)
    if status == 404 and "mcp-session-id" in request.headers:
        raise Failed("it has forgotten this connection (404)", taken=False, gone=True)
    body = await _read(response, ERROR_MAX) if kind == "application/json" else b""
    try:
        error = json.loads(body)["error"]
        if isinstance(error["code"], int) and isinstance(error["message"], str):
            return httpx2.Response(status, headers={"content-type": "application/json"}, content=body)
    except (ValueError, RecursionError, KeyError, TypeError):
        pass
    if status == 429:
        after = response.headers.get("retry-after", "").strip()
        when = f"try again in {after} s" if after.isdecimal() else "try again later"
        raise Failed(f"it limits the rate of requests (429); {when}", taken=False)
    raise Failed(f"it answered with status {status}; {'try again later' if status >= 500 else 'check its address'}", taken=status >= 500)


def _refusal(failure: Failed) -> httpx2.Response:
    return httpx2.Response(500, json=failure.as_message())


def _place(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"https": 443}.get(url.scheme, 80)


def _cause(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return one_line(str(error), 120) or type(error).__name__
