"""A real Prometheus on a free port: it scrapes itself, and has an alert that fires and one that never does."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ports import free_port
from waiting import until

CONFIG = """
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yml]
scrape_configs:
  - job_name: self
    static_configs: [{targets: ["127.0.0.1:%d"]}]
"""
RULES = """
groups:
  - name: checkout
    rules:
      - alert: CheckoutDown
        expr: vector(1) > 0
        labels: {severity: page}
        annotations: {summary: "Checkout answers nobody"}
      - alert: NeverTrue
        expr: vector(0) > 1
      - record: job:up:sum
        expr: sum by (job) (up)
"""


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Its address. It has scraped itself and its alert fires."""
    program = shutil.which("prometheus")
    assert program, "Prometheus is missing: apt-get install prometheus"
    port = free_port()
    place = Path(tempfile.mkdtemp(prefix="routines-prometheus-"))
    (place / "prometheus.yml").write_text(CONFIG % port)
    (place / "rules.yml").write_text(RULES)
    command = [program, f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    log = place / "log"
    try:
        with log.open("wb") as said, subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, cwd=place) as server:
            try:
                _wait_until_alert_fires(f"http://127.0.0.1:{port}", server, log)
                yield f"http://127.0.0.1:{port}"
            finally:
                server.terminate()
                try:
                    server.wait(15)
                except subprocess.TimeoutExpired:
                    server.kill()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _data(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=5) as answer:
        return json.load(answer)["data"]


def _wait_until_alert_fires(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    def fires() -> bool:
        if server.poll() is not None:
            return True
        with contextlib.suppress(OSError):
            firing = [alert for alert in _data(f"{url}/api/v1/alerts")["alerts"] if alert["state"] == "firing"]
            return bool(firing and _data(f"{url}/api/v1/query?query=job:up:sum%3E0")["result"])
        return False

    until(fires, 60, lambda: log.read_text(errors="replace")[-3000:])
    assert server.poll() is None, log.read_text(errors="replace")[-3000:]
