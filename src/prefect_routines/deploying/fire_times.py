"""Schedules: what is wrong with one, what it says, and when it fires next - by Prefect's own code, so that DST is Prefect's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from prefect_routines.deploying.files import Stanza
from prefect_routines.deploying.problems import Problem, meant
from prefect_routines.visible import one_line

FASTEST = timedelta(minutes=1)


def schedule_problems(stanza: Stanza) -> Iterator[Problem]:
    """Schedules that cannot be read, never fire, fire all the time, or in a zone that nobody knows."""
    for place, written in stanza.schedules():
        if any("{{" in str(value) for value in written.values()):
            continue  # a template of Prefect's: its value is known when it is deployed
        kinds = [kind for kind in ("cron", "interval", "rrule") if written.get(kind) is not None]
        if len(kinds) != 1:
            yield stanza.problem("a schedule needs exactly one of cron, interval and rrule", *place)
            continue
        kind, zone = kinds[0], written.get("timezone")
        if zone is None:
            yield stanza.problem("no timezone: the times are UTC; write for example timezone: Europe/Paris", *place, weight="warning")
        elif (wrong := zone_problem(zone)) is not None:
            yield stanza.problem(wrong, *place, "timezone")
            continue
        try:
            times = fire_times(written, 20)
        except (ValueError, TypeError, ArithmeticError) as error:
            yield stanza.problem(f"{kind} {one_line(str(written[kind]), 60)!r}: {_reason(error)}", *place, kind)
            continue
        if not times:
            yield stanza.problem(f"{kind} {one_line(str(written[kind]), 60)!r} never fires", *place, kind)
        elif (between := min((later - earlier for earlier, later in pairwise(times)), default=FASTEST)) < FASTEST:
            every = f"every {between.total_seconds():g} s"
            yield stanza.problem(f"it fires {every}: each time a session starts that costs money", *place, kind, weight="warning")


def _reason(error: Exception) -> str:
    """What Prefect says of a schedule, in one line."""
    problems = getattr(error, "errors", None)
    said = problems(include_url=False)[0]["msg"] if callable(problems) else str(error)
    return one_line(str(said).removeprefix("Value error, "), 200) or type(error).__name__


def zone_problem(zone: Any) -> str | None:
    """Why a time zone cannot be used; None if it can.

    Example:
        >>> zone_problem("Europe/Pari")
        "there is no time zone 'Europe/Pari'; did you mean 'Europe/Paris'?"
    """
    if isinstance(zone, str) and zone in _zones():
        return None
    there = meant(str(zone), sorted(_zones()), otherwise="write it as in the IANA list, for example Europe/Paris")
    return f"there is no time zone {one_line(str(zone), 60)!r}{there}"


@cache
def _zones() -> set[str]:
    return available_timezones()


def fire_times(schedule: Mapping[str, Any], count: int, start: datetime | None = None) -> list[datetime]:
    """The next times, in the schedule's own zone; fewer when it ends, none when it never fires.

    Args:
        schedule: With `cron`, `interval` (seconds) or `rrule`, and `timezone`: as written in a file, or as Prefect has it.
        count: How many.
        start: From when on. Default: now.

    Raises:
        ValueError: Prefect cannot read it.
    """
    from prefect._vendor.croniter.croniter import CroniterBadDateError

    made = _prefects(schedule)
    zone = ZoneInfo(made.timezone or "UTC")
    try:
        found = list(made._get_dates_generator(n=count, start=start or datetime.now(UTC)))
    except CroniterBadDateError:  # 30 February: it has looked through fifty years
        return []
    # Prefect's generator gives one more than asked when its count starts at zero
    return [datetime.fromisoformat(time.isoformat()).astimezone(zone) for time in sorted(found)][:count]


def _prefects(schedule: Mapping[str, Any]) -> Any:
    """Prefect's own schedule of it; the server's kind, since that is the one which fires."""
    from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

    zone = schedule.get("timezone")
    fields = {"timezone": zone} if zone else {}
    if (cron := schedule.get("cron")) is not None:
        day_or = schedule.get("day_or")
        return CronSchedule(cron=str(cron), **fields, **({} if day_or is None else {"day_or": day_or}))
    if (interval := schedule.get("interval")) is not None:
        anchor = schedule.get("anchor_date")
        return IntervalSchedule(interval=interval, **fields, **({"anchor_date": anchor} if anchor else {}))
    rule = str(schedule.get("rrule"))
    if rule.lstrip().startswith("{"):
        return RRuleSchedule(**{**json.loads(rule), **fields})
    return RRuleSchedule(rrule=rule, **fields)


def in_words(schedule: Mapping[str, Any]) -> str:
    """A schedule as one says it, with its zone; a cron that is not plain stays a cron.

    Example:
        >>> in_words({"cron": "0 10 * * 1", "timezone": "Europe/Paris"})
        'every Monday at 10:00 Europe/Paris'
    """
    zone = schedule.get("timezone") or "UTC"
    if (interval := schedule.get("interval")) is not None:
        return f"every {_span(interval)} ({zone})"
    if (cron := schedule.get("cron")) is None:
        return f"{one_line(str(schedule.get('rrule')), 60)} ({zone})"
    return f"{_cron_words(str(cron)) or f'cron {one_line(str(cron), 60)}'} {zone}"


_DAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6, "7": 0}
_NAMES = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


def _cron_words(cron: str) -> str | None:
    """The plain ones: a time on each day, on weekdays, on days of the week, on a day of the month; every n minutes."""
    parts = cron.split()
    if len(parts) != 5 or parts[3] != "*":
        return None
    minute, hour, day, _, weekday = parts
    if minute.startswith("*/") and minute[2:].isdigit() and hour == day == weekday == "*":
        return f"every {minute[2:]} minutes,"
    if not minute.isdigit() or not (hour.isdigit() or hour == "*"):
        return None
    if hour == "*":
        return f"every hour at :{int(minute):02d}" if day == weekday == "*" else None
    if day == "*":
        days = "day" if weekday == "*" else _weekdays(weekday)
    else:
        days = f"month on day {day}" if weekday == "*" and day.isdigit() else ""
    return f"every {days} at {int(hour)}:{int(minute):02d}" if days else None


def _weekdays(written: str) -> str:
    low = written.lower()
    if low in ("1-5", "mon-fri"):
        return "weekday"
    days = [str(_DAYS.get(one, one)) for one in low.split(",")]
    return " and ".join(_NAMES[int(one)] for one in days) if all(one.isdigit() and int(one) < 7 for one in days) else ""


def _span(interval: Any) -> str:
    seconds = interval.total_seconds() if isinstance(interval, timedelta) else interval
    if not isinstance(seconds, int | float):
        return str(seconds)
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"{count} {name}s" if count != 1 else name
    return f"{seconds:g} s"
