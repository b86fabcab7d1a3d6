"""What Claude is writing just now: passed from the session to those who watch it, through the database, and only while somebody does."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_routines.store import tables
from prefect_routines.store.leases import Lease, Leases

_table = tables.live


class Pulse(NamedTuple):
    """What a session at work looks for, several times a second, in one read.

    Attributes:
        fence: Of the newest lease: another one than its own means that the session was taken over.
        act: Id of the oldest thing that was sent and not taken yet; None: there is none.
        watched: Whether somebody watches.
    """

    fence: int
    act: int | None
    watched: bool


class Live(Leases):
    """The operations of the store on what is under way."""

    async def pulse(self, session_id: str) -> Pulse:
        """Whether something has happened that a session at work should look at."""
        lease, act = tables.leases, tables.acts
        oldest = select(func.min(act.c.id)).where(act.c.session_id == session_id, act.c.taken_at.is_(None)).scalar_subquery()
        watched = select(func.count()).where(_table.c.session_id == session_id, _table.c.watched_until > self._now()).scalar_subquery()
        rows = await self._db.read(select(lease.c.fence, oldest, watched).where(lease.c.session_id == session_id))
        return Pulse(rows[0][0], rows[0][1], bool(rows[0][2])) if rows else Pulse(0, None, False)

    async def watch(self, session_id: str, seconds: float = 15.0) -> tuple[int, str]:
        """Ask for a session's live text for some seconds, and read what there is.

        Returns:
            The turn under way, and its text so far; (0, "") when there is none.
        """

        async def work(connection: AsyncConnection) -> tuple[int, str]:
            new = (sqlite.insert if self._db.is_sqlite else postgresql.insert)(_table)
            until = self._now() + seconds
            values = new.values(session_id=session_id, watched_until=until, turn=0, text="")
            row = await connection.execute(
                values.on_conflict_do_update(index_elements=["session_id"], set_={"watched_until": until}).returning(
                    _table.c.turn, _table.c.text
                )
            )
            turn, text = row.one()
            return turn, text

        return await self._db.write(work)

    async def live(self, session_id: str) -> tuple[int, str]:
        """The turn under way and its text so far, without asking for more of it."""
        rows = await self._db.read(select(_table.c.turn, _table.c.text).where(_table.c.session_id == session_id))
        return (rows[0].turn, rows[0].text) if rows else (0, "")

    async def show_live(self, lease: Lease, turn: int, text: str) -> None:
        """Show what Claude has written so far in a turn; nothing happens when nobody has asked for it."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(update(_table).where(_table.c.session_id == lease.session_id).values(turn=turn, text=text))

        await self._db.write(work)
