"""The list of sessions as a page: what needs a person, what is at work, what each came to. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from urllib.parse import urlencode

from prefect_routines.gateway.markup import Element, Node, tag
from prefect_routines.gateway.session_view import STATES, VERDICTS, badge, when
from prefect_routines.store import SessionRecord
from prefect_routines.visible import one_line


def session_list(
    found: Sequence[SessionRecord],
    *,
    first: Sequence[SessionRecord] = (),
    waiting: Collection[str],
    filters: Mapping[str, str],
    routines: Sequence[str],
    more: str | None,
) -> list[Node]:
    """The page's content.

    Args:
        first: Those that come first, apart from the others.
        waiting: Ids of sessions with an open form.
        filters: As in the address.
        routines: Names to choose from.
        more: Where the next page begins.
    """
    apart = {record.id for record in first}
    rows = [_row(record, waits=record.id in waiting) for record in found if record.id not in apart]
    only = "No such sessions." if any(value for value in filters.values()) else "No sessions yet."
    parts: list[Node] = [tag("h1", "Sessions"), _filters(filters, routines)]
    if first:
        parts.append(tag("ol", [_row(record, waits=True) for record in first], class_="sessions first"))
    if rows or not first:
        parts.append(tag("ol", rows, class_="sessions") if rows else tag("p", only, class_="quiet"))
    if more:
        address = "?" + urlencode({**filters, "cursor": more})
        parts.append(tag("p", tag("a", "Older sessions", href=address), class_="older"))
    return parts


def _row(record: SessionRecord, *, waits: bool) -> Element:
    name = record.routine if record.name == "main" else f"{record.routine}, {record.name}"
    summary = one_line(record.summary or "", 200)
    line = tag("div", tag("strong", name), badge(record, waits=waits), class_="line")
    turns = f"{record.turns} turn{'s' if record.turns != 1 else ''}"
    facts = tag("div", when(record.started_at or record.created_at), f" · {turns} · ${record.dollars:.2f}", class_="quiet")
    return tag("li", tag("a", line, tag("div", summary, class_="said") if summary else None, facts, href=f"/sessions/{record.id}"))


def _filters(filters: Mapping[str, str], routines: Sequence[str]) -> Element:
    fields = []
    if len(routines) > 1:
        fields.append(_select("routine", "all routines", {name: name for name in routines}, filters))
    fields.append(_select("state", "any state", STATES, filters))
    fields.append(_select("verdict", "any verdict", VERDICTS, filters))
    hide = tag("input", type="checkbox", name="without", value="nothing_to_do", checked=filters.get("without") == "nothing_to_do")
    label = tag("label", hide, "hide “nothing to do”")
    return tag("form", fields, label, tag("button", "Show", type="submit"), class_="filters", method="get", action="/sessions")


def _select(name: str, everything: str, choices: Mapping[str, str], filters: Mapping[str, str]) -> Element:
    options = [
        tag("option", words, value=value, selected=filters.get(name) == value) for value, words in {"": everything, **choices}.items()
    ]
    return tag("select", options, name=name, aria_label=name)
