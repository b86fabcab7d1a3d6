"""What a notice tells: facts about the session, and a waiting form as plain text in which nothing can pass for something else. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect_routines.secret_shapes import SECRET
from prefect_routines.store import FAILED
from prefect_routines.visible import one_line, storable, visible

if TYPE_CHECKING:
    from prefect_routines.store import Form, Notice, SessionRecord

TYPES = {"started": "session.started", "approval": "session.needs_approval", "finished": "session.finished"}
DECISIONS = {"approve": "Approve", "approve_all": "Approve all like this", "deny": "Deny"}
"""What can be decided with one click, and what the button says."""
_PAST = {"approve": "Approved", "approve_all": "Approved, with all like it", "deny": "Denied", "stop": "Stopped"}


@dataclass(frozen=True)
class Told:
    """What one notice is about.

    Args:
        form: The form that waits, for `approval`.
        url: The session's page.
    """

    notice: Notice
    record: SessionRecord
    form: Form | None
    url: str

    @property
    def headline(self) -> str:
        """One line."""
        match self.notice.kind:
            case "started":
                return f"{self.routine} has started"
            case "approval":
                return f"{self.routine} {_WAITS[self.form.kind] if self.form else 'needs you'}"
            case _:
                verdict = f": {self.record.verdict.replace('_', ' ')}" if self.record.verdict else ""
                return f"{self.routine} has {'failed' if self.error else 'finished'}{verdict}"

    @property
    def routine(self) -> str:
        """Its name, on one line."""
        return one_line(self.record.routine, 80)

    @property
    def summary(self) -> str:
        """What the session says it came to, or why it did not."""
        return plain(self.record.summary or self.error)

    @property
    def error(self) -> str:
        """What its last run ended with, if that was no verdict."""
        return "" if self.record.status == "ended" else plain(self.record.data.get(FAILED) or "")


_WAITS = {
    "approval": "wants to do something that needs your approval",
    "question": "asks something",
    "budget": "has used up its budget and waits",
    "pause": "waits for a message",
}


def payload(told: Told, *, arguments: bool) -> dict[str, Any]:
    """The body of a webhook: `type`, `timestamp`, `data`.

    Args:
        arguments: Whether the arguments of the calls that wait go along.
    """
    record = told.record
    data: dict[str, Any] = {
        "session": record.id,
        "routine": record.routine,
        "status": record.status,
        "verdict": record.verdict,
        "summary": told.summary or None,
        "error": told.error or None,
        "form": None if told.form is None else _form(told.form, arguments),
        "url": told.url,
    }
    made = {"type": TYPES[told.notice.kind], "timestamp": told.notice.created_at.isoformat(), "data": data}
    return storable(made)


def _form(form: Form, arguments: bool) -> dict[str, Any]:
    calls, questions = form.content.get("calls", []), form.content.get("questions", [])
    titles = [one_line(masked(str(one))) for one in [*(call["title"] for call in calls), *(each["question"] for each in questions)]]
    made: dict[str, Any] = {"id": form.id, "kind": form.kind, "titles": titles}
    if arguments:
        made["calls"] = [{name: _masked(call[name]) for name in ("tool", "target", "arguments")} for call in calls]
    return made


def decidable(form: Form) -> list[str]:
    """What can be decided about a form with one click: nothing where a question or a budget wants more than that."""
    calls = form.content.get("calls", [])
    if not calls or form.content.get("questions") or form.kind in ("budget", "pause"):
        return []
    return [name for name in DECISIONS if name != "approve_all" or all(call.get("like") for call in calls)]


def calls_digest(content: Mapping[str, Any]) -> str:
    """What a button or a link is bound to: exactly these calls."""
    hashes = [[call["id"], call["hash"]] for call in content.get("calls", [])]
    return hashlib.sha256(json.dumps(hashes, ensure_ascii=True).encode()).hexdigest()[:32]


def shown_arguments(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Arguments by name, as a person is shown them; each has to be set apart from the next, so that no value can pass for another one."""
    return [
        (one_line(name, 80), plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)) or '""')
        for name, value in arguments.items()
    ]


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """Arguments as one text, in which the lines of a value are indented."""
    parts = [f"{name}: {value}" if "\n" not in value else f"{name}:\n{value}" for name, value in shown_arguments(arguments)]
    return "\n".join(part.replace("\n", "\n    ") for part in parts) or "(no arguments)"


def outcome(form: Form) -> str:
    """What became of a form, in one line; empty while it is open."""
    if form.status == "open":
        return ""
    if form.status != "answered":
        return "Nobody answered in time." if form.status == "expired" else "It is not needed any more."
    chosen = {one.get("decision", "") for one in ((form.answer or {}).get("decisions") or {}).values()}
    what = _PAST.get(chosen.pop(), "Answered") if len(chosen) == 1 else "Answered"
    return f"{what} by {one_line(form.person or 'somebody', 100)}{f' via {form.via}' if form.via else ''}."


def plain(text: str) -> str:
    """Text of others as it may be shown: what hides is visible, what has the shape of a token is left out."""
    return visible(masked(text))


def masked(text: str) -> str:
    """The text without what has the shape of a token."""
    return SECRET.sub("[secret]", text)


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else value
