"""What a person does to a session from outside its process: send a message, interrupt, suspend, answer, cancel.

Everything goes through the store first, so that it is there whatever happens to Prefect or to the session's process; then Prefect is
told where a run has to be started again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from prefect_routines.errors import AnswerRefused, LeaseHeld, SettingsError
from prefect_routines.steering.form import LONGEST, checked_answer
from prefect_routines.steering.prefect_form import values_of
from prefect_routines.steering.telling import write_down
from prefect_routines.store import CANCELLED, TOLD, Act, ActKind, Form, SessionRecord, Store
from prefect_routines.visible import storable

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State


@dataclass(frozen=True)
class Person:
    """Who steers, and from where; both are journaled.

    Args:
        name: A login, a token's name, a Slack user: as far as the way tells.
        via: `cli`, `api`, `page`, `prefect`, `slack`, `e-mail`.
    """

    name: str
    via: str


async def send(store: Store, record: SessionRecord, text: str, person: Person, *, interrupt: bool = False) -> Act:
    """Send Claude a message: it joins the next turn; with `interrupt` what is under way is stopped first.

    While the session waits for a person nothing is under way, and what the answer starts is not what was meant to be stopped.

    Raises:
        SettingsError: It is empty or too long, or the session is over.
    """
    text = storable(text)
    if not text.strip():
        raise SettingsError("the message is empty")
    if len(text) > LONGEST:
        raise SettingsError(
            f"the message has {len(text):,} characters; at most {LONGEST:,} are taken. Put it into a file of the repository"
        )
    _not_over(record)
    kind: ActKind = "interrupt" if interrupt and not await store.forms(session_id=record.id, status="open") else "message"
    return await store.send_act(record.id, kind, text=text, person=person.name, via=person.via)


async def interrupt(store: Store, record: SessionRecord, person: Person) -> Act:
    """Stop the turn or the tool calls under way; the session goes on with what it then knows.

    Raises:
        SettingsError: The session is over, or waits for a person.
    """
    _not_over(record)
    if await store.forms(session_id=record.id, status="open"):
        raise SettingsError(f"session {record.id} waits for a person, so there is nothing to interrupt; answer what it asks, or cancel it")
    return await store.send_act(record.id, "interrupt", person=person.name, via=person.via)


async def suspend(store: Store, record: SessionRecord, person: Person) -> Act:
    """Have the session wait for a person, as Suspend in Prefect's UI does.

    Raises:
        SettingsError: The session is over.
    """
    _not_over(record)
    return await store.send_act(record.id, "suspend", person=person.name, via=person.via)


async def answer(store: Store, form: Form, given: Mapping[str, Any], person: Person) -> Form:
    """Answer a form, and have the run go on. The first answer counts.

    Args:
        given: See `steering/form.py`.

    Raises:
        SettingsError: It does not fit the form, or this person may not answer it.
        AnswerRefused: It was answered already, or its time is over.
    """
    if form.status != "open":
        raise AnswerRefused(form.id, form.status, by=form.person or "")
    may_answer(form, person)
    checked = checked_answer(form.kind, form.content, given)
    answered = await store.answer_form(form.id, checked, person=person.name, via=person.via)
    await wake(store, answered)
    return answered


def may_answer(form: Form, person: Person) -> None:
    """Whether this person may answer: a routine can insist on named people.

    Who comes from Slack is named by team and user, `slack:T1/U2`; what stands behind that is a name that people give themselves.

    Raises:
        SettingsError: No.
    """
    people = form.content.get("people") or []
    name = person.name.partition(" ")[0] if person.via == "slack" else person.name
    if people and (person.via == "prefect" or name.casefold() not in [one.casefold() for one in people]):
        raise SettingsError(f"only {', '.join(people)} may answer this form; it was not changed")


async def wake(store: Store, form: Form, *, here: bool = False) -> bool:
    """Have the run that waits for a form go on, now that it is answered; whether it was waiting.

    Only a run that is paused for this very form, which the key of its pause names: the answer must not become that to another one. A
    run of a deployment that broke down since is started again; once, or one that cannot start any more would be for ever.

    A Prefect that cannot be reached is not an error: the answer is kept, and whoever looks after deadlines wakes the run later.

    Args:
        here: The run is this process's own. Otherwise a run without a server of Prefect's is nobody else's to wake.
    """
    from prefect import get_client
    from prefect.settings import PREFECT_API_URL

    if form.flow_run_id is None or not (here or PREFECT_API_URL.value()):
        return False
    try:
        async with get_client() as client:
            run = await client.read_flow_run(UUID(form.flow_run_id))
            state = run.state
            if state is None or (run.deployment_id is None and not here):  # whoever waits without a deployment sees the answer itself
                return False
            if run.deployment_id is not None and (state.is_crashed() or state.is_failed()):
                return await _start_again(store, form, client, state)
            if not state.is_paused() or not (state.state_details.pause_key or "").startswith(f"{form.id}-"):
                return False
            result = await client.resume_flow_run(run.id, run_input=values_of(form.kind, form.content, form.answer or {}))
            return result.status.value == "ACCEPT"
    except Exception:
        return False


async def _start_again(store: Store, form: Form, client: PrefectClient, broken: State[Any]) -> bool:
    """Start a run again that broke down: once for a form, unless its session has ended since, or somebody else has done so."""
    from prefect.states import Scheduled

    record = await store.session(form.session_id)  # looked at after the state of the run: a session ends before its run does
    if record is None or record.status == "ended" or form.flow_run_id is None:
        return False
    run, why = await client.read_flow_run(UUID(form.flow_run_id)), f"somebody answered {form.id}"
    if run.state is None or run.state.id != broken.id:
        return False
    if any(former.message == why for former in await client.read_flow_run_states(run.id)):
        return False
    await client.set_flow_run_state(run.id, Scheduled(name="Resuming", message=why), force=True)
    return True


async def cancel(store: Store, record: SessionRecord, person: Person) -> Literal["asked", "cancelled"]:
    """Cancel a session: a running one stops at once and sends nothing more; one that waits ends here.

    Returns:
        `asked` when its process has been told, `cancelled` when there was none and it has ended.

    Raises:
        SettingsError: It is over already.
    """
    _not_over(record)
    await store.send_act(record.id, "cancel", person=person.name, via=person.via)
    if not await end_cancelled(store, record, person):
        return "asked"
    if record.flow_run_id is not None:
        with contextlib.suppress(Exception):  # Prefect may be away; the run, if it is ever started again, finds that it was cancelled
            await set_cancelled(record.flow_run_id, f"Cancelled by {person.name or 'somebody'}")
    return "cancelled"


async def end_cancelled(store: Store, record: SessionRecord, person: Person) -> bool:
    """End a session that no process holds; False if one does. Its open forms take no answer any more, and who is told of ends is told."""
    try:
        lease = await store.acquire(record.id)
    except LeaseHeld:
        return False
    async with store.keep(lease):
        now = await store.session(record.id)
        if now is None or now.status == "ended":  # it came to its end meanwhile
            return True
        waiting = await store.acts(record.id)
        data = {"person": person.name, "via": person.via}
        await store.append(lease, [("session.cancelled", data)], acts=[act.id for act in waiting if act.kind == "cancel"])
        summary, ended = f"Cancelled by {person.name or 'somebody'}", {CANCELLED: True}
        await store.update_session(lease, status="ended", summary=summary, ended_at=datetime.now(UTC), data=ended)
        for form in await store.forms(session_id=record.id, status="open"):
            with contextlib.suppress(AnswerRefused):  # answered in this moment: that changes nothing any more
                await store.close_form(form.id, "withdrawn", None, person=person.name)
    await write_down(store, record.id, "finished", record.flow_run_id or record.id, record.data.get(TOLD) or [])
    return True


async def set_cancelled(flow_run_id: str, message: str) -> None:
    """Show a run without a process as cancelled."""
    from prefect import get_client
    from prefect.states import Cancelled

    async with get_client() as client:
        run = await _run(client, flow_run_id)
        if run is not None and run.state is not None and not run.state.is_final():
            await client.set_flow_run_state(run.id, Cancelled(message=message), force=True)


async def _run(client: PrefectClient, flow_run_id: str) -> Any:
    from prefect.exceptions import ObjectNotFound

    try:
        return await client.read_flow_run(UUID(flow_run_id))
    except ObjectNotFound:
        return None


def _not_over(record: SessionRecord) -> None:
    if record.status == "ended":
        how = f"with the verdict {record.verdict}" if record.verdict else "without a verdict"
        raise SettingsError(f'session {record.id} has ended {how}; go on with: routines resume {record.id} "..."')
