"""When a session may make one more request."""

from __future__ import annotations

import pytest

from prefect_routines.session.budget import reached
from prefect_routines.settings import Budget

ROOM = {"turns": 0, "tokens": 0, "dollars": 0.0, "seconds": 0.0}
BUDGET = Budget(turns=3, tokens=1000, dollars=2.0, minutes=1)


@pytest.mark.parametrize(
    ("used", "says"),
    [
        ({"turns": 3}, "the budget of 3 turns is used up"),
        ({"tokens": 1000}, "the budget of 1,000 tokens is used up (1,000 used)"),
        ({"dollars": 2.0}, "the budget of $2.00 is used up ($2.00 spent)"),
        ({"seconds": 60.0}, "the budget of 1 minutes is used up"),
    ],
)
def test_each_limit_ends_it(used: dict[str, int], says: str) -> None:
    """Exactly at its limit a budget is used up, and the words say which one."""
    assert reached(BUDGET, **{**ROOM, **used}) == says  # type: ignore[arg-type]  # the names are those of ROOM


def test_just_below_all_limits_there_is_room() -> None:
    """One turn, token, cent and second less."""
    assert reached(BUDGET, turns=2, tokens=999, dollars=1.99, seconds=59) is None


def test_no_limit_for_tokens_and_dollars() -> None:
    """None means without limit; turns and minutes always have one."""
    assert reached(Budget(tokens=None, dollars=None), turns=1, tokens=10**12, dollars=10**6, seconds=1) is None
