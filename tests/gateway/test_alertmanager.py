"""A real Alertmanager fires a routine: its webhook, with a bearer token, through the gateway and the inbox."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ports import free_port
from prefect_routines.gateway.sources import WebhookSource
from prefect_routines.store import Store
from waiting import answers, until, until_async

from .conftest import StartGateway
from .gateway_process import SECRET
from .inbox_world import answering, deploy, runs_of, unique

CONFIGURATION = """\
route: {{receiver: routines, group_by: [alertname], group_wait: 0s}}
receivers:
  - name: routines
    webhook_configs:
      - url: {url}/hooks/{source}
        http_config: {{authorization: {{type: Bearer, credentials: {secret}}}}}
"""


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Any]:
    """Starts one with a configuration; its address."""
    processes = []

    def start(configuration: str) -> str:
        (tmp_path / "alertmanager.yml").write_text(configuration)
        address = f"127.0.0.1:{free_port()}"
        command = ["prometheus-alertmanager", "--config.file", "alertmanager.yml", "--storage.path", "data", "--cluster.listen-address="]
        with (tmp_path / "alertmanager.log").open("wb") as log:
            process = subprocess.Popen([*command, "--web.listen-address", address], cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
        processes.append(process)
        until(lambda: process.poll() is not None or answers(f"http://{address}/-/ready"), 30)
        assert process.poll() is None, (tmp_path / "alertmanager.log").read_text()
        return f"http://{address}"

    yield start
    for process in processes:
        process.terminate()
        process.wait()


@pytest.mark.timeout(120)
async def test_an_alert_starts_a_routine(sources: str, start_gateway: StartGateway, alertmanager: Any) -> None:
    """The alert's name is a label to match on; what the routine reads is the alert; the same group again waits for the run."""
    source = unique("alerts")
    await WebhookSource(signature="bearer", secrets=[SECRET], shape={"preset": "alertmanager"}).asave(source)  # type: ignore[misc]
    wanted = {"prefect.resource.id": f"webhook.{source}", "webhook.alertname": "DiskFull"}
    deployment = await deploy(answering(), expect=f"webhook.{source}*", match=wanted)
    gateway = start_gateway()
    address = alertmanager(CONFIGURATION.format(url=f"http://127.0.0.1:{gateway.port}", source=source, secret=SECRET))
    alert = [{"labels": {"alertname": "DiskFull", "host": "db1"}, "annotations": {"summary": "The disk of db1 is full."}}]
    async with httpx.AsyncClient() as client:
        assert (await client.post(f"{address}/api/v2/alerts", json=alert)).is_success

    async def started() -> list[Any]:
        return list(await runs_of(deployment))

    [run] = await until_async(started)
    async with await Store.open(f"sqlite+aiosqlite:///{gateway.home / 'store.db'}") as store:
        delivery = await store.delivery(run.parameters["event"])
    assert delivery is not None
    assert delivery.payload()["alerts"][0]["annotations"]["summary"] == "The disk of db1 is full."
