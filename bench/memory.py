"""What a tree of processes takes: memory as PSS, in which a page that several share counts once, and processor time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def _tree(pid: int) -> Iterator[int]:
    """The process and all below it."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parent = int(Path(f"/proc/{name}/stat").read_bytes().rpartition(b") ")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    look = [pid]
    while look:
        this = look.pop()
        look += children.get(this, [])
        yield this


def tree_pss(pid: int) -> int:
    """Bytes of this process and of all below it. Processes that end meanwhile count nothing."""
    total = 0
    for this in _tree(pid):
        try:
            lines = Path(f"/proc/{this}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def tree_cpu(pid: int) -> float:
    """Seconds of processor time that this process, all below it and those of them that have ended have had (proc_pid_stat(5))."""
    ticks = 0
    for this in _tree(pid):
        try:
            fields = Path(f"/proc/{this}/stat").read_bytes().rpartition(b") ")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")
