"""The tests' hand on the forking process: start a run, wait for it, kill it, stop it and let it go on."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from waiting import until

from .processes import Process, alive, descendants


class Run:
    """One runner process."""

    def __init__(self, pid: int, place: Path) -> None:
        self.pid, self.place = pid, place
        self.status: int | None = None
        self.ended = threading.Event()

    def wait(self, seconds: float = 120.0) -> int:
        """Its exit status; minus the signal's number if one ended it."""
        if not self.ended.wait(seconds):
            self.signal(signal.SIGKILL)
            raise TimeoutError(f"the run did not end within {seconds:g} s; it said:\n{self.said[-4000:]}")
        assert self.status is not None
        return self.status

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> list[Process]:
        """kill -9; returns what it had started."""
        tree = self.tree_now()
        self.signal(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL
        return tree

    def tree_now(self) -> list[Process]:
        """What it has started and what that has started."""
        return descendants(self.pid)

    @property
    def said(self) -> str:
        """What it wrote to its terminal."""
        log = self.place / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    @property
    def tree(self) -> list[Process]:
        """The processes it had when it killed itself."""
        return [(pid, started) for pid, started in json.loads((self.place / "tree.json").read_text())]

    @property
    def commits(self) -> list[str]:
        """What each commit of the store wrote, of a run that came to its end."""
        found: list[str] = json.loads((self.place / "commits.json").read_text())
        return found


class Pool:
    """Starts runs; all are gone when it is closed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forks.py"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._lock, self._numbers = threading.Lock(), itertools.count()
        self._starting: dict[int, tuple[Path, threading.Event]] = {}
        self._runs: dict[int, Run] = {}
        self._ready = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()
        assert self._ready.wait(120), "the forking process did not come up"

    def start(self, place: Path, **order: Any) -> Run:
        """Fork a runner; its files are kept in `place`."""
        place.mkdir(parents=True)
        assert self._process.stdin is not None
        started = threading.Event()
        with self._lock:
            number = next(self._numbers)
            self._starting[number] = (place, started)
            line = {"order": number, "place": str(place), "log": str(place / "log"), **order}
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()
        assert started.wait(60), "no process was forked"
        return next(run for run in self._runs.values() if run.place == place)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "order" in message:
                place, started = self._starting.pop(message["order"])
                self._runs[message["pid"]] = Run(message["pid"], place)
                started.set()
            elif "status" in message:
                run = self._runs.pop(message["pid"])
                run.status = message["status"]
                run.ended.set()
            else:
                self._ready.set()

    def close(self) -> None:
        """Kill what still runs, and end."""
        tree = descendants(self._process.pid)
        for run in list(self._runs.values()):
            run.signal(signal.SIGKILL)
        until(lambda: not alive(tree), what="the runners' processes ended")
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
