"""Text for a person: consoles that never take text for markup, colour only on a terminal, errors as one line."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_routines.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

DONE, NOT_DONE, MISTAKE, SIGNALLED = 0, 1, 2, 128
INTERRUPTED = SIGNALLED + 2  # by SIGINT
WIDE = 10_000
"""Columns when the output goes to a file or a pipe: nothing is cut there."""


@dataclass
class Invocation:
    """What holds for the whole command line.

    Args:
        debug: Show tracebacks and Prefect's own log.
    """

    debug: bool = False


def console(*, stderr: bool = False) -> Console:
    """A console for stdout or stderr. Markup, emoji codes and highlighting are off: what it prints may come from anybody."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=None if stream.isatty() else WIDE)


def text(*parts: str | tuple[str, str]) -> Text:
    """Text of parts, each plain or with a style; hidden characters in them are made visible.

    Example:
        ```python
        console().print(text(("done", "green"), " ", summary))
        ```
    """
    from rich.text import Text

    return Text.assemble(*(visible(part) if isinstance(part, str) else (visible(part[0]), part[1]) for part in parts))


def complain(message: str) -> None:
    """One line on stderr for what went wrong."""
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    _say(f"{red}error:{plain} {_line(message)}")


def note(message: str) -> None:
    """One line on stderr that is no error."""
    _say(_line(message))


def _line(message: str) -> str:
    return visible(" ".join(message.split()))


def _say(line: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
