"""The memory of a tree of processes: PSS, in which a page that several share counts once."""

from __future__ import annotations

import os
from pathlib import Path


def tree_pss(pid: int) -> int:
    """Bytes of this process and of all below it. Processes that end meanwhile count nothing."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parent = int(Path(f"/proc/{name}/stat").read_bytes().rpartition(b") ")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    total, look = 0, [pid]
    while look:
        this = look.pop()
        look += children.get(this, [])
        try:
            lines = Path(f"/proc/{this}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total
