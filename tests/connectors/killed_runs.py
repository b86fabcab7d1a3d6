"""A flow run that makes one write, killed between sending and writing down, and started again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from prefect import State, get_client
from prefect.states import Crashed, Pending, Scheduled

from e2e.harness.pool import Pool, Run
from prefect_routines.routines import Routine
from prefect_routines.store import Output, Store
from prefect_routines.testing import ScriptedClaude, call, say
from session.world import REPORT

from . import message_routines


@contextlib.contextmanager
def running() -> Iterator[Pool]:
    """A process that forks runners of flow runs; see e2e/harness. The store has its tables, so all runs make the same writes."""

    async def make_tables() -> None:
        await (await Store.open()).close()

    asyncio.run(make_tables())
    pool = Pool()
    try:
        yield pool
    finally:
        pool.close()


class Killed:
    """One flow run in a process of its own.

    Args:
        pool: Forks the process.
        place: For its files.
        flow: One of `message_routines`.
        connector: Name of the block.
        tool: The tool that Claude calls, with these arguments.
    """

    def __init__(self, pool: Pool, place: Path, flow: Routine[...], connector: str, tool: str, **arguments: Any) -> None:
        self._pool, self._place = pool, place
        self._flow, self._connector = flow, connector
        self._claude = ScriptedClaude([say(call(tool, arguments)), REPORT])

    def __enter__(self) -> Self:
        self._claude.start()
        parameters = {"settings": {"connectors": [self._connector]}}
        with get_client(sync_client=True) as client:
            self._id = client.create_flow_run(self._flow, parameters=parameters, state=Pending()).id
        return self

    def __exit__(self, *_: object) -> None:
        self._claude.stop()

    def _start(self, name: str, **order: Any) -> Run:
        # a lease that long does not run out: whoever goes on has seen that its holder is dead
        environment = self._claude.environment() | {"ROUTINES_LEASE_SECONDS": "600"}
        flow = f"{message_routines.__file__}:{self._flow.function.__name__}"
        return self._pool.start(self._place / name, environment=environment, flow=flow, flow_run=str(self._id), **order)

    def kill(self) -> None:
        """Run it until just before it writes down how the write went, and kill -9 it there."""
        run = self._start("killed", of="outputs", kill=2)
        assert run.wait() == -signal.SIGKILL, run.said[-3000:]

    def retry(self) -> State[Any]:
        """What a worker and then a person do. Returns the final state."""
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(self._id, Crashed(message="killed by the test"), force=True)
            client.set_flow_run_state(self._id, Scheduled(message="retried"), force=True)
            run = self._start("again")
            assert run.wait() == 0, run.said[-3000:]
            state = client.read_flow_run(self._id).state
        assert state is not None
        return state

    @property
    def outputs(self) -> list[Output]:
        """The session's writes as its store has them."""

        async def read() -> list[Output]:
            async with await Store.open() as store:
                return await store.outputs((await store.find(str(self._id))).id)

        return asyncio.run(read())

    @property
    def heard(self) -> str:
        """What Claude was told of the write in the end."""
        return self._claude.requests[-1].results[0].text
