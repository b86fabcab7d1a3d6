"""A session that waits for a person: the form is journaled and opened, and the run is suspended until it is answered.

A run of a deployment is suspended, which ends its process; it is started again when the form is answered, and finds the answer. A run
without one has nobody who could start it again: its process stays and waits. Either way the form can be answered in Prefect's UI and
through the store (CLI, session page, API, Slack, e-mail); the first answer counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID, uuid4

from prefect_routines.errors import AnswerRefused, RoutinesError, SessionCancelled, SettingsError
from prefect_routines.notices.notify import notify
from prefect_routines.steering.acts import Person, may_answer, wake
from prefect_routines.steering.deadlines import expire
from prefect_routines.steering.form import checked_answer, default_answer, said, subject
from prefect_routines.steering.prefect_form import answer_of, input_model
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State

    from prefect_routines.session.session import Session
    from prefect_routines.store import Form, FormKind

LOOK = 0.25  # seconds between two looks at the store while the process stays
LOOK_AT_PREFECT = 1.0
GRACE = timedelta(hours=1)  # Prefect lets a run fail that is not resumed in time; before that the deadline's own answer counts
UI = Person("somebody in the Prefect UI", "prefect")


class Suspend(BaseException):
    """Ends the process of a run of a deployment: the session closes, then the run is suspended. `except Exception` lets it pass.

    Args:
        form: What it waits for.
        note: Shown above the form: why the last answer did not count.
    """

    def __init__(self, form: Form, note: str = "") -> None:
        super().__init__(form.id)
        self.form, self.note = form, note


def form_content(session: Session, content: dict[str, Any]) -> dict[str, Any]:
    """What a form holds beside its subject: who may answer, and what counts when nobody does."""
    answers = session.settings.answers
    return {**content, "people": list(answers.people), "default": answers.default}


async def open_form(session: Session, kind: FormKind, content: dict[str, Any]) -> None:
    """Journal a form and open it; the session's next step is to wait for its answer."""
    number = 1 + sum(1 for key in session.transcript.forms if key.startswith(f"turn-{session.transcript.turns}-"))
    key = f"turn-{session.transcript.turns}-{kind}-{number}"
    opened = {"form": f"frm-{uuid4().hex}", "key": key, "kind": kind, "content": session.redact(form_content(session, content))}
    await session.record(("form.opened", opened))


async def opened_form(session: Session) -> Form:
    """The form that the journal says is open, as the store has it."""
    opened = session.transcript.form
    assert opened is not None
    told = {name: opened[name] for name in ("key", "kind", "content")}
    seconds = session.settings.answers.minutes * 60
    return await session.store.open_form(session.lease, opened["form"], **told, flow_run_id=session.flow_run.id, seconds=seconds)


async def wait(session: Session) -> None:
    """Wait until the open form is answered, and journal the answer.

    Raises:
        Suspend: In a run of a deployment: the process ends here.
        SessionCancelled: A person has cancelled the session.
    """
    form, note = await opened_form(session), ""
    if form.status == "open":
        form, note = await _from_prefect(session, form)
    if form.status == "open":
        session.log(f"Waits for a person: {subject(form.kind, form.content)}")
        in_place = session.flow_run.deployment_id is None
        if form.kind != "pause":
            await notify(session.store, session.id, "approval", form.id, session.settings.notify, now=in_place)
        await session.publisher.show_now()
        if not in_place:
            raise Suspend(form, note)
        form = await _in_place(session, form)
    await _take_answer(session, form)


async def _take_answer(session: Session, form: Form) -> None:
    """The answer into the journal, with what it says to Claude."""
    answer = form.answer or default_answer(form.kind, form.content, "stop", "withdrawn")
    person, via = form.person or "", form.via or ""
    told = {"form": form.id, "key": form.key, "kind": form.kind, "status": form.status, "answer": answer, "person": person, "via": via}
    entries: list[tuple[str, dict[str, Any]]] = [("form.answered", told)]
    if message := answer.get("message"):
        text = f"[Message from {one_line(person, 80) or 'a person'}]\n{message}"
        entries.append(("user.message", {"content": [{"type": "text", "text": text}], "by": person, "via": via}))
    if any(one["decision"] == "stop" for one in answer.get("decisions", {}).values()) or (
        form.kind == "pause" and answer.get("action") == "stop"
    ):
        entries.append(("session.cancelled", {"person": person, "via": via}))
    await session.record(*entries)
    session.log(f"{person or 'Nobody'} answered: {said(answer)}")


async def _from_prefect(session: Session, form: Form) -> tuple[Form, str]:
    """What was filled in in Prefect's UI since the run was suspended for this form; the form as it is if nothing fits, and why not."""
    keys = [one["pause_key"] for one in session.transcript.suspensions if one["form"] == form.id]
    if not keys:
        return form, ""
    shown, values = await _response(session, keys[-1])
    if not shown or (not values and form.kind != "pause"):  # a suspension that was started again without a word is to go on
        return form, ""
    try:
        may_answer(form, UI)
        answer = checked_answer(form.kind, form.content, answer_of(form.kind, form.content, values or {}))
        return await session.store.answer_form(form.id, answer, person=UI.name, via=UI.via), ""
    except SettingsError as error:
        session.log(f"The answer from the Prefect UI does not count: {error}")
        return form, f"Your answer did not count: {error}"
    except AnswerRefused:
        return await _settled(session, form), ""


async def _response(session: Session, pause_key: str) -> tuple[bool, dict[str, Any] | None]:
    """Whether Prefect has shown the form of this pause, and what was filled in.

    Raises:
        RoutinesError: Prefect does not say; that must not be taken for an answer.
    """
    import httpx
    from prefect import get_client
    from prefect.input.run_input import keyset_from_base_key

    found: dict[str, str] = {}
    async with get_client() as client:
        for name in ("suspended", "paused"):
            keys = keyset_from_base_key(f"{name}-{pause_key}")
            for part in ("schema", "response"):
                try:
                    found[part] = await client.read_flow_run_input(flow_run_id=UUID(session.flow_run.id), key=keys[part])
                except httpx.HTTPError as error:  # a connection that breaks off as well as an answer that is none
                    why = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else type(error).__name__
                    if why != 404:
                        raise RoutinesError(f"Prefect does not tell what was answered ({why}); retry the run") from None
    return "schema" in found, _json(found["response"]) if "response" in found else None


def _json(text: str) -> dict[str, Any]:
    import json

    found = json.loads(text)
    return found if isinstance(found, dict) else {}


async def _settled(session: Session, form: Form) -> Form:
    """The form as it stands; one whose time is over gets the answer that counts then."""
    for found in await session.store.forms(expired=True):
        if found.id == form.id:
            with contextlib.suppress(AnswerRefused):
                await expire(session.store, found)
    return await session.store.form(form.id) or form


async def _in_place(session: Session, form: Form) -> Form:
    """Wait with the process alive; the run shows as Paused, with the form."""
    shown, looked = await _pause_in_place(session, form), time.monotonic()
    while True:
        form = await _settled(session, form)
        if form.status != "open":
            await wake(session.store, form, here=True)
            return form
        for act in await session.store.acts(session.id):
            if act.kind == "cancel":
                await _cancelled(session, Person(act.person, act.via), act.id)
        if time.monotonic() - looked > LOOK_AT_PREFECT:
            state, looked = await run_state(session), time.monotonic()
            if state is not None and (state.is_cancelled() or state.is_cancelling()):
                await _cancelled(session, UI)
            if state is not None and not state.is_paused():
                answered, note = form, ""
                if shown:
                    with contextlib.suppress(RoutinesError):  # Prefect does not tell: then it is asked once more
                        answered, note = await _from_prefect(session, form)
                if answered.status == "open":
                    shown = await _pause_in_place(session, form, note)
        await asyncio.sleep(LOOK)


async def _cancelled(session: Session, person: Person, *acts: int) -> NoReturn:
    await session.record(("session.cancelled", {"person": person.name, "via": person.via}), acts=acts)
    raise SessionCancelled(session.id, person.name, person.via)


async def _pause_in_place(session: Session, form: Form, note: str = "") -> bool:
    """Show the form in Prefect; False if that is away: there are other ways to answer."""
    pause_key = await note_pause(session, form)
    try:
        await show_form(session, form, pause_key, note=note, in_place=True)
    except Exception:
        return False
    return True


async def run_state(session: Session) -> State[Any] | None:
    """The state of the run; None while Prefect is away."""
    from prefect import get_client

    try:
        async with get_client() as client:
            return (await client.read_flow_run(UUID(session.flow_run.id))).state
    except Exception:
        return None


async def note_pause(session: Session, form: Form) -> str:
    """Journal that the run is about to be paused for a form; returns the key of the pause, under which Prefect keeps the answer."""
    pause_key = f"{form.id}-{1 + len(session.transcript.suspensions)}"
    await session.record(("session.status_suspended", {"form": form.id, "key": form.key, "pause_key": pause_key}))
    return pause_key


async def show_form(session: Session, form: Form, pause_key: str, *, note: str = "", in_place: bool = False) -> State[Any]:
    """Put the run into a paused state with the form that it waits for.

    The form is saved before the state is set, so that a click in the next moment finds it. The state is set by force, because the UI
    may have suspended the run already - but only while it is still the state that was looked at: a click on Resume, or a cancellation,
    in between is respected.

    Returns:
        The state that the run is in now.
    """
    from prefect import get_client
    from prefect.input.run_input import keyset_from_paused_state
    from prefect.states import Paused

    left = None if form.expires_at is None else max(0.0, form.expires_at - time.time())
    seconds = int((left if left is not None else 30 * 86400) + GRACE.total_seconds())
    name = "Paused" if in_place else "Suspended"
    message = one_line(f"waits for a person: {subject(form.kind, form.content)}", 200)
    state: State[Any] = Paused(name=name, message=message, timeout_seconds=seconds, pause_key=pause_key, reschedule=not in_place)
    keyset = keyset_from_paused_state(state)
    state.state_details.run_input_keyset = {str(part): key for part, key in keyset.items()}
    flow_run_id = UUID(session.flow_run.id)
    async with get_client() as client:
        await _save(client, flow_run_id, keyset, input_model(form.kind, form.content, link=session.link, note=note))
        return await _set(client, flow_run_id, state)


async def _save(client: PrefectClient, flow_run_id: UUID, keyset: Any, model: Any) -> None:
    import json

    await client.create_flow_run_input(flow_run_id=flow_run_id, key=keyset["schema"], value=json.dumps(model.model_json_schema()))
    await client.create_flow_run_input(flow_run_id=flow_run_id, key=keyset["description"], value=json.dumps(model._description))


async def _set(client: PrefectClient, flow_run_id: UUID, state: State[Any]) -> State[Any]:
    while True:
        before = (await client.read_flow_run(flow_run_id)).state
        assert before is not None
        if not (before.is_running() or before.is_paused()):
            return before
        now = (await client.read_flow_run(flow_run_id)).state
        if now is not None and now.id == before.id:
            await client.set_flow_run_state(flow_run_id, state, force=True)
            return state
