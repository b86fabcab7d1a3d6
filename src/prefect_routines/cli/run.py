"""`routines run`: one run of a routine in this process, watched in the terminal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefect_routines.cli.terminal import Invocation
from prefect_routines.errors import SettingsError

if TYPE_CHECKING:
    from prefect import Flow


def run(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH[:FLOW]", help="Python file or module, and which routine in it.")],
    param: Annotated[list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter; JSON unless a text.")] = None,
    settings: Annotated[Path | None, typer.Option("--settings", "-s", metavar="FILE", help="Overrides of settings (YAML, JSON).")] = None,
    assign: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One override, such as budget.turns=5.")] = None,
    said: Annotated[str | None, typer.Option("--text", help="Text of the event that starts the run; Claude reads it as data.")] = None,
    payload: Annotated[Path | None, typer.Option("--payload", metavar="FILE", help="The same from a file, of any size.")] = None,
    rehearsal: Annotated[bool, typer.Option("--rehearsal", help="Capture outward writes instead of sending them.")] = False,
    again: Annotated[
        str | None, typer.Option("--continue", metavar="SESSION", help="Go on with a session that was stopped or crashed, in its run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The end as one JSON object on stdout; the progress goes to stderr.")] = False,
) -> int:
    """Run a routine here and now, and watch it.

    Exit status: 0 the work is done, 1 it is not, 2 something must be set right first, 130 stopped with Ctrl-C.
    """
    prepare_prefect(context.obj)
    from prefect_routines.cli.execution import continue_run, execute, start_run
    from prefect_routines.cli.loading import load_flow

    flow = load_flow(path)
    if again is not None:
        if param or settings or assign or said is not None or payload or rehearsal:
            raise SettingsError("--continue goes on with the parameters and settings that the run has; give none")
        return execute(flow, continue_run(flow, again), path, as_json=as_json)
    parameters = _parameters(flow, param or [], settings, assign or [], rehearsal, said, payload)
    return execute(flow, start_run(flow, parameters), path, as_json=as_json)


def prepare_prefect(invocation: Invocation) -> None:
    """Set what Prefect reads when it is imported: its own log would say everything twice, its first start takes longer than it waits."""
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
    if not invocation.debug:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def _parameters(
    flow: Flow[Any, Any],
    texts: list[str],
    file: Path | None,
    assignments: list[str],
    rehearsal: bool,
    said: str | None,
    payload: Path | None,
) -> dict[str, Any]:
    """Everything that the run is given, checked; a delivery is recorded last, when nothing can be wrong any more."""
    import asyncio
    import inspect

    from prefect_routines.cli.delivery import read_payload, record
    from prefect_routines.cli.parameters import given_parameters, given_settings

    more: dict[str, Any] = {}
    known = inspect.signature(flow.fn).parameters
    if (override := given_settings(file, assignments, rehearsal=rehearsal)) is not None:
        if "settings" not in known:
            raise SettingsError(f"{flow.name} takes no settings: it is a plain flow, not a @routine")
        more["settings"] = override
    check_settings(flow, override)
    if said is not None and payload is not None:
        raise SettingsError("give either --text or --payload, not both")
    body = said if said is not None else read_payload(payload) if payload is not None else None
    if body is not None:
        if "event" not in known:
            raise SettingsError(f"{flow.name} declares no parameter `event: Event | None`, so it cannot take --text or --payload")
        more["event"] = "checked-below"
    parameters = given_parameters(flow, texts, more)
    if body is not None:
        parameters["event"] = asyncio.run(record(body, "text" if said is not None else "payload"))
    return parameters


def check_settings(flow: Flow[Any, Any], override: dict[str, Any] | None) -> None:
    """Whether the routine's settings and these overrides go together, down to the rules of the policy; nothing is started.

    Raises:
        SettingsError: They do not.
    """
    from prefect_routines.routines import Routine
    from prefect_routines.session.session import Session
    from prefect_routines.settings import SettingsOverride, merge

    if isinstance(flow, Routine):
        merged = merge(flow.settings, SettingsOverride.model_validate(override) if override else None)
        Session("main", merged, tools=flow.tools, routine=flow.name)
