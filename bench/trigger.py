"""How long it takes from a webhook to the first request to the model, with the warm `routines` worker beside Prefect's process worker.

`python bench/trigger.py [--runs 30] [--busy 30] [--process 5] [--burst 20] [--postgres]`. Gateway, inbox, automation, Prefect server and
worker are real; Claude is scripted, in a process of its own. Both workers run the same routine, one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from uuid import uuid4

from claude import ClaudeProcess
from memory import tree_cpu, tree_pss
from rich.console import Console
from rich.table import Table
from run import environment

from prefect_routines.gateway.targets import gate

FLOWS = Path(__file__).parents[1]
PROMPT = "true 1"


@dataclass
class World:
    """Server, Claude, and the deployments of the measured routine, one per type of worker."""

    env: dict[str, str]
    claude: ClaudeProcess
    port: int
    deployments: dict[str, str] = field(default_factory=dict)

    def api(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.env['PREFECT_API_URL']}{path}", data, {"content-type": "application/json"})
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != 503:  # SQLite is busy; Prefect's own client waits and asks again, too
                    raise
                time.sleep(0.1)

    def deploy(self, kind: str) -> None:
        """A pool of this type and a deployment in it, as `prefect deploy` makes it."""
        from prefect_routines.workers.worker import RoutinesWorker

        template = RoutinesWorker.get_default_base_job_template()
        self.api("/work_pools/", {"name": kind, "type": kind, "base_job_template": template})
        flow = self.api("/flows/", {"name": "ask"})
        made = self.api(
            "/deployments/",
            {
                "name": kind,
                "flow_id": flow["id"],
                "entrypoint": "flows/ask.py:ask",
                "work_pool_name": kind,
                "parameters": {"prompt": PROMPT},
                "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(FLOWS)}}],
                "enforce_parameter_schema": False,
            },
        )
        self.deployments[kind] = made["id"]
        passed = {"event": "{{ event.id | string }}", "prompt": PROMPT}
        action = {"type": "run-deployment", "source": "selected", "deployment_id": made["id"], "parameters": passed}
        trigger = {"type": "event", "posture": "Reactive", "expect": [f"webhook.bench.{kind}"], "threshold": 1, "within": 0}
        self.api("/automations/", {"name": kind, "trigger": trigger | {"match_related": gate(made["id"])}, "actions": [action]})

    @contextmanager
    def gateway(self) -> Iterator[None]:
        """A gateway that takes the webhooks of a source `bench`."""
        home = Path(self.env["PREFECT_HOME"])
        shape = "{'kind_header': 'X-Kind', 'id_header': 'X-Id'}"
        save = f"WebhookSource(signature='bearer', secrets=['bench-secret'], shape={shape}).save('bench')"
        program = f"from prefect_routines.gateway.sources import WebhookSource; {save}"
        subprocess.run([sys.executable, "-c", program], env=self.env, check=True, capture_output=True)
        command = [str(Path(sys.executable).with_name("routines")), "gateway", "--port", str(self.port)]
        with (home / "gateway.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env=self.env) as process:
            try:
                while True:
                    try:
                        urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                        break
                    except OSError:
                        if process.poll() is not None:
                            raise SystemExit((home / "gateway.log").read_text()) from None
                        time.sleep(0.1)
                yield
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(30)

    def create(self, kind: str) -> str:
        """Deliver a webhook; the id of the delivery."""
        headers = {"Authorization": "Bearer bench-secret", "X-Kind": kind, "X-Id": uuid4().hex, "Content-Type": "application/json"}
        body = json.dumps({"at": headers["X-Id"]}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.port}/hooks/bench", body, headers)) as answer:
            made: str = json.load(answer)["id"]
        return made

    def run_of(self, delivery: str) -> dict[str, Any]:
        """The one run of a delivery."""
        while True:
            runs = self.api("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC"})
            found = [run for run in runs if run["parameters"].get("event") == delivery]
            if len(found) > 1:
                raise SystemExit(f"delivery {delivery} has {len(found)} runs")
            if found:
                run: dict[str, Any] = found[0]
                return run
            time.sleep(0.05)

    def first_requests(self, count: int, seconds: float) -> list[float]:
        """When the first requests of `count` sessions came, in order."""
        came: list[float] = []
        deadline = time.monotonic() + seconds
        while len(came) < count:
            came += [one.at for one in self.claude.seen() if one.turn == 0]
            if time.monotonic() > deadline:
                raise SystemExit(f"only {len(came)} of {count} sessions came to their first request")
            time.sleep(0.02)
        return sorted(came)

    def wait_until_ended(self, runs: list[str]) -> None:
        """All of them must have ended well; else the numbers mean nothing."""
        for delivery in runs:
            run = self.run_of(delivery)["id"]
            while (state := self.api(f"/flow_runs/{run}")["state"])["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                time.sleep(0.05)
            if state["type"] != "COMPLETED":
                raise SystemExit(f"run {run} ended as {state['name']}: {state['message']}")

    @contextmanager
    def worker(self, kind: str) -> Iterator[int]:
        """A worker of this type, warm: it has run one run. Gives its process number."""
        home = Path(self.env["PREFECT_HOME"])
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", kind, "--name", kind]
        with (home / f"{kind}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=self.env | self.claude.environment, cwd=home)
        try:
            first = self.create(kind)
            self.first_requests(1, 120)
            self.wait_until_ended([first])
            yield process.pid
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)

    @contextmanager
    def busy(self, kind: str, runs: int) -> Iterator[None]:
        """Beside it a session makes about ten tool calls a second, five at once, each of half a second; long enough for so many runs."""
        turns = 20 * runs
        parameters = {"prompt": f"sleep 5 {turns}", "settings": {"budget": {"turns": turns + 10, "dollars": 1000}}}
        made = self.api(f"/deployments/{self.deployments[kind]}/create_flow_run", {"parameters": parameters})["id"]
        self.first_requests(1, 120)
        yield
        if (state := self.api(f"/flow_runs/{made}")["state"])["type"] != "RUNNING":
            raise SystemExit(f"the busy session was not at it all the time: {state['name']} {state['message']}")
        self.api(f"/flow_runs/{made}/set_state", {"state": {"type": "CANCELLING"}})

    def wait_until_recorded(self, delivery: str) -> None:
        """Prefect writes a run's task runs some seconds later; on SQLite whatever comes meanwhile waits for that."""
        last = {"flow_runs": {"id": {"any_": [self.run_of(delivery)["id"]]}}, "task_runs": {"name": {"like_": "report"}}}
        while not self.api("/task_runs/count", last):
            time.sleep(0.1)

    def latencies(self, kind: str, runs: int, *, alone: bool = True) -> list[float]:
        """Seconds from a webhook to the first request of its run, one run at a time.

        Args:
            alone: Whether Prefect is done with the run before.
        """
        found = []
        for _ in range(runs):
            began = time.monotonic()
            run = self.create(kind)
            found.append(self.first_requests(1, 120)[0] - began)
            self.wait_until_ended([run])
            if alone:
                self.wait_until_recorded(run)
        return found

    def burst(self, kind: str, count: int) -> tuple[float, float]:
        """Seconds until the last of `count` runs, created at once, is at its first request; and the processor time (s) of all that takes
        part, until then."""
        began, used = time.monotonic(), tree_cpu(os.getpid())
        runs = [self.create(kind) for _ in range(count)]
        came = self.first_requests(count, 180)
        used = tree_cpu(os.getpid()) - used
        self.wait_until_ended(runs)
        return came[-1] - began, used

    def burst_memory(self, kind: str, count: int, worker: int) -> float:
        """Memory (PSS, MB) of the worker and its runs at its highest, in a burst of its own: looking takes half a core."""
        high, over = [0], threading.Event()

        def watch() -> None:
            while not over.wait(0.5):
                high.append(tree_pss(worker))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            self.burst(kind, count)
        finally:
            over.set()
            watcher.join()
        return max(high) / 1e6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def spread(found: list[float]) -> tuple[str, str, str]:
    """Median, 95th percentile, largest."""
    p95 = quantiles(found, n=20, method="inclusive")[-1] if len(found) > 1 else found[0]
    return f"{median(found):.2f} s", f"{p95:.2f} s", f"{max(found):.2f} s"


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=30)
    options.add_argument("--process", type=int, default=5, help="runs with the process worker")
    options.add_argument("--busy", type=int, default=30, help="runs beside a session that is at work")
    options.add_argument("--burst", type=int, default=20)
    options.add_argument("--postgres", action="store_true", help="Prefect and the store on PostgreSQL")
    given = options.parse_args()
    table = Table("what", "p50", "p95", "max")
    with environment(postgres=given.postgres) as env, ClaudeProcess() as claude, ExitStack() as stack:
        world = World({**env, "PREFECT_LOGGING_LEVEL": "INFO"}, claude, free_port())
        stack.enter_context(world.gateway())
        if given.runs or given.busy or given.burst:
            world.deploy("routines")
            with world.worker("routines") as pid:
                if given.runs:
                    table.add_row(f"routines worker, {given.runs} runs", *spread(world.latencies("routines", given.runs)))
                if given.busy:
                    with world.busy("routines", given.busy):
                        found = spread(world.latencies("routines", given.busy, alone=False))
                    table.add_row(f"the same, {given.busy} runs beside ten tool calls a second", *found)
                if given.burst:
                    last, cpu = world.burst("routines", given.burst)
                    memory = world.burst_memory("routines", given.burst, pid)
                    table.add_row(
                        f"routines worker, burst of {given.burst}", f"all in {last:.1f} s", f"{cpu:.1f} s of CPU", f"{memory:.0f} MB PSS"
                    )
        if given.process:
            world.deploy("process")
            with world.worker("process"):
                table.add_row(f"process worker, {given.process} runs", *spread(world.latencies("process", given.process)))
    console = Console(width=110)
    console.print(table)
    console.print(f"Prefect and the store on {'PostgreSQL' if given.postgres else 'SQLite'}.")
    console.print(f"Load of the machine: {', '.join(f'{load:.1f}' for load in os.getloadavg())} on {os.cpu_count()} cores.")


if __name__ == "__main__":
    main()
