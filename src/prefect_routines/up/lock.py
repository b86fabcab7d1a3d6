"""One `routines up` per home: a lock that the kernel drops with the process, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect_routines.errors import SettingsError
from prefect_routines.visible import one_line


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the lock of a home.

    Raises:
        SettingsError: Another process holds it, or the home cannot be written.
    """
    path = home / "up.lock"
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(f"{home} cannot be written ({error.strerror}): set ROUTINES_HOME to a directory of yours") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"`routines up` runs already for {home}{_holder(file)}: use that one, stop it (Ctrl-C there), or set ROUTINES_HOME "
                "to another directory"
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps({"pid": os.getpid()}).encode(), 0)
        yield
    finally:
        os.close(file)


def _holder(file: int) -> str:
    """Who says to hold it; the text of a file, so taken with care."""
    try:
        return f" (process {one_line(str(json.loads(os.pread(file, 1000, 0))['pid']), 20)})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
