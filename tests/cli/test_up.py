"""`routines up` as a person runs it, with everything real: it starts, what is killed returns, it stops, nothing stays behind."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from ports import free_port
from waiting import until

from .terminal import Terminal


class Up:
    """One `routines up` of its own home and ports."""

    def __init__(self, place: Path, *options: str, **environment: str) -> None:
        self.options = options
        self.port, self.gateway_port = free_port(), free_port()
        self.mark = f"up-test-{os.getpid()}-{self.port}"
        variables = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        variables |= {"PREFECT_HOME": str(place / "prefect"), "ROUTINES_HOME": str(place / "home"), "MARK": self.mark, **environment}
        self.terminal = Terminal(place, variables)
        self.lines: list[str] = []
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        process = self.terminal.start("up", "--port", str(self.port), "--gateway-port", str(self.gateway_port), *self.options)
        assert process.stdout is not None
        stream = process.stdout

        def listen() -> None:
            for line in stream:
                self.lines.append(line.rstrip())

        Thread(target=listen, daemon=True).start()
        return process

    def wait_until_ready(self) -> None:
        until(lambda: self.process.poll() is not None or any("Everything answers" in line for line in self.lines), 240)
        assert self.process.poll() is None, (self.lines, self.process.stderr.read() if self.process.stderr else "")

    def ask(self, path: str, body: object = None) -> object:
        """Prefect's API."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def pid_of(self, part: str) -> int:
        """Of the part that last said that it answers."""
        found = [line for line in self.lines if re.search(rf"\d {part} +answers after", line)]
        return int(re.findall(r"process (\d+)", found[-1])[0])

    def processes(self) -> list[int]:
        """All living processes that this `up` has started, and itself, by a variable in their environment."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                alive = (entry / "stat").read_text().rpartition(") ")[2][0] not in "ZX"
                if alive and f"MARK={self.mark}\0".encode() in (entry / "environ").read_bytes() + b"\0":
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def end(self) -> None:
        """Leave nothing behind, however the test went."""
        if self.process.poll() is None:
            self.process.kill()
        until(lambda: not self.processes())
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One that everything answers from."""
    up = Up(tmp_path_factory.mktemp("up"), ANTHROPIC_API_KEY="sk-ant-not-a-real-one")
    try:
        up.wait_until_ready()
        yield up
    finally:
        up.end()


PARTS = ["server", "worker", "gateway"]
FLOW = """
import os, pathlib, time
from prefect import flow

@flow
def wait():
    pathlib.Path("key").write_text(os.environ["ANTHROPIC_API_KEY"])
    time.sleep(600)
"""
DEPLOYMENT = """
deployments:
  - name: wait
    entrypoint: wait.py:wait
    work_pool: {name: routines}
    pull:
      - prefect.deployments.steps.set_working_directory: {directory: PLACE}
"""


def test_it_prints_the_addresses_when_everything_answers(running: Up) -> None:
    """UI, API, gateway, logs; each is there."""
    said = "\n".join(running.lines)
    for line in (
        rf"Prefect UI +http://127.0.0.1:{running.port}$",
        rf"Prefect API +http://127.0.0.1:{running.port}/api$",
        rf"Gateway +http://127.0.0.1:{running.gateway_port}$",
        r"Logs +/.*/logs$",
    ):
        assert re.search(line, said, re.MULTILINE), said
    assert running.ask("/health") is True
    with urllib.request.urlopen(f"http://127.0.0.1:{running.gateway_port}/health", timeout=10) as answer:
        assert answer.status == 200


def test_the_pool_is_made_with_its_type(running: Up) -> None:
    """Deployments name it."""
    pool = running.ask("/work_pools/routines")
    assert isinstance(pool, dict)
    assert pool["type"] == "routines"


def test_no_secret_is_in_a_command_line_and_the_key_reaches_the_worker(running: Up) -> None:
    """Runs inherit the worker's environment."""
    for pid in running.processes():
        assert b"sk-ant" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"ANTHROPIC_API_KEY=sk-ant-not-a-real-one" in Path(f"/proc/{running.pid_of('worker')}/environ").read_bytes()


def test_a_second_one_for_the_same_home_is_refused(running: Up) -> None:
    """In one line that says which process has it."""
    second = running.terminal.run("up", "--port", str(free_port()), "--gateway-port", str(free_port()))
    assert second.status == 2
    assert re.fullmatch(rf"error: `routines up` runs already for .* \(process {running.process.pid}\).*ROUTINES_HOME.*\n", second.err)
    assert running.process.poll() is None


def test_another_home_uses_the_server_that_answers(running: Up, tmp_path: Path) -> None:
    """It says so, and its end leaves that server alone."""
    more = {"ROUTINES_HOME": str(tmp_path / "other"), "PREFECT_API_URL": f"http://127.0.0.1:{running.port}/api"}
    second = running.terminal.start("up", "--gateway-port", str(free_port()), **more)
    assert second.stdout is not None
    try:
        lines = []
        for line in second.stdout:
            lines.append(line.rstrip())
            if "Everything answers" in line:
                break
        assert f"A Prefect server answers at {more['PREFECT_API_URL']}: it is used, none is started." in lines
        assert not [line for line in lines if re.match(r"\S+ server ", line)]
        assert [line for line in lines if re.search(r"worker +other workers serve .* in SQLite: .*ROUTINES_DATABASE_URL", line)]
        second.terminate()
        assert second.wait(90) == 143
    finally:
        second.kill()
        second.communicate()
    assert running.ask("/health") is True


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_part_returns(running: Up, part: str) -> None:
    """kill -9: it is started again, and answers; the others go on."""
    before = {name: running.pid_of(name) for name in PARTS}
    os.kill(before[part], signal.SIGKILL)
    until(lambda: running.pid_of(part) != before[part])
    others = [name for name in PARTS if name != part]
    if part != "server":  # Prefect's worker may give up when its server is away; then it returns too
        assert {name: running.pid_of(name) for name in others} == {name: before[name] for name in others}
    assert [line for line in running.lines if re.search(rf"{part} +was ended by SIGKILL; starting it again in", line)]
    until(lambda: running.ask("/health") is True)


def test_sigterm_stops_it_in_order(running: Up, tmp_path: Path) -> None:
    """Gateway, worker - with the run in progress -, server; status 143; no process stays. It is the last test of this one."""
    (tmp_path / "wait.py").write_text(FLOW)
    (tmp_path / "prefect.yaml").write_text(DEPLOYMENT.replace("PLACE", str(tmp_path)))
    environment = {**running.terminal.environment, "PREFECT_API_URL": f"http://127.0.0.1:{running.port}/api"}
    prefect = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    subprocess.run(prefect, cwd=tmp_path, env=environment, capture_output=True, check=True)
    deployments = running.ask("/deployments/filter", {})
    assert isinstance(deployments, list)
    running.ask(f"/deployments/{deployments[0]['id']}/create_flow_run", {})
    until(lambda: (tmp_path / "key").exists() and (tmp_path / "key").read_text() == "sk-ant-not-a-real-one")
    seen = len(running.lines)
    running.process.terminate()
    assert running.process.wait(120) == 143
    until(lambda: "Stopped." in running.lines)
    stopping = [line.split()[1] for line in running.lines[seen:] if re.match(r"\S+ \w+ +stopping", line)]
    assert stopping == ["gateway", "worker", "server"]
    until(lambda: not running.processes(), 20)
    with closing(sqlite3.connect(Path(running.terminal.environment["PREFECT_HOME"]) / "prefect.db")) as database:
        assert database.execute("SELECT state_type FROM flow_run").fetchall() == [("CRASHED",)], "the server was told how the run ended"


def test_kill_of_up_itself_and_ctrl_c(tmp_path: Path) -> None:
    """kill -9 leaves no process and does not hinder the next start; Ctrl-C while that one starts ends it with 130."""
    up = Up(tmp_path)
    try:
        up.wait_until_ready()
        assert len(up.processes()) >= 1 + 2 * len(PARTS)
        up.process.kill()
        until(lambda: not up.processes(), 20)
        up.process.communicate()
        up.lines.clear()
        up.process = up.start()
        until(lambda: any(re.search(r"server +answers", line) for line in up.lines), 240)
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(120) == 130
        until(lambda: not up.processes(), 20)
    finally:
        up.end()


def test_a_server_that_cannot_start_ends_it_with_the_log_and_the_remedy(tmp_path: Path) -> None:
    """Here its database cannot be opened; --verbose shows the log, too."""
    up = Up(tmp_path, "--verbose", PREFECT_SERVER_DATABASE_CONNECTION_URL=f"sqlite+aiosqlite:///{tmp_path}/missing/place/prefect.db")
    try:
        assert up.process.wait(200) == 2
        assert up.process.stderr is not None
        said = up.process.stderr.read().splitlines()[-1]
        assert re.search(r"error: the server could not be started \(3 tries.*Read .*/logs/server\.log; `prefect server start` alone", said)
        until(lambda: any(re.match(r"server +\| .*unable to open database file", line) for line in up.lines), 5)
        until(lambda: not up.processes(), 20)
    finally:
        up.end()
