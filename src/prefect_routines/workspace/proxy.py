"""The only way out of a sandbox with network: an HTTP(S) proxy on a unix socket that connects to listed hosts at public addresses.

It runs as a process of its own per sandbox (`ProxyProcess`), with an empty environment, and ends with it. HTTPS passes as a tunnel
(CONNECT, RFC 9110 9.3.6); of plain HTTP one request per connection passes, in absolute form (RFC 9112 3.2.2). It cannot see into TLS:
a host on the list that serves many parties (domain fronting) is as open as that host makes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import h11

from prefect_routines.errors import SandboxUnavailable
from prefect_routines.workspace.allowlist import AllowList, canonical, is_public
from prefect_routines.workspace.ownership import is_root, may_mount

BYTES_MAX = 4 * 1024**3
"""Bytes in both directions that one sandbox may transfer."""
CONNECTIONS_MAX = 100
HEADER_SECONDS, CONNECT_SECONDS, IDLE_SECONDS = 30.0, 20.0, 300.0
HOP_BY_HOP = {b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive", b"te", b"trailer", b"upgrade", b"host", b"expect"}
READ = 65536
HEADER_MAX = 32768


class Denied(Exception):
    """The request may not pass, or cannot; the text goes into the sandbox and into the log."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Proxy:
    """The proxy proper.

    Args:
        allow: The hosts that may be reached.
        log: Called with host and verdict for each request.
        extra_addresses: Addresses that count as public. For tests, which have servers on the loopback only; no setting leads here.
        extra_ports: Likewise, ports.
        bytes_max: Bytes in both directions after which nothing passes any more.
    """

    def __init__(
        self,
        allow: AllowList,
        log: Callable[[str, str], None],
        *,
        extra_addresses: frozenset[str] = frozenset(),
        extra_ports: frozenset[int] = frozenset(),
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._allow, self._log = allow, log
        self._extra_addresses, self._extra_ports = extra_addresses, extra_ports
        self._left = bytes_max
        self._slots = asyncio.Semaphore(CONNECTIONS_MAX)

    async def serve(self, listener: socket.socket) -> asyncio.Server:
        """Answer connections on a listening unix socket."""
        return await asyncio.start_unix_server(self._connected, sock=listener)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = "?"
        client = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_MAX)
        try:
            async with self._slots:
                async with asyncio.timeout(HEADER_SECONDS):
                    request = await _next_event(client, reader)
                if not isinstance(request, h11.Request):
                    return
                host, port = target(request)
                upstream = await self._connect(host, port)
                self._log(host, "allowed")
                try:
                    if request.method == b"CONNECT":
                        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                        upstream[1].write(client.trailing_data[0])
                    else:
                        await self._forward(client, request, reader, writer, upstream[1])
                    await asyncio.gather(self._pump(reader, upstream[1]), self._pump(upstream[0], writer))
                finally:
                    upstream[1].close()
        except Denied as denied:
            self._log(host, denied.reason)
            _answer(writer, denied)
        except h11.RemoteProtocolError as error:
            self._log(host, "malformed request")
            _answer(writer, Denied(400, f"malformed request: {error}"))
        except (OSError, TimeoutError):
            pass  # one of both ends is gone
        finally:
            with contextlib.suppress(OSError):
                writer.close()
                await writer.wait_closed()

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a listed host, made to the very address that was checked: a second answer of its DNS has no effect."""
        refusal = self._allow.refusal(host, 443 if port in self._extra_ports else port)
        if refusal:
            raise Denied(403, refusal)
        if self._left <= 0:
            raise Denied(403, f"this sandbox has transferred its {BYTES_MAX / 1024**3:.0f} GB; nothing more passes")
        name = canonical(host) or ""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as error:
            raise Denied(502, f"{name} has no address: {error}") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        public = [address for address in addresses if is_public(address) or address in self._extra_addresses]
        if not public:
            raise Denied(403, f"{name} leads to {', '.join(addresses)}, which is no public address")
        for address in public:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await asyncio.open_connection(address, port)
        raise Denied(502, f"{name} does not answer at {', '.join(public)}")

    async def _forward(
        self,
        client: h11.Connection,
        request: h11.Request,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: asyncio.StreamWriter,
    ) -> None:
        """Send one plain request on, rebuilt from its parsed form so that both ends read the same."""
        url = urlsplit(request.target.decode("ascii"))
        headers = [(name, value) for name, value in request.headers if name not in HOP_BY_HOP]
        headers += [(b"Host", url.netloc.rpartition("@")[2].encode()), (b"Connection", b"close")]
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        server = h11.Connection(h11.CLIENT)
        upstream.write(server.send(h11.Request(method=request.method, target=path.encode(), headers=headers)) or b"")
        if client.they_are_waiting_for_100_continue:
            writer.write(client.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        while not isinstance(event := await _next_event(client, reader), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise Denied(400, "the request ended too early")
            self._count(len(event.data))
            upstream.write(server.send(event) or b"")
            await upstream.drain()
        upstream.write(server.send(h11.EndOfMessage()) or b"")

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    data = await source.read(READ)
                if not data or not self._count(len(data)):
                    break
                sink.write(data)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()

    def _count(self, size: int) -> bool:
        self._left -= size
        return self._left > 0


def target(request: h11.Request) -> tuple[str, int]:
    """Host and port that a request to a proxy names.

    Raises:
        Denied: it is no request to a proxy.
    """
    text = request.target.decode("ascii", "replace")
    try:
        if request.method == b"CONNECT":
            url, port = urlsplit(f"//{text}"), 443
        else:
            url, port = urlsplit(text), 80
            if url.scheme != "http":
                raise Denied(400, "this is a proxy: it takes CONNECT host:port, and http:// addresses")
        if not url.hostname:
            raise Denied(400, "the request names no host")
        return url.hostname, url.port or port
    except ValueError as error:
        raise Denied(400, f"the request names no host: {error}") from error


async def _next_event(client: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := client.next_event()) is h11.NEED_DATA:
        client.receive_data(await reader.read(READ))
    return event


def _answer(writer: asyncio.StreamWriter, denied: Denied) -> None:
    body = f"{denied.reason}\n".encode()
    phrase = denied.reason.encode("ascii", "replace").decode().translate({10: " ", 13: " "})[:200]
    head = f"HTTP/1.1 {denied.status} {phrase}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(OSError):
        writer.write(head.encode() + body)


class ProxyProcess:
    """The proxy of one sandbox as a process: listening from the moment it is made, ended by `close`, or with this process."""

    def __init__(self, network: Iterable[str], cleanup: contextlib.ExitStack) -> None:
        AllowList(network)  # a wrong entry is the author's mistake: say so here
        self.log: deque[tuple[str, str]] = deque(maxlen=1000)
        top = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="routines-proxy-")))
        self.directory = top / "proxy"
        self.directory.mkdir()
        self.directory.chmod(0o755)  # whatever the worker's umask
        if is_root() and not may_mount():
            top.chmod(0o711)
        listener = cleanup.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(str(self.directory / "socket"))
        listener.listen(64)
        # The sandbox's uid must be able to connect; the directory above keeps all others out.
        (self.directory / "socket").chmod(0o666)
        self._alive, inner = socket.socketpair()
        with inner:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "prefect_routines.workspace.proxy", str(listener.fileno()), *network],
                env=dict[str, str](),
                cwd="/",
                stdin=inner.fileno(),
                stdout=inner.fileno(),
                stderr=subprocess.DEVNULL,
                pass_fds=(listener.fileno(),),
                start_new_session=True,
            )
        listener.close()
        self._follower: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    async def ready(self) -> None:
        """Wait until it answers.

        Raises:
            SandboxUnavailable: it does not start.
        """
        reader, self._writer = await asyncio.open_connection(sock=self._alive)
        self._follower = asyncio.create_task(self._follow(reader), name="proxy log")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30):
                await self._up.wait()
        if not self._up.is_set():
            raise SandboxUnavailable("the sandbox's network proxy does not start; is this machine overloaded?")

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            entry = json.loads(line)
            if entry == "ready":
                self._up.set()
            else:
                self.log.append((str(entry[0]), str(entry[1])))

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    async def close(self) -> None:
        self.kill()
        if self._follower is not None:
            self._follower.cancel()
            self._writer.close()


async def _main(listener: int, entries: list[str]) -> None:
    """Serve until stdin closes: its other end lives in the flow's process."""

    def log(host: str, verdict: str) -> None:
        say([host[:300], verdict[:300]])

    def say(entry: object) -> None:
        sys.stdout.write(json.dumps(entry) + "\n")
        sys.stdout.flush()

    alive = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(alive), sys.stdin)
    server = await Proxy(AllowList(entries), log).serve(socket.socket(fileno=listener))
    async with server:
        say("ready")
        await alive.read(1)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2:]))
