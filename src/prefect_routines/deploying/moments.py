"""A local time as a person writes it, made an instant; the hours that a clock skips or repeats are told. Pure."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from prefect_routines.errors import SettingsError
from prefect_routines.visible import one_line


def instant(text: str, zone: str) -> tuple[datetime, str]:
    """The instant of a local time, in its zone, and a remark where there were two to choose from.

    Args:
        text: `2026-12-01 09:00`, with seconds if you like; an offset (`+01:00`) makes it exact.
        zone: IANA name.

    Raises:
        SettingsError: It is no time, or one that the zone's clocks skip; the message says what may be meant.

    Example:
        >>> instant("2026-12-01 09:00", "Europe/Paris")[0].isoformat()
        '2026-12-01T09:00:00+01:00'
    """
    try:
        written = datetime.fromisoformat(text.strip())
    except ValueError:
        raise SettingsError(f"--at {one_line(text, 60)!r} is no time; write it as 2026-12-01 09:00") from None
    if len(text.strip()) <= len("2026-12-01"):
        raise SettingsError(f"--at {one_line(text, 60)!r} has no time of day; write it as 2026-12-01 09:00")
    place = ZoneInfo(zone)
    if written.tzinfo is not None:
        return written.astimezone(place), ""
    first, second = written.replace(tzinfo=place, fold=0), written.replace(tzinfo=place, fold=1)
    if first.utcoffset() == second.utcoffset():
        return first, ""
    if first.astimezone(UTC).astimezone(place).replace(tzinfo=None) != written:  # neither reading comes back as it was written
        after, before = (one.astimezone(UTC).astimezone(place) for one in (first, second))
        raise SettingsError(
            f"--at: {written:%Y-%m-%d %H:%M} does not exist in {zone}: the clocks go from {before:%Z} to {after:%Z} and skip it; "
            f"write {after:%H:%M}, or {before:%H:%M} for before the change"
        )
    again = f"{second:%Y-%m-%dT%H:%M}{_offset(second)}"
    return first, f"{written:%H:%M} comes twice that day; the first one ({first:%Z}) is taken. For the second write --at {again}"


def _offset(moment: datetime) -> str:
    text = f"{moment:%z}"
    return f"{text[:3]}:{text[3:5]}"


def local_zone() -> str:
    """The IANA name of this machine's zone; UTC if it does not tell."""
    named = os.environ.get("TZ", "").lstrip(":")
    if not named:
        parts = Path("/etc/localtime").resolve().parts
        named = "/".join(parts[parts.index("zoneinfo") + 1 :]) if "zoneinfo" in parts else ""
    try:
        return ZoneInfo(named).key if named else "UTC"
    except (ValueError, OSError, LookupError):
        return "UTC"


def shown(moment: datetime, zone: str | None = None) -> str:
    """A time for a person: `Mon 2027-03-29 10:00 CEST`.

    Args:
        zone: In which zone; default: its own.
    """
    return f"{moment.astimezone(ZoneInfo(zone)) if zone else moment:%a %Y-%m-%d %H:%M %Z}"


def ahead(moment: datetime, now: datetime | None = None) -> str:
    """How far off a time is: `in 3 h`, `2 days ago`."""
    distance = moment - (now or datetime.now(UTC))
    seconds = abs(distance.total_seconds())
    sizes = ((timedelta(days=2), 86400, "days"), (timedelta(hours=2), 3600, "h"), (timedelta(minutes=2), 60, "min"))
    size, word = next(((size, word) for limit, size, word in sizes if seconds >= limit.total_seconds()), (1, "s"))
    span = f"{seconds / size:.0f} {word}"
    return f"in {span}" if distance > timedelta(0) else f"{span} ago"
