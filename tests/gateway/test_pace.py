"""When the dispatcher looks, reads and sends again; the clock is moved by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_routines.gateway.pace import AGAIN, BACKLOG, FIRST_LOOK, LATE, READ_ALL, SLOW, Looks, Reading, step

NOW = datetime(2026, 11, 26, 9, tzinfo=UTC)


class Clock:
    """Seconds that go on when somebody says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_looks_come_soon_after_something_has_gone_out_and_then_less_and_less_often() -> None:
    """The first not before what starts the run has had its chance; never further apart than the slowest."""
    clock = Clock()
    looks = Looks(clock)
    looks.expect()
    assert not looks.due()
    apart = []
    for _ in range(6):
        before, clock.now = clock.now, clock.now + looks.left()
        apart.append(clock.now - before)
        assert looks.due()
        assert not looks.due()
    assert apart == pytest.approx([FIRST_LOOK, FIRST_LOOK, 2 * FIRST_LOOK, 4 * FIRST_LOOK, SLOW, SLOW])
    looks.expect()
    assert looks.left() == pytest.approx(FIRST_LOOK)


@given(st.lists(st.floats(0.0, 0.2), min_size=1, max_size=60))
def test_a_flood_does_not_put_off_the_look_for_what_came_first(pauses: list[float]) -> None:
    """However many events go out: a look comes within the first wait of any of them."""
    clock = Clock()
    looks = Looks(clock)
    looks.due()
    looks.expect()
    waits_since = clock.now
    for pause in pauses:
        clock.now += pause
        if looks.due():
            waits_since = clock.now
        looks.expect()
        assert clock.now - waits_since <= FIRST_LOOK + 0.2


def test_what_was_read_is_not_read_again_but_for_what_may_have_come_late() -> None:
    """All are read where nothing is known, where an event went out from elsewhere, and every few seconds."""
    clock = Clock()
    reading = Reading(clock)
    earliest = NOW - timedelta(minutes=5)
    assert reading.since(earliest, all_sent_here=True) == earliest
    reading.saw(NOW)
    assert reading.since(earliest, all_sent_here=True) == NOW - LATE
    assert reading.since(NOW, all_sent_here=True) == NOW
    assert reading.since(earliest, all_sent_here=False) == earliest
    clock.now += READ_ALL
    assert reading.since(earliest, all_sent_here=True) == earliest
    assert reading.since(earliest, all_sent_here=True) == NOW - LATE


@pytest.mark.parametrize(
    ("known", "what"),
    [
        ({"sent": 1, "waited": AGAIN[0] - 0.1}, "wait"),
        ({"sent": 1, "waited": AGAIN[0]}, "send"),
        ({"sent": len(AGAIN), "waited": AGAIN[-1] - 0.1}, "wait"),
        ({"sent": len(AGAIN), "waited": AGAIN[-1]}, "send"),
        ({"sent": len(AGAIN) + 1, "waited": 0.0}, "ask"),
        ({"sent": 1, "waited": None}, "send"),  # by another gateway, or before a restart
        ({"sent": 1, "waited": BACKLOG - 1, "moving": True}, "wait"),
        ({"sent": len(AGAIN) + 1, "waited": BACKLOG - 1, "moving": True}, "wait"),
        ({"sent": 1, "waited": BACKLOG, "moving": True}, "send"),
        ({"sent": len(AGAIN) + 1, "waited": BACKLOG, "moving": True}, "ask"),
        ({"sent": 1, "waited": None, "moving": True}, "send"),
        ({"sent": 0, "waited": None, "fire": True}, "ask"),
        ({"sent": 1, "waited": 0.0, "moving": True, "fire": True}, "ask"),
    ],
)
def test_an_event_waits_is_sent_again_and_at_last_its_run_is_asked_for(known: dict[str, float | bool | None], what: str) -> None:
    """A backlog that moves has patience, but not for ever."""
    assert step(**{"moving": False, "fire": False, **known}) == what  # type: ignore[arg-type]
