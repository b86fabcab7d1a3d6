"""A form as Prefect shows it: the model of its fields, its description as markdown, and what a person filled in as an answer. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, create_model

from prefect_routines.errors import SettingsError
from prefect_routines.steering.form import LONGEST
from prefect_routines.visible import one_line, visible

if TYPE_CHECKING:
    from prefect.input import RunInput


# Literals, because Prefect's UI leaves out a field that refers to an enumeration and has a default.
Decision = Literal["approve", "approve all like this", "deny", "stop the session"]
Action = Literal["continue", "stop"]
Alone = Literal["approve", "deny", "stop the session"]
_DECISIONS = {"approve": "approve", "approve all like this": "approve_all", "deny": "deny", "stop the session": "stop"}
_WORDS = {decision: word for word, decision in _DECISIONS.items()}
_RAISES = ("turns", "dollars", "minutes", "tokens")


def input_model(kind: str, content: Mapping[str, Any], *, link: str | None = None, note: str = "") -> type[RunInput]:
    """The model whose fields Prefect's UI shows when the run is resumed.

    Built with full `Field`s: `RunInput.with_initial_data` would drop descriptions and limits.

    Args:
        link: Address of the session's page.
        note: A line to show on top, for example that the last answer did not fit.
    """
    from prefect.input import RunInput

    fields: dict[str, Any] = {}
    calls = content.get("calls", [])
    for number, call in enumerate(calls, 1):
        name, title = _suffix(number, len(calls)), one_line(call["title"], 100)
        fields[f"decision{name}"] = (Decision if call["like"] else Alone, Field(title=f"Decision: {title}"))
        fields[f"reason{name}"] = (str, Field(default="", title="Reason", description="Told to Claude.", max_length=LONGEST))
        if call["editable"]:
            about = "JSON of all arguments, if the call is to be made with others than those above; empty: as they are."
            fields[f"arguments{name}"] = (str, Field(default="", title="Changed arguments", description=about, max_length=LONGEST))
    questions = content.get("questions", [])
    for number, question in enumerate(questions, 1):
        title = one_line(question["question"], 200)
        kind_of: Any = Literal[tuple(question["choices"])] if question["choices"] else str
        limit: dict[str, Any] = {} if question["choices"] else {"min_length": 1, "max_length": LONGEST}
        fields[f"reply{_suffix(number, len(questions))}"] = (kind_of, Field(title=title, **limit))
    if kind in ("budget", "pause"):
        fields["action"] = (Action, Field(default="continue", title="What now"))
        fields["message"] = (str, Field(default="", title="Message to Claude", max_length=LONGEST))
        for name in _RAISES:
            number_type = int if name in ("turns", "tokens") else float
            about = f"How many more {name} it may use."
            fields[f"more_{name}"] = (number_type, Field(default=0, title=f"More {name}", description=about, ge=0))
    made: type[RunInput] = create_model("Answer", __base__=RunInput, **fields)
    made._description = description(kind, content, link=link, note=note)
    return made


def answer_of(kind: str, content: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """What was filled in, as an answer for `checked_answer`.

    Raises:
        SettingsError: Changed arguments are no JSON object.
    """
    answer: dict[str, Any] = {}
    calls = content.get("calls", [])
    for number, call in enumerate(calls, 1):
        name = _suffix(number, len(calls))
        decision = values.get(f"decision{name}")
        if decision is None:
            continue
        one = {"decision": _DECISIONS.get(decision, "deny"), "reason": values.get(f"reason{name}") or "", "hash": call["hash"]}
        if changed := (values.get(f"arguments{name}") or "").strip():
            one["arguments"] = _object(changed, call["title"])
        answer.setdefault("decisions", {})[call["id"]] = one
    questions = content.get("questions", [])
    for number, question in enumerate(questions, 1):
        if reply := values.get(f"reply{_suffix(number, len(questions))}"):
            answer.setdefault("replies", {})[question["id"]] = reply
    if kind in ("budget", "pause"):
        answer |= {"action": values.get("action") or "continue", "message": values.get("message") or ""}
        if more := {name: values[f"more_{name}"] for name in _RAISES if values.get(f"more_{name}")}:
            answer["raise"] = more
    return answer


def values_of(kind: str, content: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer in the form's own fields: what Prefect wants when the run is resumed for somebody who answered elsewhere."""
    values: dict[str, Any] = {}
    calls = content.get("calls", [])
    for number, call in enumerate(calls, 1):
        given = answer.get("decisions", {}).get(call["id"], {})
        values[f"decision{_suffix(number, len(calls))}"] = _WORDS[given.get("decision", "stop")]
    questions = content.get("questions", [])
    for number, question in enumerate(questions, 1):
        fallback = question["choices"][0] if question["choices"] else "-"
        reply = answer.get("replies", {}).get(question["id"], fallback)
        fits = not question["choices"] or reply in question["choices"]
        values[f"reply{_suffix(number, len(questions))}"] = reply if fits else fallback
    return values


def description(kind: str, content: Mapping[str, Any], *, link: str | None = None, note: str = "") -> str:
    """What the form is about, as markdown in which nothing of what others wrote acts: it is all fenced, with hidden characters shown."""
    parts = [f"**{_plain(note)}**"] if note else []
    if kind == "budget":
        parts.append(
            f"The session has used up its budget: {_plain(str(content.get('reached', '')))}. To go on, give at least one number below "
            "(dollars count for the routine's day, too); `stop` ends it with needs_attention."
        )
    if kind == "pause":
        parts.append("The session waits. Send Claude a message, change the budget, go on, or stop: that cancels it.")
    for number, call in enumerate(content.get("calls", []), 1):
        target = f" to {_plain(call['target'])}" if call["target"] else ""
        count = f"{number}. " if len(content["calls"]) > 1 else ""
        parts.append(f"### {count}{_plain(call['tool'])}{target}\n\n{_plain(call['reason'])}. This will be done, exactly:")
        parts += _arguments(call["arguments"])
        if call["like"]:
            parts.append(f'"approve all like this" allows, in this session: {_plain(call["like"])}')
    for question in content.get("questions", []):
        parts += ["### Claude asks", _fenced(question["question"])]
    if people := content.get("people"):
        parts.append(
            f"Only {_plain(', '.join(people))} may answer, and not here, as Prefect's UI does not know who you are: on the session's page, "
            "with `routines approve`, in Slack or by e-mail."
        )
    if link:
        parts.append(f"The whole session: <{link}>")
    return "\n\n".join(parts)


def _arguments(arguments: Mapping[str, Any]) -> list[str]:
    parts = []
    for name, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
        parts += [f"`{_plain(name)}`", _fenced(text, "diff" if name in ("diff", "patch") else "")]
    return parts or ["(no arguments)"]


def _fenced(text: str, language: str = "") -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{visible(text)}\n{fence}"


def _plain(text: str) -> str:
    """A short text in which no character has a meaning in markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~<>&-])", r"\\\1", one_line(text, 300)).replace("\\<", "&lt;").replace("\\&", "&amp;")


def _suffix(number: int, count: int) -> str:
    return f"_{number}" if count > 1 else ""


def _object(text: str, title: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"the changed arguments of {one_line(title, 80)} are no JSON: {error}") from None
    if not isinstance(found, dict):
        raise SettingsError(f'the changed arguments of {one_line(title, 80)} are no JSON object, such as {{"text": "..."}}')
    return found
