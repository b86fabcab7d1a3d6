"""Runs tests against copies of the package, each in a forked process, two at a time: what is heavy to import is imported once.

One job per line on stdin, `{"name", "package", "tests", "log", "seconds"}`; one answer per line on stdout, `{"name", "status"}`;
the status is None if it did not end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

PRELOADED = (
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.client.orchestration",
    "prefect.events.worker",
    "prefect.logging.handlers",
    "anthropic",
    "anthropic.resources.beta.messages",
    "anthropic.lib.streaming",
    "anthropic.types.beta",
    "httpx2",
    "aiosqlite",
    "alembic.command",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "genai_prices.data",
    "docstring_parser",
    "hypothesis",
    "pyseccomp",
    "pytest_asyncio.plugin",
    "pytest",
)
AT_ONCE = 2


def main() -> None:
    for name in PRELOADED:
        __import__(name)
    jobs = [json.loads(line) for line in sys.stdin]
    running: dict[int, tuple[dict[str, Any], float]] = {}
    while jobs or running:
        while jobs and len(running) < AT_ONCE:
            job = jobs.pop(0)
            running[_fork(job)] = (job, time.monotonic())
        for pid, (job, began) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            late = time.monotonic() - began > job["seconds"]
            if late and not ended:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            if ended or late:
                del running[pid]
                answer = {"name": job["name"], "status": os.waitstatus_to_exitcode(status) if ended else None}
                os.write(1, json.dumps(answer).encode() + b"\n")
        time.sleep(0.02)  # between two looks


def _fork(job: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        said = os.open(job["log"], os.O_WRONLY | os.O_CREAT, 0o600)
        os.setsid()
        os.dup2(said, 1)
        os.dup2(said, 2)
        for name in [name for name in sys.modules if name.partition(".")[0] == "prefect_routines"]:
            del sys.modules[name]
        sys.path.insert(0, job["package"])
        import pytest

        import prefect_routines

        assert prefect_routines.__file__ is not None
        assert prefect_routines.__file__.startswith(job["package"])
        options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", "-W", "ignore", "--tb=line"]
        status = int(pytest.main([*options, *job["tests"]]))
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
