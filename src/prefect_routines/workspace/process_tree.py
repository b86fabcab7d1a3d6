"""Which processes of the sandbox belong to which call: by a mark in their environment, by the call's pipe, or by their parent."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

MARK = "ROUTINES_CALL"
"""The environment variable that each command gets; its processes inherit it, also those that left session and parent."""

_MARK = f"\0{MARK}=".encode()


FileId = tuple[int, int]
"""Device and inode."""


class Process(NamedTuple):
    pid: int
    parent: int
    started: int  # clock ticks since boot


def processes() -> dict[int, Process]:
    """All living processes below this one (proc_pid_stat(5)); below process 1, or below a subreaper, nothing can hide from that."""
    found = {}
    this = os.getpid()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != this:
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b") ")[2].split()
            except OSError:
                continue
            if fields[0] not in (b"Z", b"X"):
                found[int(name)] = Process(int(name), int(fields[1]), int(fields[19]))
    if this == 1:
        return found
    below, added = {this}, True
    while added:
        more = {pid for pid, process in found.items() if process.parent in below} - below
        below, added = below | more, bool(more)
    return {pid: process for pid, process in found.items() if pid in below}


def ticks_now() -> int:
    """The present in the unit of `Process.started`."""
    with open("/proc/uptime", "rb") as file:
        return int(float(file.read().split()[0]) * os.sysconf("SC_CLK_TCK"))


def _own_call(pid: int, pipes: Mapping[FileId, int]) -> int | None:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            after = (b"\0" + file.read()).partition(_MARK)[2].partition(b"\0")[0]
        if after.isdigit() and len(after) < 12:
            return int(after)
        for name in os.listdir(f"/proc/{pid}/fd"):
            found = os.stat(f"/proc/{pid}/fd/{name}")
            if (found.st_dev, found.st_ino) in pipes:
                return pipes[found.st_dev, found.st_ino]
    except OSError:
        pass
    return None


def attribute(alive: Mapping[int, Process], pipes: Mapping[FileId, int], without: set[int]) -> dict[int, int | None]:
    """The call of each process; None where nothing tells. `pipes`: a call's pipe -> call; `without`: processes of ours."""
    calls: dict[int, int | None] = {}

    def call_of(pid: int, depth: int = 0) -> int | None:
        if pid in calls:
            return calls[pid]
        if pid not in alive or pid in without or depth > 500:
            return None
        calls[pid] = None
        own = _own_call(pid, pipes)
        calls[pid] = own if own is not None else call_of(alive[pid].parent, depth + 1)
        return calls[pid]

    for pid in alive:
        if pid not in without:
            call_of(pid)
    return calls


def kill(belongs: Callable[[], list[Process]]) -> None:
    """Kill what `belongs` lists, though it may grow meanwhile, and though a parent may go on with its text when a child ends.

    So all are stopped first, parents before children, until no new ones turn up; what is stopped neither forks nor goes on.
    """
    stopped: set[int] = set()
    for _ in range(100):
        new = [
            process.pid for process in sorted(belongs(), key=lambda process: (process.started, process.pid)) if process.pid not in stopped
        ]
        if not new:
            break
        stopped.update(new)
        _signal(new, signal.SIGSTOP)
    for _ in range(100):
        left = [process.pid for process in belongs()]
        if not left:
            break
        _signal(left, signal.SIGKILL)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, number)
