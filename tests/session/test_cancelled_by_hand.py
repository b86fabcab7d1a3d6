"""A person cancels a session of a hand-written flow: the run ends as cancelled, whatever the flow does with errors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.runtime import flow_run

from prefect_routines.session.holding import RunCancelled
from prefect_routines.session.session import Session
from prefect_routines.settings import Settings
from prefect_routines.steering.acts import Person, cancel
from prefect_routines.store import SessionRecord, Store
from prefect_routines.testing import ScriptedClaude, call, say
from waiting import until_async

pytestmark = pytest.mark.usefixtures("prefect_server")
WORKING = say(call("bash", command="touch begun; sleep 60"))
runs: dict[str, Any] = {}
went_on: list[str] = []


async def _work(name: str) -> None:
    runs[name] = flow_run.id
    try:
        async with Session(name, Settings()) as session:
            await session.run("Do the work.")
    except Exception as error:
        went_on.append(f"swallowed {error!r}")
    went_on.append(name)


@flow
async def by_hand() -> str:
    """Its author takes errors lightly."""
    await _work("by-hand")
    return "went on"


@flow
async def around() -> str:
    """A flow around it, whose author does the same."""
    runs["around"] = flow_run.id
    try:
        await by_hand()
    except Exception as error:
        went_on.append(f"around swallowed {error!r}")
    return "went on"


async def _when_at_work(store: Store, name: str) -> SessionRecord:
    async def at_work() -> SessionRecord | None:
        mine = [record for record in await store.sessions(limit=5) if name in runs and record.flow_run_id == str(runs[name])]
        begun = [record for record in mine if any(entry.kind == "tool.start" for entry in await store.entries(record.id))]
        return begun[0] if begun else None

    return await until_async(at_work)


async def _cancelled(flow_function: Callable[[], Awaitable[Any]]) -> SessionRecord:
    """Run the flow, cancel its session when that is at work; the session as it is afterwards."""
    runs.clear()
    went_on.clear()
    with ScriptedClaude([WORKING]) as claude:
        os.environ.update(claude.environment())
        running = asyncio.ensure_future(flow_function())
        async with await Store.open() as store:
            session = await _when_at_work(store, "by-hand")
            assert await cancel(store, session, Person("ada", "cli")) == "asked"
            with pytest.raises(RunCancelled):
                await running
            ended = await store.session(session.id)
    assert ended is not None
    return ended


async def _read(name: str) -> FlowRun:
    async with get_client() as client:
        return await client.read_flow_run(runs[name])


async def test_the_run_ends_as_cancelled_and_nothing_of_the_flow_goes_on() -> None:
    """`except Exception` around the session does not swallow what a person decided."""
    session = await _cancelled(by_hand)
    run = await _read("by-hand")
    assert run.state is not None
    assert (run.state.type.value, run.state.message) == ("CANCELLED", "cancelled by ada (cli)")
    assert went_on == []
    assert session.status == "ended"


async def test_so_do_the_flows_around_it() -> None:
    """They are in the same process, which ends."""
    await _cancelled(around)
    for name in ("by-hand", "around"):
        run = await _read(name)
        assert run.state is not None
        assert run.state.type.value == "CANCELLED", name
    assert went_on == []
