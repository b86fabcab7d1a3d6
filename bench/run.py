"""`make bench`: what a routine costs beside the plainest loop over the SDK, measured in one run, printed as a table.

Both talk to the same scripted Claude, which has a process of its own. The Prefect server is real, on SQLite. Numbers of one run can be
compared with each other; a busy machine makes all of them larger.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from claude import ClaudeProcess, Seen
from rich.console import Console
from rich.table import Table
from servers import PrefectServer, databases, without_settings

from prefect_routines.up import parts

HERE = Path(__file__).parent
WARM = 5
"""Turns at the beginning of a conversation that do not count: connections are made, modules loaded."""


@dataclass(frozen=True)
class Row:
    """One line of the table. `limit` bounds ours; all numbers are in `unit`, and less is better."""

    what: str
    floor: float
    ours: float
    limit: float
    unit: str
    digits: int = 0

    @property
    def verdict(self) -> str:
        if self.ours < self.limit:
            return "reached"
        return f"missed by {self.show(self.ours - self.limit)} ({self.ours / self.limit - 1:.0%})"

    def show(self, value: float) -> str:
        return f"{value:,.{self.digits}f} {self.unit}"


@contextmanager
def environment(*, postgres: bool = False) -> Iterator[dict[str, str]]:
    """A home of its own, a Prefect server in it, and the variables that lead there."""
    home = Path(tempfile.mkdtemp(prefix="prefect-routines-bench-"))
    home.chmod(0o711)  # as root a session runs under a user of its own, who must get through
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with databases(postgres=postgres) as named:
        own = {**without_settings(), **named, "PREFECT_HOME": str(home / "prefect"), "DO_NOT_TRACK": "1"}
        own["ROUTINES_WORKSPACES"] = str(home / "workspaces")
        try:
            with PrefectServer(home, port, own) as server:
                yield {**own, **parts.CLIENT_SETTINGS, "PREFECT_API_URL": server.api, "PREFECT_LOGGING_LEVEL": "WARNING"}
        finally:
            shutil.rmtree(home, ignore_errors=True)


class Bench:
    """Runs conversations and looks at them from Claude's side."""

    def __init__(self, claude: ClaudeProcess, environment: dict[str, str], repeats: int) -> None:
        self._claude, self._environment, self._repeats = claude, environment | claude.environment, repeats

    def run(self, kind: str, prompt: str, count: int = 1) -> tuple[dict[str, float], list[list[Seen]]]:
        """Run conversations in a fresh process; its numbers, and the requests by conversation."""
        command = [sys.executable, str(HERE / "sessions.py"), kind, prompt, str(count)]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{kind} failed: {done.stderr[-3000:]}")
        by_turn: list[list[Seen]] = []
        for request in self._claude.seen():  # equal prompts share a conversation's name, so sessions are told apart by their order
            lane = next((lane for lane in by_turn if lane[-1].turn == request.turn - 1), None) if request.turn else None
            if lane is None:
                by_turn.append(lane := [])
            lane.append(request)
        return json.loads(done.stdout.splitlines()[-1]), by_turn

    def between(self, kind: str, prompt: str, warm: int) -> list[float]:
        """Seconds from one request to the next, behind the first few."""
        _, [requests] = self.run(kind, prompt)
        return [later.at - earlier.at for earlier, later in list(pairwise(requests))[warm:]]

    def pairs(self, prompt: str, warm: int = 0) -> tuple[float, float]:
        """Medians of the seconds between requests, bare loop and ours by turns, so that both meet the same neighbours."""
        found: dict[str, list[float]] = {"floor": [], "ours": []}
        for _ in range(self._repeats):
            for kind in found:
                found[kind] += self.between(kind, prompt, warm)
        return median(found["floor"]), median(found["ours"])

    def rows(self) -> Iterator[Row]:
        """All rows, one after the other."""
        floor, ours = self.pairs("true 60", WARM)
        yield Row("one turn with one `true` in bash, p50", floor * 1e3, ours * 1e3, 25, "ms", 1)
        floor, ours = self.pairs("sleep 8 6", 1)
        yield Row("one turn with 8 calls of 0.5 s", floor, ours, 0.65, "s", 2)
        many = {kind: [self.run(kind, "true 10", 10)[0] for _ in range(self._repeats)] for kind in ("floor", "ours")}
        for what, name, limit, unit, size in (("wall", "wall", 10, "s", 1), ("memory (PSS)", "memory", 400, "MB", 1e6)):
            floor, ours = (median(one[name] for one in many[kind]) / size for kind in ("floor", "ours"))
            yield Row(f"10 sessions of 10 turns, {what}", floor, ours, limit, unit, 1 if unit == "s" else 0)
        outside = {kind: sum(one.outside for one in self.run(kind, "output 50")[1][0]) / 1024 for kind in ("floor", "ours")}
        yield Row("prompt bytes outside the cache, 50 turns", outside["floor"], outside["ours"], 45, "KB", 1)


def main() -> int:
    """Print the table; exit status 1 when a target is missed."""
    options = argparse.ArgumentParser(prog="make bench", description=__doc__)
    options.add_argument("--repeats", type=int, default=3, help="how often each row is measured; medians are shown")
    repeats: int = options.parse_args().repeats
    console, missed = Console(width=120), 0
    table = Table("what", "bare loop", "ours", "ratio", "target", "")
    with environment() as found, ClaudeProcess() as claude, console.status("Measuring ...") as status:
        for row in Bench(claude, found, repeats).rows():
            status.update(f"{row.what}: {row.show(row.ours)}")
            table.add_row(
                row.what, row.show(row.floor), row.show(row.ours), f"{row.ours / row.floor:.1f}", f"< {row.show(row.limit)}", row.verdict
            )
            missed += row.verdict != "reached"
    console.print(table)
    console.print(f"Load of the machine: {', '.join(f'{load:.1f}' for load in os.getloadavg())} on {os.cpu_count()} cores.")
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
