"""The session store as the rest of the package sees it: open it, use it, close it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from prefect_routines.store.acts import Acts
from prefect_routines.store.database import Database, database_url
from prefect_routines.store.deliveries import Deliveries
from prefect_routines.store.dispatches import Dispatches
from prefect_routines.store.forms import Forms
from prefect_routines.store.journal import Journal
from prefect_routines.store.live import Live
from prefect_routines.store.migrate import ensure_schema
from prefect_routines.store.notices import Notices
from prefect_routines.store.outputs import Outputs
from prefect_routines.store.sessions import Sessions
from prefect_routines.store.tokens import Tokens


class Store(Sessions, Journal, Outputs, Acts, Forms, Live, Notices, Deliveries, Dispatches, Tokens):
    """Sessions, journals, leases, outputs, spend, what people send and the inbox in one SQL database.

    Belongs to the event loop and the process that opened it. Calls may run side by side.

    Example:
        ```python
        async with await Store.open() as store:
            record = await store.create_session(session_id="s1", routine="docs-sync", flow_run_id=None)
            async with store.keep(await store.acquire(record.id)) as lease:
                await store.append(lease, [("user.message", {"text": "go"})])
        ```
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    @classmethod
    async def open(cls, url: str | None = None) -> Self:
        """Open the store and create or upgrade its tables if need be; any number of processes may do so at once.

        Args:
            url: SQLAlchemy URL, SQLite or PostgreSQL; default `ROUTINES_DATABASE_URL`, else SQLite in the routines' home.

        Raises:
            StoreError: No place to write, no server, a newer schema, or a URL of something else; names the remedy.
        """
        database = Database(database_url(url))
        try:
            await ensure_schema(database)
        except BaseException:
            await database.close()
            raise
        return cls(database)

    async def close(self) -> None:
        """Close the connections. The store cannot be used afterwards; closing twice is fine."""
        await self._db.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()
