"""A form as data: what a session asks a person, and what counts as an answer. Pure.

The content of a form, by its kind:

- `approval` and `question`: `calls` (each with `id`, `tool`, `title`, `arguments`, `hash`, `target`, `reason`, `like`, `editable`) and
  `questions` (each with `id`, `question`, `choices`); one turn's calls and questions are one form;
- `budget`: `reached` (what is used up, in words) and `used`;
- `pause`: nothing but `person`, who wanted to say something.

An answer: `decisions` ({call id: {decision, reason, arguments}}), `replies` ({question id: text}), `message` (for Claude), `action`
(`continue` or `stop`) and `raise` ({turns, dollars, tokens, minutes}: how much more).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prefect_routines.errors import SettingsError
from prefect_routines.visible import one_line, storable

LONGEST = 100_000  # characters of a message, a reply or a reason
Choice = Literal["approve", "approve_all", "deny", "stop"]


class AskedCall(TypedDict):
    """A call that waits for a person.

    Attributes:
        target: What it writes to, for people.
        reason: Why it needs a person.
        hash: Of tool and arguments: an answer is bound to it.
        like: The rule that "approve all like this" adds for this session.
        editable: Whether a person may change its arguments.
    """

    id: str
    tool: str
    title: str
    arguments: dict[str, Any]
    hash: str
    target: str
    reason: str
    like: str
    editable: bool


class Question(TypedDict):
    """What Claude asks; without choices any text is an answer."""

    id: str
    question: str
    choices: list[str]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", str_max_length=LONGEST)


class CallAnswer(_Part):
    """What a person says of one call."""

    decision: Choice = Field(description="approve, approve_all (all like this one in this session), deny, or stop the session.")
    reason: str = Field(default="", description="Told to Claude.")
    arguments: dict[str, Any] | None = Field(default=None, description="Changed arguments: all of them.")
    hash: str | None = Field(default=None, description="The hash that was shown; refused when the call is another one.")


class Raise(_Part):
    """How much more a session may use."""

    turns: int | None = Field(default=None, ge=1, le=100_000)
    tokens: int | None = Field(default=None, ge=1)
    dollars: float | None = Field(default=None, gt=0, le=100_000)
    minutes: float | None = Field(default=None, gt=0, le=100_000)


class Answer(_Part):
    """An answer to a form, as the session API takes it."""

    decisions: dict[str, CallAnswer] = Field(default_factory=dict, description="By the call's id.")
    replies: dict[str, str] = Field(default_factory=dict, description="By the question's id.")
    message: str = Field(default="", description="Something for Claude.")
    action: Literal["continue", "stop"] | None = Field(default=None, description="For `budget` and `pause`.")
    raise_: Raise | None = Field(default=None, alias="raise", description="How much more may be used.")


def call_hash(tool: str, arguments: Mapping[str, Any]) -> str:
    """What an approval is bound to: exactly this tool with exactly these arguments."""
    text = json.dumps([tool, storable(dict(arguments))], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def checked_answer(kind: str, content: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """An answer that fits the form, as it is kept.

    Args:
        kind: The form's kind.
        content: The form's content.
        given: What somebody sent.

    Raises:
        SettingsError: It does not fit; one line says where.

    Example:
        ```python
        checked_answer("approval", form.content, {"decisions": {"toolu_1": {"decision": "deny", "reason": "not this week"}}})
        ```
    """
    from prefect_routines.settings import first_problem

    try:
        answer = Answer.model_validate(storable(dict(given)))
    except ValidationError as error:
        raise SettingsError(f"the answer does not fit: {first_problem(error)}") from None
    calls = {call["id"]: call for call in content.get("calls", [])}
    questions = {question["id"]: question for question in content.get("questions", [])}
    _only(answer.decisions, calls, "call")
    _only(answer.replies, questions, "question")
    for id_, decision in answer.decisions.items():
        _check_call(decision, calls[id_])
    for id_, reply in answer.replies.items():
        if not reply.strip():
            raise SettingsError("the reply is empty")
        if questions[id_]["choices"] and reply not in questions[id_]["choices"]:
            raise SettingsError(f"{reply[:80]!r} is none of the choices; there is {', '.join(questions[id_]['choices'])}")
    if kind in ("budget", "pause"):
        if answer.action is None:
            raise SettingsError("the answer says neither 'continue' nor 'stop' (action)")
        if kind == "budget" and answer.action == "continue" and answer.raise_ is None:
            raise SettingsError("to go on, say how much more may be used: raise the turns by 20, for example")
    elif not any(decision.decision == "stop" for decision in answer.decisions.values()):
        missing = [call["title"] for id_, call in calls.items() if id_ not in answer.decisions]
        missing += [question["question"] for id_, question in questions.items() if id_ not in answer.replies]
        if missing:
            raise SettingsError(f"there is no answer to {missing[0][:120]}")
    return answer.model_dump(mode="json", by_alias=True, exclude_none=True)


def _check_call(decision: CallAnswer, call: Mapping[str, Any]) -> None:
    """Whether what was decided can be decided about this call."""
    if decision.hash is not None and decision.hash != call["hash"]:
        raise SettingsError(f"the answer is for another call than the one that waits ({call['title']}); look at it again")
    if decision.decision == "approve_all" and not call["like"]:
        raise SettingsError(f"no rule says just what is like {call['title']}; approve it alone")
    if decision.arguments is not None and not call["editable"]:
        raise SettingsError(f"the arguments of {call['title']} cannot be changed; deny it with a reason instead")


def _only(given: Mapping[str, Any], known: Mapping[str, Any], what: str) -> None:
    if unknown := set(given) - set(known):
        raise SettingsError(f"the form has no {what} {sorted(unknown)[0][:80]!r}; there is {', '.join(known) or 'none'}")


def subject(kind: str, content: Mapping[str, Any]) -> str:
    """What a form is about, in one line."""
    if kind == "budget":
        return one_line(str(content.get("reached", "the budget is used up")), 200)
    if kind == "pause":
        return one_line(f"{content.get('person') or 'a person'} suspended the session", 200)
    titles = [call["title"] for call in content.get("calls", [])] + [question["question"] for question in content.get("questions", [])]
    return one_line("; ".join(titles), 200)


def uniform_answer(content: Mapping[str, Any], decision: Choice, reason: str = "") -> dict[str, Any]:
    """The same decision for all calls of a form; questions get no reply, so a form with some needs more than this."""
    one = {"decision": decision, **({"reason": reason} if reason else {})}
    return {"decisions": {call["id"]: {**one, "hash": call["hash"]} for call in content.get("calls", [])}}


def default_answer(kind: str, content: Mapping[str, Any], default: Literal["approve", "deny", "stop"], why: str) -> dict[str, Any]:
    """What counts when nobody answers in time."""
    if kind in ("budget", "pause"):
        return {"action": "continue" if kind == "pause" and default == "approve" else "stop", "message": ""}
    answer = uniform_answer(content, default, why)
    return answer | {"replies": {question["id"]: f"(nobody answered: {why})" for question in content.get("questions", [])}}


def said(answer: Mapping[str, Any]) -> str:
    """An answer in a few words."""
    words = [one["decision"].replace("_", " ") for one in answer.get("decisions", {}).values()]
    words += [one_line(reply, 60) for reply in answer.get("replies", {}).values()]
    return ", ".join([*words, *([answer["action"]] if answer.get("action") else [])]) or "nothing"
