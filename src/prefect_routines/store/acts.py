"""What people send to sessions: written by anybody, taken in order by whoever holds the session."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_routines.store import tables
from prefect_routines.store.leases import Leases
from prefect_routines.store.records import Act, ActKind

_table = tables.acts


def _act(row: Row[Any]) -> Act:
    return Act(**row._mapping)


class Acts(Leases):
    """The operations of the store on what people send."""

    async def send_act(self, session_id: str, kind: ActKind, *, text: str = "", person: str, via: str) -> Act:
        """Leave something for a session. `Journal.append(..., acts=[...])` marks it as taken.

        Example:
            ```python
            await store.send_act(session.id, "message", text="There is a pull request already, stop.", person="ada", via="cli")
            ```
        """

        async def work(connection: AsyncConnection) -> Act:
            values = {"session_id": session_id, "kind": kind, "text": text, "person": person, "via": via, "created_at": datetime.now(UTC)}
            return _act((await connection.execute(insert(_table).values(**values).returning(_table))).one())

        return await self._db.write(work)

    async def acts(self, session_id: str, *, waiting: bool = True) -> list[Act]:
        """What was sent to a session, in order; with `waiting` only what it has not taken yet."""
        chosen = select(_table).where(_table.c.session_id == session_id).order_by(_table.c.id)
        if waiting:
            chosen = chosen.where(_table.c.taken_at.is_(None))
        return [_act(row) for row in await self._db.read(chosen)]

    async def unheard_cancellations(self) -> list[Act]:
        """Cancellations of sessions that nobody holds and that have not ended: they came while the session closed."""
        session, lease = tables.sessions, tables.leases
        joined = select(_table).join(session, session.c.id == _table.c.session_id).join(lease, lease.c.session_id == _table.c.session_id)
        chosen = joined.where(_table.c.kind == "cancel", _table.c.taken_at.is_(None), session.c.status != "ended")
        free = or_(lease.c.expires_at.is_(None), lease.c.expires_at <= self._now())
        return [_act(row) for row in await self._db.read(chosen.where(free).order_by(_table.c.id))]
