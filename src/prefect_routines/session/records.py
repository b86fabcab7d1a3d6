"""The journal of an open session: journal first, act second - and one write for what has nothing done in between."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect_routines.store import Entry, Spend

if TYPE_CHECKING:
    from prefect_routines.store import Lease, Store

Written = tuple[str, dict[str, Any]]


class Records:
    """Writes entries, and keeps all of them in memory.

    A reply, and the last result of a turn, are followed at once by the entry without which nothing may be done: the start of the calls,
    that of the next attempt. They are held back for it. What is held is lost with the process like a reply that was still on its way.
    """

    def __init__(self, store: Store, lease: Lease, entries: Sequence[Entry]) -> None:
        self._store, self._lease = store, lease
        self.entries = list(entries)
        self._held: list[Written] = []
        self._held_spend: list[Spend] = []

    def hold(self, entries: Sequence[Written], spend: Sequence[Spend]) -> list[Entry]:
        """Take entries that are written together with the next ones."""
        self._held += entries
        self._held_spend += spend
        last = self.entries[-1].seq  # nobody else hands out numbers while the lease is ours
        return self._known(range(last + 1, last + 1 + len(entries)), entries)

    async def settle(self) -> None:
        """Write what is held, if anything is: nothing else comes.

        Raises:
            StoreError: As `write`.
        """
        if self._held:
            await self.write((), (), ())

    async def write(self, entries: Sequence[Written], spend: Sequence[Spend], acts: Sequence[int]) -> list[Entry]:
        """Write what is held and these entries, all or nothing; these entries are returned.

        Raises:
            LeaseLost: Another process holds the session.
            StoreError: The database cannot be written to.
        """
        held, held_spend = self._held, self._held_spend
        self._held, self._held_spend = [], []
        numbers = await self._store.append(self._lease, [*held, *entries], spend=[*held_spend, *spend], acts=acts)
        return self._known(numbers[len(held) :], entries)

    def _known(self, numbers: Sequence[int], entries: Sequence[Written]) -> list[Entry]:
        now = datetime.now(UTC)
        known = [Entry(number, kind, data, now) for number, (kind, data) in zip(numbers, entries, strict=True)]
        self.entries += known
        return known
