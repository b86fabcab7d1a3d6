"""A process that has imported everything once and forks a runner per order: a run then costs its work, not three seconds of imports.

Orders come as JSON lines on stdin; on stdout stand `{"order", "pid"}` after the fork and `{"pid", "status"}` after the end.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import traceback
from pathlib import Path
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
    "httpx2",
    "httpcore2",
    "anyio._backends._asyncio",
    "truststore",
    "pydantic.v1",
    "prefect.utilities.visualization",
    "aiosqlite",
    "asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "genai_prices.data",
    "docstring_parser",
    "pyseccomp",
    "prefect_routines.routines",
    "prefect_routines.session.session",
    "prefect_routines.workspace.proxy",
    "prefect_routines.testing",
)


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    for name in (*PRELOADED, "e2e.harness.runner"):
        __import__(name)
    build_models()
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    orders = selectors.DefaultSelector()
    orders.register(sys.stdin.fileno(), selectors.EVENT_READ)
    orders.register(wake, selectors.EVENT_READ)
    tell({"ready": os.getpid()})
    pending = b""
    while True:
        for key, _ in orders.select():
            data = os.read(key.fd, 65536)
            if key.fd == wake:
                reap()
                continue
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                order = json.loads(line)
                tell({"order": order["order"], "pid": fork(order)})


def build_models() -> None:
    """The SDK's models are built when they are first used; that need not be done in each process."""
    from anthropic.types.beta import BetaMessage
    from anthropic.types.beta.parsed_beta_message import ParsedBetaMessage

    for model in (BetaMessage, ParsedBetaMessage):
        model.model_rebuild(force=True)


def fork(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()  # like a worker's child; and a signal to the tests' group is not for it
        said = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, target in ((nothing, 0), (said, 1), (said, 2)):
            os.dup2(number, target)
        os.environ.update(order["environment"])
        from e2e.harness.runner import run

        status = run(order)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        tell({"pid": pid, "status": os.waitstatus_to_exitcode(status)})


def tell(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
