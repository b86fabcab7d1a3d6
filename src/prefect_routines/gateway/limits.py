"""How much a sender may take: requests per minute, bytes, seconds, room in memory."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect_routines.errors import RoutinesError
from prefect_routines.gateway.body import BodyError, Incoming

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from prefect_routines.gateway.signatures import Headers

SMALL = 65_536
"""Bytes of a body that are read and checked whoever sends them: that costs less than a millisecond."""
_MOST_KEYS = 10_000


class TooMany(RoutinesError):
    """A sender has used up what it may; `seconds` until it may again."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class Busy(RoutinesError):
    """There is no room for a request now; a moment later there will be."""


class Disconnected(RoutinesError):
    """The sender went away before it had sent everything. Nobody is there to be answered."""


class Rates:
    """Token buckets, one for each key: `per_minute` at once, and then as many in a minute.

    Each process counts for itself. The keys that were not used longest are forgotten when there are too many.

    Example:
        >>> rates = Rates(clock=lambda: 0.0)
        >>> [rates.take("github", 2) for _ in range(3)]
        [0.0, 0.0, 30.0]
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def left(self, key: str, per_minute: int) -> float:
        """How many may come now, with fractions."""
        level, at = self._buckets.get(key, (float(per_minute), 0.0))
        return min(float(per_minute), level + (self._clock() - at) * per_minute / 60)

    def wait(self, key: str, per_minute: int) -> float:
        """Seconds until the next one may come; nothing is taken."""
        return max(0.0, 1 - self.left(key, per_minute)) * 60 / per_minute

    def take(self, key: str, per_minute: int) -> float:
        """Take one. Seconds to wait if there was none; 0 if it was there."""
        seconds = self.wait(key, per_minute)
        if seconds == 0:
            self._buckets[key] = (self.left(key, per_minute) - 1, self._clock())
            self._buckets.move_to_end(key)
            if len(self._buckets) > _MOST_KEYS:
                self._buckets.popitem(last=False)
        return seconds


@dataclass(frozen=True)
class Limits:
    """What holds for all requests.

    Args:
        body: Most bytes of a body.
        seconds: For a whole request to arrive.
        idle: Seconds without a byte.
        concurrent: Requests worked on at the same time.
        large: Bodies over `SMALL` in memory at the same time; parsed, one takes several times its size.
        failures: Wrong signatures and tokens from one address in a minute.
        fires: Fire calls for one routine in a minute.
        commit: Seconds to wait for the store. GitHub gives up after 10 in all.
        streams: People and programs that watch sessions at the same time.
        linger: Seconds for which the rest of a refused body is thrown away, so that its sender gets to read why.
    """

    body: int = 25_000_000
    seconds: float = 30.0
    idle: float = 10.0
    concurrent: int = 200
    large: int = 6
    failures: int = 60
    fires: int = 120
    commit: float = 7.0
    streams: int = 100
    linger: float = 3.0


class Room:
    """Counts what is in use, and says no instead of letting a queue grow."""

    def __init__(self, places: int, what: str) -> None:
        self._free, self._what = places, what

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for the time of the block.

        Raises:
            Busy: All are taken.
        """
        if not self._free:
            raise Busy(f"{self._what}; send it again in a few seconds")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


@asynccontextmanager
async def reading(
    receive: Callable[[], Awaitable[Any]], headers: Headers, limits: Limits, large: Room, allowed: Callable[[], None]
) -> AsyncIterator[bytes]:
    """Read a body, and keep room for it while the block works with it.

    Args:
        receive: ASGI's.
        large: Room for bodies over `SMALL`.
        allowed: Called before more than `SMALL` bytes are read; raises what refuses that.

    Raises:
        BodyError: Too large, compressed, too slow.
        Busy: Too many large bodies.
        Disconnected: The sender went away.
    """
    incoming = Incoming(headers, limits.body)
    held = None
    try:
        async with asyncio.timeout(limits.seconds):
            size, more = 0, True
            while more:
                async with asyncio.timeout(limits.idle):
                    message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected("the sender went away")
                size += len(message.get("body", b""))
                if size > SMALL and held is None:
                    allowed()
                    held = large.place()
                    held.__enter__()
                incoming.feed(message.get("body", b""))
                more = message.get("more_body", False)
    except TimeoutError:
        if held is not None:
            held.__exit__(None, None, None)
        raise BodyError(408, f"the body did not arrive within {limits.idle:g} s without a pause and {limits.seconds:g} s in all") from None
    except BaseException:
        if held is not None:
            held.__exit__(None, None, None)
        raise
    try:
        yield incoming.raw()
    finally:
        if held is not None:
            held.__exit__(None, None, None)
