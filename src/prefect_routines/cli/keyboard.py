"""The keyboard of a terminal whose output streams: without echo, key by key, given back as it was."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

_PASTE_ON, _PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"


class Keyboard:
    """Reads stdin in the event loop in which it is entered; Ctrl-C stays a signal.

    Args:
        on_typed: Called with the bytes as they come; with none when stdin is closed.

    Example:
        ```python
        with Keyboard(attached.typed):
            await attached.follow()
        ```
    """

    def __init__(self, on_typed: Callable[[bytes], None]) -> None:
        self._on_typed, self._before = on_typed, []
        self._fd = sys.stdin.fileno()
        self._loop: asyncio.AbstractEventLoop | None = None

    _before: list[Any]

    @staticmethod
    def there() -> bool:
        """Whether somebody can type: stdin and stdout are a terminal, and this process is in its foreground."""
        try:
            return sys.stdin.isatty() and sys.stdout.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
        except (OSError, ValueError):  # closed, or no controlling terminal of ours
            return False

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd, termios.TCSADRAIN)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._read)
        sys.__stdout__.write(_PASTE_ON)  # type: ignore[union-attr]  # it is a terminal
        sys.__stdout__.flush()  # type: ignore[union-attr]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
        sys.__stdout__.write(_PASTE_OFF)  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 4096)
        except OSError:  # the terminal is gone
            data = b""
        if not data and self._loop is not None:
            self._loop.remove_reader(self._fd)
        self._on_typed(data)
