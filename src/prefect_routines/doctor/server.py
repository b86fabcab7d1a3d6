"""Checks of the Prefect server and of what stands on it: work pools and workers, deployments, alarms, webhook sources, the gateway."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from prefect_routines.config import config
from prefect_routines.doctor.alarms import PREFIX, recent_alarms
from prefect_routines.doctor.check import Check, Finding, ok, red, warn
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

START = "run `prefect server start`, or correct PREFECT_API_URL"
SKEW, LARGE_SKEW = 5.0, 30.0
"""Seconds between two clocks: more than the first is odd, more than the second makes signatures and leases fail."""
SIGN_OF_LIFE = 9.0
"""Minutes: three of Prefect's heartbeats, as they are by default (PREFECT_FLOWS_HEARTBEAT_FREQUENCY=180)."""
SERVICES = {
    "scheduler": "schedules start nothing",
    "late_runs": "no run is ever called late, so no alarm",
    "triggers": "no event starts anything, and no alarm fires",
    "event_persister": "events are not kept",
}
BATCH = 20
"""Below it, events queue up behind the task runs of a busy run."""


async def look_at_prefect(client: PrefectClient) -> Finding:
    """Whether the server answers, and whether its version and ours fit."""
    import httpx
    import prefect
    from prefect.exceptions import PrefectHTTPStatusError

    where = str(client.api_url).rstrip("/")
    try:
        theirs, ours = await client.api_version(), prefect.__version__
    except httpx.TransportError as error:
        return red(f"{where} cannot be reached ({one_line(str(error), 120) or type(error).__name__})", START)
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        return red(f"{where} answers {status}", "check PREFECT_API_KEY or PREFECT_API_AUTH_STRING" if status in (401, 403) else START)
    said = f"{where}, server {theirs}, client {ours}"
    if _series(theirs)[:1] != _series(ours)[:1]:
        return red(f"{said}: these do not work together", f"pip install 'prefect=={theirs}' here, or upgrade the server")
    if _series(theirs) < _series(ours):
        return warn(f"{said}: the server is older than its client", f"upgrade the server to {ours}")
    return ok(said)


def _series(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def server_checks(client: PrefectClient, *, gateway_needed: bool) -> list[Check]:
    """What all routines share.

    Args:
        client: Of Prefect's API.
        gateway_needed: Whether a routine waits for deliveries.
    """
    return [
        Check("services", lambda: look_at_services(client), START),
        Check("clock", lambda: look_at_clock(client), START),
        Check("gateway", lambda: look_at_gateway(needed=gateway_needed), "run `routines gateway`, or correct ROUTINES_GATEWAY_URL", 8),
        Check("alarms", lambda: look_at_alarms(client), "routines deploy"),
    ]


async def look_at_services(client: PrefectClient) -> Finding:
    """The services in the server on which triggers rest, as far as it tells its settings."""
    answer = await client.request("GET", "/admin/settings")
    services = (answer.json().get("server") or {}).get("services") or {}
    off = {name: what for name, what in SERVICES.items() if (services.get(name) or {}).get("enabled") is False}
    if off:
        variables = " ".join(f"PREFECT_SERVER_SERVICES_{name.upper()}_ENABLED=true" for name in off)
        return red("; ".join(f"{name} is off: {what}" for name, what in off.items()), f"start the server with {variables}")
    small = {name: (services.get(name) or {}).get("batch_size") for name in ("task_run_recorder", "event_persister")}
    slow = [name for name, size in small.items() if isinstance(size, int) and size < BATCH]
    if slow:
        settings = " ".join(f"PREFECT_SERVER_SERVICES_{name.upper()}_BATCH_SIZE={50 if 'task' in name else 200}" for name in slow)
        said = f"they run; {' and '.join(slow)}: small batches, so triggers wait behind busy runs"
        return warn(said, f"start the server with {settings}")
    return ok(f"{', '.join(SERVICES)} run")


async def look_at_clock(client: PrefectClient) -> Finding:
    """How far the server's clock is from this machine's. A busy server writes an old date, so it is asked again before it is blamed."""
    found = ok("")
    for pause in (0.0, 1.5, 3.0):
        await asyncio.sleep(pause)
        before = datetime.now(UTC)
        answer = await client.request("GET", "/health")
        found = skew(answer.headers.get("date"), before, "Prefect")
        if found.status == "ok":
            break
    return found


def skew(date: str | None, before: datetime, whose: str) -> Finding:
    """What a `Date` header says of this machine's clock. It has whole seconds and was written after `before`.

    Example:
        >>> skew("Mon, 01 Jun 2026 10:00:00 GMT", datetime.now(UTC), "Prefect").status
        'red'
    """
    if date is None:
        return ok(f"{whose} does not tell its time")
    theirs = parsedate_to_datetime(date)
    now = datetime.now(UTC)
    seconds = max(0.0, (before - theirs - timedelta(seconds=1)).total_seconds(), (theirs - now).total_seconds())
    if seconds <= SKEW:
        return ok(f"this machine and {whose} agree")
    said, remedy = f"this machine and {whose} differ by {seconds:.0f} s", "let a time service set the clocks: timedatectl set-ntp true"
    return red(said, remedy) if seconds > LARGE_SKEW else warn(said, remedy)


async def look_at_gateway(*, needed: bool) -> Finding:
    """Whether the gateway answers at the address that senders are told.

    Args:
        needed: Whether a routine waits for what it takes in.
    """
    import httpx

    url = config().gateway_url.rstrip("/")
    remedy = "run `routines gateway` (or `routines up`), or correct ROUTINES_GATEWAY_URL"
    try:
        async with httpx.AsyncClient(timeout=5) as client:
            answer = await client.get(f"{url}/health")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        said = f"{url} does not answer ({one_line(str(error), 100) or type(error).__name__})"
        return red(said, remedy) if needed else ok(f"{said}; no routine waits for deliveries")
    if answer.status_code == 200:
        return ok(f"{url} answers")
    return red(f"{url}/health answers {answer.status_code}", f"look at the gateway's log; {remedy}")


async def look_at_alarms(client: PrefectClient) -> Finding:
    """Silence alarms that fired lately, or are switched off, or were never made."""
    asked = {"automations": {"tags": {"all_": ["routines-alarm"]}}, "limit": 200}
    ours = [one for one in (await client.request("POST", "/automations/filter", json=asked)).json() if one["name"].startswith(PREFIX)]
    fired = await recent_alarms(client)
    if fired:
        newest = {alarm.what: alarm.at for alarm in reversed(fired)}
        told = ", ".join(f"{what} ({_ago(at)})" for what, at in list(newest.items())[:5])
        return warn(f"fired in the last 24 hours: {told}", "look at these runs; the other lines here tell what is broken now")
    if off := [one["name"].removeprefix(PREFIX) for one in ours if not one["enabled"]]:
        return warn(f"switched off: {', '.join(off)}", "switch them on in the UI, under Automations")
    if not ours:
        return warn("there are none: a routine that does not start stays unnoticed", "routines deploy")
    silent = "" if config().alarm_block else "; ROUTINES_ALARM_BLOCK is not set, so they only show in the event feed"
    return ok(f"{len(ours)} watch, none fired in the last 24 hours{silent}")


def _ago(moment: datetime | str | None) -> str:
    """How long ago, in words."""
    if moment is None:
        return "never"
    moment = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for unit, length in (("days", 172800), ("h", 7200), ("min", 120)):
        if seconds >= length:
            return f"{seconds / {'days': 86400, 'h': 3600, 'min': 60}[unit]:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


async def look_at_pool(client: PrefectClient, name: str) -> Finding:
    """Whether a work pool is there and a worker of it was heard of lately; on SQLite, whether all of them are on this machine."""
    from prefect.exceptions import ObjectNotFound

    try:
        pool = await client.read_work_pool(name)
    except ObjectNotFound:
        return red("there is no such work pool", f"prefect work-pool create {name} --type routines")
    if pool.is_paused:
        return red("it is paused: nothing in it starts", f"prefect work-pool resume {name}")
    answer = await client.request(
        "POST", "/work_pools/{work_pool_name}/workers/filter", path_params={"work_pool_name": name}, json={"limit": 200}
    )
    workers: list[dict[str, Any]] = answer.json()
    online = [worker for worker in workers if worker["status"] == "ONLINE"]
    if not online:
        heard = max((worker["last_heartbeat_time"] for worker in workers), default=None)
        return red(f"no worker is online (last heard of: {_ago(heard)})", f"prefect worker start --pool {name} (or `routines up`)")
    hosts = {worker["name"].partition("@")[2] for worker in online if "@" in worker["name"]}
    elsewhere = sorted(hosts - {socket.gethostname()})
    if elsewhere and _is_sqlite():
        return red(
            f"workers on {', '.join(elsewhere)}, and the session store is SQLite on this machine",
            "give all machines one PostgreSQL: ROUTINES_DATABASE_URL=postgresql+asyncpg://USER@HOST/DATABASE",
        )
    beat = max(worker["last_heartbeat_time"] for worker in online)
    return ok(f"type {pool.type}, {len(online)} worker{'s' if len(online) > 1 else ''} online, last heartbeat {_ago(beat)}")


def _is_sqlite() -> bool:
    from prefect_routines.store.database import database_url

    return database_url().get_backend_name() == "sqlite"


async def look_at_runs(client: PrefectClient, deployments: Sequence[str], minutes: float = SIGN_OF_LIFE) -> Finding:
    """Runs that are Running and have shown no sign of life: their process is gone, and nobody has noticed.

    A worker of type `routines` notices by itself; those of other types do not when they are killed together with the run.

    Args:
        deployments: Their ids.
        minutes: Without a heartbeat.
    """
    if not deployments:
        return ok("no routine is deployed")
    since = datetime.now(UTC) - timedelta(minutes=minutes)
    running = {"state": {"type": {"any_": ["RUNNING"]}}, "start_time": {"before_": since.isoformat()}}
    asked = {"flow_runs": {**running, "deployment_id": {"any_": list(deployments)}}, "limit": 200}
    runs: list[dict[str, Any]] = (await client.request("POST", "/flow_runs/filter", json=asked)).json()
    if not runs:
        return ok("none has lost its process")
    feed = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run['id']}" for run in runs]},
        "occurred": {"since": since.isoformat(), "until": (datetime.now(UTC) + timedelta(minutes=1)).isoformat()},
    }
    answer = (await client.request("POST", "/events/filter", json={"filter": feed, "limit": 50})).json()
    alive = {event["resource"]["prefect.resource.id"].rpartition(".")[2] for event in answer["events"]}
    lost = [run["name"] for run in runs if run["id"] not in alive] if answer["total"] <= 50 else []
    if not lost:
        return ok(f"{_count(len(runs), 'run')} with signs of life")
    said = f"no sign of life for {minutes:g} minutes from {', '.join(lost[:5])}"
    return warn(said, "if the process is gone, set the run to Crashed in the UI, then `prefect flow-run retry`: its session goes on")


def look_at_deployment(data: Mapping[str, Any], automations: Sequence[Mapping[str, Any]], code: str) -> Finding:
    """Whether a deployment can start: not paused, schedules active, its automations enabled.

    Args:
        data: As Prefect's API gives it.
        automations: Those that start it.
        code: What is known of its entrypoint, in words.
    """
    if data.get("paused"):
        return warn("it is paused", f"routines unpause {data['name']}")
    sleeping = [one for one in data.get("schedules") or [] if not one.get("active")]
    off = [one["name"] for one in automations if not one.get("enabled", True)]
    if off:
        return red(f"switched off, so these events start nothing: {', '.join(off)}", "enable it in the UI, under Automations")
    if sleeping:
        said = f"{len(sleeping)} of its schedules {'are' if len(sleeping) > 1 else 'is'} not active"
        return warn(said, "switch it on in the UI, on the deployment's page, or take it out of its file")
    starts = [_count(len(data.get("schedules") or []), "schedule"), _count(len(automations), "trigger")]
    return ok(f"{code}; {' and '.join(filter(None, starts)) or 'started by people only'}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}" if number else ""


async def sources(client: PrefectClient) -> list[str]:
    """Names of the webhook sources that have a block."""
    asked = {"block_types": {"slug": {"any_": ["webhook-source"]}}, "include_secrets": False, "limit": 200}
    documents = (await client.request("POST", "/block_documents/filter", json=asked)).json()
    return sorted(one["name"] for one in documents if one.get("name"))


def waited_for(wanted: Iterable[str], there: Iterable[str]) -> tuple[list[str], list[str]]:
    """The sources to look at, and the beginnings of names (`alerts*`) for which there is none.

    Args:
        wanted: What routines wait for; `*` at the end stands for any rest of a name.
        there: The sources that have a block.

    Example:
        >>> waited_for(["ci", "al*", "x*"], ["alerts"])
        (['alerts', 'ci'], ['x*'])
    """
    wanted, there = set(wanted), set(there)
    lacking = sorted(name for name in wanted if name.endswith("*") and not any(one.startswith(name[:-1]) for one in there))
    return sorted(there | {name for name in wanted if not name.endswith("*")}), lacking


async def no_source(beginning: str) -> Finding:
    """What a routine waits for that takes any source with such a name (`alerts*`), where there is none."""
    return warn("a routine waits for sources with such a name, and there is none", f"make the block webhook-source/{beginning[:-1]}NAME")


async def look_at_source(client: PrefectClient, name: str, received: Mapping[str, datetime]) -> Finding:
    """Whether a webhook source has its secrets, and when it was last heard of.

    Args:
        name: Of the block `webhook-source/NAME`.
        received: When each source was last heard of, from the store.
    """
    from prefect.exceptions import ObjectNotFound

    try:
        document = await client.read_block_document_by_name(name=name, block_type_slug="webhook-source", include_secrets=True)
    except ObjectNotFound:
        return red("a routine waits for it, and there is no block for it: nothing is taken in", f"make the block webhook-source/{name}")
    if not any(document.data.get("secrets") or ()):
        return red("it has no secret: all its deliveries are refused", f"open the block webhook-source/{name} in the UI and fill one in")
    heard, quiet = received.get(name), document.data.get("quiet_after")
    said = f"last delivery {_ago(heard)}" if heard else "no delivery yet"
    if quiet and heard and datetime.now(UTC) - heard > timedelta(minutes=float(quiet)):
        return warn(f"{said}, though it should not be quiet for more than {quiet:g} min", "see the sender's own list of deliveries")
    return ok(said)


def pools_of(deployments: Iterable[Mapping[str, Any]]) -> list[str]:
    """The work pools that deployments name; `routines` if there are none."""
    return sorted({str(one["work_pool_name"]) for one in deployments if one.get("work_pool_name")}) or ["routines"]
