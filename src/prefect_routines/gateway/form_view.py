"""A form as the session page shows it, and what a person filled in as an answer for `steering/form.py`. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from prefect_routines.errors import SettingsError
from prefect_routines.gateway.markup import Element, Node, tag
from prefect_routines.gateway.transcript_view import shown
from prefect_routines.steering.form import AskedCall, Question
from prefect_routines.store import Form
from prefect_routines.visible import one_line, visible

TITLES = {
    "approval": "Claude asks for approval",
    "question": "Claude has a question",
    "budget": "The budget is used up",
    "pause": "Suspended: it waits for you",
}
RAISES = ("turns", "dollars", "minutes", "tokens")
_TO_GO_ON = "To go on, fill in at least one number; dollars count for the routine's day, too. Or end it: then it needs attention."


def form_view(form: Form, *, refusal: str | None) -> Element:
    """A form with its buttons.

    Args:
        refusal: Why this visitor may not answer; then he sees the form without buttons.
    """
    content = form.content
    calls, questions = content.get("calls", []), content.get("questions", [])
    parts: list[Node] = [tag("h2", TITLES.get(form.kind, "The session waits"))]
    if form.kind == "budget":
        parts.append(tag("p", f"Used up: {content.get('reached', 'what it may use')}."))
        parts.append(tag("p", _TO_GO_ON))
    if form.kind == "pause":
        parts.append(tag("p", "It goes on when somebody says so; what you write is told to Claude."))
    if form.expires_at is not None:
        until = datetime.fromtimestamp(form.expires_at, UTC)
        parts.append(
            tag("p", "Takes answers until ", tag("time", f"{until:%Y-%m-%d %H:%M} UTC", datetime=until.isoformat()), class_="quiet")
        )
    for number, call in enumerate(calls):
        parts.append(_call(number, call, alone=len(calls) == 1, may=refusal is None))
    parts += [_question(number, question, may=refusal is None) for number, question in enumerate(questions)]
    if refusal is not None:
        parts.append(tag("p", refusal, class_="quiet"))
        return tag("section", parts, class_="need")
    if form.kind in ("budget", "pause"):
        parts += _going_on(form.kind)
    else:
        parts.append(_buttons(calls, questions))
    if calls:  # Enter presses a form's first button that is not disabled: one that decides nothing
        parts.insert(0, tag("button", type="submit", hidden=True))
    action = f"/sessions/{form.session_id}/forms/{form.id}"
    return tag("form", parts, class_="need", method="post", action=action, data_act=True)


def _call(number: int, call: AskedCall, *, alone: bool, may: bool) -> Element:
    target = tag("span", " to ", tag("code", one_line(call["target"], 200))) if call["target"] else None
    parts: list[Node] = [
        tag("p", tag("strong", one_line(call["tool"], 100)), target, class_="what"),
        tag("p", f"{call['reason'][:1].upper()}{call['reason'][1:].rstrip('.')}. This will be done, exactly:", class_="quiet"),
        _exactly(call["arguments"]),
    ]
    if may:
        if call["editable"]:
            text = _json(call["arguments"])
            name = f"arguments.{number}"
            area = tag("textarea", text, name=name, id=name, rows=str(min(16, text.count("\n") + 2)), aria_label="Changed arguments")
            about = tag("p", "JSON of all arguments. Changed, it is a new call; the transcript says so.", class_="quiet")
            parts.append(tag("details", tag("summary", "Change the arguments"), about, area))
        if not alone:
            options = [("", "choose…"), *_DECISIONS.items()]
            choices = [tag("option", words, value=value) for value, words in options]
            parts.append(tag("label", "Decision ", tag("select", choices, name=f"decision.{number}")))
        label = "Reason, if you deny it (told to Claude)"
        parts.append(tag("label", label, tag("textarea", name=f"reason.{number}", rows="1", maxlength="100000")))
        if call["like"]:
            parts.append(tag("p", "“All like this” allows, in this session: ", tag("code", one_line(call["like"], 300)), class_="quiet"))
        parts.append(tag("input", type="hidden", name=f"hash.{number}", value=call["hash"]))
    return tag("div", parts, class_="asked")


def _json(value: Any) -> str:
    """JSON to edit: what hides is written with JSON's own escapes, so that it can be seen and comes back the same."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    return text if visible(text) == text else "".join(one if visible(one) == one else json.dumps(one)[1:-1] for one in text)


_DECISIONS = {"approve": "Approve", "approve_all": "Approve all like this", "deny": "Deny"}


def _exactly(arguments: Mapping[str, Any]) -> Element:
    """All of the arguments: who approves sees what he approves, and not a part of it."""
    pairs = [[tag("dt", name), tag("dd", _text(name, value))] for name, value in arguments.items()]
    return tag("dl", *pairs, class_="arguments") if pairs else tag("p", "(no arguments)", class_="quiet")


def _text(name: str, value: Any) -> Element:
    text = shown(value)
    return tag("pre", diff_lines(text), class_="diff") if name in ("diff", "patch") else tag("pre", text)


def diff_lines(text: str) -> list[Node]:
    """A diff's text, its lines marked as added and removed."""
    kinds = {"+": "added", "-": "removed", "@": "place"}
    nodes: list[Node] = []
    plain: list[str] = []
    for line in text.splitlines(keepends=True):
        kind = None if line.startswith(("+++", "---")) else kinds.get(line[:1])
        if kind is None:
            plain.append(line)
            continue
        if plain:
            nodes.append("".join(plain))
            plain = []
        nodes.append(tag("span", line, class_=kind))
    return [*nodes, "".join(plain)]


def _question(number: int, question: Question, *, may: bool) -> Element:
    name = f"reply.{number}"
    asked = tag("p", question["question"], class_="text")
    if not may:
        return tag("div", asked, tag("ul", [tag("li", choice) for choice in question["choices"]]), class_="asked")
    if not question["choices"]:
        area = tag("textarea", name=name, rows="3", required=True, maxlength="100000", aria_label="Your answer", placeholder="Your answer")
        return tag("div", asked, area, class_="asked")
    choices = [tag("label", tag("input", type="radio", name=name, value=choice, required=True), choice) for choice in question["choices"]]
    return tag("div", asked, tag("div", choices, class_="choices"), class_="asked")


def _buttons(calls: list[AskedCall], questions: list[Question]) -> Element:
    if not calls:
        return tag("div", tag("button", "Answer", type="submit", class_="main"), class_="buttons")
    stop = _button("Cancel the session", "all", "stop", "danger", formnovalidate=True)
    count = f" all {len(calls)} calls" if len(calls) > 1 else ""
    buttons: list[Node] = [_button(f"Approve{count}", "all", "approve", "main")]
    if len(calls) == 1 and calls[0]["like"]:
        buttons.append(_button("Approve all like this", "all", "approve_all"))
    buttons.append(_button(f"Deny{count}", "all", "deny"))
    if len(calls) > 1:
        buttons.append(tag("button", "Send the decisions above", type="submit"))
    return tag("div", [*buttons, stop], class_="buttons")


def _button(words: str, name: str, value: str, kind: str | None = None, *, formnovalidate: bool = False) -> Element:
    return tag("button", words, type="submit", name=name, value=value, class_=kind, formnovalidate=formnovalidate)


def _going_on(kind: str) -> list[Node]:
    fields: list[Node] = []
    for name in RAISES:
        step = "1" if name in ("turns", "tokens") else "any"
        field = tag("input", type="number", name=f"more.{name}", min="0", step=step, inputmode="decimal")
        fields.append(tag("label", f"More {name}", field))
    message = tag("textarea", name="message", rows="2", maxlength="100000", placeholder="Message to Claude", aria_label="Message to Claude")
    more: Node = tag("div", fields, class_="raises")
    if kind == "pause":
        more = tag("details", tag("summary", "Raise the budget"), more)
    go = _button("Continue", "action", "continue", "main")
    end = "End the session" if kind == "budget" else "Cancel the session"
    return [message, more, tag("div", go, _button(end, "action", "stop", "danger"), class_="buttons")]


def answer_of(form: Form, fields: Mapping[str, str]) -> dict[str, Any]:
    """What was filled in.

    Raises:
        SettingsError: A field cannot be read.
    """
    answer: dict[str, Any] = {}
    decisions: dict[str, Any] = {}
    for number, call in enumerate(form.content.get("calls", [])):
        decision = fields.get("all") or fields.get(f"decision.{number}")
        if not decision:
            continue
        one: dict[str, Any] = {"decision": decision, "reason": fields.get(f"reason.{number}", ""), "hash": fields.get(f"hash.{number}")}
        if decision.startswith("approve") and (changed := fields.get(f"arguments.{number}", "").strip()):
            arguments = _object(changed, call["title"])
            if arguments != call["arguments"]:
                one["arguments"] = arguments
        decisions[call["id"]] = one
    replies = {}
    for number, question in enumerate(form.content.get("questions", [])):
        if reply := fields.get(f"reply.{number}"):
            replies[question["id"]] = reply
    if form.kind in ("budget", "pause"):
        answer |= {"action": fields.get("action"), "message": fields.get("message", "")}
        if more := {name: _amount(name, fields[f"more.{name}"]) for name in RAISES if fields.get(f"more.{name}", "").strip()}:
            answer["raise"] = more
    return answer | ({"decisions": decisions} if decisions else {}) | ({"replies": replies} if replies else {})


def _amount(name: str, text: str) -> float:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise SettingsError(f"more {name}: {text[:40]!r} is no number") from None


def _object(text: str, title: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"the changed arguments of {one_line(title, 80)} are no JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise SettingsError(f'the changed arguments of {one_line(title, 80)} are no JSON object, such as {{"text": "..."}}')
    return found
