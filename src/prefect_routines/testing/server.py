"""A small HTTP/1.1 server on the loopback, in a thread of its own, that can also misbehave: cut a stream, fall silent, notice who left.

An application server hides exactly what a test of a streaming client needs to control, and costs more than everything else here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

MAX_BODY = 32 * 1024 * 1024
"""https://platform.claude.com/docs/en/api/errors#request-size-limits"""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request off the wire. Header names are lower-case. `body` is None when it was larger than `MAX_BODY`."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None


Handler = Callable[[HttpRequest, "Connection"], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One client connection: hands whole requests to the handler, one at a time, and writes what it answers."""

    def __init__(self, handler: Handler, everyone: set[Connection]) -> None:
        self._handler, self._everyone = handler, everyone
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._head: tuple[str, str, dict[str, str], int] | None = None
        self._skipped = 0
        self.gone = asyncio.Event()
        """Set when the client closed the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._everyone.add(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._task is None:
            self._next()

    def eof_received(self) -> None:
        self.gone.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self._everyone.discard(self)

    def _next(self) -> None:
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = self._parse(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            if self._head[2].get("expect", "").lower() == "100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        method, path, headers, length = self._head
        if length > MAX_BODY:  # swallow it, so that the client gets to read the answer
            swallowed = min(len(self._buffer), length - self._skipped)
            del self._buffer[:swallowed]
            self._skipped += swallowed
            if self._skipped < length:
                return
            body = None
        elif len(self._buffer) < length:
            return
        else:
            body = bytes(self._buffer[:length])
            del self._buffer[:length]
        self._head, self._skipped = None, 0
        self._task = asyncio.get_running_loop().create_task(self._serve(HttpRequest(method, path, headers, body)))

    @staticmethod
    def _parse(head: bytes) -> tuple[str, str, dict[str, str], int]:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return method, path, headers, int(headers.get("content-length", 0))

    async def _serve(self, request: HttpRequest) -> None:
        try:
            await self._handler(request, self)
        finally:
            self._task = None
            if self._buffer and not self.gone.is_set():
                self._next()

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """A whole response."""
        self._write_head(status, {**headers, "content-length": str(len(body))}, body)

    def begin(self, headers: dict[str, str]) -> None:
        """The head of a streamed response with status 200."""
        self._write_head(200, {**headers, "transfer-encoding": "chunked"})

    def _write_head(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        lines = [f"HTTP/1.1 {status} {_phrase(status)}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self._transport.write("\r\n".join(lines).encode("latin-1") + body)

    def write(self, data: bytes) -> None:
        """One chunk of a streamed response."""
        if data and not self._transport.is_closing():
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """The regular end of a streamed response."""
        if not self._transport.is_closing():
            self._transport.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Close the socket in the middle of a response, after what was written."""
        self._transport.close()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Overloaded"


class Server:
    """Serve a handler on `127.0.0.1` until `stop`.

    Example:
        ```python
        server = Server(handler).start()
        print(server.port)
        server.stop()
        ```
    """

    def __init__(self, handler: Handler, port: int = 0) -> None:
        self._handler, self.port = handler, port
        self._connections: set[Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="scripted-claude", daemon=True)

    def start(self) -> Server:
        """Listen; returns when connections are accepted. Raises OSError when the port is taken."""
        self._thread.start()
        self._ready.wait()
        if self._error:
            raise self._error
        return self

    def stop(self) -> None:
        """Close every connection and end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            listening = self._loop.run_until_complete(
                self._loop.create_server(lambda: Connection(self._handler, self._connections), "127.0.0.1", self.port, backlog=1024)
            )
        except OSError as error:
            self._error = error
            self._ready.set()
            self._loop.close()
            return
        self.port = listening.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        self._shut(listening)

    def _shut(self, listening: asyncio.Server) -> None:
        listening.close()
        for connection in list(self._connections):
            connection.cut()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()
