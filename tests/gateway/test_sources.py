"""Who may send: blocks on the real Prefect server, known also while it is away, with secrets nowhere in clear."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect import get_client
from pydantic import ValidationError

from prefect_routines.blocks import load_block
from prefect_routines.gateway.sources import Sources, WebhookSource

from .conftest import StartGateway
from .gateway_process import NOWHERE, SECRET, Gateway, issue, signed

KEY = "k" * 40


async def test_the_block_keeps_its_secrets(prefect_server: str) -> None:
    """Prefect shows them to nobody who does not ask for them; all else comes back as it was."""
    name = f"test-{uuid4().hex[:8]}"
    made = WebhookSource(
        signature="custom",
        secrets=[SECRET, "second-" + SECRET],
        scheme={"kind": "hmac", "header": "X-Sig", "prefix": "v1="},
        shape={"preset": "alertmanager", "labels": {"team": "commonLabels.team"}},
        identities=["docs-bot", "acme-app[bot]"],
        quiet_after=60,
    )
    await made.save(name)
    loaded = await load_block(f"webhook-source/{name}")
    assert isinstance(loaded, WebhookSource)
    assert (loaded.known_secrets(), loaded.how(), loaded.shape) == (made.known_secrets(), made.how(), made.shape)
    async with get_client() as client:
        shown = await client.read_block_document_by_name(name, "webhook-source", include_secrets=False)
    assert SECRET not in shown.model_dump_json()
    assert SECRET not in repr(loaded)
    await WebhookSource.adelete(name)


@pytest.mark.parametrize(
    "fields",
    [
        {"signature": "github", "secrets": []},
        {"signature": "github", "secrets": ["  "]},
        {"signature": "custom", "secrets": ["x"]},
        {"signature": "github", "secrets": ["x"], "scheme": {"kind": "bearer"}},
        {"signature": "nonsense", "secrets": ["x"]},
        {"signature": "github", "secrets": ["x"], "quiet_after": 0},
    ],
    ids=["no secret", "an empty secret", "custom without a scheme", "a scheme too many", "unknown", "no time"],
)
def test_blocks_that_would_let_everybody_in_are_refused(fields: dict[str, Any]) -> None:
    """Or that say two things."""
    with pytest.raises(ValidationError):
        WebhookSource(**fields)


async def test_names_that_mean_something_else_are_not_served(prefect_server: str, caplog: pytest.LogCaptureFixture) -> None:
    """A source called 'person' would be trusted like one; 'github' is GitHub. The operator is told, without the secret."""
    await WebhookSource(signature="bearer", secrets=[SECRET]).save("person", overwrite=True)
    async with Sources() as sources:
        assert sources.origin == "prefect"
        assert sources.get("person") is None
    assert "webhook-source/person takes no deliveries" in caplog.text
    assert SECRET not in caplog.text


async def test_identities_are_told_for_the_loop_guard(sources: str) -> None:
    """Those of the source's block; of another source none."""
    async with Sources() as known:
        assert "docs-bot" in await known.identities("github")
        assert await known.identities("pipeline") == set()


def test_a_new_source_and_a_new_secret_hold_at_once(sources: str, start_gateway: StartGateway) -> None:
    """The first delivery that fails makes the gateway look again; while two secrets are there both hold."""
    gateway = start_gateway(ROUTINES_GATEWAY_FAILURES_PER_MINUTE="10000")
    name = f"test-{uuid4().hex[:8]}"

    def send(secret: str) -> int:
        return gateway.ask("POST", f"/hooks/{name}", uuid4().hex.encode(), {"Authorization": f"Bearer {secret}"}).status

    assert send("one") == 401
    WebhookSource(signature="bearer", secrets=["one"]).save(name)
    gateway.until(lambda: send("one") == 202)
    WebhookSource(signature="bearer", secrets=["two", "one"]).save(name, overwrite=True)
    gateway.until(lambda: send("two") == 202)
    assert send("one") == 202
    WebhookSource(signature="bearer", secrets=["two"]).save(name, overwrite=True)
    gateway.until(lambda: send("one") == 401)  # within half a minute: a secret that was taken away is looked for by time
    assert send("two") == 202


def test_without_prefect_and_without_a_key_nothing_is_promised(start_gateway: StartGateway) -> None:
    """503 with Retry-After, whatever the source: nobody knows yet who may send."""
    gateway = start_gateway(PREFECT_API_URL=NOWHERE)
    for answer in (gateway.github(issue()), gateway.ask("POST", "/hooks/nobody", b"{}")):
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "not heard from Prefect" in answer.why
    health = gateway.ask("GET", "/health")
    assert (health.status, health.json["webhooks"]) == (200, "not yet")


def test_with_a_key_a_gateway_starts_while_prefect_is_away(sources: str, start_gateway: StartGateway, tmp_path: Path) -> None:
    """With what an earlier one was told; on disk it is encrypted, readable for this user only. Another key opens nothing."""
    assert start_gateway(ROUTINES_GATEWAY_KEY=KEY).stop() == 0
    kept = tmp_path / "home" / "gateway-sources"
    assert kept.stat().st_mode & 0o777 == 0o600
    for file in kept.parent.iterdir():
        assert SECRET.encode() not in file.read_bytes()
    gateway = start_gateway(ROUTINES_GATEWAY_KEY=KEY, PREFECT_API_URL=NOWHERE)
    assert gateway.github(issue()).status == 202
    assert gateway.github(issue(), secret="wrong").status == 401
    gateway.kill()
    other = start_gateway(ROUTINES_GATEWAY_KEY="another" * 10, PREFECT_API_URL=NOWHERE)
    assert other.github(issue()).status == 503
    assert "cannot be read" in other.log


def test_what_was_taken_survives_kill_9(sources: str, start_gateway: StartGateway) -> None:
    """At any instant of twenty deliveries: each that was answered is there, none is there twice, all come through when sent again."""
    gateway = start_gateway(ROUTINES_GATEWAY_KEY=KEY)
    bodies = [json.dumps(issue(number)).encode() for number in range(20)]
    guids = [str(uuid4()) for _ in bodies]
    answered: dict[str, str] = {}

    def send(guid: str, body: bytes) -> None:
        try:
            answer = gateway.ask("POST", "/hooks/github", body, signed(body, guid=guid))
        except OSError:
            return
        answered[guid] = answer.json["id"]
        if len(answered) == 5:
            os.kill(gateway.process.pid, signal.SIGKILL)

    threads = [threading.Thread(target=send, args=pair) for pair in zip(guids, bodies, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gateway.kill()
    assert 5 <= len(answered) <= 20
    again = start_gateway(ROUTINES_GATEWAY_KEY=KEY, PREFECT_API_URL=NOWHERE)
    for guid, body in zip(guids, bodies, strict=True):
        answer = again.ask("POST", "/hooks/github", body, signed(body, guid=guid))
        assert answer.json["id"] == answered.get(guid, answer.json["id"])
        assert answer.json["status"] == "duplicate" or guid not in answered
    kept = again.in_store(lambda store: store.deliveries(limit=100))
    assert sorted(one.delivery_id for one in kept) == sorted(guids)


def test_several_gateways_serve_one_store(sources: str, start_gateway: StartGateway) -> None:
    """One delivery at both at once is taken by one of them."""
    both = [start_gateway(), start_gateway()]
    for _ in range(10):
        body, guid = json.dumps(issue()).encode(), str(uuid4())
        found: list[dict[str, str]] = []

        def send(gateway: Gateway, body: bytes = body, guid: str = guid, found: list[dict[str, str]] = found) -> None:
            found.append(gateway.ask("POST", "/hooks/github", body, signed(body, guid=guid)).json)

        threads = [threading.Thread(target=send, args=(gateway,)) for gateway in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(one["status"] for one in found) == ["accepted", "duplicate"]
        assert len({one["id"] for one in found}) == 1


def test_a_store_that_cannot_be_written_is_told_and_nothing_is_promised(sources: str, start_gateway: StartGateway, tmp_path: Path) -> None:
    """Somebody locks SQLite for longer than a sender waits: 503 with Retry-After, and afterwards it is taken once."""
    gateway = start_gateway()
    body, guid = json.dumps(issue()).encode(), str(uuid4())
    blocker = sqlite3.connect(tmp_path / "home" / "store.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        answer = gateway.ask("POST", "/hooks/github", body, signed(body, guid=guid))
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()
    again = gateway.ask("POST", "/hooks/github", body, signed(body, guid=guid))
    assert again.status in (200, 202)
    kept = gateway.in_store(lambda store: store.deliveries(limit=100))
    assert [one.delivery_id for one in kept] == [guid]
    assert body.decode()[20:60] not in gateway.log
