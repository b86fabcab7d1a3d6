"""The warm process: it has imported what every run needs, forks one child per run, and tells its worker how each child ended.

It has one thread and one loop, so that a fork is safe. Over a socket pair the worker sends one byte and a socket per run; the child
talks over that socket and the zygote over the pair, one JSON line per message. When the worker is gone the pair is at its end, and
so is the zygote; children that run go on.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import warnings
from typing import NoReturn

# Installed packages only: what lies beside a flow may change between two runs and is loaded by the child.
PRELOADED = (
    "prefect.main",
    "prefect.engine",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.deployments.steps.core",
    "prefect.deployments.steps.pull",
    "prefect.events.clients",
    "prefect.events.worker",
    "prefect.input",
    "prefect.logging.handlers",
    "prefect.runner.storage",
    "prefect.utilities.importtools",
    "prefect_routines.collection",
    "prefect_routines.routines",
    "prefect_routines.store",
    "prefect_routines.session.claude",
    "prefect_routines.workspace.workspace",
    "prefect_routines.workers.child",
    # what these import only when they are used, seen as new in sys.modules at the end of a run
    "aiosqlite",
    "anthropic",
    "anyio._backends._asyncio",
    "anyio.streams.tls",
    "encodings.idna",
    "genai_prices.data",
    "genai_prices.decompose",
    "graphviz",
    "httpcore2",
    "prefect.utilities.visualization",
    "pydantic.v1",
    "pyseccomp",
    "rich._emoji_codes",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "truststore",
)


def preload() -> None:
    """Import all of `PRELOADED`; a library that is not there is the run's affair, not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in PRELOADED:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


# Modules whose pydantic models are completed here, and not at their first use in each run.
COMPLETED = (
    "prefect.client.schemas.objects",
    "prefect.client.schemas.responses",
    "prefect.client.schemas.actions",
    "prefect.client.schemas.filters",
    "prefect.events.filters",
    "prefect.events.schemas.events",
    "anthropic.types.beta.beta_message",
    "anthropic.types.beta.parsed_beta_message",
)


def complete() -> None:
    """Build what pydantic would build at the first use."""
    from pydantic import BaseModel

    for name in COMPLETED:
        for model in list(vars(sys.modules.get(name, object)).values()):
            if isinstance(model, type) and issubclass(model, BaseModel) and not model.__pydantic_complete__:
                with contextlib.suppress(Exception):  # then it is built when it is used, and fails there if it must
                    model.model_rebuild()


def rehearse() -> None:
    """Do once what each session does with Claude's SDK; whatever is wrong with that is the run's affair."""
    import asyncio

    from prefect_routines.session import claude

    with contextlib.suppress(Exception):
        claude.shared_tls()
        asyncio.run(claude.rehearse())


def threads() -> int:
    """How many threads this process has, those of C libraries included."""
    return len(os.listdir("/proc/self/task"))


class Zygote:
    """The loop: wait for a request, for the end of a child, or for the end of the worker."""

    def __init__(self, pair: socket.socket) -> None:
        self._pair = pair
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)

    def serve(self) -> tuple[socket.socket, bool] | None:
        """Fork on request. Returns None in the zygote when its worker is gone, and in a child its socket and whether it is warm."""
        self._tell({"ready": os.getpid()})
        while True:
            readable, _, _ = select.select([self._pair, self._woken], [], [])
            if self._woken in readable:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
                self._reap()
            if self._pair in readable:
                try:
                    _, descriptors, _, _ = socket.recv_fds(self._pair, 1, 1)
                except OSError:
                    return None
                if not descriptors:
                    return None
                with socket.socket(fileno=descriptors[0]) as talk:
                    warm = threads() == 1  # a fork of several threads may hold a lock for ever: such a child starts Python anew
                    if os.fork() == 0:
                        return self._become_child(talk), warm

    def _become_child(self, talk: socket.socket) -> socket.socket:
        """Leave behind what is the zygote's: sockets, signal handlers, session."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for mine in (self._pair, self._woken, self._wake):
            mine.close()
        os.setsid()
        return talk.dup()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._tell({"pid": pid, "status": os.waitstatus_to_exitcode(status)})

    def _tell(self, message: dict[str, int]) -> None:
        with contextlib.suppress(OSError):  # the worker is gone; the next look at the pair says so
            self._pair.sendall(json.dumps(message).encode() + b"\n")


def main() -> NoReturn:
    """`python -P -m prefect_routines.workers.zygote DESCRIPTOR`"""
    pair = socket.socket(fileno=int(sys.argv[1]))
    pair.set_inheritable(False)
    preload()
    from prefect_routines.workers import prefect_internals

    complete()
    prefect_internals.share_tls()
    rehearse()
    gc.collect()
    gc.freeze()  # the collector of a child must not touch, and so copy, what all share
    forked = Zygote(pair).serve()
    if forked is None:
        os._exit(0)
    from prefect_routines.workers.child import live

    live(*forked)


if __name__ == "__main__":
    main()
