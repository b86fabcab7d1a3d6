"""Moments as Claude may write them."""

from __future__ import annotations

import pytest

from prefect_routines.connectors.moment import moment
from prefect_routines.errors import ToolError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("now", 1_000_000),
        ("now-90s", 999_910),
        (" now - 2h ", 992_800),
        ("now-1w", 395_200),
        ("now-2h45m", 990_100),
        ("now-1.5h", 994_600),
        ("1772366400", 1_772_366_400),
        ("1772366400.5", 1_772_366_400.5),
        ("1772366400500", 1_772_366_400.5),
        ("2026-03-01T12:00:00Z", 1_772_366_400),
        ("2026-03-01T13:00:00+01:00", 1_772_366_400),
        ("2026-03-01T12:00:00", 1_772_366_400),
        ("2026-03-01", 1_772_323_200),
    ],
)
def test_moments_are_read(text: str, seconds: float) -> None:
    """Relative to now, with an offset or without, in seconds or milliseconds."""
    assert moment(text, "start", now=1_000_000) == seconds


@pytest.mark.parametrize(
    "text", ["", "yesterday", "now+1h", "now-1y", "-5", "1e9", "nan", "99999999999999999999", "now-99999999d", "12:00"]
)
def test_what_is_no_moment_is_told(text: str) -> None:
    """With the argument's name and what to write instead."""
    with pytest.raises(ToolError, match="start: write 'now', 'now-15m'"):
        moment(text, "start")
