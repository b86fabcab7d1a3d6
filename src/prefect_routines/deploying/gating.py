"""After a deployment: its triggers on deliveries are gated, and those of a paused routine stay switched off.

A gated trigger fires only on events that the gateway lets through to this deployment: it knows what Prefect cannot see - the payload,
who caused the event, which session is at it already.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prefect_routines.deploying.deployed import Deployed
from prefect_routines.deploying.triggers import delivers
from prefect_routines.gateway.targets import gate

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

FIELDS = ("name", "description", "enabled", "tags", "trigger", "actions", "actions_on_trigger", "actions_on_resolve")
"""What `PUT /automations/{id}` takes; all of it is sent back as it was."""

PAUSED = "paused-by-routines"
"""Tag of automations that were on when their routine was paused."""


async def gate_triggers(client: PrefectClient, deployed: Deployed) -> int:
    """Gate the triggers of a deployment; how many are gated now. Doing it again changes nothing."""
    gated = 0
    wanted = gate(deployed.id)
    for automation in deployed.automations:
        changed = False
        actions = [action for action in automation["actions"] if str(action.get("deployment_id")) == deployed.id]
        for trigger in _event_triggers(automation["trigger"]):
            if any(delivers({**trigger, "parameters": action.get("parameters")}) for action in actions):
                gated += 1
                changed |= _demand(trigger, wanted)
        if changed:
            await _put(client, automation)
    return gated


def _event_triggers(trigger: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those that answer to an event, not to its absence."""
    if trigger.get("type") == "event" and trigger.get("posture") != "Proactive":
        yield trigger
    for inner in trigger.get("triggers") or []:
        yield from _event_triggers(inner)


def _demand(trigger: dict[str, Any], wanted: dict[str, str]) -> bool:
    """Add the gate to what the author asked of related resources (all of a list must be there); whether it was missing."""
    related = trigger.get("match_related") or {}
    parts = [part for part in (related if isinstance(related, list) else [related]) if part]
    if any({label: _text(value) for label, value in part.items()} == wanted for part in parts):
        return False
    trigger["match_related"] = [*parts, wanted]
    return True


def _text(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


async def switch_automations(client: PrefectClient, deployed: Deployed, *, on: bool) -> int:
    """Switch a routine's triggers off, or those on again that were on before; how many. Triggers its author switched off stay off."""
    switched = 0
    for automation in deployed.automations:
        tags = [tag for tag in automation.get("tags") or [] if tag != PAUSED]
        if on and PAUSED in (automation.get("tags") or []):
            automation |= {"enabled": True, "tags": tags}
        elif not on and automation.get("enabled", True):
            automation |= {"enabled": False, "tags": [*tags, PAUSED]}
        else:
            continue
        await _put(client, automation)
        switched += 1
    return switched


async def pause(client: PrefectClient, deployed: Deployed) -> None:
    """Stop everything that starts a routine by itself: schedules (their waiting runs go), triggers."""
    await client.request("POST", "/deployments/{id}/pause_deployment", path_params={"id": deployed.id})
    await switch_automations(client, deployed, on=False)


async def unpause(client: PrefectClient, deployed: Deployed) -> None:
    """Let it start by itself again."""
    await switch_automations(client, deployed, on=True)
    await client.request("POST", "/deployments/{id}/resume_deployment", path_params={"id": deployed.id})


async def _put(client: PrefectClient, automation: dict[str, Any]) -> None:
    body = {name: automation[name] for name in FIELDS if name in automation}
    await client.request("PUT", "/automations/{id}", path_params={"id": automation["id"]}, json=body)
