"""`routines schedule`: one run of a routine at one time; those that wait; taking one away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefect_routines.cli.terminal import MISTAKE, complain, console, note, text
from prefect_routines.errors import SettingsError

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from prefect_routines.deploying.deployed import Deployed


def schedule(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ROUTINE", help="flow/deployment, or a part of it that only one has.")],
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help='Local time, e.g. "2026-12-01 09:00".')] = None,
    zone: Annotated[str | None, typer.Option("--zone", help="IANA zone of that time. Default: that of its schedule, else here.")] = None,
    said: Annotated[str | None, typer.Option("--text", help="What the run is told; Claude reads it with `read_event`.")] = None,
    param: Annotated[list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter of that run.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show the one-off runs that wait.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Take away the one at --at, or the only one.")] = False,
) -> int:
    """Run a routine once, at a time to come. Asking again for the same time makes no second run."""
    from prefect_routines.cli.naming import with_prefect
    from prefect_routines.deploying.fire_times import zone_problem

    if listed and (cancel or at):
        raise SettingsError("--list stands alone")
    if (listed or cancel) and (said is not None or param):
        raise SettingsError("--text and --param go with a new run, not with --list or --cancel")
    if not (at or listed or cancel):
        raise SettingsError('say when with --at "2026-12-01 09:00", or use --list or --cancel')
    if zone is not None and (wrong := zone_problem(zone)):
        raise SettingsError(f"--zone: {wrong}")

    async def work(client: PrefectClient) -> int:
        from prefect_routines.cli.naming import named
        from prefect_routines.deploying.moments import instant

        deployed = await named(client, name)
        place = zone or zone_of(deployed)
        if listed:
            return _list(deployed, place)
        moment, remark = instant(at, place) if at else (None, "")
        if remark:
            note(remark)
        if cancel:
            return await _cancel(client, deployed, moment, place)
        assert moment is not None
        if moment <= datetime.now(UTC):
            from prefect_routines.deploying.moments import ahead, shown

            raise SettingsError(f"--at: {shown(moment)} is past ({ahead(moment)}); `routines run-now {deployed.name}` starts it now")
        return await _schedule(client, deployed, moment, place, said, param or [])

    return with_prefect(context, work)


def zone_of(deployed: Deployed) -> str:
    """The zone in which a routine's times are meant: that of its schedules if they have one, else this machine's."""
    from prefect_routines.deploying.moments import local_zone

    zones = {str(one["timezone"]) for one in deployed.schedules if one.get("timezone")}
    return zones.pop() if len(zones) == 1 else local_zone()


async def _schedule(client: PrefectClient, deployed: Deployed, at: datetime, zone: str, said: str | None, params: list[str]) -> int:
    from prefect.utilities.urls import url_for

    from prefect_routines.cli.naming import typed_parameters
    from prefect_routines.deploying.moments import ahead
    from prefect_routines.deploying.starting import schedule_once

    if at > datetime.now(UTC) + timedelta(days=366 * 5):
        raise SettingsError(f"--at: {at:%Y-%m-%d} is more than five years away; is the year right?")
    run, new = await schedule_once(client, deployed, at, typed_parameters(deployed, params), said)
    out = console()
    mark = "is to run once" if new else "is scheduled for that time already"
    out.print(text(("✓ ", "green"), (deployed.name, "bold"), f" {mark}: {_both(at, zone)}", (f"  {ahead(at)}", "dim")), soft_wrap=True)
    if address := url_for("flow-run", obj_id=run["id"]):
        out.print(text(f"    {address}"), soft_wrap=True)
    if deployed.paused:
        note(f"{deployed.name} is paused; that holds its schedules and triggers back, not this run")
    return 0


def _both(at: datetime, zone: str) -> str:
    """In its zone, and in UTC or this machine's zone if that is another."""
    from prefect_routines.deploying.moments import local_zone, shown

    here = local_zone()
    mine, other = shown(at, zone), shown(at, here if here != zone else "UTC")
    return mine if mine == other else f"{mine} = {other}"


def _waiting(deployed: Deployed) -> list[tuple[datetime, dict[str, Any]]]:
    runs = [(datetime.fromisoformat(run["expected_start_time"]), run) for run in deployed.one_offs]
    return sorted(runs, key=lambda pair: pair[0])


def _list(deployed: Deployed, zone: str) -> int:
    from prefect_routines.deploying.moments import ahead

    out = console()
    for at, run in _waiting(deployed):
        out.print(text(_both(at, zone), (f"  {ahead(at)}  {run['name']}", "dim")), soft_wrap=True)
    if not deployed.one_offs:
        out.print(text(f"{deployed.name} has no one-off run that waits."))
    return 0


async def _cancel(client: PrefectClient, deployed: Deployed, at: datetime | None, zone: str) -> int:
    from prefect_routines.deploying.starting import cancel_run

    waiting = _waiting(deployed)
    chosen = [(due, run) for due, run in waiting if at is None or due == at]
    if len(chosen) != 1:
        times = ", ".join(_both(due, zone) for due, _ in waiting) or "none"
        what = "there is no one-off run at that time" if at else "say which with --at" if chosen else "there is no one-off run"
        complain(f"{deployed.name}: {what}; waiting: {times}")
        return MISTAKE
    [(due, run)] = chosen
    await cancel_run(client, run)
    console().print(text(("✓ ", "green"), (deployed.name, "bold"), f" will not run on {_both(due, zone)}"), soft_wrap=True)
    return 0
