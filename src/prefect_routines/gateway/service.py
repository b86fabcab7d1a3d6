"""What the gateway's endpoints share: the store, the sources, the limits, and how one waits for the store."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request

from prefect_routines.gateway.limits import Busy, Limits, Rates, Room, TooMany
from prefect_routines.gateway.slack_apps import SlackApps
from prefect_routines.gateway.watching import Watching
from prefect_routines.store import Delivery, Dispatch, Store

if TYPE_CHECKING:
    from prefect_routines.gateway.fire import Deployments
    from prefect_routines.gateway.sources import Sources

T = TypeVar("T")
_TOGETHER = 50  # deliveries in one transaction


class Recorder:
    """Writes deliveries down; those that arrive while a commit is under way share the next one.

    A commit waits for the disk, so on a busy machine one for each delivery would be the bound of what a gateway can take.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Delivery, Dispatch | None, asyncio.Future[tuple[Delivery, bool]]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def record(self, delivery: Delivery, dispatch: Dispatch | None = None) -> tuple[Delivery, bool]:
        """As `Store.record_delivery`."""
        written: asyncio.Future[tuple[Delivery, bool]] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivery, dispatch, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await written

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
            try:
                found = await self._store.record_deliveries([(delivery, dispatch) for delivery, dispatch, _ in batch])
            except Exception as error:
                for delivery, dispatch, written in batch:
                    await self._alone(delivery, dispatch, written, error if len(batch) == 1 else None)
                continue
            for (_, _, written), recorded in zip(batch, found, strict=True):
                if not written.done():
                    written.set_result(recorded)

    async def _alone(
        self, delivery: Delivery, dispatch: Dispatch | None, written: asyncio.Future[tuple[Delivery, bool]], error: Exception | None
    ) -> None:
        """One that cannot be written must not take others along."""
        try:
            if error is not None:
                raise error
            recorded = await self._store.record_delivery(delivery, dispatch)
        except Exception as failed:
            if not written.done():
                written.set_exception(failed)
            return
        if not written.done():
            written.set_result(recorded)


@dataclass
class Service:
    """One gateway.

    Args:
        wake: Called when there is something new in the inbox.
        url: Address under which senders reach it.
        ui_url: Address of Prefect's UI.
        page_key: With which the cookies of the session page are signed.
    """

    store: Store
    sources: Sources
    deployments: Deployments
    wake: Callable[[], None]
    limits: Limits = field(default_factory=Limits)
    url: str = "http://127.0.0.1:4280"
    ui_url: str | None = None
    page_key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    rates: Rates = field(default_factory=Rates)
    slack_apps: SlackApps = field(default_factory=SlackApps)
    large: Room = field(init=False)
    watching: Watching = field(init=False)
    recorder: Recorder = field(init=False)
    _writing: set[asyncio.Task[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.store)
        self.large = Room(self.limits.large, "too many large bodies at once")
        self.watching = Watching(self.store, self.limits.streams)

    def session_url(self, session_id: str) -> str:
        """Where a person can look at a session."""
        return f"{self.url.rstrip('/')}/sessions/{session_id}"

    def run_url(self, flow_run_id: str | None) -> str | None:
        """A run's page in Prefect's UI."""
        return f"{self.ui_url.rstrip('/')}/runs/flow-run/{flow_run_id}" if flow_run_id and self.ui_url else None

    async def in_time(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the store, but no longer than a sender does. What takes longer is finished all the same: a second try finds it.

        Raises:
            Busy: It took too long.
        """
        task = self.background(work)
        done, _ = await asyncio.wait([task], timeout=self.limits.commit)
        if not done:
            raise Busy("the inbox is busy")
        return task.result()

    def background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something that is finished even if nobody waits for it any more."""
        task = asyncio.create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._written)
        return task

    def _written(self, task: asyncio.Task[Any]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen; whoever waits gets it too

    async def finish(self) -> None:
        """Wait for what is still being written."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=self.limits.commit)

    def address(self, request: Request) -> str:
        """Who is to be held responsible for failures."""
        return f"from {request.client.host if request.client else '?'}"

    def may_send_much(self, request: Request) -> None:
        """Raises:
        TooMany: The address has failed so often that no large body is read from it for a while.
        """
        seconds = self.rates.wait(self.address(request), self.limits.failures)
        if seconds:
            raise TooMany("too many wrong signatures or tokens from this address", seconds)

    def failed(self, request: Request) -> None:
        """Count a wrong signature or token.

        Raises:
            TooMany: There were too many.
        """
        seconds = self.rates.take(self.address(request), self.limits.failures)
        if seconds:
            raise TooMany("too many wrong signatures or tokens from this address", seconds)
