"""git over HTTP on the loopback: `git http-backend` behind the standard library's server, with a token as at a real forge."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, directory: Path, token: str | None, writable: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.directory, self.token, self.writable = directory, token, writable


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self._body())

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: a test's output is the test's."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _allowed(self) -> bool:
        if self.server.token is None:
            return True
        try:
            shown = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).partition(b":")[2]
        except binascii.Error:
            return False
        return hmac.compare_digest(shown, self.server.token.encode())

    def _answer(self, body: bytes) -> None:
        address = urlsplit(self.path)
        if not self._allowed():
            self._send(401, [("WWW-Authenticate", 'Basic realm="forge"')], b"Invalid username or token.\n")
        elif not self.server.writable and "git-receive-pack" in self.path:
            self._send(403, [], b"Write access to repository not granted.\n")
        else:
            self._backend(unquote(address.path), address.query, body)

    def _backend(self, path: str, query: str, body: bytes) -> None:
        """The Common Gateway Interface of git-http-backend(1)."""
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "GIT_PROJECT_ROOT": str(self.server.directory),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.receivepack",
            "GIT_CONFIG_VALUE_0": "true",
            "REMOTE_USER": "person",
            "REMOTE_ADDR": "127.0.0.1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        answer = subprocess.run(["git", "http-backend"], input=body, capture_output=True, check=False, env=environment).stdout
        head, _, content = answer.partition(b"\r\n\r\n")
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in head.decode("latin-1").split("\r\n")) if name]
        status = next((int(value.split()[0]) for name, value in headers if name == "Status"), 200)
        self._send(status, [(name, value) for name, value in headers if name not in {"Status", "Content-Length"}], content)

    def _send(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(content)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(directory: Path, token: str | None, writable: bool) -> Iterator[str]:
    """Serve a directory of bare repositories until the context ends; yields the address."""
    with _Server(directory, token, writable) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
