"""A small real HTTP server that answers as a service's documentation says, and a connector's tools called as a session calls them."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from prefect_routines.connectors.connector import Connector
from prefect_routines.tools.tool import ToolContext, ToolResult, Write

BIG = 50_000_000  # bytes of the answer that no connector may swallow


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Said:
    """An answer. A `body` that is no bytes is sent as JSON."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Answers = Callable[[Asked], Said]


class HttpService:
    """A running server.

    Args:
        answers: What it says to a request. It may be exchanged while the server runs.

    Example:
        ```python
        with serving(lambda asked: Said({"ok": True})) as service:
            httpx.get(service.url)
        service.asked[0].path
        ```
    """

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.asked: list[Asked] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, parts.path, query, {name.lower(): value for name, value in self.headers.items()}, body)
                service.asked.append(asked)
                said = service.answers(asked)
                content = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
                self.send_response(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # who is sent too much hangs up
                    self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815  # the names that http.server looks for

            def log_message(self, *_: object) -> None:
                """Nothing: the tests look at `asked`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def serving(answers: Answers) -> Iterator[HttpService]:
    """A server for the length of a test."""
    service = HttpService(answers)
    service.start()
    try:
        yield service
    finally:
        service.stop()


def context(tool_use_id: str = "toolu_1") -> ToolContext:
    """What a tool of a connector is called with; it has no use for a workspace."""
    return ToolContext(session_id="ses_1", tool_use_id=tool_use_id, workspace=cast(Any, None))


async def answered(block: Connector, tool: str, name: str = "test", **arguments: Any) -> str:
    """What a read tool of the block tells Claude."""
    connection = block.open(name)
    try:
        found = next(known for known in connection.tools if known.name == tool)
        result = await found(context(), found.check(arguments))
    finally:
        await connection.close()
    assert isinstance(result, ToolResult)
    assert isinstance(result.content, str)
    return result.content


@contextlib.asynccontextmanager
async def planned(block: Connector, tool: str, **arguments: Any) -> Any:
    """What a write tool of the block would do, with its connection open."""
    connection = block.open("test")
    try:
        found = next(known for known in connection.tools if known.name == tool)
        plan = await found(context(), found.check(arguments))
        assert isinstance(plan, Write)
        yield plan
    finally:
        await connection.close()
