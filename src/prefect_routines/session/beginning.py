"""Whether a run is to work at all: a delivery starts each deployment once, missed fire times are made up for once, filters hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prefect import get_client
from prefect.context import FlowRunContext

from prefect_routines.events import Event, new_session_id
from prefect_routines.session.inbound import PREFECT, load_event
from prefect_routines.session.missed import missed
from prefect_routines.settings import Settings
from prefect_routines.store import Delivery, Dispatch, Store
from prefect_routines.when import evaluate

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

LABEL = "routines.delivery"
"""Label of a flow run that the gateway asked for: the delivery that it is for."""


@dataclass(frozen=True)
class Beginning:
    """How a run begins.

    Args:
        event: What started it, with its trusted fields.
        session_id: The session that was named when the delivery came in; None if the run names its own.
        not_now: Why the run ends at once; None if it works.
        dispatch: The delivery's record at this deployment, which the run has claimed.
    """

    event: Event | None = None
    session_id: str | None = None
    not_now: str | None = None
    dispatch: Dispatch | None = None


async def begin(settings: Settings, event: Event | None) -> Beginning:
    """Look at what started the flow run that is under way, and claim it.

    Args:
        event: The event parameter; its id alone is enough.

    Raises:
        SettingsError: Neither the inbox nor Prefect knows the event.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None:
        return Beginning(event)
    why = await goes_on_elsewhere() or await missed(run, settings.missed)
    if why is not None:
        return Beginning(event, not_now=why)
    label = run.labels.get(LABEL)
    if event is None and label is not None:  # the routine declares no event; Claude can read it all the same
        event = Event(id=str(label))
    if event is None or event.model_fields_set != {"id"}:
        return Beginning(event)
    async with await Store.open() as store:
        event, body = await load_event(store, event.id)
        if run.deployment_id is None:
            return Beginning(event)
        return await _claim(store, settings, event, body, run, asked_for=label is not None)


async def goes_on_elsewhere() -> str | None:
    """Why the flow run that is under way, a restarted one, ends at once: its session was resumed by another one meanwhile."""
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None or run.run_count < 2:
        return None
    async with get_client() as client:  # the run at hand may be older than the label
        labels = (await client.read_flow_run(run.id)).labels or {}
    if (session := labels.get("routines.session")) is None:
        return None
    async with await Store.open() as store:
        record = await store.session(str(session))
    if record is None or record.flow_run_id in (None, str(run.id)):
        return None
    return f"resumed: session {record.id} goes on in flow run {record.flow_run_id}"


async def _claim(store: Store, settings: Settings, event: Event, body: str, run: FlowRun, *, asked_for: bool) -> Beginning:
    depth, delivery = 0, Delivery(event.id, PREFECT, event.id, event.kind, body, event=event.kind)
    if event.source == PREFECT:  # no gateway has seen it: it is put down here, so that it is read, counted and told like any other
        caused_by = await _run_behind(store, delivery)
        depth = 0 if caused_by is None else await store.depth(caused_by) + 1
        if depth >= settings.chain_depth:
            allowed = f"settings.chain_depth allows {settings.chain_depth}"
            return Beginning(event, not_now=f"too-deep: {depth} runs have caused each other before it; {allowed}")
        await store.record_delivery(delivery)
    decided = await store.dispatches(delivery_ids=[event.id], deployment_id=str(run.deployment_id))
    name = decided[0].deployment if decided else await _name(run)  # a record that is there keeps its own
    wanted = Dispatch(event.id, str(run.deployment_id), name, "started", new_session_id(), depth=depth, flow_run_id=str(run.id))
    claimed = await store.claim(wanted)
    if (claimed.status, claimed.flow_run_id) != ("started", wanted.flow_run_id):
        by_machine = asked_for or (run.created_by is not None and run.created_by.type == "AUTOMATION")
        if not by_machine:  # a person has filled in the form: that is a wish of its own
            return Beginning(event)
        if claimed.flow_run_id in (None, wanted.flow_run_id):
            return Beginning(event, not_now=f"{claimed.status}: {claimed.reason}")
        return Beginning(event, not_now=f"duplicate: flow run {claimed.flow_run_id} works on this delivery")
    failed = evaluate(settings.when, delivery.payload()) if settings.when else None
    if failed is not None:
        await store.move_dispatch(claimed, "filtered", reason=failed)
        return Beginning(event, not_now=f"filtered: {failed}")
    return Beginning(event, claimed.session_id, dispatch=claimed)


async def _name(run: FlowRun) -> str:
    """What the run's deployment is called, `flow/deployment`: the inbox tells it."""
    assert run.deployment_id is not None
    context = FlowRunContext.get()
    flow = context.flow.name if context is not None and context.flow is not None else ""
    async with get_client() as client:
        return f"{flow}/{(await client.read_deployment(run.deployment_id)).name}"


async def settle(dispatch: Dispatch) -> None:
    """Tell the inbox that the run is over."""
    async with await Store.open() as store:
        await store.move_dispatch(replace(dispatch, status="started"), "ended")


async def _run_behind(store: Store, delivery: Delivery) -> str | None:
    """The session whose flow run one of Prefect's own events is about."""
    found = delivery.payload()
    resources = [found.get("resource", {}), *found.get("related", [])]
    runs = [str(one.get("prefect.resource.id", "")).removeprefix("prefect.flow-run.") for one in resources]
    for run_id in runs:
        if sessions := await store.sessions(flow_run_id=run_id, limit=1):
            return sessions[0].id
    return None
