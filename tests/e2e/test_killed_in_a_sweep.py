"""kill -9 of a gateway that has given some forms the answer of their deadline, and others not yet: the next one finishes it, once each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from gateway.gateway_process import Gateway
from prefect_routines.store import Form
from prefect_routines.testing import ScriptedClaude
from store.postgres_server import PostgresServer
from waiting import until_async
from workers.asking_world import TELLS, World
from workers.place import Place

WAITS_FOR_LOCK = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@pytest.fixture
def database() -> Iterator[str]:
    """PostgreSQL: there a test can hold a form, and whoever comes to it waits."""
    server = PostgresServer()
    yield asyncio.run(server.create_database(f"sweep_{uuid4().hex}"))
    server.remove()


async def killed_in_between(directory: Path, database: str) -> None:
    """The time of three forms is over; a gateway takes them in their order, comes to the second, which is held, and is killed there."""
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("UPDATE routines_forms SET expires_at = 1")
        async with connection.transaction():
            second = "SELECT id FROM routines_forms ORDER BY created_at, id OFFSET 1 LIMIT 1"
            await connection.execute(f"SELECT FROM routines_forms WHERE id = ({second}) FOR UPDATE")
            gateway = Gateway(directory, ROUTINES_DATABASE_URL=database)
            await until_async(lambda: connection.fetchval(WAITS_FOR_LOCK), 30, lambda: gateway.log)
            gateway.kill()
    finally:
        await connection.close()


@pytest.mark.timeout(300)
def test_the_next_gateway_finishes_the_sweep(prefect_server: str, database: str, tmp_path: Path) -> None:
    """Three runs wait without a process; each form has the one answer of its deadline, each call is made once."""
    with (
        Place(prefect_server, tmp_path, f"sweep-{uuid4().hex[:8]}", {"ROUTINES_DATABASE_URL": database}) as place,
        ScriptedClaude(TELLS) as claude,
    ):
        world = World(place, "swept", tmp_path, claude, answers={"default": "approve"})

        def forms() -> list[Form]:
            found: list[Form] = world.in_store(lambda store: store.forms())
            return found

        worker = place.worker()
        runs = [world.start() for _ in range(3)]
        for run in runs:
            world.form(run)
        worker.stop()  # it would sweep, too
        asyncio.run(killed_in_between(tmp_path / "killed", database))
        first, *others = forms()
        assert [form.status for form in (first, *others)] == ["expired", "open", "open"]
        assert {place.run(run)["state_name"] for run in runs} == {"Suspended"}
        place.worker()
        gateway = Gateway(tmp_path / "next", ROUTINES_DATABASE_URL=database)
        try:
            for run in runs:
                world.went_on_once(run)
        finally:
            assert gateway.stop() == 0
        assert world.told == ["all: Hello"] * 3
        assert len(claude.requests) == 6
        assert forms()[0] == first
        assert {(form.status, form.person) for form in forms()} == {("expired", "the deadline")}
