"""SQLite's driver for asyncio, with one trip to its thread per statement instead of four: a session writes several times a turn."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import aiosqlite
from aiosqlite.context import contextmanager


class Cursor:
    """What SQLAlchemy uses of a cursor. The rows come along with the statement that asks for them."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Self:
        """Run a statement and take all its rows."""
        return await self._trip(lambda driver: driver.execute(sql, parameters))

    async def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> Self:
        """Run a statement for each of several rows."""
        return await self._trip(lambda driver: driver.executemany(sql, parameters))

    async def _trip(self, statement: Callable[[sqlite3.Connection], sqlite3.Cursor]) -> Self:
        def run() -> None:
            with closing(statement(self._connection.began())) as done:  # here: freed elsewhere, it waits for this thread
                self.description = done.description
                self._rows = done.fetchall() if done.description else []
                self.rowcount, self.lastrowid = done.rowcount, done.lastrowid

        await self._connection.in_thread(run)
        return self

    async def fetchall(self) -> list[Any]:
        """The rows that are left."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Nothing is held."""


class Connection(aiosqlite.Connection):
    """aiosqlite's connection with cursors as above."""

    begin: bool = False
    """Whether a writing transaction begins with the next statement, on the same trip."""

    def began(self) -> sqlite3.Connection:
        """The connection of the standard library, in its transaction; to be touched in its thread only."""
        if self.begin:
            self._conn.execute("BEGIN IMMEDIATE")
            self.begin = False
        return self._conn

    async def commit(self) -> None:
        """Commit; nothing is left to begin."""
        self.begin = False
        await super().commit()

    async def rollback(self) -> None:
        """Roll back; nothing is left to begin."""
        self.begin = False
        await super().rollback()

    async def in_thread(self, work: Callable[[], None]) -> None:
        """Do something in the connection's thread."""
        await self._execute(work)  # type: ignore[no-untyped-call]

    @contextmanager
    async def cursor(self) -> Any:
        """A cursor, without a trip."""
        return Cursor(self)


def connector(path: Path, *, busy_seconds: float) -> Callable[[], asyncio.Future[Any]]:
    """What makes connections, as SQLAlchemy's `async_creator` wants it.

    The driver starts no transaction of its own (`isolation_level=None`); the database says BEGIN IMMEDIATE.
    """

    async def connect() -> Connection:
        connection = Connection(lambda: sqlite3.connect(path, isolation_level=None, timeout=busy_seconds), iter_chunk_size=64)
        # a process that ends without closing is not held up by the thread; before aiosqlite 0.22 the connection was the thread
        thread: Any = getattr(connection, "_thread", connection)
        thread.daemon = True
        await connection
        return connection

    return connect  # type: ignore[return-value]  # any awaitable will do
