"""Prefect's command, with a server whose writers wait for their turn where its database is SQLite.

`python -m prefect_routines.up.sqlite server start` is `prefect server start` but for this: SQLite has one writer at a time, and a
transaction that reads first and writes later fails at once when another one has written in between. Prefect's server answers that with
503, and its clients - the worker, the runs, its own automations - wait 2, 4, 8 s before they ask again: of twenty runs that start
together the last ones are held up for half a minute. So here each transaction says at its beginning that it will write, and those of the
one process that serves a SQLite database queue for it.

Its connections also have our cursors. With SQLAlchemy's the cursor of a statement that failed lives as long as its traceback and is freed
in the server's one loop; SQLite lets that wait for whatever the same connection is at, and if that is waiting for a writer who needs the
loop to go on, the server answers nobody for a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction
    from sqlalchemy.pool import ConnectionPoolEntry

PATIENCE = 10.0
"""Seconds that a transaction waits for its turn; then it goes ahead, and SQLite has the one that is at it finish first."""


class Turn:
    """A turn at writing.

    Attributes:
        over: The transaction has ended. Whatever else began in its context and lives on has to queue like others.
    """

    def __init__(self) -> None:
        self.over = False


class Turns:
    """The queue of the writers of one event loop. A transaction inside another one does not queue: it would wait for itself."""

    def __init__(self) -> None:
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        self._mine: ContextVar[Turn | None] = ContextVar("turn", default=None)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[bool]:
        """Wait for one's turn and keep it; False inside another turn, where nothing is to be waited for."""
        mine = self._mine.get()
        if mine is not None and not mine.over:
            yield False
            return
        queue = self._queues.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        taken = await _acquire(queue)
        turn = Turn()
        token = self._mine.set(turn)
        try:
            yield True
        finally:
            turn.over = True
            self._mine.reset(token)
            if taken:
                queue.release()


async def _acquire(queue: asyncio.Lock) -> bool:
    try:
        async with asyncio.timeout(PATIENCE):
            return await queue.acquire()
    except TimeoutError:
        return False


def use_cursors(connection: DBAPIConnection) -> None:
    """Let a connection of SQLAlchemy's have cursors that hold nothing outside the connection's thread."""
    from prefect_routines.store.driver import Connection

    connection.driver_connection.__class__ = Connection  # it adds methods to aiosqlite's, and no state


def have_writers_queue() -> None:
    """Give the server of this process, through Prefect's own registry of dependencies, a SQLite configuration with a queue.

    On another database, and where Prefect has no such registry, nothing happens.
    """
    try:
        from prefect.server.database.configurations import AioSqliteConfiguration
        from prefect.server.database.dependencies import set_database_config
        from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
    except ImportError:
        return
    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if not str(url).startswith("sqlite"):
        return
    turns = Turns()

    class Queueing(AioSqliteConfiguration):
        def setup_sqlite(self, conn: DBAPIConnection, record: ConnectionPoolEntry) -> None:
            use_cursors(conn)
            super().setup_sqlite(conn, record)

        @asynccontextmanager
        async def begin_transaction(self, session: AsyncSession, with_for_update: bool = False) -> AsyncIterator[AsyncSessionTransaction]:
            async with turns.take() as first:
                begun: AbstractAsyncContextManager[Any] = super().begin_transaction(session, with_for_update=first or with_for_update)
                async with begun as transaction:
                    yield transaction

    set_database_config(Queueing(connection_url=url))


def main() -> None:
    """Prefect's command line."""
    from prefect.cli import app

    have_writers_queue()
    app()


if __name__ == "__main__":
    main()
