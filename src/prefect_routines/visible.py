"""Text from outside, made harmless to look at: control, escape and direction characters become visible. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, TypeVar

T = TypeVar("T")

# C0 and C1 controls but tab and newline, bidirectional controls, zero-width characters, line separators, lone surrogates
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(value: T) -> T:
    r"""The value, all strings in its lists and dictionaries fit for requests and databases: no NUL, no lone surrogates.

    Example:
        >>> storable({"title": "half \ud83d a pair"})
        {'title': 'half � a pair'}
    """
    return _walk(value)  # type: ignore[no-any-return]  # the shape stays


def _walk(value: Any) -> Any:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_walk(key): _walk(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_walk(item) for item in value]
    return value


def visible(text: str) -> str:
    r"""The text with characters that hide, move or colour shown as escapes; tabs and newlines stay.

    Example:
        >>> visible("safe \x1b[2J gone")
        'safe \\x1b[2J gone'
    """
    return _HIDDEN.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str, limit: int = 120) -> str:
    """The text on one line, visible, cut to `limit` characters."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def slug(text: str, limit: int = 40) -> str:
    """Lower-case letters, digits and dashes only, as Prefect's keys and branch names want them."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:limit].strip("-") or "routine"
