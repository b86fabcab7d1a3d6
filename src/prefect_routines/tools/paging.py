"""Long texts in pieces: what one call shows of them, and how to read on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prefect_routines.errors import ToolError

SIZE = 40_000  # characters of one piece
_redact: ContextVar[Callable[[str], str]] = ContextVar("redact", default=str)


@contextmanager
def redacting(redact: Callable[[str], str]) -> Iterator[None]:
    """Within the block texts lose their secrets before they are cut: of one that is cut in two, neither half would be known again."""
    token = _redact.set(redact)
    try:
        yield
    finally:
        _redact.reset(token)


def window(text: str, offset: int = 0, size: int = SIZE) -> str:
    """The piece of a text that begins at `offset`, with a last line that says how to go on.

    Args:
        text: All of it.
        offset: Character to start from, as Claude asked for it.
        size: Characters of one piece.

    Raises:
        ToolError: The text has no such character.

    Example:
        >>> window("abcdef", 0, 4)
        'abcd\\n\\n[2 more characters; go on with offset=4]'
    """
    text = _redact.get()(text)
    if not 0 <= offset <= len(text):
        raise ToolError(f"offset: between 0 and {len(text)}")
    rest = len(text) - offset - size
    return text[offset : offset + size] + (f"\n\n[{rest} more characters; go on with offset={offset + size}]" if rest > 0 else "")
