"""Setup scripts: run once in a sandbox of their own; the result is kept by content and mounted read-only into sessions."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

from prefect_routines.config import config
from prefect_routines.errors import RoutinesError
from prefect_routines.settings import Settings
from prefect_routines.visible import one_line
from prefect_routines.workspace.sandbox import Sandbox, SandboxSpec
from prefect_routines.workspace.trees import remove_tree

TIMEOUT = 1800.0  # seconds
READY = "ready"


class SetupFailed(RoutinesError):
    """The routine's setup script ended with an error. Nothing else ran."""


def setup_key(settings: Settings) -> str:
    """Name of the result: whatever can change it changes the name."""
    said = {
        "script": settings.setup,
        "network": sorted(settings.network),
        "environment": settings.environment,
        "system": Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else "",
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:24]


async def prepared(settings: Settings) -> Path | None:
    """The directory that the setup script filled (`/opt/setup` inside), made now if it is not there yet.

    Args:
        settings: Of the run; `setup` is the script. It installs into `/opt/setup`: pip and npm do so by themselves, and
            `/opt/setup/bin` is on the PATH.

    Raises:
        SetupFailed: The script failed; the message ends with its last line.
    """
    if not settings.setup:
        return None
    home = config().workspaces / "setups"
    home.mkdir(parents=True, exist_ok=True, mode=0o711)
    place = home / setup_key(settings)
    if (place / READY).exists():
        return place / "result"
    async with _locked(home / f"{place.name}.lock"):
        if not (place / READY).exists():
            await asyncio.to_thread(remove_tree, place)
            place.mkdir()
            place.chmod(0o711)
            await _make(settings, place)
            (place / READY).touch()
    return place / "result"


async def _make(settings: Settings, place: Path) -> None:
    (place / "result").mkdir()
    (place / "result").chmod(0o755)  # whatever the worker's umask: each session has a uid of its own
    spec = SandboxSpec(
        workspace=place / "workspace",
        environment=settings.environment,
        network=tuple(settings.network),
        setup=place / "result",
        setup_writable=True,
        mode=settings.sandbox,
    )
    async with await Sandbox.start(spec) as box:
        done = await box.run(
            ["bash", "-e", "-o", "pipefail", "-c", settings.setup or ""], timeout=TIMEOUT, max_output=1_000_000, merge_stderr=True
        )
    await asyncio.to_thread(remove_tree, place / "workspace")
    if done.exit_code != 0:
        lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
        how = "took longer than 30 minutes" if done.timed_out else f"ended with exit status {done.exit_code}"
        last = one_line(lines[-1], 300) if lines else "no output"
        raise SetupFailed(f"the setup script {how}: {last}. Try it with `routines sandbox DIR -- bash -c '...'`")


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """One maker at a time, over all processes of the machine."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        await asyncio.to_thread(fcntl.flock, descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
