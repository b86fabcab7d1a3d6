"""The `ask_person` tool: how Claude asks somebody. The session answers it itself, from the form that the question becomes."""

from __future__ import annotations

from prefect_routines.errors import ToolError
from prefect_routines.tools.tool import ToolContext, ToolResult, tool


@tool(main="question", alone=True, idempotent=True)
async def ask_person(context: ToolContext, question: str, choices: list[str] | None = None) -> ToolResult:
    """Ask a person something that you cannot find out and must not guess. The session waits for the answer, which may take hours.

    Args:
        question: The question, with what one has to know to answer it.
        choices: The possible answers; leave it out if any text is one.
    """
    raise ToolError("nobody is there to ask; decide by what you know, or report needs_attention with the question")
