"""Deploys checked prefect files, all of them with one run of Prefect's own command."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from prefect_routines.deploying.checks import Checked
from prefect_routines.deploying.deployed import Deployed, read_deployed
from prefect_routines.deploying.gating import gate_triggers, pause
from prefect_routines.errors import SettingsError
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

SECONDS = 300.0
"""For Prefect's command; build steps of a file may take their time."""


async def deploy(client: PrefectClient, checked: Sequence[Checked]) -> list[Deployed]:
    """Deploy, then gate the triggers; the deployments as Prefect has them now.

    Args:
        checked: Deployments without an error.

    Raises:
        SettingsError: Prefect refused one; says which, and what it said.
    """
    paused = {one.name for one in await read_deployed(client) if one.paused}
    await run_prefect_deploy([_stanza(one) for one in checked])
    written = {one.full_name: one.stanza.data.get("paused") for one in checked}
    for one in [one for one in await read_deployed(client) if one.name in written]:
        await gate_triggers(client, one)
        # Prefect starts everything anew; a pause is to last, unless the file says otherwise
        if one.paused or (one.name in paused and written[one.name] is None):
            await pause(client, one)
    return [one for one in await read_deployed(client) if one.name in written]


def _stanza(checked: Checked) -> dict[str, Any]:
    """A deployment that stands for itself: what its file says for all of its deployments, put into each."""
    return {**checked.stanza.actions, **checked.stanza.data}


async def run_prefect_deploy(stanzas: Sequence[dict[str, Any]]) -> None:
    """`prefect deploy --all` over these deployments, in the current directory, from which entrypoints count.

    Raises:
        SettingsError: It failed; with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="routines-deploy-") as directory:
        file = Path(directory) / "prefect.yaml"
        file.write_text(yaml.safe_dump({"deployments": list(stanzas)}, sort_keys=False, allow_unicode=True), "utf-8")
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
        environment = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "400", "PYTHONUNBUFFERED": "1"}
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment
        )
        try:
            async with asyncio.timeout(SECONDS):
                said, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise SettingsError(f"`prefect deploy` did not end within {SECONDS:g} s; try `prefect deploy` by hand to see why") from None
        except BaseException:
            process.kill()
            await process.wait()
            raise
    if process.returncode:
        raise SettingsError(_failure(said.decode("utf-8", "replace")))


def _failure(said: str) -> str:
    """Prefect's last words, and how far it came."""
    lines = [line.strip(" │╭╮╰╯─\t") for line in said.splitlines()]
    lines = [line for line in lines if line]
    at = next((line.removeprefix("Deploying ") for line in reversed(lines) if line.startswith("Deploying ")), "")
    done = sum("successfully created with id" in line for line in lines)
    which = f"{at}: " if at else ""
    return f"Prefect did not deploy {which}{one_line(lines[-1] if lines else 'no reason given', 400)} ({done} were deployed before it)"


async def schedule_runs(client: PrefectClient, deployed: Sequence[Deployed]) -> str | None:
    """Have Prefect make the runs of the schedules now, as its scheduler would in a while; why it cannot, if so.

    A scheduler that fails says so in the server's log only, and a run that does not exist can be neither late nor missed.
    """
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    for one in deployed:
        if one.paused or not any(schedule["active"] for schedule in one.schedules):
            continue
        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                await client.request("POST", "/deployments/{id}/schedule", path_params={"id": one.id}, json={})
        except PrefectHTTPStatusError as error:
            status = error.response.status_code
            return (
                f"Prefect's server cannot make the runs of schedules (it answered {status} for {one.name}): none will start. Its log says "
                "why; with Prefect 3.8 the reason is SQLAlchemy 2.1, and `pip install 'sqlalchemy<2.1'` where the server runs mends it"
            )
    return None


async def make_alarms(client: PrefectClient, deployed: Sequence[Deployed]) -> list[str]:
    """The silence alarms of these deployments; what was made, in words."""
    if find_spec("prefect_routines.deploying.alarms") is None:
        return []
    from importlib import import_module

    made: list[str] = await import_module("prefect_routines.deploying.alarms").ensure_alarms(client, [one.data for one in deployed])
    return made
