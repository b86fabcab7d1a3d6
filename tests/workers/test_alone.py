"""What goes wrong in one piece of a worker's work ends there: the worker goes on, and says what it was."""

from __future__ import annotations

import asyncio
import logging
from uuid import uuid4

import anyio
import httpx
import pytest
from anyio._backends._asyncio import _task_states

from prefect_routines.workers.prefect_internals import EachAlone, tried_again
from prefect_routines.workers.worker import RoutinesWorker


async def _still_works(worker: RoutinesWorker) -> bool:
    done = asyncio.Event()

    async def work() -> None:
        done.set()

    assert worker._runs_task_group is not None
    worker._runs_task_group.start_soon(work)
    async with asyncio.timeout(20):
        await done.wait()
    return True


@pytest.mark.parametrize("error", [asyncio.CancelledError, ValueError, TimeoutError], ids=lambda error: error.__name__)
async def test_a_task_of_the_worker_that_ends_badly_takes_nothing_with_it(
    prefect_server: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """Most of all a cancellation that nobody asked for: with it anyio would end the worker without a word."""
    ended = asyncio.Event()

    async def breaks() -> None:
        try:
            raise error
        finally:
            ended.set()

    logging.getLogger("prefect").addHandler(caplog.handler)  # its loggers propagate to no other
    async with RoutinesWorker(work_pool_name=f"alone-{uuid4().hex[:8]}", name="alone") as worker:
        assert worker._runs_task_group is not None
        worker._runs_task_group.start_soon(breaks)
        await ended.wait()
        assert await _still_works(worker)
    logging.getLogger("prefect").removeHandler(caplog.handler)
    assert "the worker goes on" in caplog.text
    assert "breaks" in caplog.text


async def test_what_fails_before_it_has_begun_is_the_callers() -> None:
    """And what fails afterwards is nobody's but its own; a cancellation that was asked for is one."""

    async def fails_at_once(task_status: anyio.abc.TaskStatus[int]) -> None:
        raise error

    async def fails_later(task_status: anyio.abc.TaskStatus[int]) -> None:
        task_status.started(1)
        raise error

    error: BaseException
    for error in (ValueError("x"), asyncio.CancelledError()):  # noqa: B007 - the functions above raise it
        async with anyio.create_task_group() as group:
            alone = EachAlone(group, logging.getLogger(__name__))
            with pytest.raises((ValueError, RuntimeError)):
                await alone.start(fails_at_once)
            assert await alone.start(fails_later) == 1
            await anyio.wait_all_tasks_blocked()
            assert not group.cancel_scope.cancel_called

    async with anyio.create_task_group() as group:
        EachAlone(group, logging.getLogger(__name__)).start_soon(anyio.sleep_forever)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()


async def test_a_loop_that_is_cancelled_by_nobody_goes_on() -> None:
    """For Prefect's loops it is as if the server had not answered; who does stop the loop stops it."""
    for_nobody = asyncio.get_running_loop().create_future()
    for_nobody.cancel()
    with pytest.raises(httpx.TransportError, match="nobody asked"):
        await tried_again(for_nobody)
    stopped = asyncio.create_task(tried_again(asyncio.Event().wait()))
    await asyncio.sleep(0)
    stopped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopped


async def test_a_worker_whose_loops_end_by_themselves_says_so(prefect_server: str) -> None:
    """One that was asked for a single round ends in order."""
    await RoutinesWorker(work_pool_name=f"alone-{uuid4().hex[:8]}", name="alone").start(run_once=True, printer=lambda *_: None)
    worker = RoutinesWorker(work_pool_name=f"alone-{uuid4().hex[:8]}", name="alone")

    def cancel_the_loops(said: str) -> None:
        if "started" in said:
            scope = _task_states[asyncio.current_task()].cancel_scope  # type: ignore[index]
            assert scope is not None
            scope.cancel()

    with pytest.raises(RuntimeError, match="nobody stopped it"):
        await worker.start(printer=cancel_the_loops)
