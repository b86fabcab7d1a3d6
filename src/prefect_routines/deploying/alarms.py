"""Silence alarms: Prefect automations that fire when something that should have happened has not.

Prefect's server keeps watch, so they work while workers, gateway and runs are dead. What fires shows as the event
`prefect.automation.triggered` of an automation whose name begins with `routines: `; with `ROUTINES_ALARM_BLOCK` somebody is also told.
There is none for heartbeats that stay away: the server works on two events at once, so it would be false for a run that ends together
with its first heartbeat. `routines doctor` looks for such runs instead.
https://docs.prefect.io/v3/concepts/automations
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_routines.config import config
from prefect_routines.doctor.alarms import PREFIX
from prefect_routines.errors import SettingsError
from prefect_routines.settings import Deadlines
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

LONGEST_PREPARATION = 300.0
"""Seconds between the start of a run and its first request for which the alarm waits: clones, setup, logins."""
SHORTEST = 10.0
"""Seconds; Prefect accepts no shorter wait for what does not happen."""
_FIRST_REPLY = "routines.session.first-reply"
_RUN = "run {{ flow_run.name }} of {{ flow.name }}/{{ deployment.name }}"
_WORKER = "Is a worker of the work pool {{ work_pool.name }} running?"
_PAGE = "{{ flow_run|ui_url or 'See `prefect flow-run logs ' ~ flow_run.id ~ '`.' }}"
"""The run's page, where the server knows its own address (PREFECT_UI_URL)."""


class Alarm(NamedTuple):
    """One automation as it should be.

    Args:
        what: Its name after the prefix; by it the automation is found again.
        trigger: As Prefect's API takes it.
        told: What a person is told; a template of Prefect's.
        description: What it is for.
    """

    what: str
    trigger: dict[str, Any]
    told: str
    description: str

    @property
    def name(self) -> str:
        """The automation's name."""
        return f"{PREFIX}{self.what}"


async def ensure_alarms(
    client: PrefectClient, deployments: Sequence[Mapping[str, Any]], *, preparation: float = LONGEST_PREPARATION
) -> list[str]:
    """Make the silence alarms of these deployments and of all webhook sources, or bring them up to date; a second call changes nothing.

    An alarm that a person has switched off stays off. Those of deployments and sources that are gone are removed.

    Args:
        deployments: As Prefect's API gives them.
        preparation: Seconds that a run may take before its first request to Claude.

    Returns:
        What was made or changed, one line each; empty when all was as it should be.

    Raises:
        SettingsError: `ROUTINES_ALARM_BLOCK` names no block on this server that can notify.

    Example:
        ```python
        async with get_client() as client:
            answer = await client.request("POST", "/deployments/filter", json={})
            print(await ensure_alarms(client, answer.json()))
        ```
    """
    wanted: list[Alarm] = []
    for one in deployments:
        flow = await _flow_name(client, one)
        wanted += [late_alarm(one, flow), reply_alarm(one, flow, preparation)]
    wanted += [source_alarm(name, minutes, github=github) for name, minutes, github in await _quiet_sources(client)]
    block = await _notifier(client)
    found = await _existing(client)
    done = []
    for alarm in wanted:
        made = _automation(alarm, block)
        if (old := found.get(alarm.name)) is None:
            await client.request("POST", "/automations/", json=made)
            done.append(f"alarm {alarm.what!r} made")
        elif not _same(old, made):
            # an update starts its watch anew, so it is made only where something differs
            await client.request("PUT", "/automations/{id}", path_params={"id": old["id"]}, json={**made, "enabled": old["enabled"]})
            done.append(f"alarm {alarm.what!r} brought up to date")
    return done + await _remove_orphans(client, found, wanted)


def late_alarm(deployment: Mapping[str, Any], flow: str) -> Alarm:
    """The alarm for a run that is due and that nobody takes.

    Args:
        deployment: As Prefect's API gives it.
        flow: Name of its flow.
    """
    name, minutes = f"{flow}/{deployment['name']}", config().alarm_late_minutes
    # `Late` itself matches, too; Prefect counts the event that starts the watch as none. Anything else that happens to the run ends
    # the watch: it was started, or it waits for others of its kind, or somebody has cancelled it.
    return Alarm(
        f"{name} does not start",
        _of_runs(deployment, after=["prefect.flow-run.Late"], expect=["prefect.flow-run.*"], within=minutes * 60),
        f"{_RUN} is due for more than {minutes:g} minutes and nobody has taken it. {_WORKER} {_PAGE}",
        f"Fires when a run of {name} is still waiting {minutes:g} minutes after Prefect has called it late.",
    )


def reply_alarm(deployment: Mapping[str, Any], flow: str, preparation: float = LONGEST_PREPARATION) -> Alarm:
    """The alarm for a run that does not get as far as Claude's first reply.

    Args:
        deployment: As Prefect's API gives it.
        flow: Name of its flow.
        preparation: See `ensure_alarms`.
    """
    name, seconds = f"{flow}/{deployment['name']}", _first_reply(deployment) + preparation
    # Failed and Crashed are not expected: a run that ended so before its first reply is one that never got there.
    ends = [f"prefect.flow-run.{state}" for state in ("Completed", "Cancelling", "Cancelled", "Suspended", "Paused")]
    return Alarm(
        f"{name} gets no reply",
        _of_runs(deployment, after=["prefect.flow-run.Running"], expect=[_FIRST_REPLY, *ends], within=seconds),
        f"{_RUN} has no reply from Claude {seconds / 60:.0f} minutes after it began. What it does, or why it failed: {_PAGE}",
        f"Fires when a run of {name} has no reply from Claude within {seconds:g} s, whether it hangs or has failed.",
    )


def _of_runs(deployment: Mapping[str, Any], *, after: list[str], expect: list[str], within: float) -> dict[str, Any]:
    """A trigger that watches each run of a deployment by itself."""
    return {
        "type": "event",
        "posture": "Proactive",
        "threshold": 1,
        "for_each": ["prefect.resource.id"],
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": {"prefect.resource.role": "deployment", "prefect.resource.id": f"prefect.deployment.{deployment['id']}"},
        "after": after,
        "expect": expect,
        "within": max(SHORTEST, within),
    }


def source_alarm(name: str, minutes: float, *, github: bool = False) -> Alarm:
    """The alarm of one webhook source.

    Args:
        name: Of the source.
        minutes: How long it may be quiet.
        github: It signs as GitHub does; then its events are called `github.*`, as those of all such sources.
    """
    events = ["github.*"] if github else [f"webhook.{name}", f"webhook.{name}.*"]
    resource = "github.*" if github else f"webhook.{name}"
    # The same event starts the watch and ends it, so each one begins a watch of its full length; and as there is no `for_each`,
    # Prefect begins the first watch with the automation itself, without waiting for an event that may never come.
    trigger = {"type": "event", "posture": "Proactive", "threshold": 1, "after": events, "expect": events}
    trigger |= {"match": {"prefect.resource.id": resource}, "within": max(SHORTEST, minutes * 60)}
    return Alarm(
        f"source {name} is quiet",
        trigger,
        f"Nothing has come from the webhook source {name} for {minutes:g} minutes. "
        "See the sender's own list of deliveries, and `routines inbox`.",
        f"Fires when nothing comes from {name} for {minutes:g} minutes, and again while that lasts.",
    )


def _first_reply(deployment: Mapping[str, Any]) -> float:
    """Seconds in which a run's first reply must come, as far as the deployment tells."""
    settings = (deployment.get("parameters") or {}).get("settings")
    deadlines = settings.get("deadlines") if isinstance(settings, dict) else None
    said = deadlines.get("first_reply") if isinstance(deadlines, dict) else None
    return float(said) if isinstance(said, int | float) else float(Deadlines().first_reply)


def _automation(alarm: Alarm, block: str | None) -> dict[str, Any]:
    """As Prefect's API takes it. Without a block it does nothing but leave the event that it fired."""
    told = {"type": "send-notification", "block_document_id": block, "subject": "{{ automation.name }}", "body": alarm.told}
    # also what is filled in by default, so that it can be compared with what the API gives back
    trigger = {"match": {}, "match_related": {}, "after": [], "expect": [], "for_each": [], **alarm.trigger}
    return {
        "name": alarm.name,
        "description": alarm.description,
        "enabled": True,
        "tags": ["routines-alarm"],
        "trigger": trigger,
        "actions": [told if block else {"type": "do-nothing"}],
    }


def _same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether an automation is as it should be; what Prefect adds of its own does not count."""
    trigger = {name: _plain(old["trigger"].get(name)) for name in new["trigger"]} == {k: _plain(v) for k, v in new["trigger"].items()}
    first = old["actions"][0] if old["actions"] else {}
    actions = len(old["actions"]) == 1 and all(first.get(name) == value for name, value in new["actions"][0].items())
    return trigger and actions and old["description"] == new["description"]


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else float(value) if isinstance(value, int | float) else value


async def _existing(client: PrefectClient) -> dict[str, dict[str, Any]]:
    """Our automations by name."""
    found: dict[str, dict[str, Any]] = {}
    offset = 0
    while page := (await client.request("POST", "/automations/filter", json={"limit": 200, "offset": offset})).json():
        offset += len(page)
        for one in page:
            if one["name"].startswith(PREFIX) and "routines-alarm" in (one.get("tags") or []):
                found.setdefault(one["name"], one)
    return found


async def _remove_orphans(client: PrefectClient, found: Mapping[str, Mapping[str, Any]], wanted: Sequence[Alarm]) -> list[str]:
    """Take away the alarms of deployments and sources that are no longer there: they could only be wrong."""
    names, done = {alarm.name for alarm in wanted}, []
    for name, one in found.items():
        if name in names:
            continue
        related = one["trigger"].get("match_related") or {}
        identity = str(related.get("prefect.resource.id", "")).removeprefix("prefect.deployment.") if isinstance(related, dict) else ""
        if identity and await _is_there(client, identity):
            continue
        await client.request("DELETE", "/automations/{id}", path_params={"id": one["id"]})
        done.append(f"alarm {name.removeprefix(PREFIX)!r} removed: what it watched is gone")
    return done


async def _is_there(client: PrefectClient, deployment_id: str) -> bool:
    asked = {"deployments": {"id": {"any_": [deployment_id]}}}
    return bool((await client.request("POST", "/deployments/filter", json=asked)).json())


async def _flow_name(client: PrefectClient, deployment: Mapping[str, Any]) -> str:
    return str((await client.request("GET", "/flows/{id}", path_params={"id": deployment["flow_id"]})).json()["name"])


async def _quiet_sources(client: PrefectClient) -> list[tuple[str, float, bool]]:
    """The webhook sources that say for how many minutes they may be quiet, and whether they are GitHub's."""
    asked = {"block_types": {"slug": {"any_": ["webhook-source"]}}, "include_secrets": False, "limit": 200}
    documents = (await client.request("POST", "/block_documents/filter", json=asked)).json()
    said = {one["name"]: one.get("data") or {} for one in documents if one.get("name")}
    found = [(name, data.get("quiet_after"), data.get("signature") == "github") for name, data in sorted(said.items())]
    return [(name, float(minutes), github) for name, minutes, github in found if minutes]


async def _notifier(client: PrefectClient) -> str | None:
    """The block that tells people, by its document's id; None if none is set."""
    from prefect.exceptions import ObjectNotFound

    reference = config().alarm_block
    if reference is None:
        return None
    slug, _, name = reference.partition("/")
    try:
        document = await client.read_block_document_by_name(name=name, block_type_slug=slug, include_secrets=False)
    except ObjectNotFound:
        document = None
    if document is None:
        raise SettingsError(
            f"ROUTINES_ALARM_BLOCK: there is no block {one_line(reference)!r} on this server; name one as `prefect block ls` shows it"
        )
    if "notify" not in (document.block_schema.capabilities if document.block_schema else []):
        raise SettingsError(f"ROUTINES_ALARM_BLOCK: the block {one_line(reference)!r} cannot notify; name one such as slack-webhook/ops")
    return str(document.id)
