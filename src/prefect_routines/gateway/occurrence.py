"""What a delivery says has happened, in the few words that triggers may filter on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LABEL_LENGTH = 1024
"""Characters of a label's value; Prefect cuts the names of its own resources at the same length."""
MOST_LABELS = 500
MOST_RELATED = 100
"""What Prefect's server takes with one event (`PREFECT_SERVER_EVENTS_MAXIMUM_LABELS_PER_RESOURCE`, `..._MAXIMUM_RELATED_RESOURCES`)."""

_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]")
_COMMIT = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")


@dataclass(frozen=True)
class Occurrence:
    """Something that happened at a sender, as told by one delivery. Labels hold names, numbers and states; never prose.

    Args:
        source: Who sent it: 'github', or the name of a webhook's source.
        delivery_id: The sender's id of this delivery; redelivered, it stays the same.
        kind: What it is about, e.g. 'issues'; '' if the source does not say.
        action: What happened to it, e.g. 'opened'.
        event: Name of the Prefect event, e.g. 'github.issues.opened'.
        resource: Labels of the Prefect event's resource, with `prefect.resource.id`.
        related: Labels of its related resources, each with `prefect.resource.id` and `prefect.resource.role`.
        repository: 'owner/name', where there is one.
        number: Number of the issue, pull request or discussion.
        sha: Commit, where there is one.
        key: What further deliveries about the same thing have in common ('acme/docs#7'); None if each stands alone.
    """

    source: str
    delivery_id: str
    kind: str
    action: str
    event: str
    resource: dict[str, str]
    related: list[dict[str, str]] = field(default_factory=list)
    repository: str = ""
    number: int | None = None
    sha: str = ""
    key: str | None = None


def label(value: Any) -> str:
    r"""A value of the payload as a label: one line of text. '' if it has no text (null, a list, an object).

    Control characters and line ends become spaces, lone surrogates U+FFFD: neither can be stored everywhere.

    Example:
        >>> label(True), label(7), label("a\nb"), label(None)
        ('true', '7', 'a b', '')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value) if isinstance(value, float) or value.bit_length() < 1400 else ""  # Python refuses to write longer ones
    return _UNFIT.sub(_replaced, value[:LABEL_LENGTH]).strip() if isinstance(value, str) else ""


def _replaced(match: re.Match[str]) -> str:
    return "\ufffd" if match[0] >= "\ud800" else " "


def labels(values: Mapping[str, Any]) -> dict[str, str]:
    """The labels that have a value, at most as many as Prefect takes."""
    found = [(name, text) for name, value in values.items() if (text := label(value))]
    return dict(found[:MOST_LABELS])


def name(text: str) -> str:
    """Text as a part of an event's name: letters, digits, '_', '.', '-'; anything else becomes '_'. At most 100 characters."""
    return _NOT_IN_NAMES.sub("_", label(text)[:100])


def event_name(*parts: str) -> str:
    """The parts that are there, joined by dots, each fit for an event's name."""
    return ".".join(name(part) for part in parts if part)


def commit(value: Any) -> str:
    """The value if it is the id of a commit; '' otherwise, also for the zeros that git writes for 'none'."""
    return value if isinstance(value, str) and _COMMIT.match(value) and value.strip("0") else ""


def distinct(related: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """The related resources, each once, at most as many as Prefect takes."""
    seen = {(each["prefect.resource.id"], each["prefect.resource.role"]): each for each in reversed(list(related))}
    return list(reversed(seen.values()))[:MOST_RELATED]
