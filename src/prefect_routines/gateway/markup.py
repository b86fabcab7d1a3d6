"""Pieces of a page as data: the server writes them as HTML, the browser builds the same from JSON. The only place that escapes. Pure.

Text is text wherever it comes from. Tags and attributes are those of a short list; an address is one of ours, or http(s).
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect_routines.visible import visible

_TAGS = """
a article aside b button code dd details div dl dt footer form h1 h2 h3 header i input label li main nav ol option p pre section
select small span strong summary table tbody td textarea th thead time tr ul
"""
_ATTRIBUTES = """
action aria-label aria-live autocomplete autofocus checked class datetime disabled for formnovalidate hidden href id inputmode
maxlength method min name open placeholder rel required role rows selected step title type value
"""
TAGS, ATTRIBUTES = frozenset(_TAGS.split()), frozenset(_ATTRIBUTES.split())
_ADDRESS = re.compile(r"(?:https?://[!-;=?-~]{1,2000}|/(?!/)[!-;=?-~]*|[?#][!-;=?-~]*)\Z")
_EMPTY = frozenset(["input"])


@dataclass(frozen=True, slots=True)
class Element:
    """One element. Made by `tag`."""

    name: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: tuple[Node, ...] = ()


Node = Element | str


def tag(name: str, /, *children: Node | Iterable[Node] | None, **attributes: str | bool | None) -> Element:
    """An element; `class_` and `for_` stand for their names without the underscore, `aria_label` for `aria-label`.

    Example:
        >>> html_of(tag("p", "1 < 2", class_="note"))
        '<p class="note">1 &lt; 2</p>'
    """
    if name not in TAGS:
        raise ValueError(f"<{name}> is not one of the tags that pages are made of")
    kept: dict[str, str] = {}
    for key, value in attributes.items():
        attribute = key.rstrip("_").replace("_", "-")
        if attribute not in ATTRIBUTES and not attribute.startswith("data-"):
            raise ValueError(f"{attribute} is not one of the attributes that pages are made of")
        if value is None or value is False:
            continue
        text = "" if value is True else value
        if attribute in ("href", "action") and not _ADDRESS.match(text):
            continue
        kept[attribute] = text
    return Element(name, kept, tuple(_flat(children)))


def _flat(children: Iterable[Node | Iterable[Node] | None]) -> Iterator[Node]:
    for child in children:
        if isinstance(child, str | Element):
            yield child
        elif child is not None:
            yield from child


def html_of(node: Node) -> str:
    """A node as HTML."""
    if isinstance(node, str):
        return html.escape(visible(node))
    # browsers drop a line feed that comes first in these
    first = "\n" if node.name in ("pre", "textarea") else ""
    attributes = "".join(f' {name}="{html.escape(visible(value))}"' if value else f" {name}" for name, value in node.attributes.items())
    if node.name in _EMPTY:
        return f"<{node.name}{attributes}>"
    return f"<{node.name}{attributes}>{first}{''.join(map(html_of, node.children))}</{node.name}>"


def data_of(node: Node) -> Any:
    """A node as JSON: a text, or `[tag, attributes, children]`."""
    if isinstance(node, str):
        return visible(node)
    return [node.name, {name: visible(value) for name, value in node.attributes.items()}, [data_of(child) for child in node.children]]
