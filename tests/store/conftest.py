"""The same store on two databases, and other processes that share it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from prefect_routines.store import Store

from .other_process import ActorProcess, StartActor
from .postgres_server import PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests; each test has a database of its own on it."""
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'store.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return await server.create_database(f"test_{uuid4().hex}")


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with await Store.open(url) as opened:
        yield opened


@pytest.fixture
async def session_id(store: Store) -> str:
    record = await store.create_session(session_id="session-1", routine="docs-sync", flow_run_id="run-1")
    return record.id


@pytest.fixture
async def start_actor() -> AsyncIterator[StartActor]:
    """Start another process; with a URL it has opened the store when this returns."""
    started: list[ActorProcess] = []

    async def start(url: str | None = None) -> ActorProcess:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("actor.py")), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        actor = ActorProcess(process)
        started.append(actor)
        assert await actor.says() == "ready"
        if url is not None:
            assert await actor.does("open", url) == "opened"
        return actor

    yield start
    for actor in started:
        await actor.kill()
