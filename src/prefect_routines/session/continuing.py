"""A run that goes on with an earlier session: whose turn it is, what started the session, and what becomes of calls left open."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefect_routines.errors import AnswerRefused, SettingsError
from prefect_routines.events import Event
from prefect_routines.session import outputs
from prefect_routines.session.calls import decline
from prefect_routines.session.forking import fork
from prefect_routines.session.inbound import load_event
from prefect_routines.session.outputs import UNKNOWN_OUTCOME
from prefect_routines.session.steering import CUTTING
from prefect_routines.settings import Resume
from prefect_routines.store import Entry, Lease, SessionRecord, Store
from prefect_routines.tools.tool import ToolResult

if TYPE_CHECKING:
    from prefect_routines.session.session import Session

NOT_RUN = "Not run: the session ended before it, and a person has written since. Make the call again if it is still wanted."


async def look_up(resume: Resume, routine: str) -> tuple[SessionRecord, Event | None]:
    """The session that a run is to go on with, and what once started it: the rules for text from outside hold for as long as it lives.

    Raises:
        SettingsError: There is no such session, it is another routine's, or it has never been told its task.
    """
    async with await Store.open() as store:
        record = await store.session(resume.session)
        if record is None:
            raise SettingsError(f"session {resume.session}: there is no such session in the store. `routines sessions` lists them.")
        check_routine(record, routine)
        entries = await store.entries(record.id)
        check_begun(record, entries)
        return record, await _event(store, record, entries)


def check_routine(record: SessionRecord, routine: str) -> None:
    """Refuse a session that is not this routine's own.

    Raises:
        SettingsError: It is another one's, or one of several in a hand-written flow.
    """
    if record.routine != routine:
        raise SettingsError(f"session {record.id} is one of {record.routine}, not of {routine}; resume it there")
    if record.name != "main":
        raise SettingsError(f"session {record.id} is {record.name!r} of a hand-written flow; only a @routine's session can be resumed")


def check_begun(record: SessionRecord, entries: Sequence[Entry]) -> None:
    """Refuse a session in which nothing was asked yet.

    Raises:
        SettingsError: It ended before that.
    """
    if not any(entry.kind == "user.message" for entry in entries):
        raise SettingsError(f"session {record.id} ended before it was told its task; start the routine again instead")


async def _event(store: Store, record: SessionRecord, entries: Sequence[Entry]) -> Event | None:
    for entry in entries:
        if entry.kind == "session.status_running" and "event" in entry.data:
            return Event.model_validate(entry.data["event"])
    if record.event_id is None:
        return None
    try:
        return (await load_event(store, record.event_id))[0]
    except SettingsError:  # not kept any more: as strict as if a stranger had sent it
        return Event(id=record.event_id, source="webhook")


async def journal(store: Store, lease: Lease, flow_run: str, resume: Resume | None) -> tuple[list[Entry], str | None]:
    """The journal of a session that this run has taken; a new fork gets the copy first, and a line that tells of it.

    Raises:
        SettingsError: Another run has gone on with the session: this one has nothing left to do.
    """
    entries, told = list(await store.entries(lease.session_id)), None
    if resume is not None and resume.fork and not entries:
        told = await fork(store, lease, resume)
        entries = list(await store.entries(lease.session_id))
    check_turn(lease.session_id, entries, flow_run, None if resume is None or resume.fork else resume)
    return entries, told


def check_turn(session_id: str, entries: Sequence[Entry], flow_run: str, resume: Resume | None) -> None:
    """Whether this flow run may work on the session: nobody else has gone on with it since it began, or since it was asked for.

    Raises:
        SettingsError: Somebody has.
    """
    runs = [(entry.seq, entry.data.get("flow_run")) for entry in entries if entry.kind == "session.status_running"]
    if any(run == flow_run for _, run in runs):
        if runs[-1][1] != flow_run:
            raise SettingsError(f"session {session_id} goes on in flow run {runs[-1][1]}; this run has nothing left to do")
    elif resume is not None and resume.seen is not None:
        later = [run for seq, run in runs if seq > resume.seen]
        if later:
            raise SettingsError(
                f"session {session_id} was resumed by flow run {later[-1]} in the meantime, and this message was not delivered; "
                "look at what came of that one, then resume it again"
            )


async def settle_former_run(session: Session) -> list[int]:
    """Bring to an end what an ended run has left open: its calls are answered without being made, its forms are withdrawn.

    Returns:
        What people sent to that run and it did not hear: a wish to stop it is not one to stop this one.
    """
    for call in session.transcript.open_calls:
        answer = await outputs.settled(session, call) or await outputs.looked_up(session, call) or await outputs.unsettled(session, call)
        if answer is None and call.started:
            answer = ToolResult(UNKNOWN_OUTCOME, is_error=True, note="interrupted")
        await decline(session, call, answer or ToolResult(NOT_RUN, is_error=True, note="not run"))
    if session.settings.resume is None:
        return []
    for form in await session.store.forms(session_id=session.id, status="open"):
        with contextlib.suppress(AnswerRefused):  # somebody was quicker: nobody waits for that answer any more
            await session.store.close_form(form.id, "withdrawn", None, person=session.settings.resume.by)
    return [act.id for act in await session.store.acts(session.id) if act.kind in CUTTING]
