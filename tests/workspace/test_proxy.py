"""The way out of a sandbox with network: which hosts pass, which do not, and what the sandbox is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prefect_routines.errors import SettingsError
from prefect_routines.workspace.allowlist import AllowList, canonical, is_public
from prefect_routines.workspace.proxy import Proxy
from prefect_routines.workspace.sandbox import Sandbox, SandboxSpec


@pytest.mark.parametrize(
    "host",
    [
        "pypi.org",
        "PyPI.org",
        "pypi.org.",
        "files.pythonhosted.org",
        "a.example.org",
        "a.b.EXAMPLE.org",
        "xn--bcher-kva.example",
        "bücher.example",
    ],
)
def test_listed_hosts_pass(host: str) -> None:
    """Presets, exact names, suffixes; letter case, final dot and IDNA form do not matter."""
    assert AllowList(["@python", "*.example.org", "Bücher.example"]).refusal(host, 443) is None


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "badexample.org",
        "a.example.org.evil.net",
        "evil.net",
        "pypi.org.evil.net",
        "xpypi.org",
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "127.1",
        "[::1]",
        "::1",
        "pypi.org:443",
        "pypi.org@evil.net",
        "",
        ".",
        "a..example.org",
        "*.example.org",
        "a.example.org/",
        "a\n.example.org",
        "x" * 300,
    ],
)
def test_other_hosts_do_not(host: str) -> None:
    """Neighbouring names, addresses in whatever notation, and what is no name."""
    assert AllowList(["@python", "*.example.org"]).refusal(host, 443)


def test_the_refusal_names_the_setting() -> None:
    """The text says what to change; ports are limited too."""
    assert "add 'evil.net' to the routine's setting `network`" in str(AllowList([]).refusal("evil.net", 443))
    assert "port 22" in str(AllowList(["pypi.org"]).refusal("pypi.org", 22))


@pytest.mark.parametrize(
    "entry", ["@nothing", "https://pypi.org", "pypi.org:443", "10.0.0.1", "*", "*.org", "", "a b", "*.*.org", "pypi.org/simple"]
)
def test_wrong_entries_are_the_authors_mistake(entry: str) -> None:
    """An entry that is no name, suffix or preset is refused when the list is made."""
    with pytest.raises(SettingsError, match="network"):
        AllowList([entry])


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::1", False),
        ("224.0.0.1", False),
        ("100.64.0.1", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    """Only what is on the internet counts, also when an IPv6 address carries an IPv4 one."""
    assert is_public(address) is public


def test_canonical_names_are_stable() -> None:
    """What is compared does not change when it is made canonical again."""
    assert canonical("BÜCHER.example.") == canonical(canonical("bücher.example") or "") == "xn--bcher-kva.example"


class World:
    """A proxy that may reach one server on the loopback."""

    def __init__(self, proxy_path: Path, port: int, log: list[tuple[str, str]], received: list[bytes]) -> None:
        self.path, self.port, self.log, self.received = proxy_path, port, log, received

    async def ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        writer.write(request)
        try:
            return await asyncio.wait_for(reader.read(-1), 20)
        except ConnectionError:
            return b""
        finally:
            writer.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    log: list[tuple[str, str]] = []
    received: list[bytes] = []

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
            return
        length = next((int(line.split(b":")[1]) for line in request.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
        received.append(request + await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(upstream, "127.0.0.1", 0, limit=1 << 22)
    port = server.sockets[0].getsockname()[1]
    proxy = Proxy(
        AllowList(["localhost"]),
        lambda host, verdict: log.append((host, verdict)),
        extra_addresses=frozenset({"127.0.0.1"}),
        extra_ports=frozenset({port}),
        bytes_max=1_000_000,
    )
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "p"))
    async with server, await proxy.serve(listener):
        yield World(tmp_path / "p", port, log, received)


async def test_a_tunnel_passes_bytes(world: World) -> None:
    """CONNECT to a listed host: both directions pass as they are."""
    answer = await world.ask(b"CONNECT localhost:%d HTTP/1.1\r\nHost: x\r\n\r\nGET /a HTTP/1.1\r\n\r\n" % world.port)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"hello")
    assert world.received == [b"GET /a HTTP/1.1\r\n\r\n"]
    assert world.log == [("localhost", "allowed")]


async def test_plain_requests_are_rebuilt(world: World) -> None:
    """The host of the address decides, not the header; what concerns the proxy alone is not sent on; one request per connection."""
    request = (
        b"POST http://localhost:%d/a?b=c HTTP/1.1\r\nHost: evil.net\r\nProxy-Authorization: Basic eA==\r\nX-Own: 1\r\n"
        b"Content-Length: 4\r\n\r\nbodyGET http://localhost:%d/second HTTP/1.1\r\nHost: evil.net\r\n\r\n"
    )
    answer = await world.ask(request % (world.port, world.port))
    assert answer.endswith(b"hello")
    (sent,) = world.received
    assert sent.startswith(b"POST /a?b=c HTTP/1.1\r\n")
    assert b"localhost:%d" % world.port in sent
    assert b"x-own: 1" in sent.lower()
    assert sent.endswith(b"\r\n\r\nbody")
    assert b"evil" not in sent
    assert b"authorization" not in sent.lower()


@pytest.mark.parametrize(
    ("request_text", "status", "reason"),
    [
        (b"CONNECT evil.net:443 HTTP/1.1\r\nHost: evil.net\r\n\r\n", 403, "not on the list"),
        (b"CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: a\r\n\r\n", 403, "no host name"),
        (b"CONNECT [::1]:443 HTTP/1.1\r\nHost: a\r\n\r\n", 403, "no host name"),
        (b"CONNECT localhost:22 HTTP/1.1\r\nHost: a\r\n\r\n", 403, "port 22"),
        (b"CONNECT localhost:99999 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "no host"),
        (b"GET http://evil.net/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 403, "not on the list"),
        (b"GET http://localhost@evil.net/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 403, "not on the list"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "this is a proxy"),
        (b"GET ftp://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "this is a proxy"),
        (b"nonsense\r\n\r\n", 400, "malformed"),
        (b"GET http://localhost/ HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", 400, "malformed"),
    ],
)
async def test_refusals_say_why(world: World, request_text: bytes, status: int, reason: str) -> None:
    """What may not pass is answered with the reason and reaches nobody."""
    answer = await world.ask(request_text)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert reason.encode() in answer
    assert world.received == []


async def test_a_listed_name_with_a_private_address(tmp_path: Path) -> None:
    """The address is looked at after resolving: a listed name that leads to the loopback does not pass."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "p"))
    async with await Proxy(AllowList(["localhost"]), lambda *_: None).serve(listener):
        answer = await World(tmp_path / "p", 0, [], []).ask(b"CONNECT localhost:443 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"no public address" in answer


async def test_bytes_are_bounded(world: World) -> None:
    """After its share of bytes a sandbox gets nothing more."""
    await world.ask(b"CONNECT localhost:%d HTTP/1.1\r\nHost: x\r\n\r\n" % world.port + b"x" * 1_100_000)
    answer = await world.ask(b"CONNECT localhost:%d HTTP/1.1\r\nHost: x\r\n\r\n" % world.port)
    assert answer.startswith(b"HTTP/1.1 403 ")


async def test_from_inside_a_sandbox(tmp_path: Path) -> None:
    """Programs find the proxy by their environment; the reason reaches them, and the host has the log. There is no other way out."""
    async with await Sandbox.start(SandboxSpec(tmp_path, network=("@python", "localhost"))) as box:
        code = (
            "import urllib.request as r, urllib.error\n"
            "try: r.urlopen('http://evil.example/')\n"
            "except urllib.error.HTTPError as e: print(e.code, e.read())"
        )
        done = await box.run(["python3", "-c", code])
        assert b"403" in done.stdout
        assert b"setting `network`" in done.stdout
        done = await box.run(["python3", "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 2)"])
        assert b"Network is unreachable" in done.stderr
        assert [(host, "list" in verdict) for host, verdict in box.network_log()] == [("evil.example", True)]


async def test_a_wrong_entry_stops_the_start(tmp_path: Path) -> None:
    """The author's mistake is told before anything runs."""
    with pytest.raises(SettingsError, match="@nothing"):
        await Sandbox.start(SandboxSpec(tmp_path, network=("@nothing",)))
