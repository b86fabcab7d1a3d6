"""What a part says, kept in a file that is turned over before it grows too large."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from pathlib import Path

MEGABYTE = 1 << 20


class RotatingLog:
    """A log file `server.log` with its elders `server.log.1`, `server.log.2`, ...; readable by its owner only.

    Args:
        path: The file.
        size: Bytes after which a new one is begun.
        elders: How many older ones are kept.
    """

    def __init__(self, path: Path, size: int = 10 * MEGABYTE, elders: int = 3) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path, self._size, self._elders = path, size, elders
        self._tail: deque[bytes] = deque(maxlen=40)
        self._file = self._open()

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def write(self, line: bytes) -> None:
        """Append a line. A full disk loses lines of the log; the part goes on."""
        self._tail.append(line)
        with suppress(OSError):
            if os.fstat(self._file).st_size + len(line) > self._size:
                self._turn_over()
            os.write(self._file, line)

    def _turn_over(self) -> None:
        for number in range(self._elders - 1, 0, -1):
            with suppress(FileNotFoundError):
                self._elder(number).rename(self._elder(number + 1))
        self.path.rename(self._elder(1))
        os.close(self._file)
        self._file = self._open()

    def _elder(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def last_line(self) -> str:
        """The last line that says something; empty if there is none."""
        for line in reversed(self._tail):
            text = line.decode("utf-8", "replace").strip()
            if any(character.isalnum() for character in text):
                return text
        return ""

    def close(self) -> None:
        os.close(self._file)
