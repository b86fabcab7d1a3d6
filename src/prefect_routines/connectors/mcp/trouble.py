"""What goes wrong between us and an MCP server, told in one line: what happened, and whether the call may have been carried out."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from prefect_routines.errors import RoutinesError
from prefect_routines.visible import one_line

MARK = secrets.token_hex(8)
"""Tells our own errors, which travel through the library as JSON-RPC errors, from those of a server: it cannot guess this."""
OURS = -32050  # a code that the library gives no meaning of its own
ANSWER_MAX = 8 * 1024 * 1024
"""Bytes of one message from a server."""


@dataclass
class Trouble:
    """What one connection has seen so far.

    Args:
        fault: Why it is of no use any more.
        junk: The first line that is no message, and how many there were.
        heard: Messages that came.
        tools_changed: The server said that its list of tools is another now.
        stderr: The end of what it wrote there; known when it has ended.
        replaceable: It is a process of ours: one that hangs is better replaced.
    """

    fault: str | None = None
    junk: tuple[str, int] | None = None
    heard: int = 0
    tools_changed: bool = False
    stderr: str = field(default="", repr=False)
    replaceable: bool = False

    def told(self) -> str:
        """What may explain a silence or an end."""
        parts = []
        if self.junk is not None:
            first, count = self.junk
            parts.append(f"{count} line{'s' if count > 1 else ''} of its output are no messages, the first: {first!r}")
        if last := [line for line in self.stderr.splitlines() if line.strip()][-1:]:
            parts.append(f"its last words: {one_line(last[0], 200)!r}")
        return f" ({'; '.join(parts)})" if parts else ""


class Failed(RoutinesError):
    """A request to a server came to nothing.

    Args:
        said: What happened and what to do, without the server's name.
        taken: Whether it may have been carried out all the same.
        gone: Whether the server has forgotten the connection: a new one is needed, and nothing was carried out.
    """

    def __init__(self, said: str, *, taken: bool, gone: bool = False) -> None:
        super().__init__(said)
        self.said, self.taken, self.gone = said, taken, gone

    def as_message(self) -> dict[str, Any]:
        """As the body of an answer that the library takes for the server's."""
        data = {"mark": MARK, "taken": self.taken, "gone": self.gone}
        return {"jsonrpc": "2.0", "id": None, "error": {"code": OURS, "message": self.said, "data": data}}


def from_message(message: str, data: Any) -> Failed | None:
    """Our own error, after its way through the library; None if it is the server's."""
    if isinstance(data, dict) and data.get("mark") == MARK:
        return Failed(message, taken=bool(data["taken"]), gone=bool(data["gone"]))
    return None


def reason(error: BaseException) -> str:
    """The first real cause in nested groups, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, RoutinesError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return one_line(str(error), 300) or type(error).__name__
