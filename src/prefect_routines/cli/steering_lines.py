"""What people did to a session, as lines: messages, interrupts, forms and their answers, cancellation, raised budgets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prefect_routines.cli.form_lines import answer_lines, form_lines, who
from prefect_routines.cli.terminal import text
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from rich.text import Text

    from prefect_routines.store import Entry

LIMITS = ("turns", "tokens", "dollars", "minutes")


def steering_lines(entry: Entry, forms: Mapping[str, Mapping[str, Any]]) -> Iterator[Text]:
    """The lines that an entry about people is worth; none for other entries.

    Args:
        entry: Of the journal.
        forms: Contents of the session's forms, by id.
    """
    data = entry.data
    match entry.kind:
        case "user.message" if data.get("by") or data.get("via"):
            said = message_of(data)
            yield text((f"  ▸ {who(data, 'by')} ", "bold magenta"), one_line(said, 1000))
        case "session.interrupted" | "turn.interrupted":
            yield text((f"  ■ interrupted by {who(data)}", "magenta"))
        case "session.suspend_asked":
            yield text((f"  ■ {who(data)} wants it to wait", "magenta"))
        case "session.cancelled":
            yield text((f"  ■ cancelled by {who(data)}", "bold red"))
        case "form.opened":
            yield from form_lines(str(data.get("kind")), data.get("content") or {})
        case "form.answered":
            yield from answer_lines(data, forms.get(str(data.get("form"))))
        case "budget.raised":
            more = ", ".join(f"{data[name]:g} {name}" for name in LIMITS if data.get(name))
            yield text((f"  + the budget is raised by {more or 'nothing'}", "magenta"))
        case "session.limited":
            yield text((f"  ! {one_line(str(data.get('reason') or data.get('reached') or 'the budget is used up'), 300)}", "yellow"))


def message_of(data: Mapping[str, Any]) -> str:
    """What a person wrote, without the line that tells Claude who it was."""
    said = "\n".join(block["text"] for block in data["content"] if block.get("type") == "text")
    first, newline, rest = said.partition("\n")
    return rest if newline and first.startswith("[Message from ") and first.endswith("]") else said
