"""Sends what is due: in the gateway and in workers all the time, in a plain run when it ends or waits.

A notice is taken before it is sent and settled after. A sender that dies in between leaves it to the next one, who sends it again, with
the same id: told twice is better than not told, and an answer counts once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from prefect_routines.blocks import load_block
from prefect_routines.config import config
from prefect_routines.errors import RoutinesError
from prefect_routines.notices.links import LinkKey
from prefect_routines.notices.told import Told
from prefect_routines.notices.undelivered import NotDelivered, NotWanted
from prefect_routines.store import Notice, Store
from prefect_routines.visible import one_line

DAY = timedelta(days=1)
"""After this a notice is given up."""
_PAUSES = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0)  # seconds between attempts; the last one again and again
_ATTEMPT, _HOLD = 60.0, 90.0  # seconds for one attempt, and after which another sender takes over
_EVERY = 2.0
_log = logging.getLogger(__name__)


class Sender:
    """Sends notices until it is closed.

    Example:
        ```python
        async with Sender(store):
            await notify(store, record.id, "started", run_id, ["notice-webhook/ci"])
        ```
    """

    def __init__(self, store: Store) -> None:
        self._store, self._complained, self._key = store, "", LinkKey()

    async def __aenter__(self) -> Self:
        self._working = asyncio.create_task(self._work(), name="notices")
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._working

    async def _work(self) -> None:
        while True:
            try:
                busy = await self.round()
                self._complained = ""
            except RoutinesError as error:  # the store is away: it comes back
                busy = 0
                if str(error) != self._complained:
                    _log.warning("Notices wait: %s", one_line(str(error), 300))
                self._complained = str(error)
            except Exception:
                busy = 0
                _log.exception("The sender of notices met something unexpected and goes on")
            if not busy:
                await asyncio.sleep(_EVERY)

    async def round(self, session_id: str | None = None) -> int:
        """Try each notice that is due once, side by side; how many there were.

        Args:
            session_id: Only those of this session.
        """
        taken = await self._store.take_notices(seconds=_HOLD, session_id=session_id)
        await asyncio.gather(*(self._send(notice) for notice in taken))
        if session_id is None:
            await self.close_answered()
        return len(taken)

    async def close_answered(self, form_id: str | None = None) -> None:
        """Take the buttons away from messages whose form is closed.

        Args:
            form_id: Only those about this form.
        """
        closed = await self._store.take_answered(seconds=_HOLD, form_id=form_id)
        await asyncio.gather(*(self._close(notice) for notice in closed))

    async def _send(self, notice: Notice) -> None:
        try:
            async with asyncio.timeout(_ATTEMPT):
                await self._tell(notice)
        except NotWanted as why:
            await self._store.settle_notice(notice, "skipped", one_line(str(why), 300))
        except Exception as error:  # whatever it is, others are not kept from being told
            await self._again(notice, error)

    async def _tell(self, notice: Notice) -> None:
        told = await what_is_told(self._store, notice)
        reference, _, whom = notice.target.partition("#")
        slug, _, name = reference.partition("/")
        block: Any = await load_block(reference)
        if slug == "notice-webhook":
            await self._store.settle_notice(notice, "sent", one_line(await block.tell(told), 300))
        elif slug == "slack":
            from prefect_routines.notices import slack

            place = await slack.post(block, name, told, whom)
            await self._store.settle_notice(notice, "sent" if told.form is None else "asking", place)
        elif slug == "email":
            from prefect_routines.notices import mail

            if whom:
                said = await mail.send(block, name, told, whom, await self._key.get())
                await self._store.settle_notice(notice, "sent", one_line(said, 300))
            else:
                await self._store.split_notice(notice, [f"{reference}#{address}" for address in mail.recipients(block, name)])
        else:
            raise NotWanted(f"{reference} is a block that cannot tell anybody")

    async def _close(self, notice: Notice) -> None:
        from prefect_routines.notices import slack

        reference = notice.target.partition("#")[0]
        try:
            async with asyncio.timeout(_ATTEMPT):
                told = await what_is_told(self._store, notice)
                block: Any = await load_block(reference)
                await slack.close(block, reference.partition("/")[2], told, notice.note or "")
        except Exception as error:
            _log.warning("A message of %s keeps its buttons, and a click there changes nothing: %s", reference, one_line(str(error), 300))
            if datetime.now(UTC) < notice.created_at + DAY:
                return  # due again in a while
        await self._store.settle_notice(notice, "sent", notice.note)

    async def _again(self, notice: Notice, error: Exception) -> None:
        known = isinstance(error, RoutinesError)
        said = one_line(str(error) if known else f"{type(error).__name__}: {error}", 300)
        asked = error.seconds if isinstance(error, NotDelivered) else None
        pause = max(_PAUSES[min(notice.attempts, len(_PAUSES)) - 1], asked or 0.0)
        if datetime.now(UTC) + timedelta(seconds=pause) > notice.created_at + DAY:
            _log.warning("%s was not told (%s of %s), and is given up: %s", notice.target, notice.kind, notice.session_id, said)
            await self._store.settle_notice(notice, "failed", said)
            return
        if notice.attempts == 1:
            _log.warning("%s was not told (%s of %s), tried again: %s", notice.target, notice.kind, notice.session_id, said)
        await self._store.retry_notice(notice, seconds=pause, note=said)


async def what_is_told(store: Store, notice: Notice) -> Told:
    """What a notice is about, as it is now.

    Raises:
        NotWanted: Its form waits no longer, or its session is gone.
    """
    record = await store.session(notice.session_id)
    if record is None:
        raise NotWanted("the session is gone")
    form = await store.form(notice.subject) if notice.kind == "approval" else None
    if notice.kind == "approval" and (form is None or (form.status != "open" and notice.status == "waiting")):
        raise NotWanted("its form was answered before")
    return Told(notice, record, form, session_url(record.id))


def session_url(session_id: str) -> str:
    """The session's page at the gateway."""
    return f"{config().gateway_url.rstrip('/')}/sessions/{session_id}"


async def keep_sending() -> None:
    """Send what is due, for ever, with a store of its own."""
    while True:
        try:
            async with await Store.open() as store, Sender(store):
                await asyncio.Event().wait()
        except RoutinesError as error:
            _log.warning("Notices wait: %s", one_line(str(error), 300))
        await asyncio.sleep(30)


async def deliver(store: Store, session_id: str, *, seconds: float = 20.0) -> None:
    """Try what is due of one session, once: for a run that nobody else sends for. It never fails; what was not sent stays due."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(seconds):
            await Sender(store).round(session_id)
