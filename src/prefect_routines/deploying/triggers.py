"""Event triggers of prefect files: labels and parameters that are wrong, and what a trigger says in plain words. Pure.

Triggers see names of events and labels of resources, nothing else (https://docs.prefect.io/v3/concepts/event-triggers). A name that
nobody emits, or a label that no event has, is a trigger that never fires and never says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prefect_routines.deploying import github_events as github
from prefect_routines.deploying.files import Place, Stanza
from prefect_routines.deploying.problems import Problem, Weight, meant
from prefect_routines.visible import one_line

OURS = ("github.", "webhook.")
EVENT_ID = "{{ event.id | string }}"
"""How a trigger passes the id. Alone, `{{ event.id }}` is an object to Prefect, which fails to render it: no run, and only a log line."""

_EXPRESSION = re.compile(r"\{\{(.*?)\}\}|\{%(.*?)%\}", re.DOTALL)
# the event as a whole, or a firing with the event in it: `event`, `event | tojson`, `events`, `firing.triggering_event`, ...
_WHOLE = re.compile(r"(?<![\w.])(?:(?:event|firing|automation|flow_run|deployment)(?!\s*[\w.\[])|events\b|firings\b|firing\s*[.\[])")


def expected(trigger: Mapping[str, Any]) -> list[str]:
    """The names a trigger waits for, as written; a single one may stand without a list."""
    value = trigger.get("expect") or []
    return [str(name) for name in ([value] if isinstance(value, str) else value)]


def delivers(trigger: Mapping[str, Any]) -> bool:
    """Whether a trigger hands its run the id of a delivery of the gateway's."""
    names = expected(trigger)
    passed = any("event.id" in str(value) for value in (trigger.get("parameters") or {}).values())
    return passed and any(name.startswith(OURS) or name in ("*", "github*", "webhook*") for name in names)


def _spaced(value: Any) -> str:
    """A template in the spelling that we use."""
    tight = re.sub(r"\s*(\{\{|\}\}|\|)\s*", r"\1", value) if isinstance(value, str) else ""
    return tight.replace("{{", "{{ ").replace("}}", " }}").replace("|", " | ")


def match_problems(stanza: Stanza) -> Iterator[Problem]:
    """`match` and `match_related` that no event can fulfil."""
    for place, trigger in stanza.triggers():
        names = expected(trigger)
        only_github = bool(names) and all(name.startswith("github.") for name in names)
        match = trigger.get("match") or {}
        related = trigger.get("match_related") or {}
        parts: list[tuple[Place, Any]] = [(("match",), match)]
        if isinstance(related, list):
            parts += [(("match_related", number), each) for number, each in enumerate(related)]
        else:
            parts.append((("match_related",), related))
        for key, part in parts:
            if not isinstance(part, dict):
                yield stanza.problem(f"{key[0]} must hold labels and values", *place, *key)
                continue
            for label, value in part.items():
                for text, weight in _label_problems(str(label), value, names if only_github else [], str(key[0])):
                    yield stanza.problem(text, *place, *key, str(label), weight=weight)


def _label_problems(label: str, value: Any, names: Sequence[str], part: str) -> Iterator[tuple[str, Weight]]:
    values = value if isinstance(value, list) else [value]
    if any(not isinstance(each, str) for each in values):
        wrong = next(each for each in values if not isinstance(each, str))
        text = str(wrong).lower() if isinstance(wrong, bool) else str(wrong)
        yield f'{part}: {label}: {wrong!r} is no text; labels are text, so put it into quotes: "{text}"', "error"
        return
    if any(each.startswith("!") for each in values) and len(values) > 1:
        yield f"{part}: {label}: one of several values is enough, so a value with '!' excludes nothing here; give it alone", "warning"
    if not names:
        return
    known = github.LABELS if part == "match" else github.RELATED
    if label not in known:
        hint = github.HINTS.get(label) if part == "match" else None
        there = f"; {hint}" if hint else meant(label, known, otherwise=f"there is {', '.join(known)}")
        yield f"{part}: no event of GitHub's has the label {one_line(label)!r}{there}", "error"
        return
    plain = [each for each in values if not each.startswith("!")]
    if len(plain) < len(values):
        return
    if (possible := _possible(label, names, part)) and not any(_may(each, one) for each in plain for one in possible):
        shown = ", ".join(sorted(possible)[:8])
        yield f"{part}: {label}: {one_line(', '.join(plain))!r} can match nothing; there it is {shown}", "error"
    if label == "prefect.resource.id":
        starts = ("github.repository.",) if part == "match" else ("github.label.", "github.user.")
        if not any(_begins(each, start) for each in plain for start in starts):
            yield f"{part}: {label}: {one_line(', '.join(plain))!r} can match nothing; it begins with {' or '.join(starts)}", "error"


def _possible(label: str, names: Sequence[str], part: str) -> set[str]:
    """The values that a label can have, where they can be told."""
    kinds = {name.split(".")[1].rstrip("*") for name in names if name.count(".")}
    if part == "match_related":
        return set(github.ROLES) if label == "prefect.resource.role" else set()
    if label in github.FLAGS:
        return {"true", "false"}
    if label == "github.event":
        return {known for known in github.ACTIONS if any(known.startswith(kind) for kind in kinds)}
    if label == "github.action" and not kinds & set(github.FREE_ACTIONS):
        events = [known for known in github.events() if any(_may(name, known) for name in names)]
        return {known.split(".")[2] for known in events if known.count(".") == 2} or {"(it has none)"}
    return set()


def _may(pattern: str, text: str) -> bool:
    return pattern == text or (pattern.endswith("*") and text.startswith(pattern.rstrip("*")))


def _begins(pattern: str, start: str) -> bool:
    if not pattern.endswith("*"):
        return pattern.startswith(start) and pattern != start
    return pattern.startswith(start) or start.startswith(pattern.rstrip("*"))


def parameter_problems(stanza: Stanza, parameters: Iterable[str], *, is_routine: bool) -> Iterator[Problem]:
    """Parameters that a trigger passes and that the routine has not, or through which text of a stranger would reach Prefect.

    Args:
        stanza: The deployment.
        parameters: Names of the flow's parameters.
        is_routine: Whether the flow is a routine, which takes the id of an event.
    """
    known = list(parameters)
    for place, trigger in stanza.triggers():
        given = trigger.get("parameters")
        if given is not None and not isinstance(given, dict):
            yield stanza.problem("a trigger's parameters must hold names and values", *place, "parameters")
            continue
        for name, value in (given or {}).items():
            at = (*place, "parameters", str(name))
            if name not in known:
                there = meant(str(name), known, otherwise=f"it has {', '.join(known) or 'none'}")
                yield stanza.problem(f"the trigger passes {one_line(str(name))!r}, and the routine has no such parameter{there}", *at)
            if injectable(value):
                yield stanza.problem(
                    f"{one_line(str(value), 80)!r} hands a stranger's text to Prefect, which interprets objects in it (it could read "
                    f'Variables); pass the id only - event: "{EVENT_ID}" - and let Claude read the text with `read_event`', *at
                )  # fmt: skip
            elif _spaced(value) == "{{ event.id }}":
                yield stanza.problem(f'Prefect cannot render {value!r} by itself, and would start nothing; write {name}: "{EVENT_ID}"', *at)
            elif name == "event" and is_routine and _spaced(value) != EVENT_ID:
                yield stanza.problem(f'event takes the id of what happened: event: "{EVENT_ID}"', *at)
        if injectable(trigger.get("job_variables")):
            text = "job_variables hand a stranger's text to the machine that runs the flow; take it out"
            yield stanza.problem(text, *place, "job_variables")
        if is_routine and "event" not in (given or {}) and any(name.startswith(OURS) for name in expected(trigger)):
            told = f'the run does not learn what started it; add parameters: {{event: "{EVENT_ID}"}}'
            if "event" not in known:
                told = "the routine has no parameter `event: Event | None`, so its runs do not learn what started them"
            yield stanza.problem(told, *place, weight="warning")


def injectable(value: Any) -> bool:
    """Whether a trigger's parameter would carry a payload, at any depth: Prefect renders `{{ ... }}` with the event at hand."""
    if isinstance(value, dict):
        return any(injectable(key) or injectable(item) for key, item in value.items())
    if isinstance(value, list):
        return any(injectable(item) for item in value)
    if not isinstance(value, str):
        return False
    inside = [first or second for first, second in _EXPRESSION.findall(value)]
    return any("payload" in expression or _WHOLE.search(expression) for expression in inside)


def in_words(trigger: Mapping[str, Any]) -> str:
    """A trigger as one says it: `on github.issues.opened where github.repository is acme/sdk`.

    Args:
        trigger: As written, or as Prefect has it.
    """
    kind = trigger.get("type") or ("compound" if trigger.get("triggers") else "event")
    if kind in ("compound", "sequence"):
        joint = {"compound": " and " if trigger.get("require") == "all" else " or "}.get(kind, ", then ")
        return joint.join(in_words(each) for each in trigger.get("triggers") or []) or kind
    if kind != "event":
        return f"on a {kind} trigger"
    names = ", ".join(sorted(expected(trigger))) or "any event"
    said = f"when {names} stays away" if trigger.get("posture") == "Proactive" else f"on {names}"
    related = trigger.get("match_related") or {}
    conditions = [_condition(part) for part in (trigger.get("match") or {}, *(related if isinstance(related, list) else [related]))]
    wanted = " and ".join(condition for condition in conditions if condition)
    return f"{said} where {wanted}" if wanted else said


def _condition(part: Mapping[str, Any]) -> str:
    role = part.get("prefect.resource.role")
    if role == "routines-deployment":  # the gate of `routines deploy`: machinery, not what the author wrote
        return ""
    said = []
    for label, value in part.items():
        if label == "prefect.resource.role":
            continue
        values = [str(each) for each in (value if isinstance(value, list) else [value])]
        name = {"github.label": "a label", "github.login": f"the {role}" if isinstance(role, str) else "somebody"}.get(label, label)
        name = "the resource" if label == "prefect.resource.id" else name
        negated = all(each.startswith("!") for each in values)
        shown = " or ".join(each.removeprefix("!") if negated else each for each in values)
        said.append(f"{name} is {'not ' if negated else ''}{shown}")
    return " and ".join(said)
