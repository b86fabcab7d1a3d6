"""Proactive Claude agents on your own Prefect."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_routines.credentials import AnthropicCredentials
    from prefect_routines.errors import OutcomeUnknown, RoutinesError, SettingsError, ToolError
    from prefect_routines.events import Event
    from prefect_routines.outgoing import Outgoing
    from prefect_routines.policy import Policy
    from prefect_routines.routines import Routine, routine
    from prefect_routines.session.session import Session
    from prefect_routines.settings import Answers, Budget, Check, Deadlines, Limits, Repository, Settings
    from prefect_routines.tools.tool import Tool, ToolContext, ToolResult, Write, tool
    from prefect_routines.verdict import Outcome, WorkNotDone

# Each name is imported when it is first used: `routines --help` must not wait for Prefect and its 3 s of imports.
_HOME = {
    "Answers": "settings",
    "AnthropicCredentials": "credentials",
    "Budget": "settings",
    "Check": "settings",
    "Deadlines": "settings",
    "Event": "events",
    "Limits": "settings",
    "Outcome": "verdict",
    "OutcomeUnknown": "errors",
    "Outgoing": "outgoing",
    "Policy": "policy",
    "Repository": "settings",
    "Routine": "routines",
    "RoutinesError": "errors",
    "Session": "session.session",
    "Settings": "settings",
    "SettingsError": "errors",
    "Tool": "tools.tool",
    "ToolContext": "tools.tool",
    "ToolError": "errors",
    "ToolResult": "tools.tool",
    "WorkNotDone": "verdict",
    "Write": "tools.tool",
    "routine": "routines",
    "tool": "tools.tool",
}

__all__ = [
    "Answers",
    "AnthropicCredentials",
    "Budget",
    "Check",
    "Deadlines",
    "Event",
    "Limits",
    "Outcome",
    "OutcomeUnknown",
    "Outgoing",
    "Policy",
    "Repository",
    "Routine",
    "RoutinesError",
    "Session",
    "Settings",
    "SettingsError",
    "Tool",
    "ToolContext",
    "ToolError",
    "ToolResult",
    "WorkNotDone",
    "Write",
    "routine",
    "tool",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'prefect_routines' has no attribute {name!r}")
    value = getattr(import_module(f"prefect_routines.{_HOME[name]}"), name)
    globals()[name] = value
    return value
