"""A pool with workers, flows and deployments in it, for the tests of the worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from waiting import until

PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

# A flow that says where it runs, then waits until it is told to go on.
WAITS = """
import asyncio, json, os
from pathlib import Path
from prefect import flow, get_run_logger
from prefect.runtime import flow_run

@flow
async def waits(place: str):
    get_run_logger().info("I am here")
    Path(place, flow_run.id).write_text(str(os.getpid()))
    while not Path(place, "go").exists():
        await asyncio.sleep(0.05)
    return "went"
"""


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Processes that this one started."""
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


@dataclass
class Worker:
    """A worker in a process of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def zygote(self) -> int:
        """Number of its warm process."""

        def find() -> int:
            for child in children(self.process.pid):
                if b"prefect_routines.workers.zygote" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
            return 0

        return until(find, what=lambda: self.said[-2000:])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(45)
            except subprocess.TimeoutExpired:
                self.kill()


@dataclass
class Place:
    """One work pool of the type `routines`, and a directory with flows. `with Place(...)` stops what it started."""

    api_url: str
    directory: Path
    pool: str
    env: dict[str, str] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)

    def __enter__(self) -> Place:
        self.directory.mkdir(exist_ok=True)
        self.prefect("work-pool", "create", self.pool, "--type", "routines")
        return self

    def __exit__(self, *error: object) -> None:
        (self.directory / "go").touch()
        for worker in self.workers:
            worker.stop()

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        return {**os.environ, "PREFECT_API_URL": self.api_url, "PREFECT_LOGGING_TO_API_ENABLED": "true", **self.env, **more}

    def prefect(self, *arguments: str) -> str:
        done = subprocess.run([*PREFECT, *arguments], env=self.environment({}), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def worker(self, *options: str, **env: str) -> Worker:
        """Start a worker of this pool; it may not have come up yet."""
        log = self.directory / f"worker-{len(self.workers)}.log"
        with log.open("wb") as said:
            process = subprocess.Popen(
                [*PREFECT, "worker", "start", "--pool", self.pool, "--name", f"{self.pool}-{len(self.workers)}", *options],
                env=self.environment(env), cwd=self.directory, stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self.workers.append(Worker(process, log))
        return self.workers[-1]

    def api(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api_url}{path}", data, {"content-type": "application/json"})

        def ask() -> Any:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return (json.loads(answer.read() or b"null"),)
            except urllib.error.HTTPError as error:
                if error.code != 503:  # SQLite is busy
                    raise
                return None

        return until(ask)[0]

    def flow(self, name: str, code: str) -> None:
        (self.directory / f"{name}.py").write_text(textwrap.dedent(code))

    def deploy(self, entrypoint: str, *, directory: Path | None = None, **fields: Any) -> str:
        """A deployment as `prefect deploy` makes it, its code in `directory`; gives its id."""
        name = entrypoint.rpartition(":")[2]
        flow = self.api("/flows/", {"name": name})
        pull = [{"prefect.deployments.steps.set_working_directory": {"directory": str(directory or self.directory)}}]
        made: str = self.api(
            "/deployments/",
            {
                "name": str(uuid4()), "flow_id": flow["id"], "entrypoint": entrypoint, "work_pool_name": self.pool, "pull_steps": pull,
                "enforce_parameter_schema": False, **fields,
            },
        )["id"]  # fmt: skip
        return made

    def start(self, deployment: str, **fields: Any) -> str:
        run: str = self.api(f"/deployments/{deployment}/create_flow_run", fields)["id"]
        return run

    def run(self, run: str) -> Any:
        return self.api(f"/flow_runs/{run}")

    def until(self, run: str, *states: str, seconds: float = 120) -> Any:
        """The run, as soon as its state has one of these types or names."""

        def look() -> Any:
            found = self.run(run)
            return found if {found["state_type"], found["state_name"]} & set(states) else None

        return until(look, seconds, lambda: f"{self.run(run)['state']}\n" + "\n".join(worker.said[-3000:] for worker in self.workers))

    def set_state(self, run: str, **state: Any) -> None:
        self.api(f"/flow_runs/{run}/set_state", {"state": state})

    def waiting(self) -> str:
        """A started run of the flow that waits; gives its id."""
        self.flow("waits", WAITS)
        return self.start(self.deploy("waits.py:waits", parameters={"place": str(self.directory)}))

    def pid(self, run: str) -> int:
        """The process of a waiting run, as it says itself."""
        path = self.directory / run

        def read() -> int:
            return int(path.read_text() or 0) if path.exists() else 0

        return until(read, what=lambda: "\n".join(worker.said[-3000:] for worker in self.workers))

    def go(self) -> None:
        (self.directory / "go").touch()
