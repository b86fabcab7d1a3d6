"""A way to Prefect's server on which single requests can be held up, answered with an error, or cut off."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

CUT = 0
"""In the place of a status: the connection ends without an answer."""


@dataclass
class Barrier:
    """What meets those requests whose `METHOD /path` the pattern finds.

    Attributes:
        status: The answer; None when they are held up until `lift`, and then pass.
        met: How many have come.
    """

    pattern: re.Pattern[str]
    status: int | None
    met: int = 0
    lifted: threading.Event = field(default_factory=threading.Event)

    def lift(self) -> None:
        """Let all pass from now on."""
        self.lifted.set()


@dataclass
class Gate:
    """The address that stands for the server's, and the requests that came through: `METHOD /path`."""

    url: str = ""
    seen: list[str] = field(default_factory=list)
    barriers: list[Barrier] = field(default_factory=list)

    def hold(self, pattern: str) -> Barrier:
        """Hold up these requests."""
        return self._add(Barrier(re.compile(pattern), None))

    def fail(self, pattern: str, status: int = 500) -> Barrier:
        """Answer these requests with an error, or cut them off."""
        return self._add(Barrier(re.compile(pattern), status))

    def _add(self, barrier: Barrier) -> Barrier:
        self.barriers.append(barrier)
        return barrier

    def barrier(self, request: str) -> Barrier | None:
        """What stands in the way of a request."""
        found = next((one for one in self.barriers if not one.lifted.is_set() and one.pattern.search(request)), None)
        if found is not None:
            found.met += 1
        return found


@contextlib.contextmanager
def gate_to(api_url: str) -> Iterator[Gate]:
    """A gate for the length of a test, before the API at this address."""
    gate, server = Gate(), urlsplit(api_url)
    host, port = server.hostname or "", server.port or 80

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            if "upgrade" in self.headers.get("Connection", "").lower():
                self.close_connection = True
                _tunnel(self.connection, host, port, self._head())
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = f"{self.command} {urlsplit(self.path).path}"
            gate.seen.append(request)
            if (barrier := gate.barrier(request)) is not None:
                if barrier.status == CUT:
                    self.close_connection = True
                    return
                if barrier.status is not None:
                    self._answer(barrier.status, [], b'{"detail": "out of order"}')
                    return
                barrier.lifted.wait(120)
            upstream = http.client.HTTPConnection(host, port, timeout=60)
            with contextlib.closing(upstream):
                upstream.request(self.command, self.path, body or None, dict(self.headers.items()))
                answer = upstream.getresponse()
                self._answer(answer.status, answer.getheaders(), answer.read())

        def _head(self) -> bytes:
            lines = [self.requestline, *(f"{name}: {value}" for name, value in self.headers.items())]
            return "\r\n".join([*lines, "", ""]).encode("latin-1")

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            with contextlib.suppress(OSError):
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def __getattr__(self, name: str) -> Any:
            if name.startswith("do_"):  # whatever the method
                return self._pass
            raise AttributeError(name)

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads, block_on_close = True, False

    with Server(("127.0.0.1", 0), Handler) as listening:
        gate.url = f"http://127.0.0.1:{listening.server_port}{server.path}"
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        try:
            yield gate
        finally:
            for barrier in gate.barriers:
                barrier.lift()
            listening.shutdown()
            thread.join(10)


def _tunnel(inner: socket.socket, host: str, port: int, head: bytes) -> None:
    """Pass everything on in both directions, for websockets."""
    with contextlib.suppress(OSError), socket.create_connection((host, port)) as outer:
        outer.sendall(head)
        back = threading.Thread(target=_pump, args=(outer, inner), daemon=True)
        back.start()
        _pump(inner, outer)
        back.join(10)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
