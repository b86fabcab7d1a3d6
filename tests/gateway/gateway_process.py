"""A gateway as it is run: a process of its own, spoken to over sockets."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from prefect_routines.store import Store
from waiting import until

ROUTINES = str(Path(sys.executable).with_name("routines"))
SECRET = "s3cret-of-the-hook"
NOWHERE = "http://127.0.0.1:9/api"  # the discard port: nobody listens


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def why(self) -> str:
        """The message of an error, in its envelope."""
        body = self.json
        assert body["type"] == "error", body
        assert set(body["error"]) == {"type", "message"}
        assert "Traceback" not in body["error"]["message"]
        said: str = body["error"]["message"]
        return said


class Gateway:
    """One process of `routines gateway`."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        env = {**os.environ, "ROUTINES_HOME": str(home), **environment}
        self.process = subprocess.Popen(
            [ROUTINES, "gateway", "--port", "0"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.lines: list[str] = []
        self._news: queue.Queue[str] = queue.Queue()
        self._hearing = threading.Thread(target=self._hear, daemon=True)
        self._hearing.start()
        said = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
        assert found, f"it did not come up: {said} {''.join(self.lines)}"
        self.port = int(found[1])

    def _hear(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            self._news.put(line)

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def wait_for_log(self, part: str) -> str:
        """The first line from now on or before with this in it."""
        for line in self.lines:
            if part in line:
                return line
        while True:
            line = self._news.get(timeout=30)
            if part in line:
                return line

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def raw(self, *parts: bytes, timeout: float = 60, until_closed: bool = True) -> bytes:
        """Send bytes as they are; what comes back until the other side closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            try:
                for part in parts:
                    connection.sendall(part)
            except OSError:
                pass  # it has closed already; what it said can be read
            said = b""
            try:
                while data := connection.recv(65536):
                    said += data
                    if not until_closed and b"\r\n\r\n" in said:
                        break
            except ConnectionResetError:
                pass
            return said

    def github(self, payload: Any, *, kind: str = "issues", guid: str | None = None, secret: str = SECRET, **headers: str) -> Answer:
        """A delivery as GitHub sends it."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return self.ask("POST", "/hooks/github", body, {**signed(body, kind=kind, guid=guid, secret=secret), **headers})

    def fire(self, routine: str, token: str | None, body: Any = None, **headers: str) -> Answer:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        login = {"Authorization": f"Bearer {token}"} if token else {}
        kind = {"Content-Type": "application/json"} if content else {}
        return self.ask("POST", f"/v1/claude_code/routines/{routine}/fire", content, {**login, **kind, **headers})

    def until(self, holds: Callable[[], bool], seconds: float = 40) -> None:
        """Ask again until it holds."""
        until(holds, seconds, lambda: "".join(line for line in self.lines if " INFO " not in line)[-3000:])

    def in_store(self, work: Any) -> Any:
        """Do something with the gateway's store."""

        async def opened() -> Any:
            async with await Store.open(f"sqlite+aiosqlite:///{self.home / 'store.db'}") as store:
                return await work(store)

        return run(opened())

    def kill(self) -> None:
        self.process.kill()
        self._gone(20)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self._gone(30)

    def _gone(self, seconds: float) -> int:
        status = self.process.wait(seconds)
        self._hearing.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return status


def run(work: Any) -> Any:
    """Run a coroutine in a thread of its own: tests may have a loop already."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(work)))
    thread.start()
    thread.join()
    assert found, "it failed, see above"
    return found[0]


def signature(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def signed(body: bytes, *, kind: str = "issues", guid: str | None = None, secret: str = SECRET) -> dict[str, str]:
    """The headers of a delivery of GitHub's."""
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": kind,
        "X-GitHub-Delivery": guid or str(uuid4()),
        "X-Hub-Signature-256": signature(body, secret),
    }


def issue(number: int = 7, **more: Any) -> dict[str, Any]:
    """The payload of an issue that was opened."""
    return {
        "action": "opened",
        "issue": {"number": number, "title": f"It breaks {uuid4()}", "user": {"login": "mona"}},
        "repository": {"full_name": "acme/docs", "owner": {"login": "acme"}},
        "sender": {"login": "mona", "type": "User"},
        **more,
    }
