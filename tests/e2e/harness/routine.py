"""The routine whose runs are killed, and the Claude that carries it out: bash, parallel calls, a failing check, two pushes, a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prefect_routines import Check, Policy, routine
from prefect_routines.testing import Request, attempts, call, cut, say
from prefect_routines.testing.script import Call, Reply, Script, Turn

DOCS = {"api.md": "# API\nhello(name)\n", "check.sh": "grep -q loud api.md\n"}
SDK = {"lib.py": "def hello(name, loud=False): ...\n", "CLAUDE.md": "Be brief.\n"}
INTERRUPTED = "Interrupted:"


@routine(
    name="two-repositories",
    repositories=["https://example.org/sdk", "https://example.org/docs"],
    policy=Policy(allow=["push(repository=docs) x2", "push(repository=sdk) x1"]),
    checks=[Check("docs", "sh check.sh")],
)
def two_repositories() -> str:
    """Document what the library can do."""
    return "Document `loud` in docs, and say in sdk that it is documented."


def bash(name: str, command: str = "true") -> Call:
    """A call that leaves its name in a log of the workspace when it runs. Its command may be repeated by whoever has looked first."""
    return call("bash", command=f"echo {name} >> /workspace/runs.log\n{command}")


Step = tuple[Call, ...]

STEPS: list[Step] = [
    (bash("look", "git -C /workspace/sdk log --oneline"), call("read", path="sdk/lib.py"), bash("list", "ls /workspace")),
    (
        call("edit", path="docs/api.md", old_string="hello(name)", new_string="hello(name, lud=False)"),
        bash(
            "commit",
            "cd /workspace/docs; git diff --quiet || git commit -qam 'Document it'\n"
            "cd /workspace/sdk; [ -e DOCUMENTED ] || { echo yes > DOCUMENTED; git add -A; git commit -qm 'Say that it is documented'; }",
        ),
    ),
    (call("push", repository="docs"),),
    (bash("mend", "cd /workspace/docs; grep -q loud api.md || { sed -i s/lud/loud/ api.md; git commit -qam 'Spell it'; }"),),
    (call("push", repository="docs"), call("push", repository="sdk")),
    (call("report", verdict="done", summary="Documented."),),
]
"""What Claude does, step by step. Of the two pushes of docs the first one is sent back by the check."""


def waits(name: str) -> Call:
    """A command that runs until there is a file `go` in the workspace, with a grandchild that has left its session."""
    return bash(name, "setsid sleep 600 & while [ ! -e /workspace/go ]; do sleep 0.05; done; kill %1")


def play(steps: Sequence[Step] = STEPS, *, silent: int | None = None) -> Callable[[Request], Script]:
    """Claude: the next step; or, when calls were interrupted, those once more after a look.

    Args:
        steps: The calls of each step.
        silent: A step whose reply, when it is asked for the first time, stops in the middle and never goes on.
    """

    def script(request: Request) -> Script:
        interrupted = [result for result in request.results if INTERRUPTED in result.text]
        turn: Turn
        if interrupted:
            turn = say("Again.", *(again(result.name, result.input) for result in interrupted))
        else:
            told = [block.get("text", "") for message in request.messages if message["role"] == "assistant" for block in message["content"]]
            step = sum(text.startswith("Step") for text in told)
            turn = say(f"Step {step}.", *steps[step])
            if step == silent:
                turn = attempts(cut(turn, after=6, how="silence"), turn)
        return [_unreachable] * request.turn + [turn]

    return script


def again(tool: str, arguments: Any) -> Call:
    """An interrupted call as a careful Claude repeats it: it looks whether the work was done."""
    if tool == "bash":
        return call("bash", command=arguments["command"].replace("/workspace/runs.log", "/workspace/again.log"))
    assert tool == "edit", f"{tool} is never answered with an unknown outcome"
    mended = "grep -q lud= api.md || { sed -i 's/hello(name)/hello(name, lud=False)/' api.md; git commit -qam 'Document it'; }"
    return call("bash", command=f"cd /workspace/docs; {mended}")


def _unreachable(request: Request) -> Reply:
    raise AssertionError(f"turn {request.turn} was asked for out of order")
