"""Every write to the outside world, recorded before it is attempted and counted against the policy's limits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_routines.errors import OutputLimit, StoreError
from prefect_routines.store import tables
from prefect_routines.store.leases import Lease, Leases
from prefect_routines.store.records import Output

_table = tables.outputs


def _output(row: Row[Any]) -> Output:
    return Output(**row._mapping)


class Outputs(Leases):
    """The operations of the store on outward writes."""

    async def begin_output(
        self,
        lease: Lease,
        *,
        tool_use_id: str,
        tool: str,
        target: str,
        rule: str | None,
        request: dict[str, Any],
        max_per_rule: int | None,
    ) -> tuple[Output, bool]:
        """Record an outward write as `started`, before it is attempted.

        Args:
            tool_use_id: Claude's call; a second record for it is not made, the first is returned.
            rule: The policy rule that allows it; the count runs over (session, rule).
            max_per_rule: How many writes this rule allows in the session; None: any number. One that is known to have failed
                does not count, one with unknown outcome does.

        Returns:
            The record, and whether it is new. When it is not, the write may have happened: look it up at its service.

        Raises:
            OutputLimit: The rule is used up.
            LeaseLost: Another process holds the session.
        """

        async def work(connection: AsyncConnection) -> tuple[Output, bool]:
            await self._extend(connection, lease)  # holds the session's row until the commit: no two counts at once
            of_session = _table.c.session_id == lease.session_id
            known = (await connection.execute(select(_table).where(of_session, _table.c.tool_use_id == tool_use_id))).one_or_none()
            if known is not None:
                return _output(known), False
            if rule is not None and max_per_rule is not None:
                used = await connection.scalar(
                    select(func.count()).select_from(_table).where(of_session, _table.c.rule == rule, _table.c.status != "failed")
                )
                if (used or 0) >= max_per_rule:
                    raise OutputLimit(rule, max_per_rule)
            row = await connection.execute(
                insert(_table)
                .values(
                    session_id=lease.session_id,
                    tool_use_id=tool_use_id,
                    tool=tool,
                    target=target,
                    rule=rule,
                    status="started",
                    request=request,
                    created_at=datetime.now(UTC),
                )
                .returning(_table)
            )
            return _output(row.one()), True

        return await self._db.write(work)

    async def finish_output(
        self,
        lease: Lease,
        output_id: int,
        *,
        status: Literal["done", "failed", "captured", "unknown"],
        result: dict[str, Any],
        link: str | None = None,
    ) -> None:
        """Record how a write went; `failed` only when it is known not to have happened, `unknown` when nobody can tell.

        Args:
            link: Where the service shows what was written; of a push the branch.

        Raises:
            LeaseLost: Another process holds the session.
            StoreError: The session has no such output.
        """

        async def work(connection: AsyncConnection) -> None:
            await self._extend(connection, lease)
            changed = await connection.execute(
                update(_table)
                .where(_table.c.session_id == lease.session_id, _table.c.id == output_id)
                .values(status=status, result=result, finished_at=datetime.now(UTC), link=link[:500] if link else None)
            )
            if changed.rowcount != 1:
                raise StoreError(f"session {lease.session_id} has no output {output_id}; finish what `begin_output` returned.")

        await self._db.write(work)

    async def copy_outputs(self, lease: Lease, from_session: str, tool_use_ids: Sequence[str]) -> None:
        """Copy another session's writes into this one, which was forked from it: they stay counted under their rules.

        Without their links: what comes back from there is the doing of the session that wrote it.

        Args:
            tool_use_ids: The calls whose writes are copied; one that is here already is left alone.

        Raises:
            LeaseLost: Another process holds the session.
        """
        wanted = set(tool_use_ids)

        async def work(connection: AsyncConnection) -> None:
            await self._extend(connection, lease)
            here = set((await connection.scalars(select(_table.c.tool_use_id).where(_table.c.session_id == lease.session_id))).all())
            rows = (await connection.execute(select(_table).where(_table.c.session_id == from_session).order_by(_table.c.id))).all()
            copies = [
                {name: value for name, value in row._mapping.items() if name != "id"} | {"session_id": lease.session_id, "link": None}
                for row in rows
                if row.tool_use_id in wanted - here
            ]
            if copies:
                await connection.execute(insert(_table), copies)

        await self._db.write(work)

    async def outputs(self, session_id: str) -> list[Output]:
        """The session's writes in the order in which they began."""
        rows = await self._db.read(select(_table).where(_table.c.session_id == session_id).order_by(_table.c.id))
        return [_output(row) for row in rows]

    async def output_at(self, link: str) -> Output | None:
        """The newest write that a service shows at this address, or that went to this branch."""
        rows = await self._db.read(select(_table).where(_table.c.link == link[:500]).order_by(_table.c.id.desc()).limit(1))
        return _output(rows[0]) if rows else None

    async def output(self, session_id: str, tool_use_id: str) -> Output | None:
        """The write of one tool call."""
        rows = await self._db.read(select(_table).where(_table.c.session_id == session_id, _table.c.tool_use_id == tool_use_id))
        return _output(rows[0]) if rows else None
