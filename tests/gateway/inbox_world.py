"""What the tests of the dispatcher share: deployments with triggers on a real Prefect server, deliveries, and what became of them."""

from __future__ import annotations

import json
import uuid
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, ResourceSpecification
from prefect.utilities.callables import parameter_schema

from prefect_routines import Event, Routine, routine
from prefect_routines.gateway.dispatcher import Dispatcher
from prefect_routines.gateway.github import occurrence
from prefect_routines.gateway.targets import gate
from prefect_routines.store import Delivery, Dispatch, Store
from waiting import until_async

ISSUE = {"number": 7, "title": "It is broken", "user": {"login": "ann"}, "html_url": "https://github.com/acme/docs/issues/7", "labels": []}


def answering(**starting: Any) -> Routine[Any]:
    """A routine that declares an event."""

    @routine(**starting)
    def answer(event: Event | None = None) -> str:
        """Answer."""
        return "Answer."

    return answer


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


async def deploy(
    made: Routine[Any],
    *,
    expect: str = "github.issues.opened",
    match: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    gated: bool = True,
    paused: bool = False,
    passes: dict[str, Any] | None = None,
    threshold: int = 1,
) -> str:
    """Deploy a routine with one trigger; the deployment's id. No worker takes its runs."""
    async with get_client() as client:
        flow_id = await client.create_flow(made)
        deployment_id = await client.create_deployment(
            flow_id,
            name=unique("d"),
            parameters={"settings": settings} if settings else {},
            parameter_openapi_schema=parameter_schema(made).model_dump(),
            paused=paused,
        )
        related: Any = [ResourceSpecification(gate(str(deployment_id)))] if gated else {}
        await client.create_automation(
            AutomationCore(
                name=unique("a"),
                trigger=EventTrigger(
                    expect={expect}, match=ResourceSpecification(match or {}), match_related=related, threshold=threshold, within=0
                ),
                actions=[RunDeployment(deployment_id=deployment_id, parameters=passes or {"event": "{{ event.id | string }}"})],
            )
        )
    return str(deployment_id)


def issue(repository: str, *, action: str = "opened", sender: str = "ann", number: int = 7, **changes: Any) -> dict[str, Any]:
    """A payload of GitHub's `issues` event."""
    thing = {**ISSUE, "number": number, "html_url": f"https://github.com/{repository}/issues/{number}", **changes}
    return {"action": action, "issue": thing, "repository": {"full_name": repository}, "sender": {"login": sender, "type": "User"}}


async def deliver(store: Store, kind: str, payload: dict[str, Any], **changes: Any) -> Delivery:
    """Put a GitHub delivery into the inbox, as the gateway does."""
    seen = occurrence(kind, payload)
    delivery_id = str(uuid.uuid4())
    delivery = Delivery(
        **{
            "id": delivery_id,
            "source": "github",
            "delivery_id": delivery_id,
            "kind": seen.kind,
            "body": json.dumps(payload | {"_": delivery_id}),
            "action": seen.action,
            "repository": seen.repository,
            "number": seen.number,
            "sha": seen.sha,
            "content_type": "application/json",
            "event": seen.event,
            "labels": {"resource": seen.resource, "related": seen.related},
            "key": seen.key,
            "status": "received",
            **changes,
        }
    )
    await store.record_delivery(delivery)
    return delivery


async def became(store: Store, dispatcher: Dispatcher, delivery: Delivery, *, status: str = "settled") -> list[Dispatch]:
    """What became of a delivery, once it is settled."""
    dispatcher.wake()

    async def settled() -> Delivery | None:
        found = await store.delivery(delivery.id)
        return found if found is not None and found.status == status else None

    await until_async(settled)
    return await store.dispatches(delivery_ids=[delivery.id])


async def runs_of(deployment_id: str) -> list[FlowRun]:
    """All runs of a deployment, oldest first."""
    async with get_client() as client:
        answer = await client.request("POST", "/flow_runs/filter", json={"flow_runs": {"deployment_id": {"any_": [deployment_id]}}})
        runs = [FlowRun.model_validate(run) for run in answer.json()]
    return sorted(runs, key=lambda run: run.created or run.expected_start_time)  # type: ignore[arg-type,return-value]


async def set_state(run_id: str | UUID, state: str) -> None:
    async with get_client() as client:
        await client.request("POST", f"/flow_runs/{run_id}/set_state", json={"state": {"type": state}, "force": True})
