"""A routine's page: its task, what it may use, what starts it and when, and what it came to lately."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_routines.cli.terminal import console, text
from prefect_routines.errors import RoutinesError

if TYPE_CHECKING:
    from prefect import Flow
    from rich.text import Text

    from prefect_routines.deploying.deployed import Deployed
    from prefect_routines.settings import Settings
    from prefect_routines.store import SessionRecord

RUNS, TIMES = 8, 5


def page(deployed: Deployed, sessions: list[SessionRecord], *, as_json: bool) -> None:
    """Print it.

    Args:
        sessions: Of this deployment, the newest first.
    """
    flow, trouble = _flow(deployed)
    settings, wrong = _settings(deployed, flow)
    if as_json:
        from prefect_routines.cli.data import print_json

        print_json(_data(deployed, sessions, settings))
        return
    out = console()
    for line in (
        *_head(deployed),
        *_task(deployed, flow),
        *_may_use(settings, wrong or trouble),
        *_starts(deployed, settings),
        *_runs(sessions),
    ):
        out.print(line, soft_wrap=True)


def _flow(deployed: Deployed) -> tuple[Flow[Any, Any] | None, str]:
    """The routine's own code, where it can be loaded from here; else why not."""
    from prefect_routines.cli.loading import load_flow

    entrypoint = str(deployed.data.get("entrypoint") or "")
    place, colon, name = entrypoint.rpartition(":")
    roots = [Path.cwd(), *(Path(directory) for directory in _pull_directories(deployed))]
    for root in roots:
        if colon and (root / place).is_file():
            try:
                return load_flow(f"{root / place}:{name}"), ""
            except RoutinesError as error:
                return None, str(error)
    return None, f"its code ({entrypoint or 'no entrypoint'}) is not on this machine, so only what the deployment sets is shown"


def _pull_directories(deployed: Deployed) -> list[str]:
    """Directories on this machine from which a worker would run it."""
    found = [step.get("prefect.deployments.steps.set_working_directory") for step in deployed.data.get("pull_steps") or []]
    return [str(step["directory"]) for step in found if isinstance(step, dict) and step.get("directory")]


def _settings(deployed: Deployed, flow: Flow[Any, Any] | None) -> tuple[Settings | None, str]:
    """The settings that its runs have: the author's, with what the deployment overrides."""
    from pydantic import ValidationError

    from prefect_routines.routines import Routine
    from prefect_routines.settings import Settings, SettingsOverride, first_problem, merge

    written = (deployed.data.get("parameters") or {}).get("settings")
    base = flow.settings if isinstance(flow, Routine) else Settings() if written and deployed.is_routine else None
    if base is None:
        return None, ""
    try:
        return merge(base, SettingsOverride.model_validate(written) if written else None), ""
    except ValidationError as error:
        return None, f"the deployment's settings do not fit: {first_problem(error)}"
    except RoutinesError as error:
        return None, str(error)


def _head(deployed: Deployed) -> Iterator[Text]:
    from prefect.utilities.urls import url_for

    state = (" · paused", "yellow") if deployed.paused else (" · on", "green")
    yield text((deployed.name, "bold"), state)
    if described := str(deployed.data.get("description") or "").strip():
        yield text(f"  {described.splitlines()[0]}")
    if address := url_for("deployment", obj_id=deployed.id):
        yield text((f"  {address}", "dim"))


def _task(deployed: Deployed, flow: Flow[Any, Any] | None) -> Iterator[Text]:
    """The instructions: the prompt where it is a parameter, else the function that makes it."""
    import inspect

    from prefect_routines.routines import Routine

    parameters = {name: value for name, value in (deployed.data.get("parameters") or {}).items() if name != "settings"}
    yield text()
    yield text(("Task", "bold"), (f"  {deployed.data.get('entrypoint') or ''}", "dim"))
    if isinstance(flow, Routine):
        source = inspect.getsource(flow.function)
        body = source[source.index("def ") :].splitlines()
        yield from (text(f"  {line}") for line in body)
    for name, value in parameters.items():
        yield text((f"  {name} = ", "dim"), str(value))


def _may_use(settings: Settings | None, trouble: str) -> Iterator[Text]:
    yield text()
    yield text(("May use", "bold"))
    if settings is None or trouble:
        yield text((f"  {trouble or 'it is no routine: its code says what it uses'}", "yellow"))
    if settings is None:
        return
    rows = [("repository", f"{one.url}{f' ({one.branch})' if one.branch else ''}") for one in settings.repositories]
    rows += [("connector", one) for one in settings.connectors]
    rows += [(answer, rule) for answer in ("allow", "ask", "deny") for rule in getattr(settings.policy, answer)]
    rows += [("check", f"{one.repository}: {one.command}") for one in settings.checks]
    rows += [("network", ", ".join(settings.network))] if settings.network else []
    budget = settings.budget
    dollars = f", ${budget.dollars:g}" if budget.dollars else ""
    rows.append(("budget", f"{budget.turns} turns{dollars}, {budget.minutes:g} minutes"))
    rows.append(("model", settings.model))
    if settings.rehearsal:
        rows.append(("rehearsal", "outward writes are captured, not sent"))
    for word, value in rows:
        yield text((f"  {word:<11}", "dim"), value)


def _starts(deployed: Deployed, settings: Settings | None) -> Iterator[Text]:
    from prefect_routines.cli.routine_lines import address_lines, time_lines
    from prefect_routines.visible import one_line

    yield text()
    yield text(("Starts", "bold"), (" - paused: only `routines run-now`, and one-off runs", "yellow") if deployed.paused else "")
    for said in deployed.triggers_in_words() or ["by hand: `routines run-now`, `routines schedule`"]:
        yield text(f"    {said}")
    for condition in settings.when if settings else ():
        yield text(("    when     ", "dim"), one_line(str(condition), 300))
    yield from time_lines(deployed, TIMES)
    yield from address_lines(deployed, fire=True)


def _runs(sessions: list[SessionRecord]) -> Iterator[Text]:
    from prefect.utilities.urls import url_for

    from prefect_routines.cli.sessions import STYLES, when
    from prefect_routines.visible import one_line

    yield text()
    yield text(("Last runs", "bold"), "" if sessions else ("  none yet", "dim"))
    for one in sessions[:RUNS]:
        came_to = one.verdict or one.shown
        summary = f"  {one_line(one.summary, 100)}" if one.summary else ""
        cost = f"  ${one.dollars:.4f}  "
        yield text(f"  {when(one.started_at or one.created_at):<17}", (f"{came_to:<16}", STYLES.get(came_to, "")), cost, one.id, summary)
        if one.flow_run_id and (address := url_for("flow-run", obj_id=one.flow_run_id)):
            yield text((f"    {address}", "dim"))


def _data(deployed: Deployed, sessions: list[SessionRecord], settings: Settings | None) -> dict[str, Any]:
    from prefect_routines.cli.data import session_data
    from prefect_routines.cli.routines_list import row

    return row(deployed, sessions) | {
        "description": deployed.data.get("description"),
        "entrypoint": deployed.data.get("entrypoint"),
        "parameters": deployed.data.get("parameters") or {},
        "settings": settings.model_dump(mode="json") if settings else None,
        "next_times": [moment.isoformat() for moment in deployed.next_times(TIMES)],
        "sessions": [session_data(one) for one in sessions[:RUNS]],
    }
