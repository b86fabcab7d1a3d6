"""Schedules: those that never fire or in a zone nobody knows, and the times of the others over both changes of the clocks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from prefect_routines.deploying.fire_times import fire_times, in_words, schedule_problems

from .stanzas import stanza


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('cron: "0 0 30 2 *", timezone: Europe/Paris', "'0 0 30 2 *' never fires"),
        ('cron: "61 * * * *", timezone: UTC', "cron '61 * * * *': Invalid cron string"),
        ('cron: "0 10 * * 1", timezone: Europe/Pari', "there is no time zone 'Europe/Pari'; did you mean 'Europe/Paris'?"),
        ('cron: "0 10 * * 1", timezone: "+01:00"', "there is no time zone '+01:00'"),
        ('cron: "0 10 * * 1"', "no timezone: the times are UTC"),
        ("timezone: UTC", "exactly one of cron, interval and rrule"),
        ('cron: "0 10 * * 1", interval: 60', "exactly one of cron, interval and rrule"),
        ("interval: 5, timezone: UTC", "it fires every 5 s"),
        ('cron: "* * * * * */10", timezone: UTC', "it fires every 10 s"),
        ("interval: 0, timezone: UTC", "interval '0'"),
        ("rrule: FREQ=NEVER, timezone: UTC", "rrule 'FREQ=NEVER'"),
        ('rrule: "DTSTART:20200101T000000Z\\nRRULE:FREQ=DAILY;COUNT=3", timezone: UTC', "never fires"),
    ],
)
def test_a_schedule_that_is_wrong_is_told(text: str, said: str) -> None:
    """Before it is deployed: a cron that never fires deploys without a word."""
    found = [problem.text for problem in schedule_problems(stanza(f"schedules:\n  - {{{text}}}\n"))]
    assert any(said in one for one in found), found


@pytest.mark.parametrize(
    "text",
    [
        'cron: "0 0 29 2 *", timezone: UTC', 'cron: "* * * * *", timezone: UTC', "interval: 3600, timezone: UTC",
        "interval: PT1H, timezone: UTC",
        "rrule: FREQ=WEEKLY;BYDAY=MO, timezone: Europe/Paris", 'cron: "{{ prefect.variables.when }}"',
    ],
)  # fmt: skip
def test_a_schedule_that_fires_is_taken(text: str) -> None:
    """29 February comes; a template's value is Prefect's to look at."""
    assert [problem.text for problem in schedule_problems(stanza(f"schedules:\n  - {{{text}}}\n"))] == []


def test_times_are_in_the_schedules_own_zone_over_both_changes() -> None:
    """Ten o'clock stays ten o'clock."""
    weekly = {"cron": "0 10 * * 1", "timezone": "Europe/Paris"}
    spring = fire_times(weekly, 2, datetime(2027, 3, 20, tzinfo=UTC))
    assert [f"{time:%m-%d %H:%M %Z}" for time in spring] == ["03-22 10:00 CET", "03-29 10:00 CEST"]
    autumn = fire_times(weekly, 2, datetime(2027, 10, 20, tzinfo=UTC))
    assert [f"{time:%m-%d %H:%M %Z}" for time in autumn] == ["10-25 10:00 CEST", "11-01 10:00 CET"]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"cron": "0 10 * * 1", "timezone": "Europe/Paris"}, "every Monday at 10:00 Europe/Paris"),
        ({"cron": "30 2 * * *"}, "every day at 2:30 UTC"),
        ({"cron": "0 9 * * 1-5", "timezone": "UTC"}, "every weekday at 9:00 UTC"),
        ({"cron": "0 9 1 * *", "timezone": "UTC"}, "every month on day 1 at 9:00 UTC"),
        ({"cron": "*/15 * * * *"}, "every 15 minutes, UTC"),
        ({"cron": "5 * * * *"}, "every hour at :05 UTC"),
        ({"cron": "0 9,17 * * tue,thu"}, "cron 0 9,17 * * tue,thu UTC"),
        ({"cron": "0 9 * * tue,thu"}, "every Tuesday and Thursday at 9:00 UTC"),
        ({"interval": 7200.0}, "every 2 hours (UTC)"),
        ({"interval": 90}, "every 90 s (UTC)"),
    ],
)
def test_a_schedule_in_words(schedule: dict[str, object], words: str) -> None:
    """Plain ones as one says them; others as they are written."""
    assert in_words(schedule) == words
