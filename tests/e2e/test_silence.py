"""What should happen and does not is told: a run that nobody takes, a session without a reply, a source that has gone quiet."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import get_client
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import PrefectClient

from prefect_routines.deploying import alarms
from prefect_routines.deploying.alarms import ensure_alarms
from prefect_routines.doctor.alarms import recent_alarms
from prefect_routines.testing import ScriptedClaude, call, say
from waiting import until_async

ROOT = Path(__file__).parents[2]
POOL = "silence"


@pytest.fixture
def told() -> Iterator[list[dict[str, str]]]:
    """What a service that takes notifications over HTTP was told; Prefect's block `custom-webhook/alarms` points there."""
    received: list[dict[str, str]] = []

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        block = CustomWebhookNotificationBlock(name="alarms", url=url, json_data={"subject": "{{subject}}", "body": "{{body}}"})
        block.save("alarms", overwrite=True)
        yield received
        server.shutdown()
        thread.join()


@pytest.fixture
async def client(prefect_server: str, told: list[dict[str, str]], configure: Callable[..., None]) -> AsyncIterator[PrefectClient]:
    """Prefect, with alarms that tell the service above as soon as Prefect can."""
    assert prefect_server
    configure(ROUTINES_ALARM_BLOCK="custom-webhook/alarms", ROUTINES_ALARM_LATE_MINUTES="0.01")
    async with get_client() as client:
        yield client
        await ensure_alarms(client, [])


@pytest.fixture
async def deployment(client: PrefectClient, tmp_path: Path) -> AsyncIterator[Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]]:
    """Deploys flows/ask.py to a work pool of its own; gone in the end."""
    made: list[UUID] = []

    async def deploy(settings: dict[str, Any]) -> dict[str, Any]:
        prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
        _run([*prefect, "work-pool", "create", POOL, "--type", "process", "--overwrite"])
        name = f"silent-{uuid4().hex[:6]}"
        (tmp_path / "prefect.yaml").write_text(
            json.dumps(
                {
                    "deployments": [
                        {
                            "name": name,
                            "entrypoint": "flows/ask.py:ask",
                            "work_pool": {"name": POOL},
                            "parameters": {"prompt": "Do it.", "settings": settings},
                        }
                    ]
                }
            )
        )
        command = [*prefect, "deploy", "--all", "--prefect-file", str(tmp_path / "prefect.yaml")]
        _run(command)
        asked = {"deployments": {"name": {"any_": [name]}}}
        [found] = (await client.request("POST", "/deployments/filter", json=asked)).json()
        made.append(UUID(found["id"]))
        return dict(found)

    yield deploy
    for one in made:
        await client.delete_deployment(one)


def _run(command: list[str]) -> None:
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def _worker(tmp_path: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    env = {**os.environ, **environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL]
    with (tmp_path / "worker.log").open("wb") as log:
        return subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def _stop(worker: subprocess.Popen[bytes]) -> None:
    if worker.poll() is None:
        os.killpg(worker.pid, 15)
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, 9)
            worker.wait()


@pytest.mark.timeout(240)
async def test_a_run_that_nobody_takes_is_told(
    client: PrefectClient, deployment: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]], told: list[dict[str, str]]
) -> None:
    """No worker: the alarm's event is in the feed, and the notification names the run and leads to its page. Twice is as good as once."""
    late = await deployment({})
    assert [line for line in await ensure_alarms(client, [late]) if "does not start" in line]
    assert await ensure_alarms(client, [late]) == []
    run = await client.create_flow_run_from_deployment(UUID(late["id"]))

    async def mine() -> list[dict[str, str]]:
        return [one for one in told if run.name in one["body"]]

    [told_of_it] = await until_async(mine, 90)
    what = f"ask/{late['name']} does not start"
    assert told_of_it["subject"] == f"routines: {what}"
    assert f"Is a worker of the work pool {POOL} running?" in told_of_it["body"]
    assert str(run.id) in told_of_it["body"]

    async def shown() -> bool:  # the feed is written every few seconds
        return what in [fired.what for fired in await recent_alarms(client, hours=1)]

    assert await until_async(shown, 30)


@pytest.mark.timeout(280)
async def test_a_session_without_a_reply_is_told_and_one_with_a_reply_is_not(
    client: PrefectClient,
    deployment: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
    told: list[dict[str, str]],
    tmp_path: Path,
) -> None:
    """Claude takes one request and says nothing, answers the other: a notification about the first run only, and none about lateness."""
    mute, chatty = await deployment({"deadlines": {"first_reply": 1, "stall": 200}}), await deployment({"deadlines": {"first_reply": 1}})
    await ensure_alarms(client, [mute, chatty], preparation=45)
    report = say(call("report", verdict="done", summary="Done."))
    with ScriptedClaude([report]) as claude:
        worker = _worker(tmp_path, claude.environment())
        try:
            answered = await client.create_flow_run_from_deployment(UUID(chatty["id"]))
            await until_async(lambda: _ended(client, answered.id), 120)
        finally:
            _stop(worker)

    # a listener that accepts and never answers is what a hanging service looks like
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    worker = _worker(tmp_path, {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}", "ANTHROPIC_API_KEY": "sk-ant-none"})
    try:
        hangs = await client.create_flow_run_from_deployment(UUID(mute["id"]))

        async def mine() -> list[dict[str, str]]:
            return [one for one in told if hangs.name in one["body"]]

        [first, *_] = await until_async(mine, 150)
    finally:
        _stop(worker)
        silent.close()
    assert first["subject"] == f"routines: ask/{mute['name']} gets no reply"
    assert not [one for one in told if answered.name in one["body"]]
    assert not [one for one in told if "does not start" in one["subject"]]


async def _ended(client: PrefectClient, run_id: UUID) -> bool:
    state = (await client.read_flow_run(run_id)).state
    return state is not None and state.is_final()


@pytest.mark.timeout(120)
async def test_a_source_that_never_sent_anything_is_told(client: PrefectClient, told: list[dict[str, str]]) -> None:
    """The watch begins with the automation: no first event is needed. One that keeps sending is not told of."""
    for name in ("never", "lively"):
        await _make(client, alarms.source_alarm(name, 0.1))
    began = datetime.now(UTC)

    async def silent() -> bool:
        for name in ("lively", "lively.deploy"):  # with and without a kind
            await _post(client, f"webhook.{name}", {"prefect.resource.id": "webhook.lively"})
        return any("never" in one["subject"] for one in told) and (datetime.now(UTC) - began).total_seconds() > 25

    await until_async(silent, 60)
    assert {one["subject"] for one in told} == {"routines: source never is quiet"}
    assert "`routines inbox`" in told[0]["body"]


async def _make(client: PrefectClient, alarm: alarms.Alarm) -> None:
    """Make an alarm as `ensure_alarms` does, with a shorter time: ten seconds is the least that Prefect takes."""
    made = alarms._automation(alarm, await alarms._notifier(client))
    await client.request("POST", "/automations/", json=made)


async def _post(client: PrefectClient, name: str, resource: dict[str, str], related: Sequence[dict[str, str]] = ()) -> None:
    event = {"event": name, "resource": resource, "related": list(related), "payload": {}, "id": str(uuid4())}
    await client.request("POST", "/events", json=[{**event, "occurred": datetime.now(UTC).isoformat()}])
