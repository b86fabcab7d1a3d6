"""`routines up` on a machine of a test's own: its own home, ports, project and store."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ports import free_port
from waiting import until

ROUTINES = [sys.executable, "-c", "from prefect_routines.cli import main; main()"]


class Machine:
    """A machine with everything on it.

    Args:
        home: Where all its files are.
        environment: Further variables of its processes.
    """

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.home, self.project = home, home / "project"
        self.project.mkdir(parents=True)
        self.port, self.gateway_port = free_port(), free_port()
        self.api, self.gateway = f"http://127.0.0.1:{self.port}/api", f"http://127.0.0.1:{self.gateway_port}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "ROUTINES_", "ANTHROPIC_"))}
        self.environment = {
            **clean,
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "ROUTINES_WORKSPACES": str(home / "workspaces"),
            "ROUTINES_GATEWAY_URL": self.gateway,
            **environment,
        }

    def run(self, *arguments: str, ok: bool = True) -> str:
        """Run `routines ...` in the project; what it prints."""
        command = [*ROUTINES, *arguments]
        done = subprocess.run(command, cwd=self.project, env=self.environment, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0 or not ok, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def python(self, code: str) -> None:
        """Run a program, as somebody would who saves his blocks."""
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=self.project, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def ask(self, path: str, body: Any = None) -> Any:
        """Ask Prefect's API."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.api + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    @contextlib.contextmanager
    def up(self) -> Iterator[subprocess.Popen[bytes]]:
        """Everything running."""
        log = self.home / "up.log"
        command = [*ROUTINES, "up", "--port", str(self.port), "--gateway-port", str(self.gateway_port)]
        with log.open("wb") as said:
            process = subprocess.Popen(command, cwd=self.project, env=self.environment, stdout=said, stderr=subprocess.STDOUT)
            try:
                until(lambda: process.poll() is not None or "Everything answers" in log.read_text(), 180)
                assert process.poll() is None, log.read_text()
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def kill(self, process: subprocess.Popen[bytes], part: str) -> None:
        """kill -9 a part of a running `up`: the child whose command line holds these words."""
        for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            if part in Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode():
                os.kill(int(pid), signal.SIGKILL)
                return
        raise AssertionError(f"no part {part!r} among the children of {process.pid}")
