"""A Prefect server of the tests' own: it can be stopped, killed, and started again on the same port and the same data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ports import free_port
from waiting import answers, until

# as `routines up` starts it: with SQLite's own way with writers a server can keep everybody waiting for a minute
COMMAND = (sys.executable, "-m", "prefect_routines.up.sqlite", "server", "start", "--host", "127.0.0.1")


class PrefectProcess:
    """A Prefect server with its data in `home`, on `port`; `url` is its API's address."""

    def __init__(self, home: Path, port: int | None = None) -> None:
        self.home, self.port = home, port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.home.mkdir(exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        # the second: where the pages look for the API
        environment |= {"PREFECT_HOME": str(self.home), "PREFECT_SERVER_UI_API_URL": self.url}
        log = self.home / "server.log"
        with log.open("ab") as said:
            self.process = process = subprocess.Popen([*COMMAND, "--port", str(self.port)], env=environment, stdout=said, stderr=said)

        def why() -> str:
            return f"the Prefect server did not start: {log.read_text(errors='replace')[-3000:]}"

        until(lambda: process.poll() is not None or answers(f"{self.url}/health"), what=why)
        assert process.poll() is None, why()

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """As a user stops it; with force if that takes too long."""
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
