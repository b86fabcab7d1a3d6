"""How a run begins that somebody outside started: once for each delivery, in the session that was named, or not at all."""

from __future__ import annotations

import json
import os
import uuid
from typing import Any

import pytest
from prefect import get_client
from prefect.flow_engine import run_flow

from gateway.inbox_world import answering, deploy, unique
from prefect_routines import Routine
from prefect_routines.store import Delivery, Dispatch, Store
from prefect_routines.testing import ScriptedClaude, call, say

from .world import NOTHING, Ran, found

pytestmark = pytest.mark.usefixtures("prefect_server")


async def record(**changes: Any) -> str:
    """Put a delivery into the default store; its id."""
    delivery_id = str(uuid.uuid4())
    body = json.dumps({"issue": {"title": "It is broken"}, "_": delivery_id})
    async with await Store.open() as store:
        await store.record_delivery(
            Delivery(**{"id": delivery_id, "source": "github", "delivery_id": delivery_id, "kind": "issues", "body": body, **changes})
        )
    return delivery_id


async def start(made: Routine[Any], deployment: str, claude: ScriptedClaude, *, event: str | None = None, label: str | None = None) -> Ran:
    """A run of a deployment, as a worker carries it out."""
    os.environ.update(claude.environment())
    async with get_client() as client:
        parameters = {"event": event} if event else {}
        body = {"parameters": parameters, "labels": {"routines.delivery": label} if label else {}}
        answer = await client.request("POST", f"/deployments/{deployment}/create_flow_run", json=body)
        run = await client.read_flow_run(uuid.UUID(answer.json()["id"]))
    state = await run_flow(made, flow_run=run, parameters=run.parameters, return_type="state")  # type: ignore[misc]
    return await found(state, claude)


async def dispatched(delivery_id: str) -> list[Dispatch]:
    async with await Store.open() as store:
        return await store.dispatches(delivery_ids=[delivery_id])


async def test_the_session_is_the_one_that_was_named() -> None:
    """Whoever fired the routine was told its session's id before there was a run; the inbox says when the run is over."""
    made = answering()
    deployment, delivery, named = await deploy(made), await record(source="api"), unique("ses")
    async with await Store.open() as store:
        await store.write_dispatches([(Dispatch(delivery, deployment, "answer/d", "waiting", named), "new")])
        await store.create_session(session_id=named, routine="answer", flow_run_id=None, deployment_id=deployment, event_id=delivery)
    with ScriptedClaude([NOTHING]) as claude:
        ran = await start(made, deployment, claude, event=delivery, label=delivery)
    async with await Store.open() as store:
        session = await store.session(named)
    assert session is not None
    assert (session.flow_run_id, session.verdict) == (str(ran.run.id), "nothing_to_do")
    assert ran.run.labels["routines.session"] == named
    [dispatch] = await dispatched(delivery)
    assert (dispatch.status, dispatch.flow_run_id) == ("ended", str(ran.run.id))


async def test_a_run_that_no_gateway_started_is_told_by_its_deployments_name() -> None:
    """`routines run-now --text` puts down a delivery and starts the run itself; the inbox names the routine all the same."""
    made = answering()
    deployment, delivery = await deploy(made), await record(source="person")
    with ScriptedClaude([NOTHING]) as claude:
        await start(made, deployment, claude, event=delivery, label=delivery)
    async with get_client() as client:
        name = (await client.read_deployment(uuid.UUID(deployment))).name
    [dispatch] = await dispatched(delivery)
    assert dispatch.deployment == f"{made.name}/{name}"


async def test_a_second_run_for_a_delivery_is_a_duplicate() -> None:
    """It ends at once, says which run works on it, and asks Claude nothing."""
    made = answering()
    deployment, delivery = await deploy(made), await record()
    with ScriptedClaude([NOTHING]) as claude:
        first = await start(made, deployment, claude, event=delivery, label=delivery)
        second = await start(made, deployment, claude, event=delivery, label=delivery)
        assert len(claude.requests) == 1
    assert second.state.is_cancelled()
    assert second.message == f"duplicate: flow run {first.run.id} works on this delivery"


async def test_a_person_may_run_it_again_from_the_form() -> None:
    """What a person asks for in the UI is a wish of its own."""
    made = answering()
    deployment, delivery = await deploy(made), await record()
    with ScriptedClaude([NOTHING, NOTHING]) as claude:
        await start(made, deployment, claude, event=delivery, label=delivery)
        again = await start(made, deployment, claude, event=delivery)
    assert again.state.is_completed()


async def test_what_the_gateway_decided_against_does_not_run() -> None:
    """A trigger that is not gated makes a run all the same; it ends with the gateway's reason."""
    made = answering()
    deployment, delivery = await deploy(made), await record()
    async with await Store.open() as store:
        await store.write_dispatches([(Dispatch(delivery, deployment, "answer/d", "own", unique("ses"), "we did it"), "new")])
    with ScriptedClaude([]) as claude:
        ran = await start(made, deployment, claude, event=delivery, label=delivery)
    assert (ran.state.is_cancelled(), ran.message) == (True, "own: we did it")


async def test_filters_hold_in_the_run_too() -> None:
    """No gateway need have looked at a delivery."""
    made = answering(when=[{"path": "issue.title", "contains": "docs"}])
    deployment, delivery = await deploy(made), await record()
    with ScriptedClaude([]) as claude:
        ran = await start(made, deployment, claude, event=delivery)
    assert ran.state.is_cancelled()
    assert ran.message.startswith("filtered: issue.title contains 'docs'")
    [dispatch] = await dispatched(delivery)
    assert dispatch.status == "filtered"


async def test_a_routine_without_an_event_parameter_can_read_what_started_it() -> None:
    """The run's label names the delivery."""

    def plain() -> str:
        """Work."""
        return "Work."

    made: Routine[Any] = Routine(plain, settings=answering().settings)
    deployment, delivery = await deploy(made, passes={"event": "{{ event.id | string }}"}), await record()
    with ScriptedClaude([say(call("read_event")), NOTHING]) as claude:
        ran = await start(made, deployment, claude, label=delivery)
        assert "It is broken" in json.dumps(claude.requests[1].body)
    assert ran.state.is_completed()


async def test_a_chain_of_prefects_own_events_ends() -> None:
    """A routine that answers to flow runs of routines carries the depth along."""
    made = answering(chain_depth=2, coalesce="new")
    deployment = await deploy(made)
    messages, subject = [], str(uuid.uuid4())
    with ScriptedClaude([NOTHING, NOTHING, NOTHING]) as claude:
        for _ in range(3):
            body = json.dumps({"resource": {"prefect.resource.id": f"prefect.flow-run.{subject}"}, "related": [], "_": subject})
            event = await record(source="prefect", kind="prefect.flow-run.Completed", body=body)
            ran = await start(made, deployment, claude, event=event)
            messages.append(ran.message)
            subject = str(ran.run.id)
    assert [message.partition(":")[0] for message in messages] == ["nothing_to_do", "nothing_to_do", "too-deep"]


async def test_a_further_event_joins_the_session() -> None:
    """With `coalesce: message` Claude is told of it before the next turn, once, and reads it by its id; no other event."""
    made = answering(coalesce="message")
    deployment, delivery, foreign = await deploy(made), await record(), await record()
    named = unique("ses")
    later = await record(kind="issue_comment", action="created", number=7)
    async with await Store.open() as store:
        for dispatch in (
            Dispatch(delivery, deployment, "answer/d", "waiting", named, key="k"),
            Dispatch(later, deployment, "answer/d", "waiting", unique("ses"), key="k"),
        ):
            [written] = await store.write_dispatches([(dispatch, "message")])
    assert (written.status, written.session_id) == ("messaged", named)
    script = [say(call("read_event", event=later), call("read_event", event=foreign)), say(call("bash", command="true")), NOTHING]
    with ScriptedClaude(script) as claude:
        ran = await start(made, deployment, claude, event=delivery, label=delivery)
        requests = [json.dumps(request.body) for request in claude.requests]
    assert f"issue_comment created #7. `read_event` with event='{later}'" in requests[0]
    assert [text.count("A further event about this has arrived") for text in requests] == [1, 1, 1]
    assert "no event" in requests[1]
    assert ran.state.is_completed()
