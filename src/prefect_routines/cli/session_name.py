"""The session that a person names, the person himself, and the form that he means."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from prefect_routines.errors import SettingsError
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect_routines.steering.acts import Person
    from prefect_routines.store import Form, SessionRecord, Store

T = TypeVar("T")
SessionName = Annotated[
    str, typer.Argument(metavar="SESSION", help="A session's id, the beginning of it, or its flow run's id or name.", show_default=False)
]
Who = Annotated[str | None, typer.Option("--as", metavar="NAME", help="In whose name it is journaled. Default: LOGIN@MACHINE.")]


def person(name: str | None = None) -> Person:
    """Who steers from this terminal."""
    import getpass
    import socket

    from prefect_routines.steering.acts import Person

    if name is not None and not name.strip():
        raise SettingsError("--as: the name is empty")
    try:
        login = getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in a container
        login = "somebody"
    return Person(one_line(name, 200) if name else f"{login}@{socket.gethostname()}", "cli")


def with_session(context: typer.Context, name: str, work: Callable[[Store, SessionRecord], Awaitable[T]]) -> T:
    """Do something with the session that a name means.

    Raises:
        SettingsError: None, or several.
    """

    async def found(store: Store) -> T:
        return await work(store, await find_session(store, name))

    return with_store(context, found)


def with_store(context: typer.Context, work: Callable[[Store], Awaitable[T]]) -> T:
    """Do something with the store, and perhaps with Prefect."""
    import asyncio

    from prefect_routines.cli.run import prepare_prefect
    from prefect_routines.store import Store

    prepare_prefect(context.obj)

    async def opened() -> T:
        async with await Store.open() as store:
            return await work(store)

    return asyncio.run(opened())


async def find_session(store: Store, name: str) -> SessionRecord:
    """The session with this id, beginning of an id, or of the flow run with this id or name.

    Raises:
        SettingsError: None, or several.
    """
    try:
        return await store.find(name)
    except SettingsError as error:
        runs = [] if name.startswith("ses-") or "there is none" not in str(error) else await _runs_called(name)
        found = [record for run in runs for record in await store.sessions(flow_run_id=run)]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(record.id for record in found[:2])
            raise SettingsError(f"{one_line(name)!r} could be several sessions ({ids}, ...); give the id of one") from None
        raise


async def _runs_called(name: str) -> list[str]:
    """Ids of the flow runs with this name; none when Prefect cannot be asked."""
    import httpx
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
    from prefect.settings import get_current_settings

    if not name.strip() or get_current_settings().api.url is None:
        return []
    try:
        async with get_client() as client:
            chosen = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
            return [str(run.id) for run in await client.read_flow_runs(flow_run_filter=chosen, limit=10)]
    except (httpx.HTTPError, RuntimeError):
        return []


async def find_form(store: Store, name: str) -> tuple[SessionRecord, Form]:
    """The form that is meant: by its own id or the beginning of it, else the one for which a session waits.

    Raises:
        SettingsError: The session waits for nothing, or for several.
        AnswerRefused: There is no such form any more.
    """
    from prefect_routines.errors import AnswerRefused

    if name.startswith("frm-"):
        form = await store.form(name)
        if form is None and len(name) > len("frm-"):
            fitting = [one for one in await store.forms(status="open") if one.id.startswith(name)]
            form = fitting[0] if len(fitting) == 1 else None
        if form is None:
            raise AnswerRefused(one_line(name), None)
        record = await store.session(form.session_id)
        assert record is not None, "a form belongs to a session"
        return record, form
    record = await find_session(store, name)
    forms = await store.forms(session_id=record.id)
    waiting = [form for form in forms if form.status == "open"]
    if len(waiting) == 1:
        return record, waiting[0]
    if waiting:
        ids = ", ".join(form.id for form in waiting)
        raise SettingsError(f"session {record.id} waits for several answers; name one of its forms: {ids}")
    if record.status == "ended":
        raise SettingsError(f'session {record.id} has ended and waits for nothing; go on with: routines resume {record.id} "..."')
    if forms and forms[-1].status == "answered":
        raise AnswerRefused(forms[-1].id, "answered", by=forms[-1].person or "")
    if forms:
        raise AnswerRefused(forms[-1].id, forms[-1].status)
    raise SettingsError(f"session {record.id} waits for nothing; `routines waiting` lists what does")
