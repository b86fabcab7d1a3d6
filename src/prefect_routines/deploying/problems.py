"""What is wrong, or worth knowing, about a prefect file. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Weight = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Problem:
    """One remark on one line.

    Args:
        file: The prefect file.
        line: From 1; 0 when it is about the file as a whole.
        where: The deployment it is about, or nothing.
        text: What is wrong, and what to do.
        weight: An `error` keeps everything from being deployed; a `warning` is probably a slip; a `note` is good to know.
    """

    file: Path
    line: int
    where: str
    text: str
    weight: Weight = "error"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        return f"{place}: {f'{self.where}: ' if self.where else ''}{self.text}"


def meant(word: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """`; did you mean 'x'?` for a word that is nearly a known one, else what `otherwise` says.

    Example:
        >>> meant("parametres", ["parameters", "paused"])
        "; did you mean 'parameters'?"
    """
    known = list(known)
    folded = {name.casefold(): name for name in reversed(known)}
    close = difflib.get_close_matches(word.casefold(), folded, 1, 0.7)
    if close:
        return f"; did you mean {folded[close[0]]!r}?"
    return f"; {otherwise}" if otherwise else ""
