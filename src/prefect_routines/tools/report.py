"""The `report` tool: how Claude ends a session. The verdict rests on what was checked, not on what is claimed."""

from __future__ import annotations

from typing import Any

from prefect_routines.errors import ToolError
from prefect_routines.tools.tool import ToolContext, ToolResult, tool
from prefect_routines.verdict import Verdict


@tool(main="verdict", alone=True, idempotent=True)
async def report(
    context: ToolContext, verdict: Verdict, summary: str, evidence: list[str] | None = None, links: list[str] | None = None
) -> ToolResult:
    """End the session. Call it exactly once, when there is nothing left to do, and alone.

    Args:
        verdict: done - the task is complete and its result has been pushed or delivered; nothing_to_do - looked, and nothing is
            needed; needs_attention - a person has to look; failed - it could not be done.
        summary: What you found and did, for a person who was not there; the first sentence stands alone.
        evidence: What shows it: commands that passed, files, commits.
        links: Addresses worth opening.
    """
    if not summary.strip():
        raise ToolError("summary: say what was found and done")
    loose = await context.workspace.loose_ends()
    if verdict == "done" and loose:
        raise ToolError(f"not done yet: {'; '.join(loose)}. Push it, or undo it, or report needs_attention and say why")
    if verdict == "nothing_to_do" and (loose or context.workspace.pushed):
        raise ToolError(f"there was something to do: {'; '.join(loose) or 'work has been pushed'}. Report done, or undo it")
    final, notes = context.workspace.judge(verdict)
    told: dict[str, Any] = {
        "verdict": final,
        "claimed": verdict,
        "summary": summary.strip(),
        "evidence": [*(evidence or []), *notes],
        "links": links or [],
        "rehearsal": context.rehearsal,
    }
    changed = f" The verdict is {final}: {'; '.join(notes)}." if final != verdict else ""
    return ToolResult(f"The session ends here.{changed}", note=final, data={"verdict": told})
