"""Forms in the terminal: what is asked, in full and with hidden characters visible, and what was answered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prefect_routines.cli.terminal import text
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from rich.text import Text

WAITS = {
    "approval": "waits for approval",
    "question": "waits for an answer",
    "budget": "waits for more budget",
    "pause": "waits for a message",
}
DECIDED = {"approve": "approved", "approve_all": "approved, with all like it", "deny": "denied", "stop": "stopped"}
BAR = ("  │ ", "yellow")


def waits_for(kind: str) -> str:
    """The status of a session that waits for this kind of form."""
    return WAITS.get(kind, "waits for a person")


def subject(kind: str, content: Mapping[str, Any]) -> str:
    """What a form is about, in one line."""
    if kind == "budget":
        return one_line(str(content.get("reached") or "the budget is used up"))
    if kind == "pause":
        return one_line(f"{content.get('person') or 'somebody'} suspended the session")
    titles = [str(call["title"]) for call in content.get("calls", [])]
    return one_line("; ".join([*titles, *(str(question["question"]) for question in content.get("questions", []))]), 200)


def form_lines(kind: str, content: Mapping[str, Any]) -> Iterator[Text]:
    """All of a form. Nothing is cut: what a person approves he has seen."""
    yield text((f"  ┌ {waits_for(kind)}", "bold yellow"))
    if kind in ("budget", "pause"):
        yield text(BAR, subject(kind, content))
    calls = content.get("calls", [])
    for number, call in enumerate(calls, 1):
        count = f"{number}. " if len(calls) > 1 else ""
        target = f" → {one_line(call['target'], 300)}" if call.get("target") else ""
        yield text(BAR, (f"{count}{one_line(call['tool'])}{target}", "bold"), (f"  {one_line(call.get('reason', ''), 300)}", "dim"))
        for name, value in call["arguments"].items():
            yield from _argument(one_line(str(name)), value)
    for question in content.get("questions", []):
        yield from (text(BAR, (line, "bold")) for line in str(question["question"]).splitlines())
        yield from (text(BAR, f"  {number}. {choice}") for number, choice in enumerate(question.get("choices", []), 1))
    if people := content.get("people"):
        yield text(BAR, (f"only {one_line(', '.join(people), 300)} may answer", "dim"))


def _argument(name: str, value: Any) -> Iterator[Text]:
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    lines = said.split("\n")
    if len(lines) == 1:
        yield text(BAR, (f"  {name}: ", "cyan"), said)
        return
    yield text(BAR, (f"  {name}:", "cyan"))
    for line in lines:
        style = "green" if line.startswith("+") else "red" if line.startswith("-") else ""
        yield text(BAR, "    ", (line, style if name in ("diff", "patch") else ""))


def answer_lines(data: Mapping[str, Any], content: Mapping[str, Any] | None) -> Iterator[Text]:
    """How a form was answered, one line for each decision, reply and so on.

    Args:
        data: Of the entry `form.answered`.
        content: Of the form, if it is known.
    """
    answer, content = data.get("answer") or {}, content or {}
    by: tuple[str | tuple[str, str], ...] = (("  └ ", "yellow"), _by(data))
    for call in content.get("calls", []):
        if one := answer.get("decisions", {}).get(call["id"]):
            yield text(*by, *_decision(one, call))
    for question in content.get("questions", []):
        if (reply := answer.get("replies", {}).get(question["id"])) is not None:
            yield text(*by, f" replied: {one_line(reply, 400)}")
    if more := answer.get("raise"):
        yield text(*by, f" allowed more: {', '.join(f'{value:g} {name}' for name, value in more.items())}")
    elif action := answer.get("action"):
        yield text(*by, " stopped the session" if action == "stop" else " let it go on")


def _by(data: Mapping[str, Any]) -> str:
    if data.get("status") == "expired":
        return f"nobody answered in time; by {one_line(data.get('person') or 'the deadline')}:"
    return who(data)


def who(data: Mapping[str, Any], name: str = "person") -> str:
    """Who did it, and how: `ada@desk (cli)`."""
    via = f" ({one_line(str(data['via']))})" if data.get("via") else ""
    return f"{one_line(str(data.get(name) or 'somebody'))}{via}"


def _decision(one: Mapping[str, Any], call: Mapping[str, Any]) -> Iterator[str | tuple[str, str]]:
    word = DECIDED.get(one["decision"], one["decision"])
    yield " "
    yield (word, "green" if one["decision"].startswith("approve") else "red")
    yield f" {one_line(call['title'], 100)}"
    if one.get("arguments") is not None:
        yield (f" with other arguments: {one_line(json.dumps(one['arguments'], ensure_ascii=False), 300)}", "yellow")
    if one.get("reason"):
        yield f": {one_line(one['reason'], 300)}"
