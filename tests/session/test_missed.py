"""Missed fire times: of the runs that are due at once after an outage, exactly those work that the setting names."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Pending, Running

from prefect_routines.session.missed import missed

pytestmark = pytest.mark.usefixtures("prefect_server")
BEGIN = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)  # a Monday in the past: what Prefect's scheduler does now stays out of it


class Outage:
    """A deployment whose server was down: all of its runs are due."""

    def __init__(self, client: PrefectClient, deployment_id: str, runs: Sequence[FlowRun]) -> None:
        self.client, self.deployment_id, self.runs = client, deployment_id, runs

    @classmethod
    async def make(cls, client: PrefectClient, *crons: str, hours: int = 4) -> Outage:
        """A deployment with these schedules, and the runs that Prefect makes for the hours after `BEGIN`."""

        @flow(name=f"missed-{uuid.uuid4().hex[:8]}")
        def work() -> None: ...

        flow_id = await client.create_flow(work)
        schedules = [{"schedule": {"cron": cron, "timezone": "Europe/Paris"}, "active": True} for cron in crons]
        body = {"name": "a", "flow_id": str(flow_id), "paused": True, "schedules": schedules}
        made = (await client.request("POST", "/deployments/", json=body)).json()
        end = BEGIN + timedelta(hours=hours) - timedelta(minutes=1)
        window: Any = {"start_time": BEGIN.isoformat(), "end_time": end.isoformat(), "min_runs": 50, "max_runs": 50}
        await client.request("POST", "/deployments/{id}/schedule", path_params={"id": made["id"]}, json=window)
        return cls(client, made["id"], await cls._read(client, made["id"], end))

    @staticmethod
    async def _read(client: PrefectClient, deployment_id: str, end: datetime) -> list[FlowRun]:
        times = {"after_": BEGIN.isoformat(), "before_": end.isoformat()}
        chosen = {"deployment_id": {"any_": [deployment_id]}, "expected_start_time": times}
        found = (await client.request("POST", "/flow_runs/filter", json={"flow_runs": chosen, "sort": "EXPECTED_START_TIME_ASC"})).json()
        return [FlowRun.model_validate(one) for one in found]

    async def decide(self, policy: Any, now: datetime) -> list[str | None]:
        """What all of them decide, at the same instant."""
        return list(await asyncio.gather(*(missed(run, policy, now=now) for run in self.runs)))


async def test_only_the_newest_of_those_that_are_due_works() -> None:
    """However many begin at once: not none, not two. What is still to come makes nobody give way."""
    async with get_client() as client:
        outage = await Outage.make(client, "0 * * * *")
        assert len(outage.runs) == 4
        *older, newest = await outage.decide("newest", BEGIN + timedelta(days=3))
        assert newest is None
        assert [why and why.partition(";")[0] for why in older] == [
            f"skipped: missed fire time of 2026-03-02 {hour}:00 CET" for hour in (10, 11, 12)
        ]
        assert f"the run of 2026-03-02 13:00 CET ({outage.runs[3].name}) stands for it" in str(older[0])
        on_time = await outage.decide("newest", BEGIN + timedelta(hours=1, seconds=5))
        assert [why is None for why in on_time] == [False, True, True, True]


async def test_each_works_when_all_are_wanted() -> None:
    """`all` makes up for every one."""
    async with get_client() as client:
        outage = await Outage.make(client, "0 * * * *")
        assert await outage.decide("all", BEGIN + timedelta(days=3)) == [None] * 4


async def test_a_late_one_is_skipped_when_that_is_wanted() -> None:
    """Within half the time to the next one it still begins; never later than an hour."""
    async with get_client() as client:
        outage = await Outage.make(client, "0 * * * *")
        due = outage.runs[-2].expected_start_time
        assert due is not None
        [*_, in_time, _] = await outage.decide("skip", due + timedelta(minutes=29))
        assert in_time is None
        [*_, late, _] = await outage.decide("skip", due + timedelta(minutes=31))
        assert late is not None
        assert "it is 31 min late, and `missed: skip` lets a run begin up to 30 min late" in late
        daily = await Outage.make(client, "0 11 * * *")
        assert [why is None for why in await daily.decide("skip", BEGIN + timedelta(hours=1, minutes=59))] == [True]
        assert [why is None for why in await daily.decide("skip", BEGIN + timedelta(hours=2, minutes=1))] == [False]


async def test_schedules_of_one_deployment_do_not_stand_for_each_other() -> None:
    """A nightly and an hourly one may do different work: each has its newest."""
    async with get_client() as client:
        outage = await Outage.make(client, "0 * * * *", "30 11 * * *")
        decided = await outage.decide("newest", BEGIN + timedelta(days=3))
        works = [f"{run.expected_start_time:%H:%M}" for run, why in zip(outage.runs, decided, strict=True) if why is None]
        assert works == ["10:30", "12:00"]


async def test_what_a_newer_one_has_come_to_does_not_matter_unless_it_was_taken_away() -> None:
    """It may be running or over; one that a person cancelled before it began stands for nothing."""
    async with get_client() as client:
        outage = await Outage.make(client, "0 * * * *", hours=2)
        later, now = outage.runs[1], BEGIN + timedelta(days=3)
        await client.set_flow_run_state(later.id, Pending(), force=True)
        await client.set_flow_run_state(later.id, Running(), force=True)
        assert (await outage.decide("newest", now))[0] is not None
        fresh = await Outage.make(client, "0 * * * *", hours=2)
        await client.set_flow_run_state(fresh.runs[1].id, Cancelled(), force=True)
        assert (await fresh.decide("newest", now))[0] is None


async def test_a_schedule_that_was_switched_off_or_replaced() -> None:
    """Switched off, nothing of it is made up for. Deployed anew, the newest of all that are due works."""
    async with get_client() as client:
        outage = await Outage.make(client, "0 * * * *", hours=2)
        [schedule] = await client.read_deployment_schedules(outage.deployment_id)  # type: ignore[arg-type]
        await client.update_deployment_schedule(outage.deployment_id, schedule.id, active=False)  # type: ignore[arg-type]
        why = await outage.decide("newest", BEGIN + timedelta(days=3))
        assert "its schedule was switched off meanwhile" in str(why[1])
        deployment = (await client.request("GET", "/deployments/{id}", path_params={"id": outage.deployment_id})).json()
        anew = {"cron": "5 * * * *", "timezone": "Europe/Paris"}
        body = {"name": "a", "flow_id": deployment["flow_id"], "paused": True, "schedules": [{"schedule": anew, "active": True}]}
        await client.request("POST", "/deployments/", json=body)
        assert (await client.read_deployment_schedules(outage.deployment_id))[0].id != schedule.id  # type: ignore[arg-type]
        decided = await outage.decide("newest", BEGIN + timedelta(days=3))
        assert [why is None for why in decided] == [False, True]


async def test_only_runs_of_schedules_that_have_not_begun_can_be_skipped() -> None:
    """What a person or a trigger started works, and so does a run that is resumed or tried again."""
    async with get_client() as client:
        outage = await Outage.make(client, "0 * * * *")
        now, oldest = BEGIN + timedelta(days=3), outage.runs[0]
        assert await missed(oldest.model_copy(update={"run_count": 2}), "newest", now=now) is None
        asked = await client.create_flow_run_from_deployment(outage.deployment_id)  # type: ignore[arg-type]
        assert await missed(asked, "skip", now=now) is None
