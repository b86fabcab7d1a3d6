"""Prefect's server is killed right after it took an event, and is away for a while: each delivery becomes one run all the same."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_process import PrefectProcess
from prefect_routines.gateway.dispatcher import Dispatcher
from prefect_routines.store import Store
from waiting import until_async

from .inbox_world import answering, deliver, deploy, issue, runs_of, unique


@pytest.fixture
def prefect(tmp_path: Path) -> Iterator[PrefectProcess]:
    """A running server; `PREFECT_API_URL` of this process points there."""
    process = PrefectProcess(tmp_path)
    process.start()
    with temporary_settings({PREFECT_API_URL: process.url}):
        yield process
    process.kill()


@pytest.mark.timeout(600)
async def test_killed_right_after_it_took_events(prefect: PrefectProcess, tmp_path: Path) -> None:
    """0 to 50 ms after its answer, and once more while deliveries come in: nothing is lost, nothing runs twice."""
    repository = f"acme/{unique('docs')}"
    deployment = await deploy(answering(), match={"prefect.resource.id": f"github.repository.{repository}"})
    async with await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}") as store, Dispatcher(store) as dispatcher:
        deliveries = []
        for number, milliseconds in enumerate((0, 20, 50)):
            few = [await deliver(store, "issues", issue(repository, number=100 * number + each)) for each in range(1, 6)]
            deliveries += few
            dispatcher.wake()

            async def taken(last: str = few[-1].id) -> bool:
                found = await store.delivery(last)
                return found is not None and found.sent > 0

            await until_async(taken)
            await asyncio.sleep(milliseconds / 1000)  # the moment of the fault
            prefect.kill()
            away = await deliver(store, "issues", issue(repository, number=100 * number + 50))
            deliveries.append(away)
            dispatcher.wake()
            await asyncio.to_thread(prefect.start)

            async def settled() -> bool:
                return not await store.deliveries(status="received")

            await until_async(settled, seconds=120)
        dispatches = await store.dispatches()
        assert Counter(one.status for one in dispatches) == {"started": 18}
        assert len({one.flow_run_id for one in dispatches}) == 18
        runs = Counter(str(run.parameters["event"]) for run in await runs_of(deployment))
    assert runs == {delivery.id: 1 for delivery in deliveries}
