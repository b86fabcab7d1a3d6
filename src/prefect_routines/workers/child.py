"""What a forked child does: take its orders, become the process that Prefect's own worker would have started, run the flow."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import shlex
import socket
import struct
import sys
from typing import Any, NoReturn, TypedDict

from prefect_routines.config import config
from prefect_routines.store.holder import Holder
from prefect_routines.workers import prefect_internals

ENGINE = "prefect.engine"


class Orders(TypedDict):
    """All that a child needs to know.

    Attributes:
        command: A command of the deployment's own, which takes the place of the engine.
        hooks: The state, as JSON, whose hooks of the flow are to be run; None to run the flow.
        run: The flow run as JSON, for the hooks.
    """

    env: dict[str, str]
    cwd: str
    command: str | None
    quiet: bool
    hooks: str | None
    run: str | None


def live(talk: socket.socket, warm: bool) -> NoReturn:
    """Say who we are, wait for the orders, follow them. A worker that is gone before it gave them all gives none: nothing is started."""
    with talk:
        try:
            _send(talk, {"process": Holder.current().as_json()})
            orders: Orders = _receive(talk)
        except OSError:
            os._exit(0)
    before = dict(os.environ)
    _become(orders)
    if orders["command"] is not None:
        command = shlex.split(orders["command"])
        os.execvpe(command[0], command, os.environ)  # noqa: S606 - the deployment's command, as any worker would run it
    if not warm and orders["hooks"] is None:
        os.execv(sys.executable, [sys.executable, "-m", ENGINE])  # noqa: S606
    _refresh(before)
    if orders["hooks"] is not None:
        asyncio.run(prefect_internals.run_hooks(orders["run"] or "", orders["hooks"]))
        sys.exit(0)
    sys.modules.pop(ENGINE, None)  # or runpy warns that it was imported already
    sys.argv = [ENGINE]
    runpy.run_module(ENGINE, run_name="__main__", alter_sys=True)
    sys.exit(0)


def _send(talk: socket.socket, message: Any) -> None:
    data = json.dumps(message).encode()
    talk.sendall(struct.pack("!I", len(data)) + data)


def _receive(talk: socket.socket) -> Any:
    def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = talk.recv(count - len(data))
            if not more:
                raise ConnectionError("the worker is gone")
            data += more
        return data

    (length,) = struct.unpack("!I", exactly(4))
    return json.loads(exactly(length))


def _become(orders: Orders) -> None:
    """Environment, directory and descriptors as a process started by itself would have them."""
    os.environ.clear()
    os.environ.update(orders["env"])
    os.chdir(orders["cwd"])
    if orders["quiet"]:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for standard in (1, 2):
            os.dup2(nowhere, standard)
        os.close(nowhere)
    # `python -m` looks into the current directory first and into PYTHONPATH next
    wanted = [orders["cwd"], *filter(None, orders["env"].get("PYTHONPATH", "").split(os.pathsep))]
    sys.path[:] = [*dict.fromkeys(wanted), *(place for place in sys.path if place not in wanted)]


def _refresh(before: dict[str, str]) -> None:
    """Forget what was read from the environment of the zygote."""
    config.cache_clear()
    prefect_internals.refresh_settings(before)
