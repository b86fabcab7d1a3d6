"""The tools of the workspace, and `tool` to make more."""

from prefect_routines.tools.context import read_event, read_guidelines
from prefect_routines.tools.files import edit, glob, grep, read, write
from prefect_routines.tools.push import push
from prefect_routines.tools.report import report
from prefect_routines.tools.shell import bash
from prefect_routines.tools.tool import Tool, ToolContext, ToolResult, tool

WORKSPACE_TOOLS: tuple[Tool, ...] = (bash, edit, glob, grep, push, read, read_event, read_guidelines, report, write)

__all__ = ["WORKSPACE_TOOLS", "Tool", "ToolContext", "ToolResult", "tool"]
