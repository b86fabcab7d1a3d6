"""The journal of a session: append-only, dense numbers, each batch in one transaction; and the spend that goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, case, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_routines.store import tables
from prefect_routines.store.leases import Lease, Leases
from prefect_routines.store.records import Entry, Spend, Spent

_COUNTS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
PRUNED = "pruned"
"""Key in a session's `data`: when its transcript was removed."""
_SETTLING = ("model", "settled", "dollars", *_COUNTS)


@cache
def _upsert_spend(is_sqlite: bool) -> Any:
    statement = (sqlite.insert if is_sqlite else postgresql.insert)(tables.spend)
    # the day stays that of the reservation: an attempt that settles after midnight must not leave its day's budget
    return statement.on_conflict_do_update(
        index_elements=["session_id", "turn", "attempt"], set_={name: statement.excluded[name] for name in _SETTLING}
    )


class Journal(Leases):
    """The journal operations of the store."""

    async def append(
        self, lease: Lease, entries: Sequence[tuple[str, dict[str, Any]]], *, spend: Sequence[Spend] = (), acts: Sequence[int] = ()
    ) -> list[int]:
        """Write entries and spend, all or nothing, and extend the lease.

        Args:
            lease: From `acquire`; a stale one writes nothing.
            entries: Pairs of kind and data; the data is what `json.dumps` takes, and comes back equal.
            spend: Attempts to reserve or to settle; one that is there already (same turn and attempt) is replaced.
            acts: What people sent and these entries take up.

        Returns:
            The numbers of the new entries, in order.

        Raises:
            LeaseLost: Another process holds the session.
            StoreError: The database cannot be written to.

        Example:
            ```python
            [seq] = await store.append(lease, [("tool_start", {"id": "toolu_1"})])
            ```
        """

        async def work(connection: AsyncConnection) -> list[int]:
            last = await self._extend(connection, lease, len(entries))
            now = datetime.now(UTC)
            numbers = list(range(last - len(entries) + 1, last + 1))
            rows = [
                {"session_id": lease.session_id, "seq": seq, "kind": kind, "data": data, "at": now}
                for seq, (kind, data) in zip(numbers, entries, strict=True)
            ]
            if rows:
                await connection.execute(insert(tables.entries), rows)
            if spend:
                fixed = {"session_id": lease.session_id, "routine": lease.routine, "day": now.date().isoformat()}
                attempts = [fixed | {name: getattr(one, name) for name in ("turn", "attempt", *_SETTLING)} for one in spend]
                await connection.execute(_upsert_spend(self._db.is_sqlite), attempts)
            if acts:
                taken = update(tables.acts).where(tables.acts.c.session_id == lease.session_id, tables.acts.c.id.in_(acts))
                await connection.execute(taken.values(taken_at=now))
            return numbers

        return await self._db.write(work)

    async def entries(self, session_id: str, *, after: int = 0, limit: int | None = None) -> list[Entry]:
        """The journal in order, from the entry behind `after`; empty for an unknown session."""
        journal = tables.entries.c
        rows = await self._db.read(
            select(journal.seq, journal.kind, journal.data, journal.at)
            .where(journal.session_id == session_id, journal.seq > after)
            .order_by(journal.seq)
            .limit(limit)
        )
        return [Entry(row.seq, row.kind, row.data, row.at) for row in rows]

    async def turns(self, session_id: str) -> int:
        """How many replies of Claude's the journal holds."""
        journal = tables.entries.c
        replies = select(func.count()).where(journal.session_id == session_id, journal.kind == "agent.message")
        return int((await self._db.read(replies))[0][0])

    async def last_entry(self, session_id: str) -> int:
        """The number of the newest entry; 0 for a session without any."""
        rows = await self._db.read(select(tables.leases.c.last_seq).where(tables.leases.c.session_id == session_id))
        return int(rows[0][0]) if rows else 0

    async def forget_transcript(self, lease: Lease) -> None:
        """Delete what was said and done in a session, and what people sent to it; its record, cost and writes to the outside stay.

        The writes stay because an event about them must still be known as caused by ourselves; what was sent with them does not.

        Raises:
            LeaseLost: Another process holds the session.
        """
        id_ = lease.session_id

        async def work(connection: AsyncConnection) -> None:
            await self._extend(connection, lease)
            for table in (tables.entries, tables.acts, tables.forms, tables.live):
                await connection.execute(delete(table).where(table.c.session_id == id_))
            await connection.execute(update(tables.outputs).where(tables.outputs.c.session_id == id_).values(request={}))
            mine = tables.sessions.c.id == id_
            known = await connection.scalar(select(tables.sessions.c.data).where(mine)) or {}
            pruned = {**known, PRUNED: datetime.now(UTC).isoformat(timespec="seconds")}
            await connection.execute(update(tables.sessions).where(mine).values(data=pruned))

        await self._db.write(work)

    async def spent(self, *, session_id: str | None = None, routine: str | None = None, day: date | None = None) -> Spent:
        """What has been spent by one session, one routine, on one UTC day, or any of these together; all when none is named."""
        row = tables.spend.c
        chosen: list[ColumnElement[bool]] = []
        if session_id is not None:
            chosen.append(row.session_id == session_id)
        if routine is not None:
            chosen.append(row.routine == routine)
        if day is not None:
            chosen.append(row.day == day.isoformat())
        reserved = case((row.settled.is_(False), row.dollars), else_=0)
        columns: list[ColumnElement[Any]] = [func.sum(row.dollars), func.sum(reserved), func.count()]
        columns += [func.sum(row[name]) for name in _COUNTS]
        [(dollars, reserved_dollars, attempts, *counts)] = [tuple(total) for total in await self._db.read(select(*columns).where(*chosen))]
        tokens = {name: int(count or 0) for name, count in zip(_COUNTS, counts, strict=True)}
        return Spent(dollars=dollars or 0.0, reserved_dollars=reserved_dollars or 0.0, attempts=attempts, **tokens)
