"""Checks side by side: each ends in a finding, in time, whatever its look does."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from prefect_routines.doctor.check import Check, Finding, Result, examine, in_thread, ok, trouble
from prefect_routines.errors import RepositoryError, RoutinesError, SandboxUnavailable, SettingsError


async def _well() -> Finding:
    return ok("it is there")


async def _results(*checks: Check) -> list[Result]:
    return await examine(checks, lambda name: None, lambda result: None)


async def test_results_stand_in_the_order_of_the_checks() -> None:
    """However long each takes; who watches hears of each as it begins and ends."""
    heard: list[str] = []
    second = asyncio.Event()

    async def slowly() -> Finding:
        await second.wait()
        return ok("at last")

    def ended(result: Result) -> None:
        heard.append(result.name)
        second.set()

    checks = [Check("first", slowly, ""), Check("second", _well, "")]
    results = await examine(checks, lambda name: heard.append(f"begin {name}"), ended)
    assert [result.name for result in results] == ["first", "second"]
    assert heard == ["begin first", "begin second", "second", "first"]


async def test_a_look_that_hangs_is_a_red_line() -> None:
    """Also one that does not let itself be cancelled; the others are not held up."""

    async def stubborn() -> Finding:
        while not released.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                cancelled.append(True)
        return ok("too late")

    released, cancelled = asyncio.Event(), list[bool]()
    began = time.monotonic()
    hung, well = await _results(Check("service", stubborn, "switch it on", 0.3), Check("other", _well, ""))
    assert time.monotonic() - began < 5
    assert hung.finding == Finding("red", "no answer within 0.3 s", "switch it on")
    assert well.finding.status == "ok"
    released.set()


async def test_a_thread_that_hangs_is_a_red_line() -> None:
    """An import that never ends, a look-up of a name: the process does not wait for them."""
    release = threading.Event()

    async def look() -> Finding:
        return await in_thread(lambda: ok(str(release.wait(60))))

    [result] = await _results(Check("code", look, "mend it", 0.2))
    assert result.finding.saw == "no answer within 0.2 s"
    [stuck] = [thread for thread in threading.enumerate() if thread.name == "doctor"]
    assert stuck.daemon
    release.set()
    stuck.join(10)


async def test_what_a_thread_raises_arrives() -> None:
    """As if it had been raised here; a module that exits is no reason to end the doctor."""

    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        await in_thread(leave)


@pytest.mark.parametrize(
    ("error", "saw", "remedy"),
    [
        (SettingsError("there is no block 'a/b' (see x); create it with y"), "there is no block 'a/b' (see x)", "create it with y"),
        (SandboxUnavailable("it cannot be built: no. Remedy: sysctl; or this"), "it cannot be built: no", "sysctl; or this"),
        (RepositoryError("docs", "gone"), "repository docs: gone", "the usual"),
        (SettingsError("no login: set KEY"), "no login", "set KEY"),
        (ValueError("odd"), "ValueError: odd", "the usual"),
    ],
)
def test_an_error_is_taken_apart(error: Exception, saw: str, remedy: str) -> None:
    """Our errors say what happened and what to do in one line; those that do not get the usual remedy of their check."""
    assert trouble(error, "the usual") == Finding("red", saw, remedy)


async def test_text_of_others_stays_on_its_line() -> None:
    """What a service said is one line without hidden characters."""

    async def look() -> Finding:
        raise RoutinesError("first\nsecond\x1b[31m")

    [result] = await _results(Check("service", look, "x"))
    assert "\n" not in result.finding.saw
    assert "\x1b" not in result.finding.saw


async def test_of_several_reasons_one_is_told() -> None:
    """Looks that are made side by side raise a group."""

    async def look() -> Finding:
        raise ExceptionGroup("both", [SettingsError("wrong; mend it"), SettingsError("other")])

    [result] = await _results(Check("service", look, "x"))
    assert result.finding == Finding("red", "wrong", "mend it")
