"""How the worker hears of work at once: a subscription to the events of its pool, and a slow poll in case they do not come."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect_routines.workers.prefect_internals import Supervision

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

    from prefect_routines.workers.worker import RoutinesWorker

# None of these can mean that a run is due or that room was made for one. All others may: Scheduled, Resuming, AwaitingRetry, Late
# and whatever name somebody gave a scheduled state; the end of a run, which frees a slot; Running, which ends a start.
_NO_NEWS = ["prefect.flow-run.Pending", "prefect.flow-run.Submitting", "prefect.flow-run.heartbeat"]
_CANCELLING = "prefect.flow-run.Cancelling"
_RUNNING = "prefect.flow-run.Running"
_POLL_SECONDS = 5.0
_CANCEL_POLL_SECONDS = 10.0
# On two cores a burst of 20 takes 1.3 GB with 8 or more, and with 4 it takes a third longer.
_STARTS_AT_ONCE = min(32, max(6, 3 * (os.cpu_count() or 1)))
_START_SECONDS = 5.0
_EARLY_SECONDS = 1.0
# Between two questions for work: what a burst brings meanwhile is one answer. Each question costs the server as much as the start of a run.
_BETWEEN_SECONDS = 0.1


class Push:
    """Turns events into questions for work.

    Attributes:
        wake: Set it to make the worker ask now.
        starting: Runs on their way from `Scheduled` to `Running`. Of a burst only a few are at a time: all at once they would wait
            for each other's processor time and, on SQLite, for seconds after each "database is locked". Other workers get the rest.
        held_back: Runs were due and there was no room for them.
    """

    def __init__(self, worker: RoutinesWorker, supervision: Supervision, logger: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        self._worker, self._supervision, self._logger = worker, supervision, logger
        self.wake = asyncio.Event()
        self.starting: set[UUID] = set()
        self.held_back = False
        self._cancelling: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Follow the pool's events for ever; a server that is away is asked again until it is back."""
        from prefect.events.clients import get_events_subscriber
        from prefect.events.filters import EventFilter, EventNameFilter, EventRelatedFilter

        wait = 0.5
        while True:
            try:
                wanted = EventFilter(
                    event=EventNameFilter(prefix=["prefect.flow-run."], exclude_name=_NO_NEWS),
                    related=EventRelatedFilter(id=[f"prefect.work-pool.{self._worker.work_pool.id}"]),
                )
                async with get_events_subscriber(filter=wanted) as events:
                    wait = 0.5
                    self.wake.set()  # for what came while nobody listened
                    async for event in events:
                        self._hear(event.event, event.resource.id)
            except Exception as error:
                self._logger.debug("The subscription to events ended (%s: %s); polling until it is back", type(error).__name__, error)
            await asyncio.sleep(wait)
            wait = min(wait * 2, 10)

    def _hear(self, event: str, resource: str) -> None:
        with suppress(ValueError):
            flow_run_id = UUID(resource.removeprefix("prefect.flow-run."))
            self.starting.discard(flow_run_id)
            if event == _CANCELLING:
                self._cancel(flow_run_id)
        if event != _RUNNING or self.held_back:
            self.wake.set()

    def room(self) -> int:
        """How many more runs may be started now."""
        return max(_STARTS_AT_ONCE - len(self.starting), 0)

    def begin(self, run: FlowRun) -> None:
        """A run is being started. One that is known early waits for its time and takes no room for long."""
        early = run.next_scheduled_start_time is not None and run.next_scheduled_start_time > datetime.now(UTC)
        self.starting.add(run.id)
        asyncio.get_running_loop().call_later(_EARLY_SECONDS if early else _START_SECONDS, self._begun, run.id)

    def _begun(self, flow_run_id: UUID) -> None:
        if flow_run_id in self.starting:
            self.starting.discard(flow_run_id)
            self.wake.set()

    def _cancel(self, flow_run_id: UUID) -> None:
        if flow_run_id in self._supervision.running():
            task = asyncio.create_task(self._supervision.cancel(flow_run_id))
            self._cancelling.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._cancelling.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._logger.error("A run could not be cancelled: %s; it is tried again", error)

    async def take(self) -> None:
        """Ask for work when something happened, and every few seconds in any case.

        Often enough that a run known in advance is found within Prefect's prefetch time (10 s), so that it starts on the second.
        """
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self.wake.wait()
            self.wake.clear()
            try:
                await self._worker.get_and_submit_flow_runs()
            except Exception as error:
                self._logger.debug("The server could not be asked for work: %s", error)
                await asyncio.sleep(1)
            await asyncio.sleep(_BETWEEN_SECONDS)

    async def poll_cancelled(self, client: PrefectClient) -> None:
        """Find cancellations whose event did not come."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterState, FlowRunFilterStateType
        from prefect.client.schemas.objects import StateType

        while True:
            await asyncio.sleep(_CANCEL_POLL_SECONDS)
            if not (running := self._supervision.running()):
                continue
            wanted = FlowRunFilter(
                id=FlowRunFilterId(any_=list(running)), state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CANCELLING]))
            )
            try:
                for run in await client.read_flow_runs(flow_run_filter=wanted):
                    self._cancel(run.id)
            except Exception as error:
                self._logger.debug("The server could not be asked for cancelled runs: %s", error)
