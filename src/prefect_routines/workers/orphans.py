"""Finds runs whose process died together with its worker, and says so: nobody else would, and they would be `Running` for ever.

Any worker of the pool looks, when it starts and every few seconds. In doubt a run is left alone: a session lease that still lives, a
process that exists, or one on another machine whose worker is heard of, all mean that it lives. Runs whose process nobody wrote down
(other worker types) are Prefect's heartbeats' affair.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from prefect_routines.store.holder import Holder
from prefect_routines.workers.prefect_internals import Supervision
from prefect_routines.workers.starter import LABEL, START_SECONDS

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

_SWEEP_SECONDS = 10.0
_PENDING = timedelta(seconds=START_SECONDS + 15)
_WORKER_SILENT = timedelta(seconds=90)  # three of Prefect's worker heartbeats
_CANCEL_PATIENCE = timedelta(seconds=60)  # a worker that lives sends SIGKILL after 30 s


class Fate(Enum):
    """What is to be done about a run."""

    LEAVE = "leave"
    CRASHED = "crashed"
    CANCELLED = "cancelled"
    AGAIN = "again"
    """It was claimed, and nothing of it was started, or started again: it becomes due once more."""
    STOP = "stop"
    """Cancelled, alive on this machine, and its worker is not there to stop it."""


class Sight(Enum):
    """What can be seen of a process from here."""

    UNKNOWN = "unknown"
    ALIVE = "alive"
    DEAD = "dead"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Seen:
    """What is known of a run when its fate is decided.

    Attributes:
        state: Prefect's type of state.
        age: How long it has been in that state.
        process: What can be seen of its process.
        leases: When the leases of its sessions end, relative to now; empty when it has no session.
        worker_silent: Its worker has not been heard of for long, or is unknown.
    """

    state: str
    age: timedelta
    process: Sight
    leases: tuple[timedelta, ...]
    worker_silent: bool


def fate(seen: Seen) -> Fate:
    """Decide. Pure, so that the rule can be read and tested in one place."""
    if any(left > timedelta(0) for left in seen.leases):
        return Fate.LEAVE
    if seen.state == "PENDING" and seen.age < _PENDING:
        return Fate.LEAVE
    if seen.process is Sight.ALIVE:
        return Fate.STOP if seen.state == "CANCELLING" and seen.age > _CANCEL_PATIENCE else Fate.LEAVE
    # elsewhere, only a session that is no longer kept and a worker that is gone tell that the machine is
    machine_gone = seen.process is Sight.ELSEWHERE and seen.worker_silent and (seen.leases or seen.state == "PENDING")
    gone = seen.process is Sight.DEAD or machine_gone
    if seen.state == "PENDING" and (gone or seen.process is Sight.UNKNOWN):  # the process may be of the run's last attempt
        return Fate.AGAIN
    if gone:
        return Fate.CANCELLED if seen.state == "CANCELLING" else Fate.CRASHED
    return Fate.LEAVE


def look(holder: Holder | None) -> Sight:
    """See whether a process lives, as far as that can be seen from this machine."""
    if holder is None:
        return Sight.UNKNOWN
    if holder.certainly_dead():
        return Sight.DEAD
    here = Holder.current()
    mine = (holder.host, holder.boot_id, holder.pid_namespace) == (here.host, here.boot_id, here.pid_namespace)
    return Sight.ALIVE if mine else Sight.ELSEWHERE


def _holder(run: FlowRun) -> Holder | None:
    with suppress(ValueError, TypeError):
        return Holder.from_json(json.loads(str(run.labels[LABEL]))) if LABEL in run.labels else None
    return None


class Orphans:
    """The search, for one worker."""

    def __init__(
        self, client: PrefectClient, supervision: Supervision, pool: str, logger: logging.Logger | logging.LoggerAdapter[Any]
    ) -> None:
        self._client, self._supervision, self._pool, self._logger = client, supervision, pool, logger

    async def watch(self) -> None:
        """Look now and then every few seconds, for ever."""
        while True:
            try:
                await self.sweep()
            except Exception as error:  # the server or the store is away: nothing is known, so nothing is done
                self._logger.debug("Could not look for runs whose process died: %s: %s", type(error).__name__, error)
            await asyncio.sleep(_SWEEP_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - so that workers do not all ask at once

    async def sweep(self) -> None:
        """Look once."""
        mine = self._supervision.running()
        runs = [run for run in await self._unfinished() if run.id not in mine]
        if not runs:
            return
        leases = await self._leases(runs)
        heard = await self._heard_of() if any(look(_holder(run)) is Sight.ELSEWHERE for run in runs) else {}
        for run in runs:
            decided = fate(self._see(run, leases[str(run.id)], heard))
            if decided is not Fate.LEAVE:
                await self._settle(run, decided)

    async def _unfinished(self) -> list[FlowRun]:
        from prefect.client.schemas.filters import (
            FlowRunFilter,
            FlowRunFilterState,
            FlowRunFilterStateType,
            WorkPoolFilter,
            WorkPoolFilterName,
        )
        from prefect.client.schemas.objects import StateType

        types = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
        wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types)))
        pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[self._pool]))
        found: list[FlowRun] = []
        while True:
            page = await self._client.read_flow_runs(flow_run_filter=wanted, work_pool_filter=pool, limit=200, offset=len(found))
            found += page
            if len(page) < 200:
                return [run for run in found if run.state is not None]

    async def _leases(self, runs: Iterable[FlowRun]) -> dict[str, list[datetime | None]]:
        from prefect_routines.store import Store

        found: dict[str, list[datetime | None]] = {}
        async with await Store.open() as store:
            for run in runs:
                found[str(run.id)] = [record.leased_until for record in await store.sessions(flow_run_id=str(run.id))]
        return found

    async def _heard_of(self) -> dict[str, datetime]:
        """When each worker of the pool was last heard of, by its name."""
        workers = await self._client.read_workers_for_work_pool(self._pool)
        return {worker.name: worker.last_heartbeat_time for worker in workers if worker.last_heartbeat_time is not None}

    def _see(self, run: FlowRun, leases: list[datetime | None], heard: dict[str, datetime]) -> Seen:
        assert run.state is not None
        now = datetime.now(UTC)
        last = heard.get(str(run.labels.get("prefect.worker.name")))
        return Seen(
            state=run.state.type.value,
            age=now - run.state.timestamp,
            process=look(_holder(run)),
            leases=tuple((until - now) if until is not None else timedelta(0) for until in leases),
            worker_silent=last is None or now - last > _WORKER_SILENT,
        )

    async def _settle(self, run: FlowRun, decided: Fate) -> None:
        from prefect.states import Cancelled, Crashed, Scheduled

        assert run.state is not None
        holder = _holder(run)
        if decided is Fate.STOP:
            assert holder is not None
            self._logger.warning("Flow run %r is cancelled and its worker is gone: stopping its %s", run.name, holder)
            with suppress(OSError):  # not SIGTERM: without its worker's word the engine would call that a crash
                os.killpg(holder.pid, signal.SIGKILL)
            return
        now = await self._client.read_flow_run(run.id)
        if now.state is None or now.state.id != run.state.id or _holder(now) != holder:
            return  # somebody was faster
        was = str(holder) if holder is not None else "no process"
        states: dict[Fate, State[Any]] = {
            Fate.CRASHED: Crashed(message=f"The process of this run is gone ({was}), and its worker did not report it. Retry to go on."),
            Fate.CANCELLED: Cancelled(message=f"Cancelled; its process ({was}) is gone."),
            Fate.AGAIN: Scheduled(message="Its worker died before it had started the run; due again."),
        }
        answer = await self._client.set_flow_run_state(run.id, states[decided])
        self._logger.warning("Flow run %r was %s and nobody runs it (%s): %s", run.name, run.state.name, was, answer.status.value)
