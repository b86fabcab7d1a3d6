"""How fast the gateway answers signed deliveries at a steady rate, beside a bare Starlette endpoint, and whether each becomes one run.

    python bench/gateway.py [--rate 50] [--seconds 30] [--away] [--wait 420] [--postgres]

Starts a Prefect server of its own; with `--away` that is stopped while the deliveries come, and started again afterwards. The runs are
made in a work pool without a worker: that they are made is what is counted, they are not executed. With `--wait 0` nothing is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from servers import PrefectServer, databases, without_settings

from prefect_routines.gateway.targets import gate
from prefect_routines.up import parts

SECRET = "s3cret-of-the-benchmark"
BARE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
async def hook(request):
    await request.body()
    return JSONResponse({"status": "accepted", "id": "-"}, 202)
uvicorn.run(Starlette(routes=[Route("/hooks/github", hook, methods=["POST"])]), port=int(sys.argv[1]), log_level="warning")
"""


def delivery() -> tuple[bytes, dict[str, str]]:
    """About what GitHub sends for an issue, 9 KB; each for another issue, or one would wait for the session about the one before."""
    login = {"login": "mona", "type": "User", "html_url": "https://github.com/mona"}
    issue = {"number": uuid4().int % 10**9, "title": str(uuid4()), "body": "It breaks. " * 700, "user": login, "labels": []}
    body = json.dumps({"action": "opened", "issue": issue, "repository": {"full_name": "acme/docs"}, "sender": login}).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "X-GitHub-Event": "issues", "X-GitHub-Delivery": str(uuid4())}
    return body, {**headers, "X-Hub-Signature-256": f"sha256={signature}"}


async def load(address: str, rate: float, seconds: float) -> tuple[list[float], list[str]]:
    """Milliseconds from when each request was due, so that a service that holds up its sender is not flattered; and the ids."""
    import httpx

    took: list[float] = []
    ids: list[str] = []

    async def one(client: httpx.AsyncClient, due: float) -> None:
        body, headers = delivery()
        answer = await client.post(f"{address}/hooks/github", content=body, headers=headers)
        took.append((time.perf_counter() - due) * 1000)
        assert answer.status_code == 202, answer.text
        ids.append(str(answer.json().get("id")))

    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=100)) as client, asyncio.TaskGroup() as group:
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(client, due))
    return took, ids


def show(name: str, took: list[float]) -> None:
    cuts = statistics.quantiles(took, n=100)
    print(
        f"{name:<28} {len(took)} answers  p50 {cuts[49]:6.1f} ms  p95 {cuts[94]:6.1f} ms  p99 {cuts[98]:6.1f} ms  max {max(took):6.1f} ms"
    )


class Api:
    """Prefect's API, as far as this needs it."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """One POST; asked again while the database is busy."""
        request = urllib.request.Request(f"{self._address}{path}", json.dumps(body).encode(), {"content-type": "application/json"})
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                time.sleep(0.5)

    def deploy(self) -> None:
        """A deployment that each of the deliveries starts, in a pool that nobody works on."""
        self.ask("/work_pools/", {"name": "nobody", "type": "process", "base_job_template": {}})
        flow = self.ask("/flows/", {"name": "count"})
        made = self.ask(
            "/deployments/", {"name": "count", "flow_id": flow["id"], "work_pool_name": "nobody", "enforce_parameter_schema": False}
        )
        parameters = {"event": "{{ event.id | string }}"}
        action = {"type": "run-deployment", "source": "selected", "deployment_id": made["id"], "parameters": parameters}
        trigger = {"type": "event", "posture": "Reactive", "expect": ["github.issues.opened"], "threshold": 1, "within": 0}
        self.ask("/automations/", {"name": "count", "trigger": trigger | {"match_related": gate(made["id"])}, "actions": [action]})

    def runs(self) -> Counter[str]:
        """How many runs each delivery has."""
        found: Counter[str] = Counter()
        offset = 0
        while True:
            page = self.ask("/flow_runs/filter", {"limit": 200, "offset": offset, "sort": "ID_DESC"})
            found.update(str(run["parameters"].get("event")) for run in page)
            offset += len(page)
            if len(page) < 200:
                return found


def account(api: Api, ids: list[str], seconds: float) -> None:
    """Wait until each delivery has a run, then a while for second ones, and print how many have none, one and more."""
    began, found = time.monotonic(), Counter[str]()
    while time.monotonic() - began < seconds:
        found = api.runs()
        if all(found[one] for one in ids):
            break
        time.sleep(2)
    took = time.monotonic() - began
    time.sleep(min(45.0, seconds))  # the last repetition of an event comes 37 s after it
    found = api.runs()
    counts = Counter(min(found[one], 2) for one in ids)
    strangers = sum(found.values()) - sum(found[one] for one in ids)
    print(
        f"{len(ids)} deliveries, {len(set(ids))} ids: {counts[0]} with no run, {counts[1]} with one, {counts[2]} with more; "
        f"{strangers} runs of no delivery; the last one came within {took:.0f} s after the last delivery"
    )


@contextmanager
def gateway(home: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """A gateway that has its sources; its address."""
    command = [str(Path(sys.executable).with_name("routines")), "gateway", "--port", "0"]
    with (home / "gateway.log").open("a") as log:
        process = subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, (home / "gateway.log").read_text()
        yield found[0]
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def bare() -> Iterator[str]:
    """The endpoint to compare with; its address."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", BARE, str(port)])
    try:
        time.sleep(3)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def measure(home: Path, environment: Mapping[str, str], chosen: argparse.Namespace) -> None:
    with PrefectServer(home, free_port(), environment) as server:
        env = {**environment, **parts.CLIENT_SETTINGS, "PREFECT_API_URL": server.api, "ROUTINES_GATEWAY_KEY": "k" * 40}
        program = "from prefect_routines.gateway.sources import WebhookSource; "
        program += f"WebhookSource(signature='github', secrets=[{SECRET!r}]).save('github', overwrite=True)"
        subprocess.run([sys.executable, "-c", program], env=env, check=True, capture_output=True)
        api = Api(server.api)
        api.deploy()
        if not chosen.bare_off:
            with bare() as address:
                show("a bare endpoint", asyncio.run(load(address, chosen.rate, chosen.seconds))[0])
        with gateway(home, env) as address:
            time.sleep(3)  # it reads sources and deployments
            if chosen.away:
                server.stop()
            took, ids = asyncio.run(load(address, chosen.rate, chosen.seconds))
            show(f"the gateway, Prefect {'away' if chosen.away else 'up'}", took)
            print(f"load average of this machine: {os.getloadavg()[0]:.1f}", flush=True)
            if chosen.away:
                server.start()
            if chosen.wait:
                account(api, ids, chosen.wait)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rate", type=float, default=50)
    options.add_argument("--seconds", type=float, default=30)
    options.add_argument("--away", action="store_true")
    options.add_argument("--wait", type=float, default=420, help="seconds for the runs to be made")
    options.add_argument("--postgres", action="store_true", help="Prefect and the store on PostgreSQL")
    options.add_argument("--bare-off", action="store_true", help="leave the bare endpoint out")
    chosen = options.parse_args()
    home = Path(tempfile.mkdtemp(prefix="prefect-routines-bench-"))
    try:
        with databases(postgres=chosen.postgres) as named:
            measure(home, {**without_settings(), **named, "PREFECT_HOME": str(home / "prefect"), "DO_NOT_TRACK": "1"}, chosen)
    finally:
        shutil.rmtree(home, ignore_errors=True)
        print(f"load average of this machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
