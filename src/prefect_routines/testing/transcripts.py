"""Whether each conversation only grows: what was sent once is sent again, byte for byte, with more behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from prefect_routines.testing.prefix import Block, Json, Row, before_last_assistant, content_of, meaning
from prefect_routines.testing.script import Call, Reply, Request


class Transcripts:
    """Remembers hashes of what was sent and said, never the conversations themselves."""

    def __init__(self) -> None:
        self._sent: set[str] = set()
        self._latest: dict[str, tuple[Block, ...]] = {}
        self._said: dict[str, list[str]] = {}

    def check(self, request: Request, row: Row) -> Iterator[str]:
        """One line for each way in which this request does not continue what came before.

        A conversation that the server meets in the middle (it was restarted) or right after a compaction is taken as it is.
        """
        summary = request.summary
        lineage = f"{summary['bound'] if summary else ''} {request.opening}"
        boundary = before_last_assistant(row.blocks, request.messages)
        if lineage in self._latest and boundary is not None and boundary.sent not in self._sent:
            yield f"the transcript was changed after it was sent, from {_first_change(self._latest[lineage], row.blocks)} on"
        yield from self._changed_reply(request.messages)
        self._latest[lineage] = row.blocks
        if row.blocks:
            self._sent.add(row.blocks[-1].sent)

    def said(self, reply: Reply, content: Sequence[Json]) -> None:
        """Remember a reply by the ids of its calls."""
        if any(isinstance(part, Call) and isinstance(part.input, str) and not _whole(part.input) for part in reply.parts):
            return  # what a client makes of cut JSON is its own affair
        meanings = [meaning(block) for block in content]
        self._said |= {block["id"]: meanings for block in content if block["type"] == "tool_use"}

    def _changed_reply(self, messages: Sequence[Json]) -> Iterator[str]:
        """The last reply only: once it was sent back, `check` compares it with what was sent."""
        last = max((index for index, message in enumerate(messages) if message["role"] == "assistant"), default=None)
        blocks = content_of(messages[last]) if last is not None else []
        told = next((self._said[block["id"]] for block in blocks if block["type"] == "tool_use" and block["id"] in self._said), None)
        if told is not None and told != [meaning(block) for block in blocks]:
            yield f"messages.{last} is not the reply that was given"


def _first_change(before: Sequence[Block], now: Sequence[Block]) -> str:
    changed = (block.path for old, block in zip(before, now, strict=False) if old.sent != block.sent)
    return next(changed, f"messages[{len(before)}]")


def _whole(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
