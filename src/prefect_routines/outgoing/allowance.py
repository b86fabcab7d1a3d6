"""What outgoing text may contain: which hosts it may link, whom it may call, what it may close; and no character that hides. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Allowance:
    """What one session's outgoing text may contain.

    Attributes:
        outside: Whether text from outside was read: then links and images only to `hosts`.
        hosts: Exact names or '*.suffix'.
        mentions: People and teams who may be mentioned, lower case, without '@'.
        closes: Issues that a closing keyword may name.
    """

    outside: bool = False
    hosts: frozenset[str] = frozenset()
    mentions: frozenset[str] = frozenset()
    closes: frozenset[int] = frozenset()


_ANSI = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]{0,64}[ -/]{0,16}[@-~]"  # colours and the cursor
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f\n]*(?:\x07|\x1b\\\\|\x9c)"  # titles, links, the clipboard
    "|\x1b[ -/]{0,8}[0-~]"
)
_EMOJI = "\u2600-\u27bf\ufe0f\U0001f000-\U0001faff"
# Controls but tab and newline, and what hides, turns or carries text unseen: bidirectional controls, zero-width characters, fillers,
# variation selectors but those of emoji, tags, lone surrogates. A joiner stays between the parts of an emoji.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
    f"|(?<![{_EMOJI}])\u200d|\u200d(?![{_EMOJI}])"
)


def clean(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _HIDDEN.sub("", _HIDDEN.sub("", _ANSI.sub("", text)))  # twice: what stood beside a joiner may have gone


_HOST = re.compile(r"[^\W_](?:[^\W_]|[.-])*(?=[:/?#&;,!'\"()*~]|\Z)")
_SCHEME = re.compile(r"\s*([a-z][a-z0-9+.-]*):", re.IGNORECASE)


def may_link(target: str, allowance: Allowance) -> bool:
    """Whether the target of a link is one of the allowed hosts; when only our own text was read, any host."""
    scheme = _SCHEME.match(target)
    if target.lower().startswith("www."):
        rest = target
    elif not scheme:
        return not re.match(r"\s*[/\\]\s*[/\\]", target)  # relative to the page; not `//host`
    elif scheme[1].lower() == "mailto":
        return True
    elif scheme[1].lower() in ("http", "https") and target[scheme.end() :].startswith("//"):
        rest = target[scheme.end() + 2 :]
    else:
        return False
    found = _HOST.match(rest[:300])
    if not found or "@" in re.split("[/?#]", rest, maxsplit=1)[0]:  # `https://good.org@bad.org`
        return False
    host = found[0].rstrip(".").lower()
    return not allowance.outside or any(
        host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed for allowed in map(str.lower, allowance.hosts)
    )


def without_scheme(target: str) -> str:
    """What is shown of a link that goes: host and path."""
    shown = re.sub(r"^\s*(?:[a-z][a-z0-9+.-]*:)?/*", "", target, flags=re.IGNORECASE)
    return shown if len(shown) <= 120 else shown[:119] + "…"


_TRAILING = ".,;:!?)'\"*_~"


def split_url(found: str) -> tuple[str, str]:
    url = found.rstrip(_TRAILING)
    return url, found[len(url) :]
