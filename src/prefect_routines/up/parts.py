"""The parts of a machine of routines, as a table: what each runs, and how one sees that it answers."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from prefect_routines.up.checks import Check, PrefectApi, WorkerCheck, http_check
from prefect_routines.up.keeper import Part

POOL = "routines"
POOL_TYPE = "routines"
SERVER_SETTINGS = {
    # An event waits behind the task runs of a busy session: with Prefect's own values 13 s behind 300 task runs, with these 7 s.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
    # Without these nobody can follow the log of a running session; both are off by default.
    "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
    "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
}
"""Settings of a server for routines; what the user has set himself stays."""
RUNS_SECONDS = 60.0
"""Seconds that the worker gets to stop: it tells its runs to stop and kills them after 30 s."""

CLIENT_SETTINGS = {
    # Each client asks for a token before its first write, a run three times, and a server that protects nothing has none.
    "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
}
"""Settings of the clients of such a server, unless the user protects it against requests that other sites forge."""

_PREFECT = (sys.executable, "-P", "-m", "prefect")
SERVER_COMMAND = (sys.executable, "-P", "-m", "prefect_routines.up.sqlite", "server", "start")
"""Starts the server; see there."""
_ROUTINES = (sys.executable, "-P", "-c", "from prefect_routines.cli import main; main()")


def origin(host: str, port: int) -> str:
    """The address of a server as a client on this machine writes it.

    Example:
        >>> origin("0.0.0.0", 4200), origin("::1", 80)
        ('http://127.0.0.1:4200', 'http://[::1]:80')
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server(host: str, port: int, api: PrefectApi, chosen: frozenset[str]) -> Part:
    """Prefect's server: API, UI, automations, schedules."""
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    ours = {**SERVER_SETTINGS, "PREFECT_SERVER_UI_API_URL": api.url}  # where the pages look for the API
    if "PREFECT_UI_API_URL" in chosen:  # its older name
        del ours["PREFECT_SERVER_UI_API_URL"]
    environment |= {name: value for name, value in ours.items() if name not in chosen}
    return Part(
        name="server",
        command=[*SERVER_COMMAND, "--host", host, "--port", str(port)],
        environment=environment,
        check=api.answers,
        remedy="`prefect server start` alone shows the same; `prefect config view` shows what it is set to",
    )


def client_settings(chosen: frozenset[str]) -> Mapping[str, str]:
    """Settings of the clients of a server that is started here."""
    return {} if "PREFECT_SERVER_CSRF_PROTECTION_ENABLED" in chosen else CLIENT_SETTINGS


def worker(api: PrefectApi, home: Path, limit: int | None, gateway_url: str, clients: Mapping[str, str], *, alone: bool) -> Part:
    """The worker: starts runs. It has the user's environment, so that the runs have it.

    Args:
        gateway_url: Where the runs' links lead, unless the user has said so himself.
        clients: Settings of the server's clients, unless the user has made others.
        alone: See `WorkerCheck`.
    """
    name = f"{socket.gethostname()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:6]}"
    check = WorkerCheck(api, POOL, POOL_TYPE, name, alone=alone)
    limited = ["--limit", str(limit)] if limit is not None else []
    command = [*_PREFECT, "worker", "start", "--pool", POOL, "--type", POOL_TYPE, "--name", name, "--install-policy", "never", *limited]
    return Part(
        name="worker",
        command=command,
        environment={**clients, "ROUTINES_GATEWAY_URL": gateway_url, **os.environ, "PREFECT_API_URL": api.url},
        check=check,
        prepare=check.prepare,
        needs=api.answers,
        patience=RUNS_SECONDS,
        keeps_children=True,
        stopping=f"stopping; runs in progress are told to stop and get up to {RUNS_SECONDS:.0f} s (Ctrl-C again kills them)",
        remedy=f"`prefect worker start --pool {POOL} --type {POOL_TYPE}` alone shows the same",
    )


def gateway(api: PrefectApi, host: str, port: int) -> Part:
    """The gateway: takes deliveries in, also while Prefect is away."""
    url = origin(host, port)
    check: Check = http_check(f"{url}/health")
    # under this key it keeps its sources on disk: killed while Prefect is away, it goes on taking deliveries when it is back
    ours = {"ROUTINES_GATEWAY_KEY": secrets.token_hex(32), "ROUTINES_GATEWAY_URL": url}
    environment: Mapping[str, str] = {**ours, **os.environ, "PREFECT_API_URL": api.url}
    return Part(
        name="gateway",
        command=[*_ROUTINES, "gateway", "--host", host, "--port", str(port)],
        environment=environment,
        check=check,
        remedy="`routines gateway` alone shows the same",
    )
