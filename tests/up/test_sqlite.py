"""Prefect's server on SQLite, as `routines up` starts it: writers wait for each other instead of failing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COUNT = """
import asyncio, gc, sys
import sqlalchemy as sa
from prefect.server.database import provide_database_interface
from prefect_routines.up.sqlite import have_writers_queue

async def count(db):
    async with db.session_context(begin_transaction=True) as session:
        known = (await session.execute(sa.text("SELECT n FROM counted"))).scalar_one()
        await asyncio.sleep(0.01)  # so that the others have begun, too
        await session.execute(sa.text(f"UPDATE counted SET n = {known + 1}"))

async def inside(db):
    async with db.session_context(begin_transaction=True) as session:
        await session.execute(sa.text("SELECT n FROM counted"))
        async with db.session_context(begin_transaction=True) as another:
            await another.execute(sa.text("SELECT n FROM counted"))
        await session.execute(sa.text("UPDATE counted SET n = n + 1"))

async def failed(db):
    async with db.session_context() as one, db.session_context() as other:
        for session in (one, other):
            await session.execute(sa.text("PRAGMA busy_timeout = 3000"))
        try:
            await one.execute(sa.text("INSERT INTO counted VALUES (0)"))
        except sa.exc.IntegrityError as error:
            kept = error
        await other.execute(sa.text("BEGIN IMMEDIATE"))
        waits = asyncio.create_task(one.execute(sa.text("UPDATE counted SET n = n + 1")))
        await asyncio.sleep(0.5)  # so that it waits in its thread
        del kept
        gc.collect()
        await other.execute(sa.text("COMMIT"))
        await waits

async def main():
    db = provide_database_interface()
    async with db.session_context(begin_transaction=True) as session:
        await session.execute(sa.text("CREATE TABLE counted (n INTEGER UNIQUE)"))
        await session.execute(sa.text("INSERT INTO counted VALUES (0)"))
    if sys.argv[2] == "inside":
        await asyncio.wait_for(inside(db), 5)
    elif sys.argv[2] == "failed":
        await failed(db)
    else:
        await asyncio.gather(*(count(db) for _ in range(20)))
    async with db.session_context() as session:
        print((await session.execute(sa.text("SELECT n FROM counted"))).scalar_one())

if sys.argv[1] == "queueing":
    have_writers_queue()
asyncio.run(main())
"""


def run(home: Path, how: str, what: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | {"PREFECT_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-c", COUNT, how, what], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_transactions_that_read_and_then_write_wait_for_their_turn(tmp_path: Path) -> None:
    """With Prefect's own configuration twenty side by side fail at once, which its server answers with 503."""
    plain = run(tmp_path / "plain", "plain", "side by side")
    assert "database is locked" in plain.stderr
    queueing = run(tmp_path / "queueing", "queueing", "side by side")
    assert (queueing.returncode, queueing.stdout.split()) == (0, ["20"]), queueing.stderr


def test_a_transaction_inside_another_does_not_wait_for_it(tmp_path: Path) -> None:
    """It would wait for ever."""
    done = run(tmp_path, "queueing", "inside")
    assert (done.returncode, done.stdout.split()) == (0, ["1"]), done.stderr


def test_what_is_left_of_a_failed_statement_holds_nobody_up(tmp_path: Path) -> None:
    """Freed in the loop, SQLAlchemy's cursor waits for its connection, that for a writer, and the writer for the loop."""
    plain = run(tmp_path / "plain", "plain", "failed")
    assert "database is locked" in plain.stderr
    queueing = run(tmp_path / "queueing", "queueing", "failed")
    assert (queueing.returncode, queueing.stdout.split()) == (0, ["1"]), queueing.stderr
