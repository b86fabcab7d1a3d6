"""Bring the database to this version's schema, under a lock; Alembic is imported only when there is something to do."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from prefect_routines.errors import StoreError
from prefect_routines.store.database import Database
from prefect_routines.store.faults import explain, is_locked, is_missing_table, place

SCHEMA = "0004"  # the newest revision in migrations/versions; they are numbered, so newer ones compare greater
VERSION_TABLE = "routines_alembic_version"
_ADVISORY_LOCK = 0x726F7574696E6573  # "routines"
_WAL_SECONDS = 30.0


async def ensure_schema(database: Database) -> None:
    """Make the tables what this version expects; costs one SELECT when they are.

    Raises:
        StoreError: The schema is newer than this version knows, or the database cannot be read or changed.
    """
    try:
        async with database.engine.connect() as connection:
            version = await connection.run_sync(_stored_version)
    except database.errors as error:
        if not is_missing_table(error):
            raise explain(error, database.url) from error
        version = None
    except (TypeError, ValueError) as error:  # arguments of the URL that the driver does not take
        raise explain(error, database.url) from error
    if version == SCHEMA:
        return
    _refuse_newer(version, database)
    if database.is_sqlite:
        await _use_wal(database)

    async def upgrade(connection: Any) -> None:
        if not database.is_sqlite:  # SQLite: BEGIN IMMEDIATE has locked the database already
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        await connection.run_sync(_upgrade, database)

    await database.write(upgrade)


def _stored_version(connection: Connection) -> str | None:
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant


def _refuse_newer(version: str | None, database: Database) -> None:
    if version is not None and version > SCHEMA:
        raise StoreError(
            f"session store {place(database.url)}: its schema {version} is newer than {SCHEMA}, the newest this version knows. "
            f"Upgrade this machine: pip install -U prefect-routines."
        )


async def _use_wal(database: Database) -> None:
    """Readers and the writer do not block each other in WAL mode. It stays with the file, so it is set once.

    SQLite does not wait for its lock here, hence the loop: many processes may open a new store at once.
    """
    deadline = time.monotonic() + _WAL_SECONDS
    while True:
        try:
            async with database.engine.connect() as connection:
                await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            return
        except database.errors as error:
            if not is_locked(error) or time.monotonic() > deadline:
                raise explain(error, database.url) from error
        await asyncio.sleep(0.02)


def _upgrade(connection: Connection, database: Database) -> None:
    """Run under the lock: whoever waited for it may find the work done, even by a newer version."""
    from alembic import command
    from alembic.config import Config
    from alembic.migration import MigrationContext

    _refuse_newer(MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision(), database)
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")
