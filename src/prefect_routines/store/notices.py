"""What is told outside: written down first, each once, taken by one sender at a time, and settled by the newest attempt alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import Row, Select, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_routines.store import tables
from prefect_routines.store.leases import Leases
from prefect_routines.store.records import Notice, NoticeKind

_table = tables.notices
_columns = [column for column in _table.c if column.name != "due_at"]


def _notice(row: Row[Any]) -> Notice:
    return Notice(**row._mapping)


class Notices(Leases):
    """The operations of the store on notices."""

    async def record_notices(self, session_id: str, kind: NoticeKind, subject: str, targets: Sequence[str]) -> int:
        """Write notices down, to be sent at once. One that was written before stays as it is; returns how many are new.

        Example:
            ```python
            await store.record_notices(record.id, "approval", form.id, ["slack/docs#ops", "notice-webhook/ci"])
            ```
        """
        if not targets:
            return 0

        async def work(connection: AsyncConnection) -> int:
            return await self._record_notices(connection, session_id, kind, subject, targets)

        return await self._db.write(work)

    async def _record_notices(
        self, connection: AsyncConnection, session_id: str, kind: NoticeKind, subject: str, targets: Sequence[str]
    ) -> int:
        insert, written = sqlite.insert if self._db.is_sqlite else postgresql.insert, 0
        same = {"session_id": session_id, "kind": kind, "subject": subject, "status": "waiting", "attempts": 0}
        for target in dict.fromkeys(targets):
            new = {"id": f"ntc-{uuid4().hex}", "target": target, "due_at": self._now(), "created_at": datetime.now(UTC)}
            written += (await connection.execute(insert(_table).values(**same, **new).on_conflict_do_nothing())).rowcount
        return written

    async def take_notices(self, *, seconds: float, limit: int = 20, session_id: str | None = None) -> list[Notice]:
        """Take what is due, oldest first; nobody else gets it for some seconds. After these it is due again: its sender is gone.

        Args:
            session_id: Of this session only.
        """

        due = (_table.c.status == "waiting") & (_table.c.due_at <= self._now())
        chosen = select(_table.c.id).where(due).order_by(_table.c.due_at).limit(limit)
        if session_id is not None:
            chosen = chosen.where(_table.c.session_id == session_id)
        taken = await self._take(chosen, due_at=self._now() + seconds, attempts=_table.c.attempts + 1)
        return sorted(taken, key=lambda notice: (notice.created_at, notice.id))

    async def take_answered(self, *, seconds: float, limit: int = 20, form_id: str | None = None) -> list[Notice]:
        """Take notices that still show buttons although their form is closed; due again after some seconds unless settled.

        Args:
            form_id: Only those about this form.
        """

        form, free = tables.forms, or_(_table.c.due_at.is_(None), _table.c.due_at <= self._now())
        closed = select(form.c.id).where(form.c.id == _table.c.subject, form.c.status != "open").exists()
        chosen = select(_table.c.id).where(_table.c.status == "asking", free, closed).limit(limit)
        if form_id is not None:
            chosen = chosen.where(_table.c.subject == form_id)
        return await self._take(chosen, due_at=self._now() + seconds)

    async def _take(self, chosen: Select[tuple[str]], **values: Any) -> list[Notice]:
        """Change the chosen ones, so that nobody else chooses them. Mostly there are none: then nobody is kept from writing."""
        if not await self._db.read(chosen):
            return []

        async def work(connection: AsyncConnection) -> list[Notice]:
            mine = chosen if self._db.is_sqlite else chosen.with_for_update(of=_table, skip_locked=True)
            ids = (await connection.execute(mine)).scalars().all()
            changed = update(_table).where(_table.c.id.in_(ids)).values(**values).returning(*_columns)
            return [_notice(row) for row in await connection.execute(changed)] if ids else []

        return await self._db.write(work)

    async def settle_notice(self, taken: Notice, status: Literal["asking", "sent", "skipped", "failed"], note: str | None = None) -> bool:
        """Say what became of a notice; False when a later attempt was made meanwhile: then that one says."""
        sent_at = datetime.now(UTC) if status in ("asking", "sent") else taken.sent_at
        return await self._change(taken, status=status, note=note, sent_at=sent_at, due_at=None)

    async def retry_notice(self, taken: Notice, *, seconds: float, note: str) -> bool:
        """Have a notice sent again after some seconds; False as with `settle_notice`."""
        return await self._change(taken, due_at=self._now() + seconds, note=note)

    async def split_notice(self, taken: Notice, targets: Sequence[str]) -> bool:
        """Replace a notice by one for each of several targets, which then are sent by themselves; False as with `settle_notice`."""

        async def work(connection: AsyncConnection) -> bool:
            mine = (_table.c.id == taken.id) & (_table.c.attempts == taken.attempts) & (_table.c.status == "waiting")
            done = update(_table).where(mine).values(status="skipped", note="sent to each by itself", due_at=None)
            if not (await connection.execute(done)).rowcount:
                return False
            await self._record_notices(connection, taken.session_id, taken.kind, taken.subject, targets)
            return True

        return await self._db.write(work)

    async def _change(self, taken: Notice, **values: Any) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            mine = (_table.c.id == taken.id) & (_table.c.attempts == taken.attempts) & (_table.c.status == taken.status)
            return bool((await connection.execute(update(_table).where(mine).values(**values))).rowcount)

        return await self._db.write(work)

    async def notices(self, *, session_id: str | None = None, subject: str | None = None, status: str | None = None) -> list[Notice]:
        """Notices, oldest first."""
        chosen = select(*_columns).order_by(_table.c.created_at, _table.c.id)
        for column, wanted in ((_table.c.session_id, session_id), (_table.c.subject, subject), (_table.c.status, status)):
            if wanted is not None:
                chosen = chosen.where(column == wanted)
        return [_notice(row) for row in await self._db.read(chosen)]
