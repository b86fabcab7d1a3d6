"""Tells of past deliveries whether a deployment's triggers would fire on them, and if not, which part of them says no. Starts nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from prefect_routines.errors import SettingsError
from prefect_routines.gateway.decisions import OUTSIDE, Origin, decide
from prefect_routines.gateway.dispatcher import FIRE, matching
from prefect_routines.gateway.origin import origin_of
from prefect_routines.gateway.replay import replayed
from prefect_routines.gateway.targets import GATE_ROLE, Target, event_of, gate, targets_of
from prefect_routines.visible import one_line
from prefect_routines.when import When

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.server.events.schemas.events import Resource, ResourceSpecification

    from prefect_routines.deploying.files import Stanza
    from prefect_routines.store import Delivery, Store

Part = Literal["event", "match", "match_related", "counted", "settings", "own events", "chain depth", "when", "paused", "fires"]
_PARTS = get_args(Part)
_DECIDED: dict[str, Part] = {"refused": "settings", "own": "own events", "too-deep": "chain depth", "filtered": "when"}
_PAGE, _MOST = 200, 20_000  # deliveries looked through for those that an event came of
_NOT_DEPLOYED = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Trial:
    """How one delivery fares.

    Args:
        delivery: Without its body.
        part: 'fires', or the first part that says no: the name of the event, `match`, `match_related`, Prefect counting events ('counted'),
            wrong settings, `own_events`, `chain_depth`, `when`, or that all would be well but for the pause.
        reason: Why, in one line.
    """

    delivery: Delivery
    part: Part
    reason: str = ""


async def try_out(
    store: Store, targets: Sequence[Target], identities: Callable[[str], Awaitable[Collection[str]]], *, last: int
) -> list[Trial]:
    """Hold the triggers of one deployment against the newest deliveries, as the gateway would now.

    Args:
        targets: The deployment with each of its triggers.
        identities: Gives the logins under which our routines write at a source.
        last: How many deliveries; replays, pings and calls that name their routine do not count.

    Returns:
        One trial for each delivery, newest first.
    """
    found = []
    async for delivery in _events(store, last):
        payload, origin = None, OUTSIDE
        if matching(targets, delivery):  # bodies are large, and what no trigger fits needs none
            whole = await store.delivery(delivery.id)
            payload = whole.payload() if whole is not None else None
            origin = await _origin(store, delivery, payload, identities)
        found.append(trial(targets, delivery, payload, origin))
    return found


def trial(targets: Sequence[Target], delivery: Delivery, payload: Any, origin: Origin = OUTSIDE) -> Trial:
    """How a delivery fares with the triggers of one deployment; pure. If none fires, the trigger that came furthest tells why."""
    fitting = matching(targets, delivery)
    if not fitting:
        missed = [Trial(delivery, *_misfit(target, delivery)) for target in targets]
        return max(missed, key=lambda one: _PARTS.index(one.part))
    [target] = fitting
    decided = decide(replace(target, enabled=True), delivery, payload, origin, "")
    if decided.status in _DECIDED:
        return Trial(delivery, _DECIDED[decided.status], decided.reason or "")
    return Trial(delivery, "fires") if target.enabled else Trial(delivery, "paused", "it would fire if the routine were not paused")


def with_conditions(targets: Iterable[Target], conditions: Sequence[When]) -> list[Target]:
    """The targets with these conditions instead of their routine's `when`."""
    return [replace(one, starting=one.starting.model_copy(update={"when": list(conditions)})) for one in targets]


def targets_of_stanza(stanza: Stanza, flow: Flow[Any, Any]) -> list[Target]:
    """The targets that a deployment of a prefect file would have.

    Raises:
        SettingsError: Prefect refuses one of its triggers.
    """
    from prefect.events import DeploymentTriggerTypes
    from prefect.utilities.callables import parameter_schema
    from pydantic import TypeAdapter, ValidationError

    made: list[dict[str, Any]] = []
    for number, written in enumerate(stanza.data.get("triggers") or []):
        try:
            parsed: Any = TypeAdapter[Any](DeploymentTriggerTypes).validate_python(written)
            parsed.set_deployment_id(_NOT_DEPLOYED)
            parsed.name = parsed.name or f"trigger {number + 1}"
            made.append(parsed.as_automation().model_dump(mode="json"))
        except ValidationError as error:
            said = one_line(error.errors(include_url=False)[0]["msg"], 200)
            raise SettingsError(str(stanza.problem(f"Prefect refuses the trigger: {said}", "triggers", number))) from None
    deployment = {
        "id": _NOT_DEPLOYED,
        "name": stanza.name,
        "flow_name": flow.name,
        "parameters": stanza.data.get("parameters") or {},
        "parameter_openapi_schema": parameter_schema(flow).model_dump(),
    }
    return targets_of(made, {_NOT_DEPLOYED: deployment})


def per_day(trials: Sequence[Trial]) -> tuple[float, float]:
    """How often it would have fired in a day, and over how many days that was seen (at least an hour is taken)."""
    if not trials:
        return 0.0, 0.0
    days = (datetime.now(UTC) - trials[-1].delivery.received_at).total_seconds() / 86_400
    return sum(one.part in ("fires", "paused") for one in trials) / max(days, 1 / 24), days


async def _events(store: Store, last: int) -> AsyncIterator[Delivery]:
    """The newest deliveries that are events."""
    before, seen, given = None, 0, 0
    while seen < _MOST:
        page = await store.deliveries(limit=_PAGE, before=before)
        for delivery in page:
            if delivery.event and delivery.event != FIRE and delivery.source not in ("prefect", "person") and not replayed(delivery):
                yield delivery
                given += 1
                if given == last:
                    return
        if len(page) < _PAGE:
            return
        before, seen = page[-1].received_at, seen + len(page)


async def _origin(store: Store, delivery: Delivery, payload: Any, identities: Callable[[str], Awaitable[Collection[str]]]) -> Origin:
    if delivery.source != "github" or not isinstance(payload, dict):
        return OUTSIDE
    from prefect_routines.gateway.github import authorship

    return await origin_of(store, delivery, authorship(delivery.kind, payload), await identities(delivery.source))


def _misfit(target: Target, delivery: Delivery) -> tuple[Part, str]:
    """The part of a trigger that does not fit."""
    trigger = target.trigger
    assert trigger is not None
    event = event_of(delivery, [gate(target.deployment_id)])
    if not trigger.expects(event.event):
        return "event", f"it is {one_line(event.event)}, not {' or '.join(sorted(trigger.expect))}"
    if not trigger.event_pattern.match(event.event):  # here Prefect wants something in the place of `*`
        return "event", f"it is {one_line(event.event)}, and {' or '.join(sorted(trigger.expect))} needs a character more, at least"
    match: Any = trigger.match
    if not match.includes([event.resource]):
        return "match", _unlike(match, event.resource)
    parts: list[Any] = trigger.match_related if isinstance(trigger.match_related, list) else [trigger.match_related]
    for part in parts:
        if not part.includes(event.related):
            return "match_related", _nothing_like(part, event.related)
    return "counted", "Prefect counts events before this trigger fires, so no single delivery decides"


def _unlike(wanted: ResourceSpecification, resource: Resource) -> str:
    """The first label that is not as it should be."""
    for label, values in wanted.items():
        if not type(wanted)({label: values}).includes([resource]):
            there = resource.get(label)
            return f"{label} is {'absent' if there is None else repr(one_line(there, 80))}, not {_either(values)}"
    return "no single label differs"


def _nothing_like(wanted: ResourceSpecification, related: Sequence[Resource]) -> str:
    """What was looked for among the related resources, and what of that role is there."""
    roles = wanted.get("prefect.resource.role") or []
    parts = [f"{label} {_either(values)}" for label, values in wanted.items()]
    others = [one for one in related if one.get("prefect.resource.role") != GATE_ROLE]
    kind = type(wanted)({"prefect.resource.role": roles} if roles else {})
    names = [one_line(str(one.get("prefect.resource.id")), 60) for one in others if kind.includes([one])]
    there = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "none"
    return f"nothing related has {' and '.join(parts)}; there: {there}"


def _either(values: Iterable[str]) -> str:
    return " or ".join(repr(one_line(value, 80)) for value in values)
