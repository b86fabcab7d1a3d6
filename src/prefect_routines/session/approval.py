"""When a call needs a person: what is asked, and what the answer means for the call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prefect_routines.errors import RoutinesError
from prefect_routines.policy import Decision, Rule, declaration
from prefect_routines.session.transcript import Call
from prefect_routines.steering.form import AskedCall, Question, call_hash
from prefect_routines.tools.tool import Tool, ToolResult, jsonable
from prefect_routines.visible import one_line, storable

if TYPE_CHECKING:
    from prefect_routines.session.session import Session

_MISSING = object()
NOBODY_THERE = "Nobody is there to ask. Decide by what you know, or report needs_attention with the question."


class Unattended(RoutinesError):
    """A call needs a person, nobody is there, and the routine says that this is a failure."""


@dataclass(frozen=True)
class Asked:
    """A call, or a question, that waits for a person."""

    call: AskedCall | None = None
    question: Question | None = None


def may_go_ahead(session: Session, tool: Tool, call: Call, arguments: dict[str, Any], decided: dict[str, Any] | None) -> bool:
    """Whether a person has approved this very call, or all calls like it. An approval holds for the arguments that were shown."""
    if call.started:
        return decided is not None or granted(session, tool, arguments)
    if decided is not None and (decided.get("arguments") is not None or decided["hash"] == call_hash(tool.name, jsonable(arguments))):
        return True
    return granted(session, tool, arguments)


def granted(session: Session, tool: Tool, arguments: dict[str, Any]) -> bool:
    """Whether "approve all like this" covers a call."""
    return any(Rule.parse(rule).matches(tool.name, arguments, tool.main, {}, whole=True) for rule in session.transcript.granted if rule)


def waits_for_people(session: Session, decision: Decision | None = None) -> bool:
    """Whether the session waits for a person, or goes on without one. Unsaid, it does where the author wrote an `ask` rule."""
    settings = session.settings
    if settings.unattended is not None:
        return settings.unattended == "wait"
    return decision is not None and decision.rule in _ask_rules(session)


def _ask_rules(session: Session) -> list[Rule]:
    return [rule for answer, rule in session.settings.policy.rules() if answer == "ask"]


def asked_call(session: Session, tool: Tool, call: Call, arguments: dict[str, Any], decision: Decision) -> Asked:
    """A call as a person sees it."""
    meant = jsonable(arguments)
    shown = storable(meant)
    # the rule is kept with the form: with the mark of a secret in it, or without what databases refuse, it would be another one
    exact = _ends(tool, session.redact(shown)) == _ends(tool, meant)
    reason = f"{decision.reason} asks for a person" if decision.rule in _ask_rules(session) else decision.reason
    told: AskedCall = {
        "id": call.id,
        "tool": tool.name,
        "title": session.label(tool.title(arguments)),
        "arguments": shown,
        "hash": call_hash(tool.name, shown),
        "target": tool.target(arguments) if tool.writes else "",
        "reason": reason[:1].upper() + reason[1:],
        "like": rule_for_all_like(tool, arguments) if exact else "",
        "editable": True,
    }
    return Asked(call=told)


def rule_for_all_like(tool: Tool, arguments: dict[str, Any]) -> str:
    """The rule that "approve all like this" adds: this tool, to exactly these targets; empty where no rule says just that."""
    ends = _ends(tool, arguments)
    if not ends or any(end is _MISSING or (isinstance(end, list | tuple | set | frozenset) and len(end) != 1) for end in ends.values()):
        return ""
    like = declaration(tool.name, arguments, list(ends))
    try:
        Rule.parse(like)
    except ValueError:
        return ""
    return like


def _ends(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a call writes to, by the names of the arguments."""
    names = tool.targets or ((tool.main,) if tool.main else ())
    return {name: arguments.get(name, _MISSING) for name in names}


def question(session: Session, call: Call, arguments: dict[str, Any]) -> Asked | ToolResult:
    """What becomes of a question to a person: its answer, or a form."""
    reply = session.transcript.replies.get(call.id)
    if reply is not None:
        return ToolResult(f"{reply['person'] or 'A person'} answered: {reply['text']}", note="answered")
    if not waits_for_people(session):
        if session.settings.unattended == "fail":
            raise Unattended(f"ask_person: {one_line(arguments['question'], 100)}: nobody is there to ask (unattended='fail')")
        return ToolResult(NOBODY_THERE, is_error=True, note="nobody is there")
    asked: Question = {"id": call.id, "question": arguments["question"], "choices": list(arguments["choices"] or [])}
    return Asked(question=asked)


def denied(decided: dict[str, Any]) -> ToolResult:
    """The answer to a call that a person denied."""
    who = decided["person"] or "A person"
    why = f": {decided['reason']}" if decided.get("reason") else ""
    text = f"Denied by {who}{why}. Do not try to get around it; go on without, or report what is missing."
    return ToolResult(text, is_error=True, note=f"denied by {who}")


def told_of_change(result: ToolResult, decided: dict[str, Any]) -> ToolResult:
    """The result of a call that a person changed: Claude is told with which arguments it was made."""
    who, changed = decided["person"] or "A person", json.dumps(decided["arguments"], ensure_ascii=False)
    note = f"[{who} changed the arguments before approving: {changed}]"
    content = f"{note}\n{result.content}" if isinstance(result.content, str) else [{"type": "text", "text": note}, *result.content]
    return replace(result, content=content)
