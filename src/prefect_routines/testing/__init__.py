"""What a routine is tested with: a scripted Claude and a local git forge."""

from prefect_routines.testing.api import ScriptedClaude, ScriptProblems
from prefect_routines.testing.forge import ForgeRepository, LocalForge, Push
from prefect_routines.testing.script import Request, attempts, block, call, cut, event, fail, say, think

__all__ = [
    "ForgeRepository",
    "LocalForge",
    "Push",
    "Request",
    "ScriptProblems",
    "ScriptedClaude",
    "attempts",
    "block",
    "call",
    "cut",
    "event",
    "fail",
    "say",
    "think",
]
