"""`routines resume`: go on with a session that has ended, failed, crashed or was cancelled - or fork it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefect_routines.cli.session_name import SessionName, Who, find_session, person
from prefect_routines.cli.terminal import DONE, console, note, text
from prefect_routines.errors import SettingsError

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from prefect_routines.store import SessionRecord


def resume(
    context: typer.Context,
    session: SessionName,
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="The follow-up: what Claude is asked to do next.")],
    fork: Annotated[bool, typer.Option("--fork", help="Begin a new session with a copy of the conversation; the old one stays.")] = False,
    at: Annotated[int | None, typer.Option("--at", metavar="ENTRY", min=1, help="With --fork: copy up to this journal entry.")] = None,
    transcript_only: Annotated[bool, typer.Option("--transcript-only", help="Go on with fresh clones when the workspace is lost.")] = False,
    assign: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One override, such as budget.turns=500.")] = None,
    path: Annotated[
        str | None, typer.Option("--path", metavar="PATH[:FLOW]", help="Run it here, with the routine of this file; without a deployment.")
    ] = None,
    who: Who = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch the run to its end; exit status 0 if the work is done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --path: the end as one JSON object on stdout.")] = False,
) -> int:
    """Go on with a session, in a new run of its deployment, with its conversation and its workspace."""
    from prefect_routines.cli.parameters import check_text, given_settings

    check_text(message, "the message")
    if at is not None and not fork:
        raise SettingsError("--at goes with --fork: a session itself goes on at its end")
    options: dict[str, Any] = {"fork": fork, "at": at, "transcript_only": transcript_only, "by": person(who).name}
    settings = given_settings(None, assign or [], rehearsal=False)
    if path is not None:
        return _here(context, session, message, options, settings, path, as_json=as_json)
    if as_json:
        raise SettingsError("--json goes with --path; a run elsewhere is followed with --follow, and read with `routines show --json`")
    return _elsewhere(context, session, message, options, settings, follow=follow)


def _elsewhere(
    context: typer.Context, session: str, message: str, options: dict[str, Any], settings: dict[str, Any] | None, *, follow: bool
) -> int:
    """A run of the session's deployment."""
    from prefect_routines.cli.naming import with_prefect
    from prefect_routines.cli.run_now import watch_run

    async def start(client: PrefectClient) -> tuple[SessionRecord, dict[str, Any]]:
        from prefect_routines.deploying.resuming import resume as start_resume
        from prefect_routines.store import Store

        async with await Store.open() as store:
            record = await find_session(store, session)
            run = await start_resume(store, record.id, message, settings=settings, **options)
        return record, (await client.request("GET", "/flow_runs/{id}", path_params={"id": run})).json()

    record, run = with_prefect(context, start)
    from prefect.utilities.urls import url_for

    out = console()
    what = "fork of " if options["fork"] else ""
    out.print(text(("✓ ", "green"), f"{what}{record.id}", f" · {run['name']}"), soft_wrap=True)
    if address := url_for("flow-run", obj_id=run["id"]):
        out.print(text(f"    {address}"), soft_wrap=True)
    return watch_run(context, run) if follow else DONE


def _here(
    context: typer.Context,
    session: str,
    message: str,
    options: dict[str, Any],
    settings: dict[str, Any] | None,
    path: str,
    *,
    as_json: bool,
) -> int:
    """A run in this process."""
    from prefect_routines.cli.run import check_settings, prepare_prefect

    prepare_prefect(context.obj)
    import asyncio

    from prefect_routines.cli.execution import execute, start_run
    from prefect_routines.cli.loading import load_flow
    from prefect_routines.cli.server import prefect_errors
    from prefect_routines.routines import Routine

    flow = load_flow(path)
    if not isinstance(flow, Routine):
        raise SettingsError(f"{flow.name} is a plain flow; only a session of a @routine can be resumed")

    async def parameters() -> dict[str, Any]:
        from prefect import get_client

        from prefect_routines.deploying.resuming import former_run, prepared, resumed_parameters
        from prefect_routines.session.continuing import check_routine
        from prefect_routines.store import Store

        async with await Store.open() as store, get_client() as client:
            found = await find_session(store, session)
            check_routine(found, flow.name)
            record, wanted = await prepared(store, found.id, message, **options)
            return resumed_parameters(await former_run(client, record), wanted, settings)

    with prefect_errors():
        given = asyncio.run(parameters())
    check_settings(flow, given["settings"])
    note(f"It runs here, in this process, with {path}.")
    return execute(flow, start_run(flow, given), path, as_json=as_json)
