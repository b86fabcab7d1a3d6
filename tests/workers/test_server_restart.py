"""The Prefect server goes away and comes back while a worker runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from waiting import answers, until

from .place import Place, alive


class Server:
    """A Prefect server of the test's own, on one port and one database whenever it is started."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.api_url = f"http://127.0.0.1:{self.port}/api"
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | {"PREFECT_HOME": str(self.home)}
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        until(lambda: answers(f"{self.api_url}/health"))

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "home")
    made.home.mkdir()
    made.start()
    yield made
    made.stop()


@pytest.mark.timeout(400)
def test_a_worker_goes_on_when_the_server_comes_back(server: Server, tmp_path: Path) -> None:
    """The same worker takes new runs afterwards and cancels them when asked; a run under way survives."""
    with Place(server.api_url, tmp_path / "place", "restart", {"PREFECT_HOME": str(server.home)}) as place:
        worker = place.worker()
        before = place.waiting()
        pid = place.pid(before)
        server.stop()
        assert alive(pid)
        server.start()
        after = place.waiting()
        later = place.pid(after)
        assert worker.process.poll() is None
        assert worker.zygote()
        place.set_state(after, type="CANCELLING")
        place.until(after, "CANCELLED")
        until(lambda: not alive(later))
        place.go()
        assert place.until(before, "COMPLETED")["run_count"] == 1
