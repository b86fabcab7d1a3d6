"""A service that receives signed webhooks, and checks them by the specification with code of its own.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = b"0123456789abcdef0123456789abcdef"
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def body(self) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(self.raw)
        return made

    def genuine(self) -> bool:
        """Whether somebody with the secret has signed it just now."""
        at = self.headers["webhook-timestamp"]
        if abs(time.time() - int(at)) > 60:
            return False
        signed = b".".join([self.id.encode(), at.encode(), self.raw])
        expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        return f"v1,{expected}" in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """What it got, and how it answers: a status for each request, the last one for all that follow.

    Args:
        held: While it is set no request is answered.
    """

    statuses: list[int] = field(default_factory=lambda: [204])
    got: list[Received] = field(default_factory=list)
    port: int = 0
    held: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/told"


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """One for the length of a test."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.got.append(Received(self.path, {name.lower(): value for name, value in self.headers.items()}, raw))
            status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
            deadline = time.monotonic() + 60
            while receiver.held.is_set() and time.monotonic() < deadline:
                time.sleep(0.02)  # between two looks at a condition
            with contextlib.suppress(OSError):
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", receiver.url + "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.held.clear()
            server.shutdown()
            thread.join(10)
