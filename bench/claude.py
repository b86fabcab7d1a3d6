"""A scripted Claude in its own process, so that its work is nobody's here; asked over pipes what it has seen."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Seen:
    """One request as the server saw it: which conversation, when it came, and its prompt bytes in all and outside the cache."""

    opening: str
    conversation: str
    turn: int
    at: float
    prompt: int
    outside: int


class ClaudeProcess:
    """The server's process, for a `with` block."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._process.stdout is not None
        login = json.loads(self._process.stdout.readline())
        self.environment: dict[str, str] = login
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def seen(self) -> list[Seen]:
        """All requests since the last question.

        Raises:
            RuntimeError: A request was not as the real API wants it: then the numbers mean nothing.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("seen\n")
        answer = json.loads(self._process.stdout.readline())
        if answer["problems"]:
            raise RuntimeError(f"the scripted Claude met problems: {answer['problems'][:3]}")
        return [Seen(**one) for one in answer["requests"]]


def main() -> None:
    """Serve until stdin closes."""
    import time

    from script import script

    from prefect_routines.testing import Request, ScriptedClaude
    from prefect_routines.testing.script import Script

    came: dict[int, float] = {}

    def timed(request: Request) -> Script:
        came[id(request)] = time.monotonic()
        return script(request)

    told = 0
    with ScriptedClaude(timed, cache_minimum=0, strict=False) as claude:
        sys.stdout.write(json.dumps(claude.environment()) + "\n")
        sys.stdout.flush()
        for _ in sys.stdin:
            requests = claude.requests[told:]
            told += len(requests)
            seen = [
                {
                    "opening": request.opening,
                    "conversation": request.conversation,
                    "turn": request.turn,
                    "at": came.get(id(request), 0.0),
                    "prompt": request.cached.read + request.cached.outside,
                    "outside": request.cached.outside,
                }
                for request in requests
            ]
            sys.stdout.write(json.dumps({"requests": seen, "problems": claude.problems}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
