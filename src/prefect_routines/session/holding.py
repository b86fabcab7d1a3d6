"""Taking a session for this process, and leaving it: idle, suspended or cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.exceptions import Abort, Pause

from prefect_routines.errors import AnswerRefused, LeaseHeld, LeaseLost, RoutinesError, SessionCancelled
from prefect_routines.notices.notify import notify
from prefect_routines.session import waiting
from prefect_routines.session.steering import PREFECT_UI
from prefect_routines.session.waiting import Suspend
from prefect_routines.steering.acts import wake
from prefect_routines.store import CANCELLED, FAILED, Store
from prefect_routines.visible import one_line, visible

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from prefect_routines.session.session import Session
    from prefect_routines.store import Form, Lease, SessionRecord

CLOSING = 60.0  # seconds that a session may take to close before a suspension
ASKING = 5.0  # seconds for Prefect to say why a process is told to end


class RunCancelled(Abort):
    """Ends the process of a run that has been marked as cancelled.

    Attributes:
        state: The state that the run is in, as Prefect's engine looks for it.
    """

    def __init__(self, state: State[Any]) -> None:
        super().__init__(state.message)
        self.state = state


async def acquire(session: Session, record: SessionRecord) -> Lease:
    """Take the session. One that is just being suspended is waited for: somebody was quick to answer.

    Raises:
        LeaseHeld: Another process is at it.
    """
    deadline = time.monotonic() + CLOSING
    while True:
        try:
            return await session.store.acquire(session.id)
        except LeaseHeld:
            if record.status != "suspended" or record.flow_run_id != session.flow_run.id or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


async def unless_lease_is_lost(lease: Lease, work: Awaitable[None]) -> None:
    """Do `work`, but stop at once when another process has taken the session: what this one does would be done twice.

    Raises:
        LeaseLost: Another process has.
    """
    doing, lost = asyncio.ensure_future(work), asyncio.ensure_future(lease.lost.wait())
    try:
        await asyncio.wait({doing, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise LeaseLost(lease.session_id, lease.fence)
        doing.result()
    finally:
        for future in (doing, lost):
            future.cancel()
        await asyncio.gather(doing, lost, return_exceptions=True)


def is_suspension(error: BaseException | None) -> bool:
    """Whether a session closes because its run is to be suspended: by the session itself, or by somebody in Prefect's UI.

    Not when an inner session of the same run has seen to that already.
    """
    return isinstance(error, Suspend) or (isinstance(error, Pause) and not hasattr(error, "of_session"))


async def suspend(session: Session, form: Form, pause_key: str, *, note: str = "") -> BaseException:
    """Suspend the run, now that nothing of the session is held any more; what ends the process then.

    Somebody may have answered while the session closed: then the run goes on at once.

    Args:
        note: What the form says on top.
    """
    pause = Pause(state=await waiting.show_form(session, form, pause_key, note=note))
    pause.of_session = session.id  # type: ignore[attr-defined]  # the sessions around this one just close
    with contextlib.suppress(RoutinesError):
        async with await Store.open() as store:
            now = await store.form(form.id)
            if now is not None and now.status != "open":
                await wake(store, now)
    return pause


async def cancel_run(session: Session, why: SessionCancelled) -> BaseException:
    """End a run, now that its session is cancelled and closed, and the runs around it; what ends the process then.

    Prefect's engine reports a crash when it meets an exception that it does not know. An `Abort` it takes for a run that is settled.
    """
    from prefect import get_client
    from prefect.states import Cancelled

    around: UUID | None = UUID(session.flow_run.id)
    state: State[Any] = Cancelled(message=visible(str(why)))
    try:
        async with get_client() as client:
            while around is not None:
                await client.set_flow_run_state(around, state, force=True)
                run = await client.read_flow_run(around)
                outer = run.parent_task_run_id if run.deployment_id is None else None  # that of a deployment is another process's
                around = (await client.read_task_run(outer)).flow_run_id if outer is not None else None
    except Exception as error:
        session.log(f"The run could not be marked as cancelled: {type(error).__name__}", logging.WARNING)
        return why
    return RunCancelled(state)


async def before_closing(session: Session, error: BaseException | None) -> tuple[Form, str] | None:
    """Put down how the session is left, while everything of it is still there; for a suspension its form, and the key of the pause.

    Args:
        error: What ends the block in which the session is open.
    """
    with contextlib.suppress(RoutinesError):
        await session.settle()
    if is_suspension(error):
        return await _before_suspension(session, error.form if isinstance(error, Suspend) else None)
    if not isinstance(error, Exception | Pause | None):
        await _hear_of_cancellation(session)
    await _leave(session)
    if isinstance(error, Exception):
        await _tell_error(session, error)
    return None


async def _before_suspension(session: Session, form: Form | None) -> tuple[Form, str]:
    """Put down that the session is suspended.

    Args:
        form: What it waits for; None when somebody suspended the run in Prefect's UI: then that becomes a form.
    """
    if form is None:
        if session.transcript.form is None:
            await session.ask("pause", {"person": PREFECT_UI, "calls": [], "questions": []})
        form = await waiting.opened_form(session)
    pause_key = await waiting.note_pause(session, form)
    await session.store.update_session(session.lease, status="suspended", **_taken(session))
    return form, pause_key


async def _tell_error(session: Session, error: Exception) -> None:
    """Have those who hear of ends told that the run ends with an error, and is not started again by itself.

    An end of each attempt is one of its own: somebody who retries the run by hand hears what came of that.
    """
    run = session.flow_run
    if isinstance(error, LeaseLost) or session.lease.lost.is_set() or run.is_retried or run.ended(session.name):
        return
    why = one_line(session.redacted_text(str(error)) or type(error).__name__, 300)
    with contextlib.suppress(RoutinesError):
        await session.store.update_session(session.lease, data={FAILED: why}, **_taken(session))
        told = session.settings.notify
        await notify(session.store, session.id, "finished", f"{run.id} {run.attempt}", told, now=run.deployment_id is None)


async def _hear_of_cancellation(session: Session) -> None:
    """The process is told to end. If that is because the run was cancelled, so is the session; else it may go on another time."""
    if session.transcript.cancelled is not None or session.flow_run.ended(session.name):
        return
    with contextlib.suppress(RoutinesError, TimeoutError):
        async with asyncio.timeout(ASKING):
            state = await waiting.run_state(session)
        if state is None or not (state.is_cancelling() or state.is_cancelled()):
            return
        acts = [act for act in await session.store.acts(session.id) if act.kind == "cancel"]  # by way of Prefect, as it did not hear
        told = {"person": acts[0].person, "via": acts[0].via} if acts else {"person": PREFECT_UI, "via": "prefect"}
        await session.record(("session.cancelled", told), acts=[act.id for act in acts])


async def _leave(session: Session) -> None:
    """Put down where the session stands when its process ends without a verdict."""
    state = session.transcript
    with contextlib.suppress(RoutinesError):
        if state.cancelled is not None:
            person = state.cancelled["person"]
            summary, ended = f"Cancelled by {person or 'somebody'}", datetime.now(UTC)
            await session.store.update_session(
                session.lease, status="ended", summary=summary, ended_at=ended, data={CANCELLED: True}, **_taken(session)
            )
            await notify(session.store, session.id, "finished", session.flow_run.id, session.settings.notify)
            for form in await session.store.forms(session_id=session.id, status="open"):
                with contextlib.suppress(AnswerRefused):
                    await session.store.close_form(form.id, "withdrawn", None, person=person)
        elif state.verdict is None and state.form is None:
            await session.record(("session.status_idle", {}))
            await session.store.update_session(session.lease, status="idle", **_taken(session))


def _taken(session: Session) -> Any:
    state = session.transcript
    return {"turns": state.turns, "tokens": state.total_tokens, "dollars": state.dollars}
