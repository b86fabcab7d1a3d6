"""A command on a terminal at which somebody types: what the screen shows, and keys that are pressed."""

from __future__ import annotations

import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from fcntl import ioctl
from pathlib import Path

from .terminal import ROUTINES

COLUMNS, LINES = 90, 50
_CODES = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|[\r\n]|[^\x1b\r\n]+|\x1b.", re.DOTALL)


def screen(said: str) -> str:
    """What a terminal shows after it was sent this: all rows, those that scrolled off included."""
    rows, row, column = [""], 0, 0
    for match in _CODES.finditer(said):
        code, final = match[0], match[2]
        if code == "\r":
            column = 0
        elif code == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif final == "A":
            row = max(0, row - int(match[1] or 1))
        elif final == "K":
            rows[row] = "" if match[1] == "2" else rows[row][:column]
        elif final is None and not code.startswith("\x1b"):
            rows[row] = rows[row][:column].ljust(column) + code + rows[row][column + len(code) :]
            column += len(code)
    return "\n".join(line.rstrip() for line in rows)


class Typist:
    """Somebody at a terminal of 90 columns in which `routines` runs in the foreground."""

    def __init__(self, directory: Path, environment: Mapping[str, str], *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        env = {**environment, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}
        command = ["setsid", "--ctty", ROUTINES, *arguments]  # the terminal is its own, so that Ctrl-C reaches it
        self._process = subprocess.Popen(command, cwd=directory, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self._said = bytearray()

    @property
    def raw(self) -> str:
        """All that the terminal was sent."""
        return self._said.decode("utf-8", "replace")

    @property
    def shown(self) -> str:
        """What it shows."""
        return screen(self.raw)

    def until(self, words: str, seconds: float = 60) -> str:
        """Wait until the words are on the screen; the screen then."""
        deadline = time.monotonic() + seconds
        while words not in self.shown:
            assert self._read(deadline), f"{words!r} never came:\n{self.shown}"
        return self.shown

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def end(self, seconds: float = 60) -> int:
        """Wait for the end of the command; its exit status."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        status = self._process.wait(max(1.0, deadline - time.monotonic()))
        os.close(self._ours)
        return status

    def stop(self) -> None:
        """End it whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _read(self, deadline: float) -> bool:
        if not select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # EIO: the last process has closed it
            return False
        self._said += data
        return bool(data)
