"""What the tests of the session API and page share: tokens, and sessions whose journals are written straight into the gateway's store."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from playwright.sync_api import Page

from prefect_routines.steering.form import AskedCall, call_hash
from prefect_routines.store import Act, Form, FormKind, Lease, Scope, Store
from session.journals import CONFIG, Written

from .gateway_process import Answer, Gateway

BUDGET = {"budget": {"turns": 200, "tokens": None, "dollars": 10.0, "minutes": 60.0}}


def ready() -> list[Written]:
    """What every session begins with."""
    repository = {"name": "docs", "branch": "main", "base_sha": "0123456789abcdef"}
    return [
        ("session.status_running", {"flow_run": "run", "again": False}),
        ("workspace.ready", {"repositories": [repository]}),
        ("session.config", {**CONFIG, "model_name": "Claude Opus"}),
    ]


def asked(id: str = "toolu_9", *, editable: bool = True, tool: str = "slack_post", **arguments: Any) -> AskedCall:
    """A call that waits for a person."""
    given = arguments or {"channel": "#docs", "text": "The documentation is up to date again."}
    return AskedCall(
        id=id,
        tool=tool,
        title=f"{tool}: {next(iter(given.values()))}",
        arguments=given,
        hash=call_hash(tool, given),
        target=str(next(iter(given.values()))),
        reason="a rule says ask",
        like=f"{tool}(channel=#docs)",
        editable=editable,
    )


@dataclass
class Session:
    """A session in a gateway's store, held by this process."""

    gateway: Gateway
    id: str
    lease: Lease

    def write(self, *written: Written) -> list[int]:
        """Append to its journal."""

        async def work(store: Store) -> list[int]:
            return await store.append(self.lease, written)

        numbers: list[int] = self.gateway.in_store(work)
        return numbers

    def change(self, **changes: Any) -> None:
        """Change its record."""
        self.gateway.in_store(lambda store: store.update_session(self.lease, **changes))

    def end(self, verdict: str = "done", summary: str = "It is done.") -> None:
        """As a run does at its end."""
        claimed = {"verdict": verdict, "claimed": verdict, "summary": summary, "evidence": ["`make test` passes"], "links": []}
        self.write(("session.verdict", claimed))
        self.change(status="ended", verdict=verdict, summary=summary, turns=4, dollars=0.1312)
        self.gateway.in_store(lambda store: store.release(self.lease))

    def ask(
        self,
        kind: FormKind = "approval",
        content: Mapping[str, Any] | None = None,
        seconds: float | None = 3600,
        flow_run_id: str | None = None,
    ) -> Form:
        """Open a form."""

        async def work(store: Store) -> Form:
            given = {"calls": [asked()]} if content is None else dict(content)
            told: dict[str, Any] = {"kind": kind, "content": given, "flow_run_id": flow_run_id, "seconds": seconds}
            return await store.open_form(self.lease, f"frm-{uuid4().hex}", key=f"turn-{uuid4().hex[:6]}", **told)

        form: Form = self.gateway.in_store(work)
        return form

    def show_live(self, turn: int, text: str) -> None:
        """What Claude is writing."""
        self.gateway.in_store(lambda store: store.show_live(self.lease, turn, text))

    def form(self, form_id: str) -> Form:
        found: Form = self.gateway.in_store(lambda store: store.form(form_id))
        return found

    @property
    def acts(self) -> list[Act]:
        """What was sent to it."""
        sent: list[Act] = self.gateway.in_store(lambda store: store.acts(self.id))
        return sent


@dataclass
class World:
    """A gateway with sessions in it."""

    gateway: Gateway
    tokens: dict[str, str] = field(default_factory=dict)

    def session(self, routine: str = "docs-sync", *written: Written, running: bool = True, deployment: str | None = None) -> Session:
        """A session at work."""
        session_id = f"ses-{uuid4().hex[:20]}"

        async def work(store: Store) -> Lease:
            await store.create_session(
                session_id=session_id, routine=routine, flow_run_id=str(uuid4()) if running else None, deployment_id=deployment
            )
            lease = await store.acquire(session_id, lease_seconds=3600)
            if running:
                await store.update_session(lease, status="running", data=BUDGET)
            if written:
                await store.append(lease, written)
            return lease

        return Session(self.gateway, session_id, self.gateway.in_store(work))

    def token(self, *scopes: Scope, routine: str = "", deployment: str = "", name: str = "ada") -> str:
        """The secret of a new token."""

        async def work(store: Store) -> str:
            return (await store.create_token(deployment, routine, name, scopes))[1]

        secret: str = self.gateway.in_store(work)
        return secret

    def get(self, path: str, token: str | None, **headers: str) -> Answer:
        return self.gateway.ask("GET", path, None, {**_login(token), **headers})

    def post(self, path: str, token: str | None, body: Any = None, **headers: str) -> Answer:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if content else {}
        return self.gateway.ask("POST", path, content, {**_login(token), **kind, **headers})

    @contextmanager
    def stream(self, path: str, token: str, **headers: str) -> Iterator[Stream]:
        """The events of a stream."""
        connection = socket.create_connection(("127.0.0.1", self.gateway.port), timeout=60)
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**_login(token), **headers}.items())
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
        stream = Stream(connection)
        try:
            yield stream
        finally:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # closing alone waits for the thread that reads
            connection.close()


def _login(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


@dataclass
class Event:
    """A server-sent event."""

    kind: str
    data: Any
    id: int | None


class Stream:
    """Reads events as they come."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        while self._file.readline().strip():
            pass
        self.ended = threading.Event()
        self._events: queue.Queue[Event] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        fields: dict[str, str] = {}
        try:
            for raw in self._file:
                line = raw.decode().rstrip("\r\n")
                name, _, value = line.partition(": ")
                if name in ("id", "event", "data"):
                    fields[name] = value
                elif not line and "data" in fields:
                    number = int(fields["id"]) if "id" in fields else None
                    self._events.put(Event(fields["event"], json.loads(fields["data"]), number))
                    fields = {}
                elif line == "0":  # the last chunk
                    break
        except (OSError, ValueError):
            pass  # closed by the test
        self.ended.set()

    def next(self, kind: str, seconds: float = 20) -> Event:
        """The next event of this kind; others before it are passed over."""
        while True:
            event = self._events.get(timeout=seconds)
            if event.kind == kind:
                return event


def sign_in(page: Page, world: World, *scopes: Any, path: str = "/sessions", **of: str) -> None:
    """As a person does."""
    page.goto(path)
    page.get_by_label("Token").fill(world.token(*(scopes or ("steer", "approve")), **of))
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"**{path}")
