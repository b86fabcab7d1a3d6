"""Which deployments a delivery may start: their triggers as Prefect has them, and what their routine says about starting."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import ValidationError

from prefect_routines.settings import Starting
from prefect_routines.store import Delivery

if TYPE_CHECKING:
    from prefect.server.events.schemas.automations import EventTrigger
    from prefect.server.events.schemas.events import ReceivedEvent

GATE_ROLE = "routines-deployment"
"""Role of the related resource by which the gateway lets an event through to one deployment.

`routines deploy` makes the triggers demand it; a trigger that came with plain `prefect deploy` does not, and its run ends itself
when the gateway has decided against it.
"""


def gate(deployment_id: str) -> dict[str, str]:
    """The related resource that lets an event through to a deployment."""
    return {"prefect.resource.id": f"prefect.deployment.{deployment_id}", "prefect.resource.role": GATE_ROLE}


@dataclass(frozen=True)
class Target:
    """A deployment with one of its triggers.

    Args:
        deployment: `flow/deployment`.
        enabled: Neither the deployment nor its automation is paused.
        trigger: As Prefect evaluates it; None for a deployment that is addressed directly.
        parameters: What the trigger passes, templates included.
        starting: What the routine says about when to start.
        counted: Prefect counts events before this trigger fires (a threshold, a sequence): which delivery starts a run is its matter.
    """

    deployment_id: str
    deployment: str
    enabled: bool
    trigger: EventTrigger | None
    parameters: dict[str, Any]
    starting: Starting
    counted: bool = False
    problem: str | None = field(default=None, compare=False)

    def covers(self, delivery: Delivery) -> bool:
        """Whether the trigger fits, by the very code with which Prefect's server decides."""
        if self.trigger is None or not self.trigger.expects(delivery.event):  # `covers` alone is content with the beginning of a name
            return False
        return self.trigger.covers(event_of(delivery, [gate(self.deployment_id)]))

    def rendered(self, delivery: Delivery) -> dict[str, Any]:
        """The parameters that Prefect would pass: for a run that we ask for ourselves."""
        from prefect.server.events.actions import RunDeployment
        from prefect.utilities.schema_tools.hydration import HydrationContext, hydrate

        parameters = copy.deepcopy(self.parameters)
        RunDeployment._upgrade_v1_templates(parameters)
        event = event_of(delivery, [gate(self.deployment_id)])
        made: dict[str, Any] = hydrate(parameters, HydrationContext(render_jinja=True, jinja_context={"event": event}))
        return made


def event_of(delivery: Delivery, gates: Sequence[Mapping[str, str]] = ()) -> ReceivedEvent:
    """The Prefect event of a delivery: names and labels, never the payload."""
    from prefect.server.events.schemas.events import ReceivedEvent

    return ReceivedEvent.model_validate(
        {
            "id": UUID(delivery.id),
            "occurred": delivery.received_at,
            "event": delivery.event,
            "resource": delivery.labels.get("resource") or {"prefect.resource.id": f"routines.delivery.{delivery.id}"},
            "related": [*gates, *delivery.labels.get("related", [])][:100],
            "payload": {},
        }
    )


def targets_of(automations: Iterable[Mapping[str, Any]], deployments: Mapping[str, Mapping[str, Any]]) -> list[Target]:
    """The targets in Prefect's automations: each `run-deployment` action that passes the event's id on.

    Args:
        automations: As `POST /automations/filter` gives them.
        deployments: Deployments by id, each with `name`, `flow_name`, `paused`, `parameters`, `parameter_openapi_schema`.
    """
    found = []
    for automation in automations:
        for action in automation.get("actions", []):
            deployment = deployments.get(str(action.get("deployment_id")))
            if action.get("type") != "run-deployment" or deployment is None or not _passes_id(action.get("parameters") or {}):
                continue
            parameters = action.get("parameters") or {}
            found += [_target(automation, trigger, parameters, deployment) for trigger in _event_triggers(automation["trigger"])]
    return found


def direct(deployment: Mapping[str, Any], *, parameters: dict[str, Any] | None = None) -> Target:
    """A deployment that is addressed by name, not found by a trigger."""
    starting, problem = _starting(deployment, {})
    # pausing a deployment stops its schedules in Prefect; somebody who has paused a routine wants no run of it at all
    return Target(
        str(deployment["id"]), name_of(deployment), not deployment.get("paused"), None, parameters or {}, starting, problem=problem
    )


def name_of(deployment: Mapping[str, Any]) -> str:
    """`flow/deployment`."""
    return f"{deployment['flow_name']}/{deployment['name']}"


def _target(automation: Mapping[str, Any], trigger: Mapping[str, Any], parameters: dict[str, Any], deployment: Mapping[str, Any]) -> Target:
    from prefect.server.events.schemas.automations import EventTrigger

    alone = trigger is automation["trigger"]
    starting, problem = _starting(deployment, parameters)
    parsed = EventTrigger.model_validate({name: value for name, value in trigger.items() if name != "type"} | {"type": "event"})
    return Target(
        deployment_id=str(deployment["id"]),
        deployment=name_of(deployment),
        enabled=bool(automation.get("enabled", True)) and not deployment.get("paused"),
        trigger=parsed,
        parameters=parameters,
        starting=starting,
        counted=not alone or parsed.threshold > 1 or not parsed.immediate,
        problem=problem,
    )


def _event_triggers(trigger: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    if trigger.get("type") == "event":
        if trigger.get("posture") == "Reactive":
            yield trigger
    else:
        for inner in trigger.get("triggers", []):
            yield from _event_triggers(inner)


def _passes_id(parameters: Any) -> bool:
    if isinstance(parameters, str):
        return "event.id" in parameters
    if isinstance(parameters, Mapping):
        return any(_passes_id(value) for value in parameters.values())
    return isinstance(parameters, list) and any(map(_passes_id, parameters))


def _starting(deployment: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[Starting, str | None]:
    """What holds for this deployment: the author's word, the deployment's, and the trigger's over both."""
    schema = deployment.get("parameter_openapi_schema") or {}
    models = (schema.get("definitions") or {}).values()
    author: dict[str, Any] = next((model["x-starting"] for model in models if "x-starting" in model), {})
    merged = dict(author)
    for override in ((deployment.get("parameters") or {}).get("settings"), given.get("settings")):
        if isinstance(override, Mapping):
            merged |= {name: override[name] for name in Starting.model_fields if override.get(name) is not None}
    try:
        return Starting.model_validate(merged), None
    except ValidationError as error:
        return Starting(), f"its settings are wrong ({error.errors(include_url=False)[0]['msg']})"
