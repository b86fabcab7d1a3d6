"""Looks again and again until something holds: what other processes do sets no event in this one."""

from __future__ import annotations

import asyncio
import inspect
import time
import urllib.request
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")


def until(look: Callable[[], T | None], seconds: float = 120, what: str | Callable[[], object] = "", *, every: float = 0.05) -> T:
    """What `look` finds, as soon as that is true.

    Args:
        seconds: How long it may take.
        what: What did not come, for whoever reads the failure; or what says it then.
        every: Seconds between two looks.

    Raises:
        AssertionError: It did not come in time.
    """
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, _late(seconds, what)
        time.sleep(every)
    return found


@overload
async def until_async(
    look: Callable[[], Awaitable[T | None]], seconds: float = 120, what: str | Callable[[], object] = "", *, every: float = 0.02
) -> T: ...


@overload
async def until_async(
    look: Callable[[], T | None], seconds: float = 120, what: str | Callable[[], object] = "", *, every: float = 0.02
) -> T: ...


async def until_async(
    look: Callable[[], object], seconds: float = 120, what: str | Callable[[], object] = "", *, every: float = 0.02
) -> object:
    """The same in an event loop, which goes on meanwhile; `look` may be a coroutine function."""
    deadline = time.monotonic() + seconds
    while not (found := await _looked(look)):
        assert time.monotonic() < deadline, _late(seconds, what)
        await asyncio.sleep(every)
    return found


async def _looked(look: Callable[[], object]) -> object:
    found = look()
    return await found if inspect.isawaitable(found) else found


def answers(address: str) -> bool:
    """Whether a server answers there, and well; for the moment when it has just been started."""
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


def _late(seconds: float, what: str | Callable[[], object]) -> str:
    return f"not within {seconds:g} s: {what() if callable(what) else what}"
