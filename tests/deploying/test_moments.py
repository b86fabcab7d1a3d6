"""Local times that a person writes: the hour that does not exist, the hour that comes twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from prefect_routines.deploying.moments import ahead, instant
from prefect_routines.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-12-01 09:00", "2026-12-01T08:00"),
        ("2026-07-01T09:00:30", "2026-07-01T07:00"),
        ("2027-03-28 01:59", "2027-03-28T00:59"),
        ("2027-03-28 03:00", "2027-03-28T01:00"),
        ("2027-10-31 01:59", "2027-10-30T23:59"),
        ("2027-10-31 03:00", "2027-10-31T02:00"),
        ("2027-10-31T02:30+01:00", "2027-10-31T01:30"),
    ],
)
def test_a_local_time_is_one_instant(text: str, utc: str) -> None:
    """Right up to both changes of the clocks; an offset makes it exact."""
    moment, remark = instant(text, "Europe/Paris")
    assert f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M}" == utc
    assert remark == ""


def test_the_skipped_hour_is_refused_with_what_may_be_meant() -> None:
    """Nobody is called at half past two on that night."""
    with pytest.raises(SettingsError, match=r"does not exist in Europe/Paris: .* CET to CEST .*; write 03:30, or 01:30"):
        instant("2027-03-28 02:30", "Europe/Paris")


def test_of_the_hour_that_comes_twice_the_first_is_taken_and_said() -> None:
    """And how to get the second."""
    moment, remark = instant("2027-10-31 02:30", "Europe/Paris")
    assert moment.astimezone(UTC) == datetime(2027, 10, 31, 0, 30, tzinfo=UTC)
    assert "the first one (CEST) is taken" in remark
    second, nothing = instant(remark.rpartition(" ")[2], "Europe/Paris")
    assert (second.astimezone(UTC) - moment.astimezone(UTC), nothing) == (timedelta(hours=1), "")


@pytest.mark.parametrize("text", ["tomorrow", "2026-12-01", "09:00", "2026-13-01 09:00", "\x1b[2J"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """In one line that shows the form."""
    with pytest.raises(SettingsError, match="2026-12-01 09:00") as refused:
        instant(text, "Europe/Paris")
    assert "\x1b" not in str(refused.value)


def test_how_far_off_a_time_is() -> None:
    """In the largest unit that still says something."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    spans = [(50, "in 50 s"), (600, "in 10 min"), (5 * 3600, "in 5 h"), (10 * 86400, "in 10 days"), (-600, "10 min ago")]
    assert [ahead(now + timedelta(seconds=seconds), now) for seconds, _ in spans] == [said for _, said in spans]
