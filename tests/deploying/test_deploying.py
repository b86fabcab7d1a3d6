"""Deployed on a real server: gated triggers, what a second deployment leaves, pauses, and the runs that Prefect schedules."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from prefect import get_client
from prefect.events import Event

from prefect_routines.deploying.deployed import Deployed, find, read_deployed
from prefect_routines.deploying.fire_times import fire_times
from prefect_routines.deploying.gating import gate_triggers, pause, unpause
from prefect_routines.gateway.targets import gate
from waiting import until_async

from .conftest import Project

TRIGGERED = """\
deployments:
  - name: a
    HEAD
    triggers:
      - name: {name}
        expect: [github.issues.opened]
        match: {{github.repository: acme/docs}}
        match_related: {{prefect.resource.role: label, github.label: "{label}"}}
        parameters: {{event: "{{{{ event.id | string }}}}", times: 3}}
        schedule_after: 0
      - {{name: "{name}-failed", expect: [prefect.flow-run.Failed], match_related: {{prefect.resource.name: nobody}}}}
      - {{name: "{name}-off", enabled: false, expect: [github.push], parameters: {{event: "{{{{ event.id | string }}}}"}}}}
"""


async def automations(name: str) -> dict[str, dict[str, Any]]:
    """Those whose name begins so, as the API has them."""
    async with get_client() as client:
        answer = await client.request("POST", "/automations/filter", json={"limit": 200})
    return {one["name"]: one for one in answer.json() if one["name"].startswith(name)}


async def read(project: Project) -> Deployed:
    async with get_client() as client:
        return find(f"{project.flow}/a", await read_deployed(client))


async def test_triggers_on_deliveries_are_gated(project: Project) -> None:
    """They demand what the gateway adds, beside all that the author wrote; Prefect's own events need no gateway."""
    deployed = (await project.deploy(TRIGGERED.format(name=project.flow, label="x")))["a"]
    found = await automations(project.flow)
    gated = found[project.flow]
    wanted = [{"prefect.resource.role": "label", "github.label": "x"}, gate(deployed.id)]
    assert [_plain(part) for part in gated["trigger"]["match_related"]] == wanted
    assert _plain(gated["trigger"]["match"]) == {"github.repository": "acme/docs"}
    assert (gated["enabled"], gated["actions"][0]["parameters"]["times"]) == (True, 3)
    assert _plain(found[f"{project.flow}-failed"]["trigger"]["match_related"]) == {"prefect.resource.name": "nobody"}
    assert not found[f"{project.flow}-off"]["enabled"]
    assert deployed.webhooks == {"github"}
    before = {name: one["updated"] for name, one in found.items()}
    async with get_client() as client:
        assert await gate_triggers(client, deployed) == 2
    assert {name: one["updated"] for name, one in (await automations(project.flow)).items()} == before


def _plain(part: dict[str, Any]) -> dict[str, Any]:
    return {label: value[0] if isinstance(value, list) and len(value) == 1 else value for label, value in part.items()}


async def test_a_gated_trigger_fires_for_what_the_gateway_lets_through_alone(project: Project) -> None:
    """The same event without the gate starts nothing; with another deployment's gate neither."""
    deployed = (await project.deploy(TRIGGERED.format(name=project.flow, label="x")))["a"]
    label = {"prefect.resource.id": "github.label.x", "prefect.resource.role": "label", "github.label": "x"}

    def event(*gates: dict[str, str]) -> Event:
        resource = {"prefect.resource.id": "github.repository.acme/docs", "github.repository": "acme/docs"}
        return Event(event="github.issues.opened", resource=resource, related=[label, *gates])  # type: ignore[arg-type]

    outside, elsewhere, through = event(), event(gate("7d0f9a3e-0000-4000-8000-000000000000")), event(gate(deployed.id))
    async with get_client() as client:
        for one in (outside, elsewhere, through):
            await client.request("POST", "/events", json=[one.model_dump(mode="json")])

        async def started() -> list[dict[str, Any]]:
            chosen = {"flow_runs": {"deployment_id": {"any_": [deployed.id]}}}
            found: list[dict[str, Any]] = (await client.request("POST", "/flow_runs/filter", json=chosen)).json()
            return found

        runs = await until_async(started, 60, every=0.2)
    assert [run["parameters"]["event"] for run in runs] == [str(through.id)]  # events are dealt with in their order


async def test_deploying_again_replaces_triggers(project: Project) -> None:
    """A gated automation still belongs to its deployment: no second one beside it, and none of a trigger that is gone."""
    await project.deploy(TRIGGERED.format(name=f"{project.flow}-one", label="x"))
    deployed = (await project.deploy(TRIGGERED.format(name=f"{project.flow}-two", label="y")))["a"]
    assert sorted(await automations(project.flow)) == [f"{project.flow}-two{end}" for end in ("", "-failed", "-off")]
    assert len(deployed.automations) == 3
    await project.deploy("deployments:\n  - name: a\n    HEAD\n")
    assert await automations(project.flow) == {}


async def test_a_pause_holds_schedules_and_triggers_back_and_lasts(project: Project) -> None:
    """Also over a new deployment; afterwards what was on is on, and what its author had switched off is off."""
    text = TRIGGERED.format(name=project.flow, label="x") + "    schedules: [{cron: '0 10 * * 1', timezone: Europe/Paris}]\n"
    await project.deploy(text)
    async with get_client() as client:
        await pause(client, await read(project))
        assert not any(one["enabled"] for one in (await automations(project.flow)).values())
        paused = await read(project)
        assert (paused.paused, paused.next_times(1)) == (True, [])
        await project.deploy(text)
        assert not any(one["enabled"] for one in (await automations(project.flow)).values())
        assert (await read(project)).paused
        await unpause(client, await read(project))
    on = {name: one["enabled"] for name, one in (await automations(project.flow)).items()}
    assert on == {project.flow: True, f"{project.flow}-failed": True, f"{project.flow}-off": False}
    again = await read(project)
    assert not again.paused
    assert len(again.next_times(5)) == 5
    assert not any(one["tags"] for one in (await automations(project.flow)).values())


async def test_what_prefect_refuses_is_told_in_one_line(project: Project) -> None:
    """With the deployment that it was about."""
    from prefect_routines.deploying.deploy import run_prefect_deploy
    from prefect_routines.errors import SettingsError

    with pytest.raises(SettingsError, match=r"Prefect did not deploy .*nowhere.* which does not exist") as refused:
        await run_prefect_deploy([{"name": "a", "entrypoint": "flows/work.py:look", "work_pool": {"name": "nowhere"}}])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("start", "end", "nightly", "weekly"),
    [
        ("2027-03-26", "2027-03-30", ["03-26 02:30 CET", "03-27 02:30 CET", None, "03-29 02:30 CEST"], ["03-29 10:00 CEST"]),
        ("2027-10-30", "2027-11-02", ["10-30 02:30 CEST", "10-31 02:30 CEST", "11-01 02:30 CET"], ["11-01 10:00 CET"]),
    ],
)
async def test_runs_that_prefect_schedules_keep_to_the_clock_over_both_changes(
    project: Project, start: str, end: str, nightly: list[str | None], weekly: list[str]
) -> None:
    """Ten o'clock stays ten o'clock; half past two comes once in the night when it comes twice, and when it does not come at all, once
    at the time that Prefect chooses - and the times that we show are those of the runs."""
    zone = ZoneInfo("Europe/Paris")
    schedules = [{"cron": "30 2 * * *", "timezone": "Europe/Paris"}, {"cron": "0 10 * * 1", "timezone": "Europe/Paris"}]
    listed = "".join(f"      - {{cron: '{one['cron']}', timezone: {one['timezone']}}}\n" for one in schedules)
    deployed = (await project.deploy(f"deployments:\n  - name: a\n    HEAD\n    schedules:\n{listed}"))["a"]
    begin, stop = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (start, end))
    async with get_client() as client:
        body = {"start_time": begin.isoformat(), "end_time": stop.isoformat(), "min_runs": 50, "max_runs": 50, "min_time": 10.0**7}
        await client.request("POST", f"/deployments/{deployed.id}/schedule", json=body)  # type: ignore[arg-type]
        times = {"after_": begin.isoformat(), "before_": stop.isoformat()}
        chosen = {"flow_runs": {"deployment_id": {"any_": [deployed.id]}, "expected_start_time": times}}
        runs = (await client.request("POST", "/flow_runs/filter", json=chosen)).json()
    made = sorted(datetime.fromisoformat(run["expected_start_time"]).astimezone(zone) for run in runs)
    shown = sorted(time for one in schedules for time in fire_times(one, 5, begin) if time <= stop)
    assert made == shown
    at_ten = [f"{moment:%m-%d %H:%M %Z}" for moment in made if moment.hour == 10]
    at_night = [f"{moment:%m-%d %H:%M %Z}" for moment in made if moment.hour != 10]
    assert at_ten == weekly
    assert len(at_night) == len(nightly)
    assert [one for one, wanted in zip(at_night, nightly, strict=True) if wanted] == [wanted for wanted in nightly if wanted]
    skipped = [one for one, wanted in zip(at_night, nightly, strict=True) if wanted is None]
    assert all(one in ("03-28 01:30 CET", "03-28 03:30 CEST") for one in skipped)
