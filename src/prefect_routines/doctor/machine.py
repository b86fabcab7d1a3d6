"""Checks of this machine: store, disks, sandbox, git, time zones, certificates."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path

from prefect_routines.config import config
from prefect_routines.doctor.check import Check, Finding, in_thread, ok, red, warn

FULL, LOW = 1 << 30, 5 << 30
"""Bytes of free disk below which runs fail soon, and below which somebody should look."""
OLDEST_GIT = (2, 31)
"""Which knows GIT_CONFIG_COUNT. https://git-scm.com/docs/git-config#ENVIRONMENT"""
INSIDE = """
import socket
status = open("/proc/self/status").read()
seccomp = next(line.split()[1] for line in status.splitlines() if line.startswith("Seccomp:"))
proxy = socket.create_connection(("127.0.0.1", 3128), 10)
proxy.sendall(b"CONNECT not-allowed.invalid:443 HTTP/1.1\\r\\nHost: not-allowed.invalid:443\\r\\n\\r\\n")
print(seccomp, proxy.recv(100).split()[1].decode())
"""
"""Run inside: tells whether system calls are filtered, and what the proxy says to a host that is not allowed."""


def machine_checks(*, zones: Iterable[str] = (), sandbox: bool = True) -> list[Check]:
    """What a machine with a worker needs.

    Args:
        zones: Time zones of the schedules.
        sandbox: Whether routines run in one here.
    """
    checks = [
        Check("store", look_at_store, "see ROUTINES_DATABASE_URL and ROUTINES_HOME"),
        Check("disk", look_at_disks, "set ROUTINES_HOME and ROUTINES_WORKSPACES to directories that can be read and written"),
        Check("git", look_at_git, "apt-get install git"),
        Check("time zones", lambda: look_at_zones(zones), "pip install tzdata"),
        Check("certificates", look_at_certificates, "apt-get install ca-certificates"),
    ]
    if sandbox:
        checks.insert(2, Check("sandbox", look_at_sandbox, "try `routines sandbox DIR -- true` to see where it stops", 45))
    return checks


async def look_at_store() -> Finding:
    """Open the store, which brings its tables up to date, and take its write lock once."""
    from sqlalchemy import false, select, update

    from prefect_routines.store.database import Database, database_url
    from prefect_routines.store.faults import place
    from prefect_routines.store.migrate import SCHEMA, ensure_schema
    from prefect_routines.store.tables import leases, sessions

    database = Database(database_url())
    try:
        await ensure_schema(database)
        await database.write(lambda connection: connection.execute(update(sessions).where(false()).values(status="running")))
        held = await database.read(select(leases.c.holder).where(leases.c.holder.is_not(None)))
    finally:
        await database.close()
    kind, where = "SQLite" if database.is_sqlite else "PostgreSQL", place(database.url)
    hosts = sorted({str(row.holder.get("host")) for row in held if isinstance(row.holder, dict)})
    if kind == "SQLite" and len(hosts) > 1:
        return red(
            f"SQLite, {where}, is written by {', '.join(hosts)}: it is one machine's database and breaks on a shared disk",
            "give all machines one PostgreSQL: ROUTINES_DATABASE_URL=postgresql+asyncpg://USER@HOST/DATABASE",
        )
    return ok(f"{kind}, {where}, schema {SCHEMA}, can be written")


async def look_at_disks() -> Finding:
    """Whether home and workspaces can be written, and how much room there is."""
    places = {"home": config().home, "workspaces": config().workspaces}
    said, worst = [], None
    for name, path in places.items():
        blocked = await in_thread(lambda path=path: _unwritable(path))  # type: ignore[misc]  # a disk may hang, a network's above all
        variable = f"ROUTINES_{name.upper()}"
        if blocked:
            return red(f"{name} {path}: {blocked}", f"make it writable for this user, or set {variable} to another directory")
        usage = await in_thread(lambda path=path: shutil.disk_usage(_there(path)))  # type: ignore[misc]
        said.append(f"{name} {path}: {usage.free / (1 << 30):.1f} GB free")
        if worst is None or usage.free < worst[0]:
            worst = (usage.free, variable)
    assert worst is not None
    remedy = f"free space (`routines sessions` shows what is kept), or move it with {worst[1]}"
    if worst[0] < FULL:
        return red("; ".join(said), remedy)
    return warn("; ".join(said), remedy) if worst[0] < LOW else ok("; ".join(said))


def _there(path: Path) -> Path:
    """The place itself, or what of the way to it is there already."""
    return next(place for place in (path, *path.parents) if place.exists())


def _unwritable(path: Path) -> str:
    """Why nothing can be written there; empty if it can."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"doctor")
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return ""


async def look_at_sandbox() -> Finding:
    """Start one with a network, as a session does: bubblewrap, the filter of system calls, the proxy."""
    from prefect_routines.workspace.sandbox import Sandbox, SandboxSpec

    directory = Path(tempfile.mkdtemp(prefix="routines-doctor-"))
    try:
        async with await Sandbox.start(SandboxSpec(directory / "workspace", network=("allowed.invalid",))) as box:
            done = await box.run(["python3", "-c", INSIDE], timeout=20)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    said = done.stdout.decode("utf-8", "replace").split()
    if done.exit_code or len(said) != 2:
        why = [*done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:], f"exit status {done.exit_code}"][0]
        return red(f"it starts, but a program in it fails: {why}", "reinstall python3 under /usr")
    if said[0] != "2":
        return red("it starts without a filter of system calls", "use a kernel with CONFIG_SECCOMP_FILTER")
    if said[1] != "403":
        return red(f"its proxy answers {said[1]} to a host that is not allowed", "report this: the network of the sandbox is not closed")
    return ok("bubblewrap starts, system calls are filtered, the proxy refuses what is not allowed")


async def look_at_git() -> Finding:
    """Whether git is there and new enough."""
    if shutil.which("git") is None:
        return red("git is not installed", "apt-get install git")
    process = await asyncio.create_subprocess_exec("git", "--version", stdout=asyncio.subprocess.PIPE)
    said = (await process.communicate())[0].decode("utf-8", "replace").strip()
    found = re.search(r"(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_GIT:
        return red(said or "git says nothing", f"install git {'.'.join(map(str, OLDEST_GIT))} or later")
    return ok(said)


async def look_at_zones(zones: Iterable[str]) -> Finding:
    """Whether this machine knows the zones of the schedules."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    wanted = sorted({*zones, "Europe/Paris"})
    unknown = []
    for zone in wanted:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            unknown.append(zone)
    if unknown:
        return red(f"unknown here: {', '.join(unknown)}", "pip install tzdata, or correct the schedule's timezone")
    return ok(f"{', '.join(sorted(zones)) or 'time zone data'} known" if zones else "time zone data is there")


async def look_at_certificates() -> Finding:
    """Whether there are authorities to trust, and the files that variables name."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "PREFECT_API_SSL_CERT_FILE"):
        if (value := os.environ.get(name)) and not Path(value).exists():
            return red(f"{name} names {value}, which is not there", f"correct or unset {name}")
    try:
        authorities = len(ssl.create_default_context().get_ca_certs())
    except (ssl.SSLError, OSError) as error:
        return red(f"the certificate authorities cannot be loaded: {error}", "apt-get install --reinstall ca-certificates")
    if not authorities and not any(Path(place).exists() for place in (ssl.get_default_verify_paths().capath or "",) if place):
        return warn("the system has no certificate authorities (git needs them)", "apt-get install ca-certificates")
    return ok(f"{authorities} authorities" if authorities else "authorities are there")
