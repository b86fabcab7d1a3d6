"""The servers that a benchmark talks to: Prefect's, as `routines up` starts it, and a PostgreSQL for those that want one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from prefect_routines.up import parts

SETTINGS = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", **parts.SERVER_SETTINGS}
POSTGRES = Path(__file__).parents[1] / "tests" / "store" / "postgres_server.py"


class PrefectServer:
    """A server in a process of its own, for a `with` block; it may be stopped and started in between.

    Args:
        home: Where its log is kept, and with SQLite its database.
        environment: Its environment, without what `routines up` adds.
    """

    def __init__(self, home: Path, port: int, environment: Mapping[str, str]) -> None:
        self.api = f"http://127.0.0.1:{port}/api"
        self._command = [*parts.SERVER_COMMAND, "--host", "127.0.0.1", "--port", str(port)]
        self._log, self._environment = home / "server.log", {**environment, **SETTINGS}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait for its first answer."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"{self.api}/health", timeout=5):
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the Prefect server did not start: {self._log.read_text()[-2000:]}") from None
                time.sleep(0.1)  # between two looks

    def stop(self) -> None:
        """Stop it and wait for its end; one that hangs is killed."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


@contextmanager
def databases(*, postgres: bool) -> Iterator[dict[str, str]]:
    """Variables that name the databases of Prefect and of the store: none for SQLite, or two on a PostgreSQL of the tests' kind."""
    if not postgres:
        yield {}
        return
    import asyncio

    spec = importlib.util.spec_from_file_location("postgres_server", POSTGRES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.PostgresServer()
    try:
        urls = [asyncio.run(server.create_database(name)) for name in ("prefect", "routines")]
        prefect = urls[0].replace("postgresql://", "postgresql+asyncpg://")  # as Prefect wants it
        yield {"PREFECT_SERVER_DATABASE_CONNECTION_URL": prefect, "ROUTINES_DATABASE_URL": urls[1]}
    finally:
        server.remove()


def without_settings() -> dict[str, str]:
    """The environment without what its owner has set for Prefect, routines and Claude."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "ROUTINES_", "ANTHROPIC_"))}
