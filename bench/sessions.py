"""The work that is measured, in a process of its own: `sessions.py {floor|ours} PROMPT [COUNT]` prints one JSON object.

`wall` is the time of the work alone, without the process's start; `memory` the PSS of the whole tree at its highest.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from memory import tree_pss


async def main(kind: str, prompt: str, count: int) -> dict[str, float]:
    """Run `count` conversations side by side."""
    work = await (floor if kind == "floor" else ours)(prompt)
    high = 0

    async def watch() -> None:
        nonlocal high
        while True:
            high = max(high, await asyncio.to_thread(tree_pss, os.getpid()))
            await asyncio.sleep(0.25)

    watching = asyncio.create_task(watch()) if count > 1 else None  # a look costs time, so single sessions are left alone
    began, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(work() for _ in range(count)))
    wall, cpu = time.monotonic() - began, time.process_time() - cpu
    if watching is not None:
        watching.cancel()
    return {"wall": wall, "cpu": cpu, "memory": high}


async def floor(prompt: str) -> Callable[[], Awaitable[None]]:
    """The bare loop."""
    from anthropic import AsyncAnthropic
    from floor import converse

    client = AsyncAnthropic()
    await client.models.retrieve("claude-opus-5-5")  # the connection stands
    return lambda: converse(client, prompt)


async def ours(prompt: str) -> Callable[[], Awaitable[None]]:
    """A session in the sandbox, with journal, tasks, artifacts. All of them belong to one flow run, as in a flow of several agents:
    Prefect's server answers 503 to flow runs that are created in a burst on SQLite, and its client then waits for seconds.
    """
    from itertools import count

    import anthropic  # noqa: F401 - as in a warm worker, and as the bare loop has it

    from prefect_routines import Session

    number = count()

    async def one() -> None:
        async with Session(f"session-{next(number)}") as session:
            outcome = await session.run(prompt)
        if not outcome.green:
            raise RuntimeError(f"the session ended with {outcome.line}")

    return one


async def in_flow(kind: str, prompt: str, count: int) -> dict[str, float]:
    """The same, ours within a flow run."""
    if kind == "floor":
        return await main(kind, prompt, count)
    from prefect import flow

    return await flow(name="bench")(main)(kind, prompt, count)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.stdout.write(json.dumps(asyncio.run(in_flow(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1))) + "\n")
