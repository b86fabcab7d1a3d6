"""Missed fire times: after an outage all runs that Prefect had scheduled meanwhile are due at once; this decides which of them work.

Prefect schedules runs ahead, and those whose time passes while no server or worker is there are late, all of them
(https://docs.prefect.io/v3/concepts/schedules). The decision rests on their expected start times alone, so that any number of late
runs that start at the same instant come to the same one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import DeploymentSchedule, FlowRun

Missed = Literal["newest", "skip", "all"]
ON_TIME, AT_MOST = timedelta(minutes=10), timedelta(hours=1)
PAGE = 100


async def missed(run: FlowRun, policy: Missed, *, now: datetime | None = None) -> str | None:
    """Whether a run that its schedule started is to be skipped, and why; None when it is to work.

    Args:
        run: The flow run that is about to begin. Runs that no schedule made, and those that had begun before, always go on.
        policy: `newest`: of several that are due only the newest works. `skip`: nor does that one when it is late - later than ten
            minutes, or than half the time to the next one if that is more, but an hour at most. `all`: each works.
        now: For tests; default: now.

    Returns:
        A line for the run's final state, such as `skipped: missed fire time of 2027-03-01 10:00 CET; ...`.

    Example:
        ```python
        if (why := await missed(flow_run, settings.missed)) is not None:
            return Cancelled(message=why)
        ```
    """
    from prefect import get_client

    due: datetime | None = run.expected_start_time
    if policy == "all" or run.run_count > 1 or not _by_schedule(run) or run.deployment_id is None or due is None:
        return None
    now = now or datetime.now(UTC)
    async with get_client() as client:
        schedules = {str(schedule.id): schedule for schedule in await client.read_deployment_schedules(run.deployment_id)}
        mine = schedules.get(_schedule_of(run))
        begun = f"skipped: missed fire time of {_shown(due, mine)}"
        if newer := await _newer(client, run, due, now, set(schedules)):
            assert newer.expected_start_time is not None
            return f"{begun}; the run of {_shown(newer.expected_start_time, mine)} ({one_line(newer.name)}) stands for it"
        late = now - due
        if mine is not None and not mine.active and late > ON_TIME:
            return f"{begun}; its schedule was switched off meanwhile"
        if policy == "skip" and late > (grace := await _grace(client, run, due)):
            return f"{begun}; it is {_span(late)} late, and `missed: skip` lets a run begin up to {_span(grace)} late"
    return None


def _by_schedule(run: FlowRun) -> bool:
    return bool(run.auto_scheduled) and run.created_by is not None and run.created_by.type == "SCHEDULE"


def _schedule_of(run: FlowRun) -> str:
    return str(run.created_by.id) if run.created_by is not None else ""


async def _newer(client: PrefectClient, run: FlowRun, due: datetime, now: datetime, known: set[str]) -> FlowRun | None:
    """The newest run of the same schedule that is due, if it is newer than this one; also when it has begun or ended.

    Deploying again replaces schedules: a run whose schedule is gone gives way to any newer one of its deployment.
    """
    from prefect.client.schemas.sorting import FlowRunSort

    gone = _schedule_of(run) not in known
    offset = 0
    while found := await _runs(client, run, due, now, FlowRunSort.EXPECTED_START_TIME_DESC, offset):
        for other in found:
            same = gone or _schedule_of(other) == _schedule_of(run)
            taken_away = other.state_type is not None and other.state_type.value == "CANCELLED" and not other.run_count
            if other.id != run.id and _by_schedule(other) and same and not taken_away and (other.expected_start_time or due) > due:
                return other
        offset += len(found)
    return None


async def _grace(client: PrefectClient, run: FlowRun, due: datetime) -> timedelta:
    """How late a run may begin: half the time to the next one of its schedule, within ten minutes and an hour."""
    from prefect.client.schemas.sorting import FlowRunSort

    following = await _runs(client, run, due, None, FlowRunSort.EXPECTED_START_TIME_ASC, 0)
    mine = [other for other in following if _by_schedule(other) and _schedule_of(other) == _schedule_of(run)]
    times: list[datetime] = [other.expected_start_time for other in mine if other.expected_start_time]
    waits = [(time - due) / 2 for time in times if time > due]
    return max(ON_TIME, min(AT_MOST, *waits[:1] or [AT_MOST]))


async def _runs(client: PrefectClient, run: FlowRun, after: datetime, before: datetime | None, sort: object, offset: int) -> list[FlowRun]:
    from prefect.client.schemas import filters

    deployment = filters.FlowRunFilterDeploymentId(any_=[run.deployment_id]) if run.deployment_id else None
    times = filters.FlowRunFilterExpectedStartTime(after_=after, before_=before)
    chosen = filters.FlowRunFilter(deployment_id=deployment, expected_start_time=times)
    return await client.read_flow_runs(flow_run_filter=chosen, sort=sort, limit=PAGE, offset=offset)  # type: ignore[arg-type]


def _shown(moment: datetime, schedule: DeploymentSchedule | None) -> str:
    """A fire time in the schedule's own zone."""
    from zoneinfo import ZoneInfo

    zone = getattr(schedule.schedule, "timezone", None) if schedule is not None else None
    return f"{moment.astimezone(ZoneInfo(zone or 'UTC')):%Y-%m-%d %H:%M %Z}"


def _span(span: timedelta) -> str:
    minutes = round(span.total_seconds() / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 60 / 24:.0f} days"
