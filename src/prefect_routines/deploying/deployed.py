"""The routines that are at work: deployments as Prefect has them, with schedules, triggers and next times; found by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect_routines.deploying import fire_times, triggers
from prefect_routines.errors import SettingsError
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

PAGE = 200
ONE_OFF = "one-off"
"""Tag of runs that `routines schedule` made."""


@dataclass(frozen=True)
class Deployed:
    """A deployment.

    Args:
        flow: Name of its flow.
        data: As Prefect's API gives it.
        automations: Those that start it, as the API gives them.
        one_offs: Its scheduled one-off runs, as the API gives them.
    """

    flow: str
    data: Mapping[str, Any]
    automations: list[dict[str, Any]] = field(default_factory=list)
    one_offs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.data["id"])

    @property
    def name(self) -> str:
        """`flow/deployment`."""
        return f"{self.flow}/{self.data['name']}"

    @property
    def paused(self) -> bool:
        return bool(self.data.get("paused"))

    @property
    def is_routine(self) -> bool:
        """Whether its flow was made with `@routine`: then its parameters have the form of the settings."""
        schema = self.data.get("parameter_openapi_schema") or {}
        return "SettingsOverride" in (schema.get("definitions") or {})

    @property
    def schedules(self) -> list[dict[str, Any]]:
        """Its schedules, each with `active` and what Prefect fires by."""
        return [one["schedule"] | {"active": one["active"]} for one in self.data.get("schedules") or []]

    def triggers_in_words(self) -> list[str]:
        """What starts it."""
        said = [f"{fire_times.in_words(one)}{'' if one['active'] else ' (switched off)'}" for one in self.schedules]
        for automation in self.automations:
            told = triggers.in_words(automation["trigger"])
            said.append(told if automation.get("enabled", True) or self.paused else f"{told} (switched off)")
        return said

    @property
    def webhooks(self) -> set[str]:
        """Names of the sources whose deliveries start it: `github`, or that of a webhook."""
        names = [name for automation in self.automations for name in _expected(automation["trigger"])]
        return {"github" if name.startswith("github") else name.split(".")[1] for name in names if name.startswith(triggers.OURS)}

    def next_times(self, count: int) -> list[datetime]:
        """When its schedules and one-off runs start it next, each in its own zone. A paused one has one-off runs only."""
        found: list[datetime] = []
        for one in self.schedules:
            if one["active"] and not self.paused:
                found += fire_times.fire_times(one, count)
        for run in self.one_offs:
            due = datetime.fromisoformat(run["expected_start_time"])
            if due > datetime.now(UTC):
                found.append(due)
        return sorted(found)[:count]


def _expected(trigger: Mapping[str, Any]) -> list[str]:
    return [*triggers.expected(trigger), *(name for inner in trigger.get("triggers") or [] for name in _expected(inner))]


async def read_deployed(client: PrefectClient) -> list[Deployed]:
    """All deployments, in the order of their names."""
    deployments = await pages(client, "/deployments/filter", {})
    names = {flow["id"]: flow["name"] for flow in await pages(client, "/flows/filter", {})}
    started: dict[str, list[dict[str, Any]]] = {}
    for automation in await pages(client, "/automations/filter", {}):
        ids = {str(action.get("deployment_id")) for action in automation.get("actions", []) if action.get("type") == "run-deployment"}
        for one in ids:
            started.setdefault(one, []).append(automation)
    waiting: dict[str, list[dict[str, Any]]] = {}
    chosen = {"tags": {"all_": [ONE_OFF]}, "state": {"type": {"any_": ["SCHEDULED"]}}}
    for run in await pages(client, "/flow_runs/filter", {"flow_runs": chosen}):
        waiting.setdefault(str(run["deployment_id"]), []).append(run)
    found = [Deployed(names.get(one["flow_id"], "?"), one, started.get(one["id"], []), waiting.get(one["id"], [])) for one in deployments]
    return sorted(found, key=lambda one: one.name)


async def pages(client: PrefectClient, path: str, body: Mapping[str, Any], most: int | None = None) -> list[dict[str, Any]]:
    """All of what a filter of Prefect's API finds, or the first `most`."""
    found: list[dict[str, Any]] = []
    while True:
        size = PAGE if most is None else min(PAGE, most - len(found))
        answer = await client.request("POST", path, json={**body, "limit": size, "offset": len(found)})  # type: ignore[arg-type]
        page: list[dict[str, Any]] = answer.json()
        found += page
        if len(page) < size or len(found) == most:
            return found


def find(name: str, deployed: Iterable[Deployed]) -> Deployed:
    """The deployment that a person means: its id, `flow/deployment`, or a part of that which only one has.

    Raises:
        SettingsError: None, or several; names those that may have been meant.
    """
    found = search(name, deployed)
    if len(found) == 1:
        return found[0]
    shown = one_line(name, 80)
    if found:
        names = ", ".join(one.name for one in found[:5])
        raise SettingsError(f"{shown!r} could be {'one of ' if len(found) > 1 else ''}{names}; give more of the name")
    raise SettingsError(f"there is no routine {shown!r} on this server{_near(name, list(deployed))}")


def search(name: str, deployed: Iterable[Deployed]) -> list[Deployed]:
    """The deployments that a name may mean: exact ones, else those with that flow or deployment name, else with that part in it."""
    listed = list(deployed)
    low = name.casefold().replace("_", "-")
    for fits in (
        [one for one in listed if name in (one.id, one.name)],
        [one for one in listed if low in (one.flow.casefold(), str(one.data["name"]).casefold())],
        [one for one in listed if low and low in one.name.casefold()],
    ):
        if fits:
            return fits
    return []


def _near(name: str, deployed: Sequence[Deployed]) -> str:
    words = {word: one.name for one in deployed for word in (one.name, one.flow, str(one.data["name"]))}
    close = list(dict.fromkeys(words[word] for word in difflib.get_close_matches(name, words, 3)))
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return "; `routines list` shows them" if deployed else "; `routines deploy --all` puts those in deployments/ to work"
