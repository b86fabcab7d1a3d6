"""Answers to forms, as options of a command say them or as a person types them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect_routines.errors import SettingsError
from prefect_routines.visible import one_line

RAISES = ("turns", "tokens", "dollars", "minutes")
OTHERS = "Not approved: a person approved only others of these calls."


def approval(
    kind: str,
    content: Mapping[str, Any],
    *,
    calls: Sequence[int] = (),
    like: bool = False,
    arguments: Mapping[str, Any] | None = None,
    replies: Sequence[str] = (),
    more: Mapping[str, float] | None = None,
    message: str = "",
) -> dict[str, Any]:
    """The answer that approves: all calls, or those with these numbers, and then the others are denied.

    Raises:
        SettingsError: The options do not go with this form.
    """
    if kind in ("budget", "pause"):
        _only_calls(calls or like or arguments is not None or replies, "--call, --all-like-this, --arguments and --reply")
        return {"action": "continue", "message": message, **({"raise": dict(more)} if more else {})}
    if more:
        raise SettingsError("--raise is for a session whose budget is used up; this one waits for something else")
    asked, questions = content.get("calls", []), content.get("questions", [])
    chosen = _numbered(asked, calls)
    if arguments is not None and len(chosen) != 1:
        raise SettingsError(f"--arguments changes one call; say which one of the {len(asked)} with --call" if asked else "there is no call")
    decisions = {}
    for call in asked:
        one: dict[str, Any] = {"decision": "approve_all" if like else "approve", "hash": call["hash"]}
        if call not in chosen:
            one = {"decision": "deny", "reason": OTHERS, "hash": call["hash"]}
        elif arguments is not None:
            one["arguments"] = dict(arguments)
        decisions[call["id"]] = one
    if len(replies) != len(questions):
        first = f"; Claude asks: {one_line(questions[len(replies)]['question'])}" if len(replies) < len(questions) else ""
        raise SettingsError(f"the form has {_count(len(questions), 'question')}, --reply is given {_times(len(replies))}{first}")
    answers = {question["id"]: reply for question, reply in zip(questions, replies, strict=True)}
    return {"decisions": decisions, "replies": answers, "message": message}


def denial(kind: str, content: Mapping[str, Any], *, calls: Sequence[int] = (), reason: str = "", stop: bool = False) -> dict[str, Any]:
    """The answer that denies all calls, with `stop` also ends the session.

    Raises:
        SettingsError: The options do not go with this form, or would decide on calls that were not named.
    """
    if kind in ("budget", "pause"):
        _only_calls(bool(calls), "--call")
        return {"action": "stop", "message": reason}
    asked = content.get("calls", [])
    if not asked:
        raise SettingsError("Claude asks a question; answer it with `routines approve ... --reply TEXT`, or end it with `routines cancel`")
    if len(_numbered(asked, calls)) < len(asked):
        raise SettingsError(
            f"the form has {len(asked)} calls and all are answered at once; `routines approve ... --call N` approves some, denies the rest"
        )
    if content.get("questions") and not stop:
        raise SettingsError("the form asks questions, too; answer it in `routines watch`, or add --stop")
    decision = "stop" if stop else "deny"
    return {"decisions": {call["id"]: {"decision": decision, "reason": reason, "hash": call["hash"]} for call in asked}}


def raises(texts: Sequence[str]) -> dict[str, float]:
    """How much more may be used, from `turns=20`, `dollars=5`.

    Raises:
        SettingsError: It is not of that form.
    """
    more: dict[str, float] = {}
    for said in texts:
        name, equals, value = said.partition("=")
        number = _number(value)
        if not equals or name not in RAISES or number is None:
            raise SettingsError(f"--raise {one_line(said)}: write turns=20, tokens=100000, dollars=5 or minutes=30")
        more[name] = int(number) if name in ("turns", "tokens") and number == int(number) else number
    return more


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < 1e12 else None


def _numbered(asked: Sequence[Any], numbers: Sequence[int]) -> list[Any]:
    for number in numbers:
        if not 1 <= number <= len(asked):
            raise SettingsError(f"--call {number}: the form has {_count(len(asked), 'call')}")
    return [call for number, call in enumerate(asked, 1) if not numbers or number in numbers]


def _only_calls(given: Any, options: str) -> None:
    if given:
        raise SettingsError(f"{options} are for calls and questions; this session waits for something else (`routines waiting`)")


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _times(number: int) -> str:
    return {0: "not at all", 1: "once"}.get(number, f"{number} times")


class Draft:
    """An answer as it is typed, line by line: each call and question of the form in turn.

    Args:
        kind: The form's kind.
        content: The form's content.

    Example:
        ```python
        draft = Draft("approval", content)
        draft.take("a")
        answer = draft.answer
        ```
    """

    def __init__(self, kind: str, content: Mapping[str, Any]) -> None:
        self._kind = kind
        self._calls, self._questions = list(content.get("calls", [])), list(content.get("questions", []))
        self._of = len(self._calls) + len(self._questions)
        self._decisions: dict[str, Any] = {}
        self._replies: dict[str, str] = {}
        self.answer: dict[str, Any] | None = None
        """The whole answer, once there is one."""

    @property
    def hint(self) -> str:
        """What may be typed now."""
        if self._kind == "budget":
            return "+20 turns, +5 dollars, +30 minutes: go on · s: stop"
        if self._kind == "pause":
            return "a message for Claude, or Enter: go on · s: stop the session"
        done = self._of - len(self._calls) - len(self._questions)
        count = f"{done + 1}/{self._of} " if self._of > 1 else ""
        if self._calls:
            every = " · A, D: all that are left" if len(self._calls) > 1 else ""
            title = f"{one_line(self._calls[0]['title'], 40)} - " if self._of > 1 else ""
            return f"{count}{title}a: approve · d WHY: deny · l: approve all like this · s: stop{every}"
        choices = self._questions[0].get("choices", []) if self._questions else []
        return f"{count}{'the number of your choice' if choices else 'your answer'}"

    def take(self, line: str) -> bool:
        """Take a line; whether it was meant for the form.

        Raises:
            SettingsError: It was, and does not fit.
        """
        said = line.strip()
        word, _, rest = said.partition(" ")
        if self._kind == "budget":
            return self._more(said)
        if self._kind == "pause":
            self.answer = {"action": "stop"} if said == "s" else {"action": "continue", "message": said}
            return True
        if self._calls:
            return self._decide(word, rest.strip())
        if self._questions and said:
            self._reply(said)
            return True
        return False

    def _more(self, said: str) -> bool:
        if said == "s":
            self.answer = {"action": "stop"}
            return True
        if not said.startswith("+"):
            return False
        texts = []
        for part in said.replace(",", " ").replace("+", " +").split("+")[1:]:
            number, _, name = part.strip().partition(" ")
            name = name.strip()
            texts.append(f"{name if name.endswith('s') else f'{name}s'}={number}")
        self.answer = {"action": "continue", "raise": raises(texts)}
        return True

    def _decide(self, word: str, rest: str) -> bool:
        decision = {"a": "approve", "approve": "approve", "l": "approve_all", "d": "deny", "deny": "deny", "s": "stop"}.get(word.lower())
        if decision is None or (rest and decision not in ("deny",)):
            return False
        every = word in ("A", "D") or decision == "stop"
        for call in self._calls if every else self._calls[:1]:
            self._decisions[call["id"]] = {"decision": decision, "reason": rest, "hash": call["hash"]}
        self._calls = [] if every else self._calls[1:]
        if decision == "stop":
            self._questions = []
        self._finish()
        return True

    def _reply(self, said: str) -> None:
        question = self._questions[0]
        choices = question.get("choices", [])
        if choices and said not in choices:
            if not said.isdecimal() or not 1 <= int(said) <= len(choices):
                raise SettingsError(f"{one_line(said, 80)!r} is none of the choices; type a number from 1 to {len(choices)}")
            said = choices[int(said) - 1]
        self._replies[question["id"]] = said
        self._questions = self._questions[1:]
        self._finish()

    def _finish(self) -> None:
        if not self._calls and not self._questions:
            self.answer = {"decisions": self._decisions, "replies": self._replies}
