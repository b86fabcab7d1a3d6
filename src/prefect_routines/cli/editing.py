"""A line as it is typed, edited here because the terminal is not to echo it while output streams. Pure."""

from __future__ import annotations

import codecs
import re

_ESCAPE = re.compile(r"\x1b(?:\[([0-9;?]*)([@-~])|O([A-Za-z])|(.))", re.DOTALL)
_LEFT, _RIGHT, _HOME, _END, _DELETE = "left", "right", "home", "end", "delete"
_KEYS = {"D": _LEFT, "C": _RIGHT, "H": _HOME, "F": _END}
_PASTE_BEGINS, _PASTE_ENDS = ("200", "~"), ("201", "~")


class LineEditor:
    r"""Bytes of a terminal in, finished lines out.

    Knows backspace, the arrows, Home, End, Ctrl-A, -E, -K, -U and -W. A pasted text stays one message, whatever lines it has.

    Example:
        >>> editor = LineEditor()
        >>> editor.feed(b"stpo\x7f\x7fop\r")
        ['stop']
    """

    def __init__(self) -> None:
        self.text, self.cursor = "", 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""  # of an escape sequence that is not complete
        self._pasting = False

    def feed(self, data: bytes) -> list[str]:
        """Take what was typed; the lines that are finished with it."""
        said, lines, at = self._rest + self._decoder.decode(data), [], 0
        self._rest = ""
        while at < len(said):
            char = said[at]
            if char == "\x1b":
                match = _ESCAPE.match(said, at)
                if match is None:
                    self._rest = said[at:] if len(said) - at < 32 else ""
                    break
                self._escape(match)
                at = match.end()
                continue
            at += 1
            if char in "\r\n" and not self._pasting:
                lines.append(self.text)
                self.text, self.cursor = "", 0
            else:
                self._type(char)
        return lines

    @property
    def alone(self) -> bool:
        """Whether an Escape was typed that begins nothing so far: the key itself."""
        return self._rest == "\x1b"

    def forget(self) -> None:
        """Drop a half escape sequence."""
        self._rest = ""

    def _type(self, char: str) -> None:
        before, after = self.text[: self.cursor], self.text[self.cursor :]
        match char:
            case "\x7f" | "\b":
                before = before[:-1]
            case "\x15":
                before = ""
            case "\x0b":
                after = ""
            case "\x17":
                before = re.sub(r"\S*\s*$", "", before)
            case "\x01":
                before, after = "", self.text
            case "\x05":
                before, after = self.text, ""
            case "\r" | "\n":  # pasted
                before += "\n"
            case _ if char.isprintable() or char == "\t":
                before += char
        self.text, self.cursor = before + after, len(before)

    def _escape(self, match: re.Match[str]) -> None:
        arguments, final = match[1] or "", match[2] or match[3] or ""
        if (arguments, final) == _PASTE_BEGINS:
            self._pasting = True
        elif (arguments, final) == _PASTE_ENDS:
            self._pasting = False
        key = _DELETE if (arguments, final) == ("3", "~") else _KEYS.get(final)
        if key == _LEFT:
            self.cursor = max(0, self.cursor - 1)
        elif key == _RIGHT:
            self.cursor = min(len(self.text), self.cursor + 1)
        elif key == _HOME:
            self.cursor = 0
        elif key == _END:
            self.cursor = len(self.text)
        elif key == _DELETE:
            self.text = self.text[: self.cursor] + self.text[self.cursor + 1 :]
