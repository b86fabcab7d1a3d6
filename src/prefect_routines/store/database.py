"""One database: its URL, its connections, and transactions that either happen entirely or not at all."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Executable, Row, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from prefect_routines.config import config
from prefect_routines.errors import StoreError
from prefect_routines.store.driver import connector
from prefect_routines.store.faults import DATABASE_ERRORS, SETTING, explain, is_disconnect, is_locked

T = TypeVar("T")

# SQLite itself waits this long for another writer; then we try again, so a lock is waited for about a minute.
SQLITE_BUSY_SECONDS = 20.0
_ATTEMPTS = 3
_CONNECT_SECONDS = 10.0
# A statement of ours takes milliseconds; a server that does not answer must not hang a session.
COMMAND_SECONDS = 20.0
_ROLLBACK_SECONDS = 5.0

# `synchronous=FULL` makes each commit durable against a loss of power, not only against a crash of the process ("no side
# effect twice" rests on what was journaled before). Measured on a virtual disk: an append takes 1.4 ms instead of 0.9 ms.
_PRAGMAS = "PRAGMA foreign_keys=ON; PRAGMA synchronous=FULL;"


def database_url(url: str | None = None) -> URL:
    """The store's URL: `url`, else `ROUTINES_DATABASE_URL`, else SQLite in the home of the routines.

    Raises:
        StoreError: It is no URL, or of a database other than SQLite and PostgreSQL.
    """
    if url is None:
        setting = config().database_url
        url = setting.get_secret_value() if setting else f"sqlite+aiosqlite:///{config().home / 'store.db'}"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError(
            f"{SETTING} is not a URL; write sqlite+aiosqlite:///PATH or postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE."
        ) from None
    match parsed.drivername:
        case "sqlite" | "sqlite+aiosqlite":
            if parsed.database in (None, "", ":memory:"):
                raise StoreError(f"{SETTING} names no file; a session store must outlive the process. Write sqlite+aiosqlite:///PATH.")
            return parsed.set(drivername="sqlite+aiosqlite", database=str(Path(str(parsed.database)).expanduser().absolute()))
        case "postgresql" | "postgres" | "postgresql+asyncpg":
            query = {"ssl" if name == "sslmode" else name: value for name, value in parsed.query.items()}  # libpq's name, and asyncpg's
            return parsed.set(drivername="postgresql+asyncpg", query=query)
        case other:
            raise StoreError(f"{SETTING}: {other}:// is not supported; use sqlite+aiosqlite:///PATH or postgresql+asyncpg://...")


def _engine(url: URL) -> AsyncEngine:
    if url.get_backend_name() == "postgresql":
        limits = {"timeout": _CONNECT_SECONDS, "command_timeout": COMMAND_SECONDS}
        return create_async_engine(url, connect_args=limits, pool_size=5, max_overflow=5, hide_parameters=True)
    engine = create_async_engine(
        url,
        # its connections start no transactions of their own, `write` says BEGIN IMMEDIATE. (A transaction that reads first and
        # writes later fails at once under another writer, without waiting.)
        async_creator=connector(Path(str(url.database)), busy_seconds=SQLITE_BUSY_SECONDS),
        hide_parameters=True,  # journals hold what people and models wrote: not for tracebacks
        pool_reset_on_return=None,  # `write` has always ended its transaction; saves a trip to the driver's thread
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.run_async(lambda driver: driver.executescript(_PRAGMAS))

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        if connection.get_execution_options().get("writes"):
            connection.connection.driver_connection.begin = True

    return engine


def _check_sqlite_version() -> None:
    if sqlite3.sqlite_version_info < (3, 35):
        raise StoreError(
            f"SQLite {sqlite3.sqlite_version} is too old for the session store (3.35 is needed); use a Python with a newer one, or "
            f"set {SETTING} to a PostgreSQL database."
        )


def _asyncpg_errors() -> tuple[type[Exception], ...]:
    """SQLAlchemy 2.0 lets what goes wrong in connecting through as it is; 2.1 wraps it."""
    import asyncpg

    return asyncpg.PostgresError, asyncpg.InterfaceError


_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Lock]] = WeakKeyDictionary()


def _queue(url: URL) -> asyncio.Lock:
    """Where the writers of one file wait for their turn, those of other stores in the same event loop included.

    SQLite has one writer at a time. Queueing here is fair and free; waiting inside SQLite polls, and of ten sessions side by side
    some would not get through for seconds.
    """
    return _queues.setdefault(asyncio.get_running_loop(), {}).setdefault(str(url.database), asyncio.Lock())


class Database:
    """Connections to one database, for one event loop of one process."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            _check_sqlite_version()
            self._make_directory()
        self.engine = _engine(url)
        self.errors = DATABASE_ERRORS if self.is_sqlite else (*DATABASE_ERRORS, *_asyncpg_errors())
        self._pid = os.getpid()
        self._closed = False
        self._turn: AbstractAsyncContextManager[Any] = _queue(url) if self.is_sqlite else nullcontext()

    def _make_directory(self) -> None:
        directory = Path(str(self.url.database)).parent
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)  # transcripts are nobody else's business
        except OSError as error:
            raise explain(error, self.url) from error

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreError("this session store was closed; open it again.")
        if os.getpid() != self._pid:
            raise StoreError("this session store was opened before the process was forked; open it again in the new process.")

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work` in one transaction and commit it; cancelling the caller waits for the outcome instead of tearing it apart.

        `work` may run again when another writer was in the way or the connection broke before the commit was asked for.

        Raises:
            StoreError: The database cannot be written to. After a connection lost during the commit itself the outcome is
                unknown; whoever takes the session next reads the truth from the journal.
        """
        self._check_usable()
        task = asyncio.ensure_future(self._write_with_retries(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # marks it as seen
            raise

    async def _write_with_retries(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            committing = False
            try:
                async with self._turn, self.engine.connect() as plain:
                    connection = await plain.execution_options(writes=True)
                    transaction = await connection.begin()
                    try:
                        result = await work(connection)
                        committing = True
                        await transaction.commit()
                    except BaseException:
                        await _roll_back(transaction)
                        raise
                    return result
            except self.errors as error:
                again = is_locked(error) or (is_disconnect(error) and not committing)
                if not again or attempt == _ATTEMPTS:
                    raise explain(error, self.url) from error
            await asyncio.sleep(0.1 * 4**attempt)
        raise AssertionError("unreachable")

    async def read(self, statement: Executable) -> Sequence[Row[Any]]:
        """All rows of one SELECT."""
        self._check_usable()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with self.engine.connect() as connection:
                    return (await connection.execute(statement)).all()
            except self.errors as error:
                if attempt == _ATTEMPTS or not (is_locked(error) or is_disconnect(error)):
                    raise explain(error, self.url) from error
            await asyncio.sleep(0.1 * 4**attempt)
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """Give the connections back. Closing twice is fine."""
        if not self._closed and os.getpid() == self._pid:
            self._closed = True
            await self.engine.dispose()


async def _roll_back(transaction: Any) -> None:
    """Undo; when even that fails the connection is beyond use and the first error is the one to tell."""
    try:
        # asyncpg may wait without end for the cancelling of a statement that its server process does not answer
        async with asyncio.timeout(_ROLLBACK_SECONDS):
            await transaction.rollback()
    except Exception:
        await transaction.connection.invalidate()
