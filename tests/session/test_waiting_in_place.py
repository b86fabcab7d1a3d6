"""What happens in Prefect while a session without a deployment waits, with its process alive."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from prefect_routines.errors import AnswerRefused
from prefect_routines.policy import Policy
from prefect_routines.settings import Budget
from prefect_routines.steering.acts import answer, suspend
from prefect_routines.steering.form import uniform_answer
from prefect_routines.store import SessionRecord, Store
from prefect_routines.testing import ScriptedClaude, call, say
from waiting import until_async
from workers.gate import CUT, gate_to

from .test_waiting import ADA, open_form, steered, told
from .world import REPORT

pytestmark = pytest.mark.usefixtures("prefect", "_nothing_told")


@pytest.fixture
def _nothing_told() -> None:
    told.clear()


async def paused(session: SessionRecord, but: str | None = None) -> str:
    """The key of the pause that shows the session's form in Prefect, as soon as there is one; not the pause `but`."""

    async def look() -> str | None:
        async with get_client() as client:
            state = (await client.read_flow_run(UUID(str(session.flow_run_id)))).state
        key = state.state_details.pause_key if state is not None and state.is_paused() else None
        return key if key != but else None

    key: str = await until_async(look)
    return key


async def test_cancelled_in_prefect() -> None:
    """As the button of the UI does it: the session ends as cancelled, its form takes no answer any more, nothing is sent."""

    async def click(store: Store, session: SessionRecord) -> None:
        form = await open_form(store, session)
        await paused(session)
        async with get_client() as client:
            await client.set_flow_run_state(UUID(str(session.flow_run_id)), State(type=StateType.CANCELLING))

        async def ended() -> bool:
            return (await store.find(session.id)).status == "ended"

        await until_async(ended)

        async def withdrawn() -> bool:
            now = await store.form(form.id)
            return now is not None and now.status == "withdrawn"

        await until_async(withdrawn)
        with pytest.raises(AnswerRefused):
            await answer(store, form, uniform_answer(form.content, "approve"), ADA)

    with ScriptedClaude([say(call("tell", room="all", text="Hello"))]) as claude:
        ran = await asyncio.wait_for(steered(claude, click, policy=Policy(ask=["tell"])), 100)
    assert ran.run.state is not None
    assert ran.run.state.is_cancelled()
    assert [entry["via"] for entry in ran.entries("session.cancelled")] == ["prefect"]
    assert (told, len(claude.requests)) == ([], 1)


async def test_a_prefect_that_is_out_of_order_says_nothing() -> None:
    """An answer that Prefect does not give out, or a connection that breaks, is not "continue": the person is asked once more."""
    response = r"GET /api/flow_runs/[^/]+/input/.*response"

    async def click(store: Store, session: SessionRecord) -> None:
        await suspend(store, session, ADA)
        await open_form(store, session)
        key = await paused(session)
        for status in (500, CUT):
            barrier = gate.fail(response, status)
            async with get_client() as client:
                await client.resume_flow_run(UUID(str(session.flow_run_id)), run_input={"action": "stop"})
            key = await paused(session, but=key)
            assert barrier.met
            assert len(claude.requests) == 1
            barrier.lift()
        async with get_client() as client:
            await client.resume_flow_run(UUID(str(session.flow_run_id)), run_input={"action": "continue", "message": "Go on."})

    with (
        gate_to(PREFECT_API_URL.value()) as gate,
        temporary_settings({PREFECT_API_URL: gate.url, PREFECT_CLIENT_MAX_RETRIES: 0}),  # it would try for a minute
        ScriptedClaude([say(call("bash", command="sleep 60")), REPORT]) as claude,
    ):
        ran = await asyncio.wait_for(steered(claude, click), 100)
    assert [entry["answer"]["action"] for entry in ran.entries("form.answered")] == ["continue"]
    assert "Go on." in str(claude.requests[1].body["messages"][-1])
    assert ran.outcome.verdict == "done"


async def test_waiting_is_not_working() -> None:
    """The minutes of a budget are those of Claude and its tools; how long a person takes is nobody's concern."""

    async def take_time(store: Store, session: SessionRecord) -> None:
        form = await open_form(store, session)
        begun = asyncio.get_running_loop().time()

        async def patient() -> bool:
            return asyncio.get_running_loop().time() > begun + 2

        await until_async(patient)
        await answer(store, form, uniform_answer(form.content, "approve"), ADA)

    with ScriptedClaude([say(call("tell", room="all", text="Hello")), REPORT]) as claude:
        ran = await steered(claude, take_time, policy=Policy(ask=["tell"]), budget=Budget(minutes=60))
    at = {entry.kind: entry.at for entry in ran.journal}
    waited = at["form.answered"] - at["form.opened"]
    assert waited > timedelta(seconds=2)
    total = ran.journal[-1].at - ran.journal[0].at
    assert ran.transcript.seconds == pytest.approx((total - waited).total_seconds(), abs=1.0)
    assert ran.transcript.seconds < total.total_seconds() - 1.5
    assert told == ["all: Hello"]
