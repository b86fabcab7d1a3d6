"""The command as a person runs it: a process of its own, with its output in pipes or on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROUTINES = str(Path(sys.executable).with_name("routines"))


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Terminal:
    """Where commands are given: a directory and an environment."""

    directory: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str | bytes, **environment: str) -> Finished:
        """Run `routines` to its end; an empty value takes a variable away."""
        env = self._with(environment)
        done = subprocess.run([ROUTINES, *arguments], cwd=self.directory, env=env, capture_output=True, timeout=200, check=False)
        return Finished(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start it; its stdout and stderr can be read while it runs."""
        command, env, pipe = [ROUTINES, *arguments], self._with(environment), subprocess.PIPE
        return subprocess.Popen(command, cwd=self.directory, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    def run_on_a_tty(self, *arguments: str) -> tuple[int, str]:
        """Run it on a terminal of 100 columns: exit status, and all that reached the terminal."""
        ours, theirs = pty.openpty()
        env = self._with({"COLUMNS": "100", "LINES": "40", "TERM": "xterm-256color"})
        with subprocess.Popen([ROUTINES, *arguments], cwd=self.directory, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            said = bytearray()
            try:
                while data := os.read(ours, 65536):
                    said += data
            except OSError:  # EIO: the last process has closed it
                pass
            os.close(ours)
        return process.returncode, said.decode("utf-8", "replace")

    def _with(self, changes: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in {**self.environment, **changes}.items() if value}
