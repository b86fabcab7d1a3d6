"""Opening: new, old, newer and shared databases, many processes at once, and URLs that lead nowhere."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from prefect_routines.errors import StoreError
from prefect_routines.store import Store
from prefect_routines.store.database import database_url
from prefect_routines.store.migrate import SCHEMA, VERSION_TABLE
from prefect_routines.store.tables import metadata

from .other_process import StartActor
from .postgres_server import PostgresServer


async def _execute(url: str, *statements: str) -> None:
    engine = create_async_engine(database_url(url))
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


async def test_models_and_migrations_agree(url: str) -> None:
    """The database that the migrations make is the one that the code expects, down to types and indexes."""

    def differences(connection: Connection) -> list[object]:
        options = {
            "version_table": VERSION_TABLE,
            "compare_type": True,
            "include_name": lambda name, kind, _: kind != "table" or name.startswith("routines_"),
        }
        context = MigrationContext.configure(connection, opts=options)
        assert context.get_current_revision() == SCHEMA
        return list(compare_metadata(context, metadata))

    await (await Store.open(url)).close()
    engine = create_async_engine(database_url(url))
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_twenty_processes_open_a_new_database(url: str, start_actor: StartActor) -> None:
    """All succeed, whoever gets to make the tables; they were forked after the import, as by a warm worker."""
    actor = await start_actor()
    assert await actor.does("open_in_forks", url, 20) == ["opened"] * 20


async def test_an_up_to_date_store_opens_without_alembic(url: str) -> None:
    """Alembic alone takes 0.3 s to import; only a store that has to be made or moved on pays for it."""
    await (await Store.open(url)).close()
    program = f"""
import asyncio, sys
from prefect_routines.store import Store
async def main():
    await (await Store.open({url!r})).close()
    print("alembic" in sys.modules, "prefect" in sys.modules)
asyncio.run(main())
"""
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


async def test_a_newer_schema_is_refused(url: str) -> None:
    """An old version must not write into tables that it does not understand; the message says what to upgrade."""
    await (await Store.open(url)).close()
    await _execute(url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(StoreError, match=r"schema 9999 is newer than .* pip install -U prefect-routines") as refused:
        await Store.open(url)
    assert "\n" not in str(refused.value)


async def test_a_database_with_somebody_elses_alembic(url: str) -> None:
    """Prefect's own version table, with a revision that we do not know, neither disturbs nor is disturbed."""
    await _execute(url, "CREATE TABLE alembic_version (version_num VARCHAR(32))", "INSERT INTO alembic_version VALUES ('f00dfeed')")
    for _ in range(2):
        await (await Store.open(url)).close()
    engine = create_async_engine(database_url(url))
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all() == ["f00dfeed"]
    await engine.dispose()


async def test_inside_prefects_own_database(tmp_path: Path) -> None:
    """A database that Prefect has made, and goes on upgrading, can hold the store."""
    file = tmp_path / "prefect.db"
    prefect_url = f"sqlite+aiosqlite:///{file}"
    environment = os.environ | {"PREFECT_HOME": str(tmp_path), "PREFECT_API_DATABASE_CONNECTION_URL": prefect_url}
    upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
    await asyncio.to_thread(subprocess.run, upgrade, env=environment, check=True, capture_output=True)
    async with await Store.open(prefect_url) as store:
        await store.create_session(session_id="s", routine="r", flow_run_id=None)
    again = await asyncio.to_thread(subprocess.run, upgrade, env=environment, check=False, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    async with await Store.open(prefect_url) as store:
        assert await store.session("s") is not None
    with sqlite3.connect(file) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert {"flow_run", "alembic_version", "routines_sessions", VERSION_TABLE} <= names


async def test_the_default_is_a_private_file_in_the_home(tmp_path: Path, configure: Callable[..., None]) -> None:
    """No setting: SQLite under ROUTINES_HOME in WAL mode, in a directory for this user only."""
    configure(ROUTINES_HOME=str(tmp_path / "home"))
    await (await Store.open()).close()
    file = tmp_path / "home" / "store.db"
    assert file.exists()
    assert file.parent.stat().st_mode & 0o077 == 0
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


async def test_the_setting_wins(postgres: PostgresServer, configure: Callable[..., None]) -> None:
    """ROUTINES_DATABASE_URL names the database, with or without the driver's name."""
    plain = await postgres.create_database("by_setting")
    for url in (plain, plain.replace("postgresql://", "postgresql+asyncpg://"), plain + "?sslmode=prefer"):
        configure(ROUTINES_DATABASE_URL=url)
        async with await Store.open() as store:
            assert await store.sessions() == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://user:s3cret-word@host/db", "mysql:// is not supported"),
        ("no url at all s3cret-word", "is not a URL"),
        ("sqlite://", "names no file"),
        ("sqlite+aiosqlite:///:memory:", "names no file"),
        ("postgresql://user:s3cret-word@127.0.0.1:1/db", "the server cannot be reached"),
        ("postgresql://user:s3cret-word@no-such-host.invalid/db", "the server cannot be reached"),
        ("postgresql://user:s3cret-word@127.0.0.1:1/db?colour=blue", "does not take the arguments of the URL"),
        ("postgresql://user:s3cret-word@127.0.0.1:1/db?sslmode=perhaps", "`sslmode` parameter must be one of"),
        ("sqlite:////proc/nowhere/store.db", "Make the directory"),
        ("sqlite:////dev/null/store.db", "Make the directory"),
    ],
)
async def test_urls_that_lead_nowhere(url: str, says: str) -> None:
    """One line that names the setting, and never the password."""
    with pytest.raises(StoreError) as refused:
        await Store.open(url)
    message = str(refused.value)
    assert says in message
    assert "ROUTINES_DATABASE_URL" in message
    assert "s3cret-word" not in message
    assert "\n" not in message


async def test_logins_that_the_server_refuses(postgres: PostgresServer) -> None:
    """A wrong password and a missing database are told apart."""
    with pytest.raises(StoreError, match="refuses the login of user 'routines'") as refused:
        await Store.open(postgres.url("postgres", password="wr0ng-word"))
    assert "wr0ng-word" not in str(refused.value)
    with pytest.raises(StoreError, match="no such database; create it"):
        await Store.open(postgres.url("missing"))


async def test_files_that_are_no_database(tmp_path: Path) -> None:
    """A directory, a text file and a file one may not write are named with the remedy."""
    (tmp_path / "directory.db").mkdir()
    (tmp_path / "text.db").write_text("hello " * 1000)
    for name, says in (("directory.db", "cannot be opened"), ("text.db", "no SQLite database")):
        with pytest.raises(StoreError, match=says):
            await Store.open(f"sqlite:///{tmp_path / name}")


async def test_a_closed_store_says_so(url: str) -> None:
    """Using it is a StoreError; closing it twice is fine."""
    store = await Store.open(url)
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="was closed"):
        await store.sessions()


async def test_a_store_does_not_cross_a_fork(url: str, start_actor: StartActor) -> None:
    """Two processes on one connection would corrupt it: the child is told to open its own, the parent goes on."""
    actor = await start_actor(url)
    assert "open it again in the new process" in await actor.does("read_in_fork")
    assert "no such session" in (await actor.does("acquire", "nope", 1.0))["text"]


async def test_a_forgotten_store_does_not_hold_up_the_process(url: str) -> None:
    """A process that never closes its store ends all the same."""
    program = f"import asyncio\nfrom prefect_routines.store import Store\nasyncio.run(Store.open({url!r}))"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], check=True, timeout=30, capture_output=True)
