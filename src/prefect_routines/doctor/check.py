"""A check as a value: a name, and a look that ends in a finding; many of them side by side, each bounded in time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from prefect_routines.errors import RoutinesError
from prefect_routines.visible import one_line

T = TypeVar("T")
Status = Literal["ok", "warn", "red"]
REMEDY_MARKS = (" Remedy: ", "; ", ": run ", ", run ", ": set ", ": apt-get ", ": pip ")
"""What stands in the one line of an error between what happened and what to do."""


@dataclass(frozen=True)
class Finding:
    """What a check came to.

    Args:
        status: `ok`; `warn`: it works, but look at it; `red`: runs fail or stay away.
        saw: What was seen.
        remedy: What to do; empty when all is well.
    """

    status: Status
    saw: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """One matter to look at.

    Args:
        name: What it is about, a few words.
        look: Looks and tells; it may raise any error, which is then the finding.
        remedy: What to do where an error does not say so itself, or nothing is heard.
        seconds: How long it may take.

    Example:
        ```python
        Check("git", look_at_git, "apt-get install git", seconds=5)
        ```
    """

    name: str
    look: Callable[[], Awaitable[Finding]]
    remedy: str
    seconds: float = 20.0


class Result(NamedTuple):
    """A check's name and its finding."""

    name: str
    finding: Finding

    def data(self) -> dict[str, str]:
        """For programs."""
        return {"check": self.name, "status": self.finding.status, "saw": self.finding.saw, "remedy": self.finding.remedy}


def ok(saw: str) -> Finding:
    """All is well."""
    return Finding("ok", saw)


def warn(saw: str, remedy: str) -> Finding:
    """It works, but somebody should look."""
    return Finding("warn", saw, remedy)


def red(saw: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding("red", saw, remedy)


def trouble(error: BaseException, remedy: str) -> Finding:
    """An error as a finding. Ours say in one line what happened and what to do; this takes the two apart.

    Args:
        remedy: For errors that do not say what to do.
    """
    if not isinstance(error, RoutinesError):
        return red(one_line(f"{type(error).__name__}: {error}", 400), remedy)
    text = one_line(str(error), 900)
    for mark in REMEDY_MARKS:
        saw, found, rest = text.rpartition(mark)
        if found:
            return red(saw.rstrip("."), f"{mark.lstrip(':, ')}{rest}" if mark not in REMEDY_MARKS[:2] else rest)
    return red(text, remedy)


async def examine(checks: Iterable[Check], on_begin: Callable[[str], None], on_end: Callable[[Result], None]) -> list[Result]:
    """Look at everything side by side; the results stand in the order of the checks.

    Args:
        checks: What to look at.
        on_begin: Called with the name of each.
        on_end: Called with each result as it comes.
    """

    async def one(check: Check) -> Result:
        on_begin(check.name)
        result = Result(check.name, await _bounded(check))
        on_end(result)
        return result

    return list(await asyncio.gather(*map(one, checks)))


async def _bounded(check: Check) -> Finding:
    """The finding, or that there was none in time: then the look is left behind, even if it does not let itself be cancelled."""
    looking = asyncio.ensure_future(check.look())
    done, _ = await asyncio.wait([looking], timeout=check.seconds)
    if not done:
        looking.cancel()
        looking.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody waits for it any more
        return red(f"no answer within {check.seconds:g} s", check.remedy)
    try:
        return looking.result()
    except asyncio.CancelledError:
        return red("it was interrupted", check.remedy)
    except ExceptionGroup as several:  # looks side by side: one reason is enough
        return trouble(several.exceptions[0], check.remedy)
    except Exception as error:
        return trouble(error, check.remedy)


async def in_thread(work: Callable[[], T]) -> T:
    """Do blocking work in a thread that does not keep the process alive: it may hang, as an import or a look-up of a name can."""
    loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def run() -> None:
        try:
            value, error = work(), None
        except BaseException as caught:
            value, error = None, caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, future, value, error)

    threading.Thread(target=run, name="doctor", daemon=True).start()
    result: T = await future
    return result


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if isinstance(error, Exception):
        future.set_exception(error)
    elif error is not None:
        future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
    else:
        future.set_result(value)
