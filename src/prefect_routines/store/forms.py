"""Forms that wait for a person: opened by the session, answered once by whoever is first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Row, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_routines.errors import AnswerRefused
from prefect_routines.store import tables
from prefect_routines.store.leases import Lease, Leases
from prefect_routines.store.records import Form, FormKind

_table = tables.forms


def _form(row: Row[Any]) -> Form:
    return Form(**row._mapping)


class Forms(Leases):
    """The operations of the store on forms."""

    async def open_form(
        self,
        lease: Lease,
        form_id: str,
        *,
        key: str,
        kind: FormKind,
        content: dict[str, Any],
        flow_run_id: str | None,
        seconds: float | None,
    ) -> Form:
        """Open a form, or return the one that is there: a session that is started again finds what it waits for.

        Args:
            form_id: Random, minted by the caller.
            seconds: How long it takes answers, by the database's clock; None: for ever.

        Raises:
            LeaseLost: Another process holds the session.
        """

        async def work(connection: AsyncConnection) -> Form:
            await self._extend(connection, lease)
            mine = (_table.c.session_id == lease.session_id) & (_table.c.key == key)
            known = (await connection.execute(select(_table).where(mine))).one_or_none()
            if known is not None:
                return _form(known)
            values: dict[str, Any] = {
                "id": form_id,
                "session_id": lease.session_id,
                "key": key,
                "kind": kind,
                "content": content,
            }
            values |= {"flow_run_id": flow_run_id, "status": "open", "created_at": datetime.now(UTC)}
            until = None if seconds is None else self._now() + seconds
            return _form((await connection.execute(insert(_table).values(**values, expires_at=until).returning(_table))).one())

        return await self._db.write(work)

    async def form(self, form_id: str) -> Form | None:
        """The form with this id."""
        rows = await self._db.read(select(_table).where(_table.c.id == form_id))
        return _form(rows[0]) if rows else None

    async def forms(
        self, *, session_id: str | None = None, key: str | None = None, status: str | None = None, expired: bool = False
    ) -> list[Form]:
        """Forms, oldest first; with `expired` those that are open although their time is over."""
        chosen = select(_table).order_by(_table.c.created_at, _table.c.id)
        if session_id is not None:
            chosen = chosen.where(_table.c.session_id == session_id)
        if key is not None:
            chosen = chosen.where(_table.c.key == key)
        if status is not None:
            chosen = chosen.where(_table.c.status == status)
        if expired:
            chosen = chosen.where(_table.c.status == "open", _table.c.expires_at <= self._now())
        return [_form(row) for row in await self._db.read(chosen)]

    async def answer_form(self, form_id: str, answer: dict[str, Any], *, person: str, via: str) -> Form:
        """Answer a form; of several answers the first one counts.

        Raises:
            AnswerRefused: It is gone, its time is over, or somebody has answered it already.
        """
        in_time = or_(_table.c.expires_at.is_(None), _table.c.expires_at > self._now())
        return await self._close(form_id, "answered", answer, person, via, in_time)

    async def close_form(
        self, form_id: str, status: Literal["expired", "withdrawn"], answer: dict[str, Any] | None, *, person: str
    ) -> Form:
        """End a form without an answer of a person: its time is over, or nobody needs it any more.

        Args:
            answer: What counts instead.
            person: On whose behalf, for example `the deadline`.

        Raises:
            AnswerRefused: It is gone or was answered.
        """
        return await self._close(form_id, status, answer, person, "", None)

    async def _close(self, form_id: str, status: str, answer: dict[str, Any] | None, person: str, via: str, also: Any) -> Form:
        async def work(connection: AsyncConnection) -> Form:
            values = {"status": status, "answer": answer, "person": person, "via": via, "answered_at": datetime.now(UTC)}
            chosen = update(_table).where(_table.c.id == form_id, _table.c.status == "open").values(**values)
            found = (await connection.execute((chosen if also is None else chosen.where(also)).returning(_table))).one_or_none()
            if found is not None:
                return _form(found)
            known = (await connection.execute(select(_table).where(_table.c.id == form_id))).one_or_none()
            raise AnswerRefused(form_id, None if known is None else "expired" if known.status == "open" else known.status, by=_by(known))

        return await self._db.write(work)

    async def answered_and_waiting(self) -> list[Form]:
        """Forms that were answered while their session still counts as suspended: its run may have to be woken."""
        return await self._of_suspended("answered", "expired")

    async def open_and_waiting(self) -> list[Form]:
        """Open forms of sessions that are suspended: no process looks after them."""
        return await self._of_suspended("open")

    async def _of_suspended(self, *statuses: str) -> list[Form]:
        session = tables.sessions
        chosen = select(_table).join(session, session.c.id == _table.c.session_id).order_by(_table.c.created_at)
        chosen = chosen.where(session.c.status == "suspended", session.c.flow_run_id == _table.c.flow_run_id)
        newer = _table.alias()  # what was answered before must never be taken for the answer to what is asked now
        later = (newer.c.session_id == _table.c.session_id) & (newer.c.created_at > _table.c.created_at)
        chosen = chosen.where(~select(newer.c.id).where(later).exists())
        return [_form(row) for row in await self._db.read(chosen.where(_table.c.status.in_(statuses)))]


def _by(row: Row[Any] | None) -> str:
    return str(row.person or "") if row is not None else ""
