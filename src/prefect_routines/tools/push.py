"""The `push` tool: committed work leaves the workspace, examined and checked, on a branch of the session's own."""

from __future__ import annotations

from prefect_routines.tools.tool import ToolContext, ToolResult, Write, tool


@tool(target="repository", writes=True)
async def push(context: ToolContext, repository: str) -> Write | ToolResult:
    """Push the commits of a repository's current branch to this session's own branch at its remote.

    Commit first. Every commit is examined, and the routine's checks run on a fresh checkout of the last one; if they fail you
    get their output: mend it, commit, push again. Pushing again moves the same branch forward.

    Args:
        repository: Name of the repository.
    """
    return await context.workspace.deliver(repository)
