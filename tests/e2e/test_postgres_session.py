"""The same session with its store on PostgreSQL."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from prefect_routines.store import Store
from store.postgres_server import PostgresServer

from .harness.case import Case
from .harness.pool import Pool


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A store with its tables on a server of its own."""
    server = PostgresServer()
    url = asyncio.run(server.create_database(f"sessions_{uuid4().hex}"))

    async def make_tables() -> None:
        await (await Store.open(url)).close()

    asyncio.run(make_tables())
    yield url
    server.remove()


@pytest.fixture(scope="module")
def commits(pool: Pool, database: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the commits of a whole run write."""
    with Case(pool, tmp_path_factory.mktemp("whole"), database_url=database) as case:
        run = case.start()
        assert run.wait() == 0, run.said
        case.judge(kills=0)
        return run.commits


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("what", ["agent.message", "tool.start", "outputs", "session.verdict"])
def test_killed_it_goes_on(pool: Pool, database: str, commits: list[str], tmp_path: Path, what: str, after: bool) -> None:
    """At the last write of each sort: a reply, the start of calls, the end of an outward write, the verdict."""
    number = sum(what in written for written in commits)
    with Case(pool, tmp_path, database_url=database) as case:
        killed = case.start(of=what, kill=number, after=after)
        assert killed.wait() == -signal.SIGKILL, killed.said
        again = case.retry()
        assert again.wait() == 0, again.said
        case.judge(killed.tree)
