"""Who may write a session: a lease with a number that only grows, checked inside every writing transaction.

An expired or stolen lease is never trusted to stop its old holder (it may be stopped, swapped out, on a slow network): each
write names the fence it was given, and a write with an old fence changes nothing.
See https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache

from sqlalchemy import ColumnElement, Float, Integer, Update, bindparam, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_routines.config import config
from prefect_routines.errors import LeaseHeld, LeaseLost, SettingsError, StoreError
from prefect_routines.store.database import Database
from prefect_routines.store.holder import Holder
from prefect_routines.store.tables import leases, sessions


@dataclass(eq=False, slots=True)
class Lease:
    """The right to write one session, until it is lost.

    Attributes:
        fence: Grows with each taking of the session.
        seconds: How long the session stays taken after the last write or renewal.
        lost: Set as soon as this process learns that the lease is gone; wait on it to stop what is under way.
        on_lost: Called once at that moment, for code that cannot wait on an event.
    """

    session_id: str
    routine: str
    fence: int
    seconds: float
    holder: Holder
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    on_lost: Callable[[], None] | None = None

    def mark_lost(self) -> None:
        """Tell everybody who waits; further calls do nothing."""
        if not self.lost.is_set():
            self.lost.set()
            if self.on_lost is not None:
                self.on_lost()


def now(is_sqlite: bool) -> ColumnElement[float]:
    """Seconds since 1970 by the database's clock: machines disagree, and theirs is not asked."""
    if is_sqlite:
        return literal_column("((julianday('now') - 2440587.5) * 86400.0)")
    return literal_column("extract(epoch from clock_timestamp())::float8")


@cache
def _extension(is_sqlite: bool) -> Update:
    """Built once: every write of every session begins with it."""
    seconds = bindparam("seconds", type_=Float)
    return (
        update(leases)
        .where(leases.c.session_id == bindparam("session"), leases.c.fence == bindparam("held_fence"), leases.c.expires_at.is_not(None))
        .values(expires_at=now(is_sqlite) + seconds, last_seq=leases.c.last_seq + bindparam("entries", type_=Integer))
        .returning(leases.c.last_seq)
    )


class Leases:
    """The lease operations of the store."""

    _db: Database

    def _now(self) -> ColumnElement[float]:
        return now(self._db.is_sqlite)

    async def acquire(self, session_id: str, *, holder: Holder | None = None, lease_seconds: float | None = None) -> Lease:
        """Take the session, from nobody, from an expired lease, or from a process of this machine that is certainly dead.

        Args:
            session_id: A recorded session.
            holder: Who takes it; default: this process.
            lease_seconds: How long it stays taken without a sign of life; default: `ROUTINES_LEASE_SECONDS`.

        Raises:
            LeaseHeld: Somebody else is at it. Taking it twice from one process counts: two coroutines are two writers.
            SettingsError: There is no such session.

        Example:
            ```python
            lease = await store.acquire(session.id)
            async with store.keep(lease):
                await store.append(lease, [("user.message", {"text": "go"})])
            ```
        """
        me, seconds = holder or Holder.current(), lease_seconds or config().lease_seconds

        async def take(connection: AsyncConnection) -> Lease:
            row = (
                await connection.execute(
                    select(leases.c.fence, leases.c.holder, (leases.c.expires_at - self._now()).label("left"), sessions.c.routine)
                    .join(sessions, sessions.c.id == leases.c.session_id)
                    .where(leases.c.session_id == session_id)
                    .with_for_update(of=leases)
                )
            ).one_or_none()
            if row is None:
                raise SettingsError(f"session {session_id}: there is no such session in the store. `routines sessions` lists them.")
            if row.left is not None and row.left > 0:
                current = Holder.from_json(row.holder)
                if not current.certainly_dead():
                    raise LeaseHeld(session_id, str(current), row.left)
            fence: int = row.fence + 1
            await connection.execute(
                update(leases)
                .where(leases.c.session_id == session_id)
                .values(fence=fence, holder=me.as_json(), expires_at=self._now() + seconds)
            )
            await connection.execute(
                update(sessions).where(sessions.c.id == session_id, sessions.c.started_at.is_(None)).values(started_at=datetime.now(UTC))
            )
            return Lease(session_id, row.routine, fence, seconds, me)

        return await self._db.write(take)

    async def _extend(self, connection: AsyncConnection, lease: Lease, entries: int = 0) -> int:
        """In the caller's transaction: check the fence, extend the lease, hand out journal numbers; the last one is returned.

        The UPDATE also locks the row, so that writers of one session queue on PostgreSQL.
        """
        held = {"session": lease.session_id, "held_fence": lease.fence, "seconds": lease.seconds, "entries": entries}
        last: int | None = await connection.scalar(_extension(self._db.is_sqlite), held)
        if last is None:
            lease.mark_lost()
            raise LeaseLost(lease.session_id, lease.fence)
        return last

    async def renew(self, lease: Lease) -> None:
        """Extend the lease by its seconds from now. An expired one that nobody has taken is good again.

        Raises:
            LeaseLost: Somebody has taken the session, or it was released.
        """
        await self._db.write(lambda connection: self._extend(connection, lease))

    async def release(self, lease: Lease) -> None:
        """Give the session back, so that it can be taken at once. A lease already lost is left alone."""

        async def give_back(connection: AsyncConnection) -> None:
            await connection.execute(
                update(leases)
                .where(leases.c.session_id == lease.session_id, leases.c.fence == lease.fence)
                .values(expires_at=None, holder=None)
            )

        await self._db.write(give_back)

    @asynccontextmanager
    async def keep(self, lease: Lease) -> AsyncIterator[Lease]:
        """Renew the lease in the background, every third of its seconds; set `lease.lost` when it is lost.

        Lost also means: not renewed for the whole of its seconds (the database cannot be reached), because then somebody else
        may hold it. Leaving the block releases the lease; a database error at that moment is not raised, the lease expires.
        """
        renewal = asyncio.create_task(self._renew_for_ever(lease), name=f"lease of {lease.session_id}")
        try:
            yield lease
        finally:
            renewal.cancel()
            try:
                await asyncio.wait([renewal])  # unlike awaiting it, this does not swallow a cancellation meant for us
            finally:
                with suppress(StoreError):
                    await self.release(lease)

    async def _renew_for_ever(self, lease: Lease) -> None:
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(lease.seconds / 3)
            try:
                await self.renew(lease)
                renewed = time.monotonic()
            except LeaseLost:
                return
            except StoreError:
                if time.monotonic() - renewed > lease.seconds:
                    lease.mark_lost()
                    return
