"""Moments as people write them to a monitoring service: 'now-1h', an RFC 3339 time, Unix seconds. Pure."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from prefect_routines.errors import ToolError

_STEP = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*([smhdw])\s*")
_RELATIVE = re.compile(rf"now(?:\s*-\s*((?:{_STEP.pattern})+))?\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LAST = 1e11  # seconds; what is larger can only be meant as milliseconds


def moment(text: str, argument: str, now: float | None = None) -> float:
    """Unix seconds of a moment.

    Args:
        text: 'now', 'now-15m' or 'now-1h30m' (s, m, h, d, w), an RFC 3339 time (UTC, if it has no offset), or Unix seconds or milliseconds.
        argument: Name of the argument that it comes from, for the error.
        now: Unix seconds of this moment. Default: the clock's.

    Raises:
        ToolError: It is none of these; the text tells Claude what to write.

    Example:
        >>> moment("now-1h", "start", now=7200)
        3600.0
        >>> moment("2026-03-01T12:00:00Z", "start")
        1772366400.0
    """
    text = text.strip()
    relative = _RELATIVE.match(text)
    if relative:
        back = sum(float(number) * _SECONDS[unit] for number, unit in _STEP.findall(relative[1] or ""))
        return (time.time() if now is None else now) - back
    try:
        if re.fullmatch(r"\d{1,13}(?:\.\d{1,9})?", text):
            number = float(text)
            return number / 1000 if number >= _LAST else number
        parsed = datetime.fromisoformat(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ToolError(f"{argument}: write 'now', 'now-15m', a time such as '2026-03-01T12:00:00Z', or Unix seconds") from None
