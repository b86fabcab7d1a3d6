"""Conditions on the fields of a payload: which deliveries a routine runs for, beyond what Prefect's own filters can see."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from prefect_routines.visible import one_line

Scalar = str | int | float | bool
_FORM = [{"type": "string", "title": "text"}, {"type": "number", "title": "number"}, {"type": "boolean", "title": "true or false"}]
# the form offers a choice of these, text first: "5" and "true" do as well as 5 and true
OneValue = Annotated[Scalar | None, WithJsonSchema({"anyOf": [*_FORM, {"type": "null"}]})]
Value = Annotated[Scalar, WithJsonSchema({"anyOf": _FORM})]

MATCH_SECONDS = 0.25
"""Time that all patterns of one evaluation may take together."""
MATCH_LENGTH = 262_144
"""Characters of a text that a pattern is tried on; GitHub's longest bodies have 65,536. A longer one does not match."""

_SEGMENT = re.compile(r'"((?:[^"\\]|\\.)+)"|([^."\s\\]+)')
_NEGATIVE = ("not_equals", "is_not_one_of")
_SAYS = {
    "equals": "equals",
    "not_equals": "does not equal",
    "contains": "contains",
    "starts_with": "starts with",
    "is_one_of": "is one of",
    "is_not_one_of": "is not one of",
    "matches": "matches",
}


class When(BaseModel):
    r"""One condition: a path into the payload, and exactly one operator. A routine runs only if all its conditions hold.

    The path is dotted; a number counts the items of a list from 0, `*` stands for each item (and each value of an object). A name with a
    dot, a space or a quote in it, or that is `*`, goes in double quotes (`\"` for a quote in it). A path that ends at a list means each
    of its items. With several values a condition holds if any of them satisfies it; `not_equals` and `is_not_one_of` hold if none equals.

    Values are compared as text, exactly, upper and lower case included: a string as it is, a number, true, false and null as JSON writes
    them, so that 5 and "5" are equal. Objects equal nothing. A field that is null counts as absent for `present` alone.

    Example:
        ```python
        When(path="pull_request.labels.*.name", equals="needs-docs")
        When(path="pull_request.draft", equals=False)
        When(path='commonLabels."app.kubernetes.io/name"', is_one_of=["shop", "cart"])
        When(path="issue.title", matches="(?i).*docs?.*")
        ```
    """

    model_config = ConfigDict(extra="forbid", frozen=True, title="condition")

    path: str = Field(
        description="Field of the payload, dotted: 'pull_request.base.ref', 'issue.labels.*.name', 'alerts.0.status'. "
        "A name with a dot in double quotes.",
        min_length=1,
        max_length=500,
    )
    equals: OneValue = Field(default=None, description="It is this value. For null write 'null'.")
    not_equals: OneValue = Field(default=None, description="It is another value, or absent.")
    contains: str | None = Field(default=None, description="Its text contains this.", min_length=1)
    starts_with: str | None = Field(default=None, description="Its text starts with this.", min_length=1)
    is_one_of: list[Value] | None = Field(default=None, description="It is one of these values.", min_length=1)
    is_not_one_of: list[Value] | None = Field(default=None, description="It is none of these values, or absent.", min_length=1)
    matches: str | None = Field(
        default=None,
        description="A regular expression matches the whole text: '.*hotfix.*', not 'hotfix'. A dot matches line ends too; "
        "'(?i)' at its start ignores case.",
        min_length=1,
        max_length=1000,
    )
    present: bool | None = Field(default=None, description="It is there and not null (true), or it is not (false).")

    @model_validator(mode="after")
    def _checked(self) -> When:
        segments(self.path)
        if len(self._operators()) != 1:
            names = ", ".join((*_SAYS, "present"))
            raise ValueError(f"the condition on {self.path!r} needs exactly one of {names}")
        if self.matches is not None:
            _compiled(self.matches)
        return self

    def _operators(self) -> list[str]:
        return [name for name in (*_SAYS, "present") if getattr(self, name) is not None]

    @property
    def operator(self) -> str:
        """Name of the operator."""
        return self._operators()[0]

    def __str__(self) -> str:
        if self.present is not None:
            return f"{self.path} is {'present' if self.present else 'absent'}"
        wanted = getattr(self, self.operator)
        shown = ", ".join(repr(_text(each)) for each in wanted) if isinstance(wanted, list) else repr(_text(wanted))
        return f"{self.path} {_SAYS[self.operator]} {shown}"


def evaluate(conditions: Iterable[When], payload: Any) -> str | None:
    """None if all conditions hold; else the first that does not, with what was found, in one line fit to be shown.

    Args:
        conditions: The conditions.
        payload: The parsed payload.

    Example:
        >>> evaluate([When(path="issue.state", equals="open")], {"issue": {"state": "closed"}})
        "issue.state equals 'open': it is 'closed'"
    """
    until = time.monotonic() + MATCH_SECONDS
    for condition in conditions:
        found = select(condition.path, payload)
        if (failed := _failed(condition, found, until)) is not None:
            return f"{one_line(str(condition), 300)}: {failed}"
    return None


def _failed(condition: When, found: list[Any], until: float) -> str | None:
    """Why the condition does not hold for the values at its path."""
    if condition.present is not None:
        return None if any(value is not None for value in found) is condition.present else _shown(found)
    values = [item for value in found for item in (value if isinstance(value, list) else [value])]
    texts = [text for value in values if (text := _text(value)) is not None]
    operator = condition.operator
    wanted = getattr(condition, operator)
    if operator == "matches":
        return _unmatched(wanted, texts, until, values)
    if operator == "contains":
        holds = any(wanted in text for text in texts)
    elif operator == "starts_with":
        holds = any(text.startswith(wanted) for text in texts)
    else:
        among = {_text(each) for each in (wanted if isinstance(wanted, list) else [wanted])}
        holds = any(text in among for text in texts) is not (operator in _NEGATIVE)
    return None if holds else _shown(values)


def _unmatched(pattern: str, texts: list[str], until: float, values: list[Any]) -> str | None:
    """A pattern may be slow on a text that a stranger wrote for that: then the condition does not hold."""
    compiled = _compiled(pattern)
    for text in texts:
        if len(text) > MATCH_LENGTH:
            return f"the text is longer than {MATCH_LENGTH:,} characters, so the pattern was not tried on it"
        try:
            if compiled.fullmatch(text, timeout=max(until - time.monotonic(), 0.001)):
                return None
        except TimeoutError:
            return f"matching took longer than {MATCH_SECONDS} s and was given up; write the pattern more simply"
    return _shown(values)


def _compiled(pattern: str) -> Any:
    import regex  # the standard library's `re` cannot be stopped

    try:
        return regex.compile(pattern, regex.DOTALL)
    except (regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{one_line(pattern, 80)!r} is not a regular expression: {error}") from None


def segments(path: str) -> list[str | None]:
    r"""The names in a path; None stands for `*`.

    Raises:
        ValueError: It is not a path.

    Example:
        >>> segments('alerts.*.labels."app.kubernetes.io/name"')
        ['alerts', None, 'labels', 'app.kubernetes.io/name']
    """
    found: list[str | None] = []
    position = 0
    while match := _SEGMENT.match(path, position):
        quoted, plain = match.groups()
        found.append(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL) if quoted is not None else None if plain == "*" else plain)
        position = match.end()
        if position == len(path):
            return found
        if path[position] != ".":
            break
        position += 1
    raise ValueError(f"{one_line(path, 80)!r} is not a path: names joined by dots, such as 'issue.labels.*.name' or 'labels.\"a.b\"'")


def select(path: str, payload: Any) -> list[Any]:
    """The values at a path: none, one, or with `*` several. A field that is null is there, with the value None."""
    values = [payload]
    for segment in segments(path):
        values = [item for value in values for item in _step(value, segment)]
    return values


def _step(value: Any, segment: str | None) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values() if segment is None else [value[segment]] if segment in value else []
    if isinstance(value, list):
        if segment is None:
            return value
        if segment.isascii() and segment.isdigit() and len(segment) < 10 and int(segment) < len(value):
            return [value[int(segment)]]
    return []


def _text(value: Any) -> str | None:
    """How a value compares: as JSON writes it, a string without its quotes. A list or an object has no text."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return None


def _shown(values: list[Any]) -> str:
    if not values:
        return "it is absent"
    texts = [_text(value) for value in values[:3]]
    shown = [
        "a list or an object" if text is None else repr(text) if isinstance(value, str) else text
        for value, text in zip(values, texts, strict=False)
    ]
    return one_line(f"it is {' and '.join(each if len(each) <= 80 else each[:79] + '…' for each in shown)}", 300) + (
        f" and {len(values) - 3} more" if len(values) > 3 else ""
    )
