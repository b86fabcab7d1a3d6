"""How fast the gateway answers: signed deliveries at a steady rate, beside a bare Starlette endpoint in the same run.

    python bench/gateway.py [--rate 50] [--seconds 30] [--away]

Needs a Prefect server (PREFECT_API_URL); with `--away` one is talked to only to save the source, and the gateway then runs against an
address where nobody listens, with the sources that an earlier gateway has kept.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

SECRET = "s3cret-of-the-benchmark"
BARE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
async def hook(request):
    await request.body()
    return JSONResponse({"status": "accepted"}, 202)
uvicorn.run(Starlette(routes=[Route("/hooks/github", hook, methods=["POST"])]), port=int(sys.argv[1]), log_level="warning")
"""


def delivery() -> tuple[bytes, dict[str, str]]:
    """About what GitHub sends for an issue: 9 KB."""
    login = {"login": "mona", "type": "User", "html_url": "https://github.com/mona"}
    issue = {"number": 7, "title": str(uuid4()), "body": "It breaks. " * 700, "user": login, "labels": []}
    body = json.dumps({"action": "opened", "issue": issue, "repository": {"full_name": "acme/docs"}, "sender": login}).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "X-GitHub-Event": "issues", "X-GitHub-Delivery": str(uuid4())}
    return body, {**headers, "X-Hub-Signature-256": f"sha256={signature}"}


async def load(address: str, rate: float, seconds: float) -> list[float]:
    """Milliseconds from the time at which each request was due, so that a service that holds up its sender is not flattered."""
    import httpx

    took: list[float] = []

    async def one(client: httpx.AsyncClient, due: float) -> None:
        body, headers = delivery()
        answer = await client.post(f"{address}/hooks/github", content=body, headers=headers)
        took.append((time.perf_counter() - due) * 1000)
        assert answer.status_code == 202, answer.text

    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=100)) as client, asyncio.TaskGroup() as group:
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(client, due))
    return took


def show(name: str, took: list[float]) -> None:
    cuts = statistics.quantiles(took, n=100)
    print(
        f"{name:<28} {len(took)} answers  p50 {cuts[49]:6.1f} ms  p95 {cuts[94]:6.1f} ms  p99 {cuts[98]:6.1f} ms  max {max(took):6.1f} ms"
    )


def gateway(home: Path, **environment: str) -> tuple[subprocess.Popen[str], str]:
    settings = {"ROUTINES_HOME": str(home), "ROUTINES_GATEWAY_KEY": "k" * 40, **environment}
    command = [str(Path(sys.executable).with_name("routines")), "gateway", "--port", "0"]
    log = (home / "log").open("a")
    process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found, (home / "log").read_text()
    return process, found[0]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rate", type=float, default=50)
    options.add_argument("--seconds", type=float, default=30)
    options.add_argument("--away", action="store_true")
    chosen = options.parse_args()
    from prefect_routines.gateway.sources import WebhookSource

    WebhookSource(signature="github", secrets=[SECRET]).save("github", overwrite=True)
    with tempfile.TemporaryDirectory() as place:
        process, address = gateway(Path(place))
        if chosen.away:
            process.terminate()
            process.wait(20)
            process, address = gateway(Path(place), PREFECT_API_URL="http://127.0.0.1:9/api")
        port = address.rpartition(":")[2]
        bare = subprocess.Popen([sys.executable, "-c", BARE, str(int(port) % 40000 + 20000)])
        try:
            time.sleep(3)
            show("a bare endpoint", asyncio.run(load(f"http://127.0.0.1:{int(port) % 40000 + 20000}", chosen.rate, chosen.seconds)))
            show(f"the gateway, Prefect {'away' if chosen.away else 'up'}", asyncio.run(load(address, chosen.rate, chosen.seconds)))
        finally:
            for started in (bare, process):
                started.terminate()
                started.wait(20)
        print(f"load average of this machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
