"""How a run gets its forked process, and how the hooks of a flow run in one."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect_routines.workers.child import Orders
from prefect_routines.workers.prefect_internals import Supervision, handle
from prefect_routines.workers.warm import Warm

if TYPE_CHECKING:
    import anyio.abc
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

START_SECONDS = 45.0
"""A run that has no process after this time is given up; other workers rely on it, see orphans.py."""
LABEL = "routines.process"
"""Label of a flow run: the process that its newest attempt runs in, as JSON of `store.holder.Holder`."""


_REMEMBERED = 200


@dataclass(frozen=True)
class Job:
    """What the work pool, the deployment and the run want of the process.

    Attributes:
        command: Starts it instead of the engine.
        quiet: What it prints is dropped.
    """

    env: dict[str, str]
    command: str | None
    quiet: bool


class WarmStarter:
    """Starts the process of one run, as Prefect's runner wants a starter to be."""

    def __init__(self, warm: Warm, supervision: Supervision, client: PrefectClient, job: Job, directory: Path) -> None:
        self._warm, self._supervision, self._client, self._job, self._directory = warm, supervision, client, job, directory

    async def start(self, flow_run: FlowRun, task_status: anyio.abc.TaskStatus[Any]) -> None:
        """Fork, write down which process it is, let it go, wait for its end.

        The label comes before the orders: a run that does anything has a process that everybody can look for.
        """
        async with asyncio.timeout(START_SECONDS):
            child = await self._warm.fork()
        try:
            await self._client.update_flow_run_labels(flow_run.id, {LABEL: json.dumps(child.holder.as_json())})
            env = {
                "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",  # the worker has asked: one request less for each client of a run
                **self._job.env,
                "PREFECT__FLOW_RUN_ID": str(flow_run.id),
                "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",  # they are run by us, see ForkedHooks
                **self._supervision.control(flow_run.id),
            }
            job = self._job
            await child.go(Orders(env=env, cwd=str(self._directory), command=job.command, quiet=job.quiet, hooks=None, run=None))
        except BaseException:
            child.forget()
            raise
        task_status.started(handle(child, child))
        await child.ended.wait()


class ForkedHooks:
    """Runs the hooks of a flow in a process of their own, with the flow's code as it is then, not in the worker."""

    def __init__(self, warm: Warm) -> None:
        self._warm = warm
        self._env: dict[UUID, dict[str, str]] = {}

    def remember(self, flow_run_id: UUID, env: dict[str, str]) -> None:
        """The environment of a run, for its hooks; a cancellation's are called when the run is no longer here."""
        self._env[flow_run_id] = env
        while len(self._env) > _REMEMBERED:
            del self._env[next(iter(self._env))]

    async def run_cancellation_hooks(self, flow_run: FlowRun, state: State[Any]) -> None:
        """The hooks `on_cancellation`."""
        if state.is_cancelling():
            await self._run(flow_run, state)

    async def run_crashed_hooks(self, flow_run: FlowRun, state: State[Any]) -> None:
        """The hooks `on_crashed`."""
        if state.is_crashed():
            await self._run(flow_run, state)

    async def _run(self, flow_run: FlowRun, state: State[Any]) -> None:
        if flow_run.deployment_id is None:
            return
        child = await self._warm.fork()
        with tempfile.TemporaryDirectory(suffix="prefect") as directory:
            orders = Orders(
                env=self._env.get(flow_run.id) or dict(os.environ),
                cwd=directory,
                command=None,
                quiet=False,
                hooks=state.model_dump_json(exclude={"data"}),
                run=flow_run.model_dump_json(),
            )
            try:
                await child.go(orders)
            except BaseException:
                child.forget()
                raise
            await child.ended.wait()
