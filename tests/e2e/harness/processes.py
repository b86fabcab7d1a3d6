"""Trees of processes, by number and start time: numbers alone are used again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

Process = tuple[int, int]
"""Number and start in clock ticks since boot."""


def _stat(pid: int | str) -> list[bytes] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return None


def descendants(pid: int) -> list[Process]:
    """All processes below this one, zombies left out."""
    children: dict[int, list[Process]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(name)) and fields[0] not in (b"Z", b"X"):
            children.setdefault(int(fields[1]), []).append((int(name), int(fields[19])))
    found, look = [], [pid]
    while look:
        below = children.get(look.pop(), [])
        found += below
        look += [child for child, _ in below]
    return found


def alive(processes: Iterable[Process]) -> list[Process]:
    """Those that still run."""
    return [
        (pid, started)
        for pid, started in processes
        if (fields := _stat(pid)) and fields[0] not in (b"Z", b"X") and int(fields[19]) == started
    ]
