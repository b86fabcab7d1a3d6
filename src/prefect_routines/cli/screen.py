"""A terminal whose last rows stay: the line that is being written, what is under way and what is typed. All else scrolls above them."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from prefect_routines.cli.terminal import text
from prefect_routines.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

INDENT = "  "
PROMPT = "› "


class Screen:
    """Prints lines and text that arrives in pieces. Where there is no terminal, pieces are printed as soon as they are whole lines.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._partial = ""  # of the text that is being written, the row that is not full yet
        self.status: Text = text()
        self.hint = ""
        self.typed: tuple[str, int] | None = None
        """What is typed, and where the cursor is; None when nobody can type."""

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            from rich.live import Live

            self._live = Live(console=self.console, auto_refresh=False, transient=True, get_renderable=self._bottom)
            self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end_text()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def print(self, line: Text) -> None:
        """Print a line; text that is being written is broken off before it and goes on after it."""
        self.end_text()
        self._above(line)

    def write(self, piece: str) -> None:
        """Print a piece of text behind the last piece."""
        *lines, self._partial = (self._partial + visible(piece)).split("\n")
        for line in lines:
            *rows, last = self._rows(line)
            for row in (*rows, last):
                self._above(text(INDENT, row))
        *rows, self._partial = self._rows(self._partial)
        for row in rows:
            self._above(text(INDENT, row))
        self.refresh()

    def end_text(self) -> None:
        """The text is over, or something else comes in between."""
        rest, self._partial = self._partial, ""
        if rest.strip():
            self._above(text(INDENT, rest))

    def refresh(self) -> None:
        """Draw the last rows anew."""
        if self._live is not None:
            self._live.refresh()

    def _above(self, line: Text) -> None:
        self.console.print(line, soft_wrap=not self.console.is_terminal)

    def _rows(self, line: str) -> Iterator[str]:
        """The line in rows that fit the terminal, broken at blanks where there are some; the last one may be written on."""
        if self._live is None:
            yield line
            return
        from rich.cells import cell_len, chop_cells

        width = max(20, self.console.width - len(INDENT) - 1)
        while cell_len(line) > width:
            fits = chop_cells(line, width)[0]
            blank = fits.rfind(" ") if len(fits) < len(line) and line[len(fits)] != " " else len(fits)
            at = blank if blank > width // 3 else len(fits)
            yield line[:at]
            line = line[at:].removeprefix(" ")
        yield line

    def _bottom(self) -> Text:
        rows = [text(INDENT, self._partial)] if self._partial else []
        rows.append(self.status)
        if self.typed is not None:
            if self.hint:
                rows.append(text((f"{INDENT}{self.hint}", "yellow")))
            rows.append(self._prompt(*self.typed))
        from rich.text import Text

        for row in rows:
            row.no_wrap, row.overflow = True, "ellipsis"
            row.truncate(max(10, self.console.width - 1), overflow="ellipsis")
        return Text("\n").join(rows)

    def _prompt(self, typed: str, cursor: int) -> Text:
        """The typed line with its cursor; of a long one the part around the cursor."""
        room = max(10, self.console.width - len(PROMPT) - 3)
        start = max(0, cursor - room)
        before, after = typed[start:cursor].replace("\n", "⏎"), typed[cursor:].replace("\n", "⏎")
        at = after[:1] or " "
        return text((PROMPT, "bold cyan"), before, (at, "reverse"), after[1:])
