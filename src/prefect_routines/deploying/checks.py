"""Checks prefect files before anything is deployed: each stanza by itself, then against the Prefect server. All problems, not the first."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_routines.deploying.event_names import event_problems
from prefect_routines.deploying.files import Stanza, read_file
from prefect_routines.deploying.fire_times import schedule_problems
from prefect_routines.deploying.problems import Problem, meant
from prefect_routines.deploying.triggers import OURS, expected, match_problems, parameter_problems
from prefect_routines.errors import RoutinesError
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect import Flow

    from prefect_routines.deploying.surroundings import Surroundings
    from prefect_routines.settings import Settings
    from prefect_routines.tools.tool import Tool

Load = Callable[[str], "Flow[Any, Any]"]


@dataclass
class Checked:
    """A stanza and what was learned of it.

    Args:
        stanza: As written.
        flow: What its entrypoint names; None when it does not load.
        settings: The routine's settings with the deployment's overrides; None for a plain flow, or when they do not fit.
    """

    stanza: Stanza
    flow: Flow[Any, Any] | None = None
    settings: Settings | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def full_name(self) -> str:
        """`flow/deployment`, as Prefect names it."""
        return f"{self.flow.name if self.flow else '?'}/{self.stanza.name}"


async def check_files(files: Sequence[Path], load: Load, surroundings: Surroundings) -> tuple[list[Checked], list[Problem]]:
    """Check prefect files.

    Args:
        files: The files.
        load: Gives the flow of an entrypoint; raises a `RoutinesError` with one line when it cannot.
        surroundings: What is on the Prefect server.

    Returns:
        The deployments, and all problems of all files in their order.
    """
    checked: list[Checked] = []
    problems: list[Problem] = []
    for file in files:
        stanzas, found = read_file(file)
        mine = [Checked(stanza, problems=list(_alone(stanza))) for stanza in stanzas]
        for one in mine:
            _against_flow(one, load)
            one.problems += event_problems(one.stanza, surroundings.sources, surroundings.kindless)
            one.problems += await surroundings.problems(one)
            _against_tools(one, await surroundings.tools(one))
        problems += sorted([*found, *(problem for one in mine for problem in one.problems)], key=lambda each: each.line)
        checked += mine
    problems += _twice(checked)
    return checked, list(dict.fromkeys(problems))


def _alone(stanza: Stanza) -> Iterator[Problem]:
    """What a stanza's own text tells."""
    for key, example in (("name", "weekly"), ("entrypoint", "flows/docs_sync.py:docs_sync")):
        if not isinstance(stanza.data.get(key), str) or not stanza.data[key].strip():
            yield stanza.problem(f"it has no {key}; write for example {key}: {example}")
    if "/" in stanza.name:
        yield stanza.problem("a deployment's name has no '/'; Prefect puts the flow's name before it", "name")
    if not stanza.schedules() and not stanza.triggers():
        yield stanza.problem("no schedule and no trigger: it starts only when somebody starts it", weight="note")
    if isinstance(stanza.data.get("work_pool"), dict) and "prefect.blocks" in str(stanza.data["work_pool"].get("job_variables")):
        text = (
            "a block in job_variables is read when it is deployed, and its secret is stored in plain text; let the routine name the block"
        )
        yield stanza.problem(text, "work_pool", "job_variables")
    yield from schedule_problems(stanza)
    yield from match_problems(stanza)
    yield from _prefect_problems(stanza)


def _prefect_problems(stanza: Stanza) -> Iterator[Problem]:
    """Triggers that Prefect itself would refuse, in the middle of the deployment."""
    from prefect.events import DeploymentTriggerTypes
    from pydantic import TypeAdapter, ValidationError

    listed = stanza.data.get("triggers") or []
    for number, trigger in enumerate(listed if isinstance(listed, list) else []):
        if not isinstance(trigger, dict) or any("{{" in str(value) for key, value in trigger.items() if key != "parameters"):
            continue
        try:
            TypeAdapter[Any](DeploymentTriggerTypes).validate_python(trigger)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = [part for part in problem["loc"] if part in trigger][:1]
            if where in (["match"], ["match_related"], ["expect"]):
                continue  # said in better words elsewhere
            named = f"{where[0]}: " if where else ""
            yield stanza.problem(f"Prefect refuses the trigger: {named}{one_line(problem['msg'], 200)}", "triggers", number, *where)


def _against_flow(checked: Checked, load: Load) -> None:
    """The entrypoint, the parameters, the settings, and the triggers' parameters."""
    from prefect_routines.routines import RESERVED, Routine

    stanza, entrypoint = checked.stanza, checked.stanza.data.get("entrypoint")
    if not isinstance(entrypoint, str) or "{{" in entrypoint:
        return
    place, colon, _ = entrypoint.rpartition(":")
    if not colon:
        checked.problems.append(stanza.problem("an entrypoint is FILE.py:FUNCTION", "entrypoint"))
        return
    if place.endswith(".py") and not Path(place).is_file():
        text = f"{place}: there is no such file; entrypoints count from the directory in which you deploy, which is {Path.cwd().name}/"
        checked.problems.append(stanza.problem(text, "entrypoint"))
        return
    try:
        checked.flow = load(entrypoint)
    except RoutinesError as error:
        checked.problems.append(stanza.problem(one_line(str(error), 400), "entrypoint"))
        return
    names = [name for name in inspect.signature(checked.flow.fn).parameters if name != RESERVED]
    is_routine = isinstance(checked.flow, Routine)
    checked.problems += parameter_problems(stanza, [*names, RESERVED] if is_routine else names, is_routine=is_routine)
    checked.problems += _parameter_problems(checked)


def _parameter_problems(checked: Checked) -> Iterator[Problem]:
    """The deployment's parameters, those of its schedules, and the settings among them."""
    from prefect_routines.routines import RESERVED, Routine

    stanza, flow = checked.stanza, checked.flow
    assert flow is not None
    parameters = stanza.data.get("parameters") or {}
    if not isinstance(parameters, dict):
        yield stanza.problem("parameters must hold names and values", "parameters")
        return
    known = inspect.signature(flow.fn).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    for name in parameters:
        if name not in known and not open_ended:
            there = meant(str(name), known, otherwise=f"it has {', '.join(known) or 'none'}")
            yield stanza.problem(f"{flow.name} has no parameter {one_line(str(name))!r}{there}", "parameters", str(name))
    if isinstance(flow, Routine) and isinstance(settings := parameters.get(RESERVED), dict | None):
        yield from _settings_problems(checked, settings)
    for name, value in parameters.items():
        if name in known and name != RESERVED and "{{" not in str(value):
            yield from _value_problem(stanza, flow, name, value)
    for place, schedule in stanza.schedules():
        for name in schedule.get("parameters") or {}:
            if name not in known and not open_ended:
                yield stanza.problem(f"{flow.name} has no parameter {one_line(str(name))!r}", *place, "parameters")
    yield from _missing(checked, known, parameters)


def _missing(checked: Checked, known: Any, parameters: dict[str, Any]) -> Iterator[Problem]:
    """Parameters without a default that nothing gives: each run would fail at once."""
    optional = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    needed = [one.name for one in known.values() if one.default is one.empty and one.kind not in optional and one.name not in parameters]
    starts = [*checked.stanza.schedules(), *((place, one) for place, one in checked.stanza.triggers() if not one.get("triggers"))]
    for place, start in starts:
        if lacking := [name for name in needed if name not in (start.get("parameters") or {})]:
            flow = checked.flow.name if checked.flow else ""
            yield checked.stanza.problem(f"{flow} needs {', '.join(lacking)}; give it under `parameters:`", *place)


def _value_problem(stanza: Stanza, flow: Flow[Any, Any], name: str, value: Any) -> Iterator[Problem]:
    """Whether one value fits; the others are left out, so that each is told by itself."""
    from pydantic import TypeAdapter, ValidationError

    annotation = inspect.signature(flow.fn).parameters[name].annotation
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        yield stanza.problem(f"{name}: {one_line(error.errors(include_url=False)[0]['msg'], 200)}", "parameters", name)
    except Exception:  # a type that pydantic cannot check: Prefect will, when it deploys
        return


def _settings_problems(checked: Checked, written: dict[str, Any] | None) -> Iterator[Problem]:
    """Overrides that are unknown, do not fit, or contradict the routine's own settings."""
    from pydantic import ValidationError

    from prefect_routines.settings import Settings, SettingsOverride, first_problem, merge

    assert checked.flow is not None
    base: Settings = checked.flow.settings  # type: ignore[attr-defined]  # a Routine
    try:
        override = SettingsOverride.model_validate(written) if written else None
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            way = [part for part in problem["loc"] if isinstance(part, str | int)]
            name = ".".join(map(str, way))
            said = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "extra_forbidden":
                said = f"there is no such setting{meant(str(way[-1]), Settings.model_fields)}"
            yield checked.stanza.problem(f"settings.{name}: {one_line(said, 300)}", "parameters", "settings", *way)
        return
    try:
        checked.settings = merge(base, override)
    except RoutinesError as error:
        yield checked.stanza.problem(one_line(str(error), 400), "parameters", "settings")
    except ValidationError as error:
        yield checked.stanza.problem(f"settings: {one_line(first_problem(error), 300)}", "parameters", "settings")


def _against_tools(checked: Checked, connected: Sequence[Tool] | None) -> None:
    """Rules that can never match, or never in the runs that this deployment has.

    Args:
        connected: The tools of its connectors; None when they are not known, since a block is missing.
    """
    from prefect_routines.policy import Policy, Rule
    from prefect_routines.tools import WORKSPACE_TOOLS

    settings = checked.settings
    if settings is None or connected is None or checked.flow is None:
        return
    tools = {tool.name: tool for tool in [*WORKSPACE_TOOLS, *checked.flow.tools, *connected]}  # type: ignore[attr-defined]
    outside = _only_from_outside(checked.stanza)
    for answer in ("deny", "ask", "allow"):
        for text in getattr(settings.policy, answer):
            place = ("parameters", "settings", "policy", answer)
            try:
                settings.model_copy(update={"policy": Policy(**{answer: [text]})}).check_rules(
                    {name: tool.arguments for name, tool in tools.items()}
                )
            except RoutinesError as error:
                checked.problems.append(checked.stanza.problem(one_line(str(error), 400), *place))
                continue
            rule = Rule.parse(text)
            named = [tool for tool in tools.values() if rule.names(tool.name) and tool.writes]
            left = {
                end for tool in named for end in rule.open_ends(tool.targets or ([tool.main] if tool.main else tool.arguments), tool.main)
            }
            if answer == "allow" and outside and named and left:
                said = f"policy: {text!r} allows nothing in runs that somebody outside starts: it leaves {' and '.join(sorted(left))} open"
                fix = "; fix it by value or by a field of the event such as {event.number}"
                checked.problems.append(checked.stanza.problem(said + fix, *place, weight="warning"))


def _only_from_outside(stanza: Stanza) -> bool:
    names = [name for _, trigger in stanza.triggers() for name in expected(trigger)]
    return bool(names) and not stanza.schedules() and all(name.startswith(OURS) for name in names)


def _twice(checked: Sequence[Checked]) -> Iterator[Problem]:
    """Two deployments of one name: the second would replace the first."""
    first: dict[str, Checked] = {}
    for one in checked:
        if one.flow is not None and one.stanza.name and (other := first.setdefault(one.full_name, one)) is not one:
            where = f"{other.stanza.file}:{other.stanza.line()}"
            yield one.stanza.problem(f"{one.full_name} is deployed twice, first in {where}; rename one", "name")
