"""Directories that a model has filled: gone through and removed by the host, whatever depth, permissions and links it gave them.

`shutil.rmtree` and `os.fwalk` call themselves for each level and hold a descriptor for it: some thousand nested directories are an error.
Here one directory is open at a time. Nothing else may write in the tree meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Enter = Callable[[int, str, os.stat_result], bool]
"""Called with the open directory, a name in it and what it is (never a link's target); for a directory the answer says whether to go in."""


def go_through(directory: Path, enter: Enter, leave: Callable[[int, str], None] = lambda *_: None) -> None:
    """Call `enter` for all that is below `directory`, and `leave` for each directory when its content is done.

    Raises:
        OSError: `directory` is none, is a link, or the tree was changed meanwhile.
    """
    here = os.open(directory, _OPEN)
    try:
        above: list[tuple[tuple[int, int], str, list[str]]] = []  # of each open level: which directory, the name gone into, names left
        names = os.listdir(here)
        while names or above:
            if not names:
                identity, name, names = above.pop()
                here = _step(here, "..")
                if _identity(here) != identity:
                    raise OSError(f"{directory} was changed while it was gone through")
                leave(here, name)
                continue
            name = names.pop()
            try:
                found = os.stat(name, dir_fd=here, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if enter(here, name, found) and stat.S_ISDIR(found.st_mode):
                above.append((_identity(here), name, names))
                here = _step(here, name)
                names = os.listdir(here)
    finally:
        os.close(here)


def _step(here: int, name: str) -> int:
    there = os.open(name, _OPEN, dir_fd=here)
    os.close(here)
    return there


def _identity(directory: int) -> tuple[int, int]:
    found = os.fstat(directory)
    return found.st_dev, found.st_ino


def remove_tree(directory: Path) -> None:
    """Remove a directory and all that is in it. What cannot be removed stays; nothing is raised."""

    def enter(parent: int, name: str, found: os.stat_result) -> bool:
        with contextlib.suppress(OSError):
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(name, dir_fd=parent)
                return False
            if found.st_dev == device:
                os.chmod(name, 0o700, dir_fd=parent)  # it may be closed even to its owner
                return True
        return False

    def leave(parent: int, name: str) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=parent)

    with contextlib.suppress(OSError):
        device = os.lstat(directory).st_dev
        os.chmod(directory, 0o700)
        go_through(directory, enter, leave)
        os.rmdir(directory)
