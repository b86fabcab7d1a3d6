"""The `bash` tool: one persistent shell per session, inside the sandbox."""

from __future__ import annotations

from prefect_routines.errors import ToolError
from prefect_routines.tools.tool import ToolContext, ToolResult, tool


@tool(main="command")
async def bash(context: ToolContext, command: str, timeout: float = 120) -> ToolResult:
    """Run a command in the session's shell and get its output (stdout and stderr together).

    Directory, variables and functions last from call to call. Several bash calls in one reply run at the same time, each in
    a copy of the shell: what they change in it does not last. Long output is cut in the middle; the note in it names the file
    with all of it.

    Args:
        command: The command, as you would type it into bash.
        timeout: Seconds after which it is stopped, at most 1800.
    """
    if not 0 < timeout <= 1800:
        raise ToolError("timeout: between 0 and 1800 seconds")
    done = await context.workspace.box.bash(command, timeout=timeout, fork=context.side_by_side)
    notes = []
    if done.timed_out:
        notes.append(f"[stopped after {timeout:g} s with all it had started]")
    elif done.exit_code:
        notes.append(f"[exit status {done.exit_code}]")
    if done.still_running:
        notes.append("[processes it started are still running in the background]")
    if done.shell_lost:
        notes.append(f"[the shell ended; a new one starts in {done.directory}, without the former variables and functions]")
    if note := context.workspace.take_notice():
        notes.insert(0, f"[{note}]")
    text = "\n".join([*([done.output.rstrip("\n")] if done.output else []), *notes]) or "[no output]"
    status = "timed out" if done.timed_out else f"exit {done.exit_code}" if done.exit_code else ""
    return ToolResult(text, is_error=done.timed_out, note=status, data={"exit_code": done.exit_code})
