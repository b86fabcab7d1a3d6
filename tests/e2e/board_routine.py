"""A routine with one write, on a board that is a folder; the environment says how routine and board have changed meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

from prefect_routines import Policy, ToolContext, ToolError, Write, routine, tool

PLACE, CHANGED = Path(os.environ.get("BOARD", ".")), os.environ.get("CHANGED", "")


@tool(name="board_post", target="board", writes=True)
async def post(context: ToolContext, board: str, text: str) -> Write:
    """Post a message.

    Args:
        board: Which board.
        text: What.
    """
    if CHANGED == "unplannable":
        raise ToolError("the board is busy")
    path = PLACE / context.key

    async def send() -> str:
        with path.open("a") as file:
            file.write(text + "\n")
        return "posted"

    async def find() -> str | None:
        if CHANGED == "unreachable":
            raise ToolError("the board does not answer")
        return "it was posted" if path.exists() else None

    return Write({"board": board, "text": text}, send, find)


@routine(
    tools=[] if CHANGED == "gone" else [post],
    policy=Policy(allow=[] if CHANGED == "gone" else ["board_post(board=main) x1"], deny=["board_post"] if CHANGED == "denied" else []),
    links=["other.example"] if CHANGED == "links" else [],
)
def tell_the_board() -> str:
    """Say it on the board."""
    return "Say it."
