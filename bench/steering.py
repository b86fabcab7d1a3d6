"""How soon a session hears people: messages, interrupts, approvals, and what it costs to be watched.

`python bench/steering.py [--messages 20] [--interrupts 10] [--approvals 10] [--watched 4]`. Prefect's server (SQLite), the warm `routines`
worker, store and sandbox are real; Claude is scripted in this process. The times of the journal and of this process are of one clock.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table
from run import environment

from prefect_routines.testing import ScriptedClaude, call, cut, say

FLOW = """\
from prefect_routines import Policy, routine, tool

@tool(writes=True, target="room")
def tell(room: str) -> str:
    \"\"\"Tell people.

    Args:
        room: Where.
    \"\"\"
    return "told"

@routine(name="steered", tools=[tell], policy=Policy(ask=["tell"]))
def steered() -> str:
    \"\"\"Is steered.\"\"\"
    return "Work."
"""
REPORT = say(call("report", verdict="nothing_to_do", summary="Done."))


class World:
    """A deployment with a warm worker, and the store; all calls from one event loop."""

    def __init__(self, client: Any, store: Any, deployment: Any) -> None:
        self.client, self.store, self.deployment = client, store, deployment

    async def start(self) -> tuple[Any, Any]:
        """A new run, and its session as soon as there is one."""
        run = await self.client.create_flow_run_from_deployment(self.deployment)
        return run, await until(lambda: self._session(run))

    async def _session(self, run: Any) -> Any:
        found = await self.store.sessions(flow_run_id=str(run.id))
        return found[0] if found else None

    async def entry(self, session: Any, kind: str, after: int = 0) -> Any:
        """The next entry of a kind in the journal."""

        async def look() -> Any:
            return next((one for one in await self.store.entries(session.id, after=after) if one.kind == kind), None)

        return await until(look)

    async def end(self, run: Any) -> float:
        """Wait for the run's end; seconds of its work."""

        async def look() -> Any:
            found = await self.client.read_flow_run(run.id)
            return found if found.state and found.state.is_final() else None

        ended = await until(look)
        if not ended.state.is_completed():
            raise SystemExit(f"run {ended.name} ended as {ended.state.name}: {ended.state.message}")
        return float(ended.total_run_time.total_seconds())


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := await condition()):
        if time.monotonic() > deadline:
            raise SystemExit("it did not come true")
        await asyncio.sleep(0.01)  # between two looks
    return value


@contextmanager
def worker(env: dict[str, str], home: Path) -> Iterator[None]:
    """A worker of the pool `steered`."""
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    subprocess.run([*prefect, "work-pool", "create", "steered", "--type", "routines"], env=env, check=True, capture_output=True)
    with (home / "worker.log").open("wb") as log:
        process = subprocess.Popen([*prefect, "worker", "start", "--pool", "steered"], env=env, cwd=home, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


async def messages(world: World, claude: Any, count: int) -> list[float]:
    """From the end of the call that runs to the request with the message that came while it ran."""
    from prefect_routines.steering.acts import Person, send

    claude([*(say(call("bash", command=f"until [ -e go{n} ]; do sleep 0.01; done")) for n in range(count)), REPORT])
    run, session = await world.start()
    place = Path((await world.entry(session, "workspace.ready")).data["path"])
    found, seq = [], 0
    for number in range(count):
        started = await world.entry(session, "tool.start", seq)
        await send(world.store, session, f"message {number}", Person("bench", "cli"))
        (place / f"go{number}").touch()
        result = await world.entry(session, "tool.result", started.seq)
        asked = await world.entry(session, "turn.start", result.seq)
        said = [
            one for one in await world.store.entries(session.id, after=started.seq) if one.kind == "user.message" and one.seq < asked.seq
        ]
        if len(said) != 1:
            raise SystemExit("a message was not in the next request")
        found.append((asked.at - result.at).total_seconds())
        seq = asked.seq
    await world.end(run)
    return found


async def interrupts(world: World, claude: Any, count: int) -> list[float]:
    """From the act to the closed stream of a reply that stands still in the middle."""
    from prefect_routines.steering.acts import Person, interrupt

    def turn(request: Any) -> Any:
        enough = str(request.body["messages"]).count("interrupted you") >= count
        return REPORT if enough else cut(say("I think about it."), after=3, how="silence")

    claude([turn])
    run, session = await world.start()
    found, seq = [], 0
    for _ in range(count):
        started = await world.entry(session, "turn.start", seq)
        await asyncio.sleep(0.3)  # the stream has begun
        began = time.time()
        await interrupt(world.store, session, Person("bench", "cli"))
        closed = await world.entry(session, "turn.interrupted", started.seq)
        found.append(closed.at.timestamp() - began)
        seq = closed.seq
    await world.end(run)
    return found


async def approvals(world: World, claude: Any, count: int) -> list[float]:
    """From the click in Prefect (its API call) to the start of the call that was approved."""
    found = []
    for _ in range(count):
        claude([say(call("tell", room="all")), REPORT])
        run, session = await world.start()

        async def suspended(run: Any = run) -> bool:
            state = (await world.client.read_flow_run(run.id)).state
            return bool(state and state.name == "Suspended")

        await until(suspended)
        await asyncio.sleep(3)  # nobody reads a form faster; the process that asked is gone by then
        began = time.time()
        await world.client.resume_flow_run(run.id, run_input={"decision": "approve"})
        started = await world.entry(session, "tool.start")
        found.append(started.at.timestamp() - began)
        await world.end(run)
    return found


async def watched(world: World, claude: Any, pairs: int) -> float:
    """How much longer a session of thirty turns takes with somebody who watches it; the median over pairs."""
    ratios = []
    for _ in range(pairs):
        took = []
        for watches in (False, True):
            claude([*(say("I look at it. " * 20, call("bash", command="true")) for _ in range(30)), REPORT])
            run, session = await world.start()
            watching = asyncio.create_task(_watch(world, session)) if watches else None
            await world.end(run)
            if watching is not None:
                watching.cancel()
            entries = await world.store.entries(session.id)
            turns = [one.at for one in entries if one.kind == "turn.start"]
            took.append((turns[-1] - turns[3]).total_seconds())
        ratios.append(took[1] / took[0])
    return median(ratios)


async def _watch(world: World, session: Any) -> None:
    seen = 0
    while True:
        await world.store.watch(session.id)
        for _ in range(20):
            for entry in await world.store.entries(session.id, after=seen):
                seen = entry.seq
            await world.store.live(session.id)
            await asyncio.sleep(0.25)


async def measure(options: argparse.Namespace, claude: Any, home: Path) -> list[tuple[str, str, str]]:
    from prefect import get_client

    from prefect_routines.store import Store

    async with get_client() as client, await Store.open() as store:
        flow = await client.create_flow_from_name("steered")
        pull = [{"prefect.deployments.steps.set_working_directory": {"directory": str(home)}}]
        made = await client.create_deployment(
            flow_id=flow, name="steered", entrypoint="steered.py:steered", work_pool_name="steered", pull_steps=pull
        )
        world = World(client, store, made)
        claude([REPORT])
        run, _ = await world.start()
        await world.end(run)  # warm now
        rows = []
        if options.messages:
            rows.append(
                ("message: end of the call to the next request", "p95 < 1 s", spread(await messages(world, claude, options.messages)))
            )
        if options.interrupts:
            rows.append(("interrupt to closed stream", "< 0.5 s", spread(await interrupts(world, claude, options.interrupts))))
        if options.approvals:
            rows.append(("approve in Prefect to the call's start", "p50 < 2 s", spread(await approvals(world, claude, options.approvals))))
        if options.watched:
            rows.append(("a session that is watched, by one that is not", "< 1.05", f"{await watched(world, claude, options.watched):.3f}"))
        return rows


def spread(found: list[float]) -> str:
    p95 = quantiles(found, n=20)[-1] if len(found) > 1 else found[0]
    return f"p50 {median(found):.3f} s, p95 {p95:.3f} s, max {max(found):.3f} s (n={len(found)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"messages": 20, "interrupts": 10, "approvals": 10, "watched": 4}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    playing: list[Any] = [[REPORT]]
    with environment() as own, ScriptedClaude(lambda _: playing[0]) as claude:
        env = own | claude.environment()
        home = Path(env["PREFECT_HOME"])
        (home / "steered.py").write_text(FLOW)
        os.environ.update(env)
        with worker(env, home):
            rows = asyncio.run(measure(options, lambda script: playing.__setitem__(0, script), home))
    table = Table("what", "target", "found")
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
