"""The worker type `routines`: Prefect's worker, with runs that arrive by push and start warm."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import anyio.abc
from prefect.client.orchestration import get_client
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessJobConfiguration, ProcessVariables, ProcessWorker, ProcessWorkerResult
from pydantic import Field, PrivateAttr

from prefect_routines.errors import SettingsError
from prefect_routines.notices.sender import keep_sending
from prefect_routines.workers.orphans import Orphans
from prefect_routines.workers.prefect_internals import EachAlone, Supervision, missing, tried_again
from prefect_routines.workers.push import Push
from prefect_routines.workers.starter import ForkedHooks, Job, WarmStarter
from prefect_routines.workers.warm import Warm

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import WorkerFlowRunResponse


_FORMER_SECONDS, _LOOK = 60.0, 0.02


class RoutinesJobConfiguration(ProcessJobConfiguration):
    """Where and how the process of one run starts."""

    _own_command: str | None = PrivateAttr(default=None)

    def prepare_for_flow_run(self, *args: Any, **kwargs: Any) -> None:
        """Prefect's preparation; it fills in a command where the deployment has none, and we do not need that one."""
        self._own_command = self.command
        super().prepare_for_flow_run(*args, **kwargs)

    @property
    def job(self) -> Job:
        """What the starter needs of it."""
        env = {name: value for name, value in self.env.items() if value is not None}
        return Job(env=env, command=self._own_command, quiet=not self.stream_output)


class RoutinesVariables(ProcessVariables):
    """What a work pool, a deployment or a run may set."""

    command: str | None = Field(
        default=None, description="Start runs with this command instead of warm. Leave it empty unless a run needs another Python."
    )


class RoutinesWorker(BaseWorker[RoutinesJobConfiguration, RoutinesVariables, ProcessWorkerResult]):
    """Takes runs the moment they are due and forks each from a warm process.

    Example:
        ```console
        $ prefect work-pool create local --type routines
        $ prefect worker start --pool local
        ```
    """

    type = "routines"
    job_configuration = RoutinesJobConfiguration
    job_configuration_variables = RoutinesVariables
    _display_name = "Routines"
    _description = (
        "Run routines and other flows as local processes that start in a fraction of a second: runs arrive by push and are forked "
        "from a process that has everything imported. Runs whose process died are reported, whoever started them."
    )
    _documentation_url = ProcessWorker.get_documentation_url()
    _logo_url = ProcessWorker.get_logo_url()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if lacks := missing():
            raise SettingsError(
                f"the worker type 'routines' does not fit this version of Prefect, which lacks {', '.join(lacks)}; use a pool of type "
                "'process' until prefect-routines is updated"
            )
        self._parts = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._asking = asyncio.Lock()

    async def start(self, run_once: bool = False, with_healthcheck: bool = False, printer: Callable[..., None] = print) -> None:
        """Prefect's loops, for ever or once.

        Raises:
            RuntimeError: They ended though nobody stopped the worker. Prefect's command would take that for an orderly end.
        """
        why: BaseException | None = None
        try:
            await super().start(run_once, with_healthcheck, printer)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            why = error
        if why is not None or not run_once:
            raise RuntimeError("the worker's loops ended though nobody stopped it; start it again") from why

    async def setup(self) -> None:
        """Prefect's setup, then the warm process, the subscription and the search for dead runs."""
        self._warm = Warm()
        self._parts.push_async_callback(self._warm.close)
        # a client of its own: it must outlive the task group of the runs, which Prefect's teardown closes together with its client
        client = await self._parts.enter_async_context(get_client())
        self._hooks = ForkedHooks(self._warm)
        self._supervision = Supervision(client, self._hooks, self.name)
        await self._supervision.enter(self._parts.enter_async_context)
        self._push = Push(self, self._supervision, self._logger)
        await super().setup()
        self._orphans = Orphans(client, self._supervision, self._work_pool_name, self._logger)
        loops = (self._warm_up(), self._push.listen(), self._push.take(), self._push.poll_cancelled(client), self._orphans.watch())
        self._tasks = [asyncio.create_task(loop) for loop in (*loops, self._look_after_forms(), keep_sending())]

    async def _sync_and_initialize(self) -> None:
        """Prefect's first word with the server, and each further one. The task group is new with each setup."""
        if self._runs_task_group is not None and not isinstance(self._runs_task_group, EachAlone):
            self._runs_task_group = EachAlone(self._runs_task_group, self._logger)  # type: ignore[assignment]  # all that Prefect uses of it
        await tried_again(super()._sync_and_initialize())

    async def _submit_run(self, flow_run: FlowRun) -> None:
        """Prefect's way with one run. What fails before the run is claimed, such as a busy server, leaves it to be taken again."""
        try:
            await super()._submit_run(flow_run)
        except BaseException:
            self._submitting_flow_run_ids.discard(flow_run.id)
            self._release_limit_slot(flow_run.id)
            raise

    async def _look_after_forms(self) -> None:
        """Runs that wait for a person have no process: somebody must see that their time is over, or that the answer is there."""
        from prefect_routines.errors import RoutinesError
        from prefect_routines.steering.deadlines import EVERY, look_after
        from prefect_routines.store import Store

        while True:
            try:
                async with await Store.open() as store:
                    await look_after(store, self._logger)
            except RoutinesError:  # a store that is not there may come yet
                pass
            except Exception:
                self._logger.exception("Looking after forms failed, and goes on")
            await asyncio.sleep(EVERY)

    async def _warm_up(self) -> None:
        try:
            await self._warm.start()
        except Exception as error:  # the next run tries again, and tells its page when that fails
            self._logger.warning("The warm process did not start: %s", error)

    async def teardown(self, *exc_info: Any) -> None:
        """Stop taking runs; then as Prefect's process worker does: what still runs when the worker was told to stop is terminated."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await super().teardown(*exc_info)
        finally:
            await self._parts.aclose()

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Take what is due. One at a time: two answers about the same run would submit it twice."""
        async with self._asking:
            return await tried_again(super().get_and_submit_flow_runs())

    async def _submit_scheduled_flow_runs(self, flow_run_response: list[WorkerFlowRunResponse]) -> list[FlowRun]:
        """As many as may start now, in the server's order; the next ones follow as soon as one of these runs."""
        room = self._push.room()
        self._push.held_back = len(flow_run_response) > room
        submitted = await super()._submit_scheduled_flow_runs(flow_run_response[:room])
        for run in submitted:
            self._push.begin(run)
        return submitted

    async def _former_process(self, flow_run_id: UUID) -> None:
        """Wait until the process of a run that was suspended, and was answered quickly, is gone: Prefect keeps one for each run.

        Raises:
            RuntimeError: It does not end. Two would be at the same work, so the run crashes instead.
        """
        if flow_run_id in self._supervision.running():
            self._logger.info("The former process of flow run %s is still ending; the new one waits for that", flow_run_id)
        for _ in range(round(_FORMER_SECONDS / _LOOK)):
            if flow_run_id not in self._supervision.running():
                return
            await asyncio.sleep(_LOOK)
        raise RuntimeError(f"the former process of the run has not ended within {_FORMER_SECONDS:.0f} s; end it, then retry the run")

    async def run(
        self,
        flow_run: FlowRun,
        configuration: RoutinesJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Run one flow run in a forked process and wait for its end."""
        told: anyio.abc.TaskStatus[Any] = task_status or anyio.TASK_STATUS_IGNORED
        place = configuration.working_dir
        status: int | None = None
        pid = ""
        with nullcontext(str(place)) if place else tempfile.TemporaryDirectory(suffix="prefect") as directory:
            self._hooks.remember(flow_run.id, configuration.job.env)
            starter = WarmStarter(self._warm, self._supervision, self.client, configuration.job, Path(directory).resolve())

            await self._former_process(flow_run.id)

            async def execute(*, task_status: anyio.abc.TaskStatus[Any]) -> None:
                nonlocal status
                status = await self._supervision.execute(flow_run, starter, task_status)

            try:
                async with anyio.create_task_group() as group:
                    handle = await group.start(execute)
                    pid = str(handle.pid)
                    told.started(handle.pid)
            finally:
                # when this step of ours is over the caller has given the slot of the run back, and another one may be due
                asyncio.get_running_loop().call_soon(self._push.wake.set)
        if status is None:
            raise RuntimeError("the process of the run could not be started")
        return ProcessWorkerResult(status_code=status, identifier=pid)
