"""When the dispatcher looks for runs, how far back it reads, and when it sends an event again. Nothing here talks to anybody."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

AGAIN = (2.0, 5.0, 10.0, 20.0)
"""Seconds between the sendings of one event; afterwards the run is asked for directly."""
BACKLOG = 90.0
"""Seconds for which an event may wait behind others that Prefect is at work on."""
SLOW = 2.0
"""Seconds between two looks for runs, at most."""
FIRST_LOOK = 0.4
"""Seconds after which a run is looked for: what starts it comes first, and a look costs the server as much as a start."""
READ_ALL = 15.0
"""Seconds in which one look at least reads all runs."""
LATE = timedelta(seconds=15)
"""A run may come to light so much after one that starts later."""

Clock = Callable[[], float]


class Looks:
    """When to look for runs: soon after an event has gone out, then less and less often.

    Args:
        clock: Gives seconds that never run backwards.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._next, self._apart = 0.0, FIRST_LOOK

    def expect(self) -> None:
        """Something has gone out. What is to come soon anyway comes no later for that, however much more goes out."""
        now, self._apart = self._clock(), FIRST_LOOK
        if not now <= self._next <= now + FIRST_LOOK:
            self._next = now + FIRST_LOOK

    def due(self) -> bool:
        """Whether to look now; if so the next time is later."""
        if self._clock() < self._next:
            return False
        self._next = self._clock() + self._apart
        self._apart = min(self._apart * 2, SLOW)
        return True

    def left(self) -> float:
        """Seconds until it is time to look."""
        return max(self._next - self._clock(), 0.05)


class Reading:
    """From when on runs are read: not again those that the last look has seen, or each look of a backlog reads all of them.

    The run of an event that went out from here is none of those. Every few seconds all are read nevertheless.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._newest: datetime | None = None
        self._all_at = clock() - READ_ALL

    def since(self, earliest: datetime, *, all_sent_here: bool) -> datetime:
        """Where this look begins.

        Args:
            earliest: When the run that is missing longest can have been made.
            all_sent_here: The events of all that are missing went out from here, after what was read before.
        """
        now = self._clock()
        if self._newest is not None and now - self._all_at < READ_ALL and all_sent_here:
            return max(earliest, self._newest - LATE)
        self._all_at = now
        return earliest

    def saw(self, newest: datetime) -> None:
        """The newest run of a look, by Prefect's clock."""
        self._newest = newest


def step(*, sent: int, waited: float | None, moving: bool, fire: bool) -> Literal["wait", "send", "ask"]:
    """What to do about a delivery whose run is not there yet: wait, send its event once more, or ask for the run itself.

    Args:
        sent: How often its event has gone out.
        waited: Seconds since it last did; None if that was before this gateway started, or from another one.
        moving: Prefect is making runs of others: it is at work on what it has, and this one's turn is to come. More of the same would
            hold it up, and a run that is asked for now would soon be one of two.
        fire: The delivery names its deployment: no trigger is waited for.

    Example:
        >>> step(sent=1, waited=3.0, moving=False, fire=False)
        'send'
        >>> step(sent=1, waited=3.0, moving=True, fire=False)
        'wait'
    """
    if fire:
        return "ask"
    if moving and waited is not None and waited < BACKLOG:
        return "wait"
    if sent > len(AGAIN):
        return "ask"
    return "send" if waited is None or waited >= AGAIN[sent - 1] else "wait"
