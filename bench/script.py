"""What Claude says in the benchmark; played by a scripted Claude in a process of its own."""

from __future__ import annotations

from prefect_routines.testing import Request, call, say
from prefect_routines.testing.script import Script, Turn

REPORT = call("report", verdict="nothing_to_do", summary="Measured.")
OUTPUT = 200
"""Bytes of each tool result in the long conversation."""


def script(request: Request) -> Script:
    """The conversation that the prompt names: `true 60`, `sleep 8 1`, `output 50`."""
    kind, *numbers = request.opening.split()
    turns: list[Turn]
    match kind:
        case "true":
            turns = [say(call("bash", command="true"))] * int(numbers[0])
        case "sleep":
            calls, repeats = map(int, numbers)
            turns = [say(*[call("bash", command="sleep 0.5")] * calls)] * repeats
        case "output":
            turns = [say("I look.", call("bash", command=f"head -c {OUTPUT} /dev/zero | tr '\\0' x"))] * int(numbers[0])
        case _:
            raise LookupError(f"no conversation is called {kind!r}")
    return [*turns, say(REPORT)]
