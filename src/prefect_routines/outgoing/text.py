"""Text that is about to leave for an outside service, made harmless there: nobody is called, nothing is closed, fetched or forged. Pure.

What a service would act upon is shown as code or defanged, never silently kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from prefect_routines.outgoing import github
from prefect_routines.outgoing.allowance import Allowance, clean, may_link, split_url, without_scheme

Service = Literal["github", "slack", "mail", "plain"]


@dataclass(frozen=True)
class Outgoing:
    """Annotates a text argument of a write tool: `body: Annotated[str, Outgoing("github", 65_000)]`.

    Attributes:
        service: Whose markup the text is read as.
        limit: Characters; what is longer is cut, with a visible mark.
        one_line: Line breaks become spaces: titles, subjects.
    """

    service: Service = "plain"
    limit: int = 65_000
    one_line: bool = False


def sanitise(text: str, kind: Outgoing, allowance: Allowance) -> str:
    """The text as it may be sent: at most `kind.limit` characters; sanitising it again changes nothing.

    Example:
        >>> sanitise("Fixes #1, thanks @bob", Outgoing("github"), Allowance())
        'Fixes `#1`, thanks `@bob`'
    """
    text = clean(text)
    if kind.service == "github":
        text = github.without_comments(text)
    if kind.one_line:
        text = text.replace("\n", " ")
    if len(text) <= kind.limit and len(whole := _rendered(text, kind, allowance)) <= kind.limit:
        return whole
    keep, tries = min(len(text), kind.limit), 0
    while keep > 0:  # what is made harmless grows; as much less of the text fits
        mark = f" [cut: {len(text) - keep} more characters]"
        shown = _rendered(text[:keep], kind, allowance)
        if github.LAST_FENCE.search(shown):
            mark = "\n" + mark[1:]
        over = len(shown) + len(mark) - kind.limit
        if over <= 0:
            return shown + mark
        tries += 1
        keep -= over if tries < 8 else max(over, keep // 2)
    return ""


def _rendered(text: str, kind: Outgoing, allowance: Allowance) -> str:
    """What was taken away can make neighbours of what acts only together: rendered until nothing changes."""
    for _ in range(6):
        if (again := _RENDER[kind.service](text, allowance)) == text:
            return text
        text = again
    if kind.service != "github":
        return _RENDER[kind.service](text, allowance)
    text = text.replace("`", "'")  # somebody tries hard
    return f"`{text.replace('|', '/')}`" if kind.one_line else f"```\n{text}\n```"


# --- mail and plain text

_PLAIN_URL = re.compile(r"(?:[a-z][a-z0-9+.-]{1,20}://|www\.)[^\s<>|]+", re.IGNORECASE)


def _plain(text: str, allowance: Allowance) -> str:
    def shown(match: re.Match[str]) -> str:
        url, rest = split_url(match[0])
        if may_link(url, allowance):
            return match[0]
        # Without its scheme a client may still guess a link from the dots of the host.
        host, slash, path = without_scheme(url).partition("/")
        shown = re.sub(r"\.(?!\])", "[.]", host) + slash + re.sub(r"(www)\.", r"\1[.]", path, flags=re.IGNORECASE)
        return shown.replace("://", ":/ /") + rest

    return _PLAIN_URL.sub(shown, text)


# --- Slack: https://docs.slack.dev/messaging/formatting-message-text

_SLACK_MENTION = re.compile(r"<@([UW][A-Z0-9]{2,20})>")
_SLACK_ESCAPE = re.compile(r"&(?!(?:amp|lt|gt);)|<|>")
_SLACK_ALL = re.compile(r"@(?=(?:everyone|channel|here)\b)", re.IGNORECASE)
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def _slack(text: str, allowance: Allowance) -> str:
    kept, at = [], 0
    for match in _SLACK_MENTION.finditer(text):
        if match[1].lower() in allowance.mentions:
            kept += [_slack_text(text[at : match.start()], allowance), match[0]]
            at = match.end()
    return "".join([*kept, _slack_text(text[at:], allowance)])


def _slack_text(text: str, allowance: Allowance) -> str:
    escaped = _SLACK_ESCAPE.sub(lambda match: _ENTITIES[match[0]], _plain(text, allowance))
    return _SLACK_ALL.sub("\uff20", escaped)  # looks the same, calls nobody


_RENDER: dict[Service, Callable[[str, Allowance], str]] = {
    "github": github.render,
    "slack": _slack,
    "mail": _plain,
    "plain": _plain,
}
