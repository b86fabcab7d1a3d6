"""What is to be started, and where: decided before anything is."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from prefect_routines.config import Config
from prefect_routines.errors import SettingsError
from prefect_routines.up import parts
from prefect_routines.up.checks import PrefectApi, is_loopback
from prefect_routines.up.keeper import Part
from prefect_routines.up.prefect_settings import PrefectSettings

FREED_SECONDS = 5.0
"""Time for a port to become free: the server of an `up` that was killed a moment ago may still be ending."""


@dataclass(frozen=True)
class Wishes:
    """What the user asked for.

    Args:
        host: Address of Prefect's API and UI; None: as Prefect is set.
        port: Their port; None: as Prefect is set.
        gateway_host: Address of the gateway.
        gateway_port: Its port.
        limit: How many runs may go on at once; None for no limit.
    """

    host: str | None = None
    port: int | None = None
    gateway_host: str = "127.0.0.1"
    gateway_port: int = 4280
    limit: int | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be started.

    Args:
        parts: In the order of starting; they are stopped in the other order.
        addresses: What the user opens, by its name.
        notes: What he should know before it begins.
    """

    parts: list[Part]
    addresses: Mapping[str, str]
    notes: list[str] = field(default_factory=list)


async def make_plan(wishes: Wishes, config: Config, prefect: PrefectSettings) -> Plan:
    """Decide which parts this machine needs.

    Args:
        wishes: What the user asked for.
        config: Settings of this machine.
        prefect: Prefect's settings.

    Raises:
        SettingsError: A port is taken, or Prefect's API is to be elsewhere and does not answer there.
    """
    url = _url(wishes, prefect)
    api = PrefectApi(url, prefect)
    there = urlsplit(url)
    host, port = wishes.host or there.hostname or "", there.port or (443 if there.scheme == "https" else 80)
    started = []
    notes = []
    clients: Mapping[str, str] = {}
    unanswered = await api.answers()
    if unanswered is None:
        notes.append(f"A Prefect server answers at {url}: it is used, none is started.")
    elif not is_loopback(there.hostname or "") and wishes.host is None:
        raise SettingsError(
            f"PREFECT_API_URL is {url}, and no Prefect server answers there ({unanswered}): start it there, or unset it "
            "(`prefect config unset PREFECT_API_URL`) and one is started here"
        )
    elif there.scheme != "http" or there.path.rstrip("/") != "/api":
        raise SettingsError(f"PREFECT_API_URL is {url}; a server started here answers at {parts.origin(host, port)}/api: correct it")
    else:
        await _free(host, port, "--port", "a Prefect server")
        started.append(parts.server(host, port, api, prefect.chosen))
        clients = parts.client_settings(prefect.chosen)
        if url != (prefect.api_url or "").rstrip("/"):
            notes.append(f"For other terminals: export PREFECT_API_URL={url}")
        if not is_loopback(host):
            notes += _open_to_others(prefect.chosen)
    await _free(wishes.gateway_host, wishes.gateway_port, "--gateway-port", "the gateway")
    sqlite = config.database_url is None or config.database_url.get_secret_value().startswith("sqlite")
    gateway = parts.origin(wishes.gateway_host, wishes.gateway_port)
    if wishes.gateway_port != Wishes.gateway_port and "gateway_url" not in config.model_fields_set:
        notes.append(f"For other terminals: export ROUTINES_GATEWAY_URL={gateway}")
    started.append(parts.worker(api, config.home, wishes.limit, gateway, clients, alone=sqlite))
    started.append(parts.gateway(api, wishes.gateway_host, wishes.gateway_port))
    addresses = {
        "Prefect UI": url.removesuffix("/api"),
        "Prefect API": url,
        "Gateway": gateway,
        "Sessions": f"{gateway}/sessions",
        "Logs": str(config.home / "logs"),
    }
    return Plan(started, addresses, notes)


def _open_to_others(chosen: frozenset[str]) -> list[str]:
    """What to know when Prefect's API can be reached from other machines."""
    notes = []
    if "PREFECT_SERVER_API_AUTH_STRING" not in chosen:
        notes.append(
            "Prefect's API is open to others and asks for no login: set PREFECT_SERVER_API_AUTH_STRING and PREFECT_API_AUTH_STRING."
        )
    if not {"PREFECT_SERVER_UI_API_URL", "PREFECT_UI_API_URL"} & chosen:
        notes.append("Browsers on other machines need PREFECT_SERVER_UI_API_URL, the address of the API as they reach it.")
    return notes


def _url(wishes: Wishes, prefect: PrefectSettings) -> str:
    """Where Prefect's API is or shall be: the options say it, else PREFECT_API_URL, else the settings of the server."""
    if wishes.host is None and wishes.port is None and prefect.api_url:
        return prefect.api_url.rstrip("/")
    said = urlsplit(prefect.api_url) if prefect.api_url and is_loopback(urlsplit(prefect.api_url).hostname or "") else None
    port = wishes.port or (said.port if said and said.port else prefect.port)
    return f"{parts.origin(wishes.host or prefect.host, port)}/api"


async def _free(host: str, port: int, option: str, whom: str) -> None:
    """Wait a moment for the port to be free.

    Raises:
        SettingsError: It stays taken, or the address is none of this machine's.
    """
    deadline = time.monotonic() + FREED_SECONDS
    while (error := _refused(host, port)) is not None:
        if error.errno != errno.EADDRINUSE:
            raise SettingsError(f"{whom} cannot listen on {host}:{port} ({error.strerror or error}): give another address") from error
        if time.monotonic() > deadline:
            raise SettingsError(
                f"port {port} on {host} is taken by another program, and {whom} is to listen there: stop that program or give "
                f"another port with {option}"
            ) from error
        await asyncio.sleep(0.2)


def _refused(host: str, port: int) -> OSError | None:
    """Why one cannot listen there; None if one can."""
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None
