"""The prompt cache's bookkeeping: what a request reads, what it writes, what it pays in full.

https://platform.claude.com/docs/en/build-with-claude/prompt-caching: entries are written at breakpoints only; a request reads the longest
entry found at a breakpoint or at one of the 20 blocks up to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from prefect_routines.testing.prefix import Row

LOOKBACK = 20
BYTES_PER_TOKEN = 4


def tokens(size: int) -> int:
    """Tokens of that many bytes: a fixed rate makes the numbers in a test predictable."""
    return -(-size // BYTES_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class Cached:
    """One request's prompt in bytes: read from the cache, written to it (by lifetime), and neither."""

    read: int = 0
    written_5m: int = 0
    written_1h: int = 0
    uncached: int = 0

    @property
    def outside(self) -> int:
        """Bytes that were not read from the cache."""
        return self.written_5m + self.written_1h + self.uncached

    def usage(self, output_tokens: int) -> dict[str, Any]:
        """As the `usage` object of a response: `input_tokens` excludes what was read and written."""
        five, hour = tokens(self.written_5m), tokens(self.written_1h)
        return {
            "input_tokens": tokens(self.uncached),
            "cache_creation_input_tokens": five + hour,
            "cache_read_input_tokens": tokens(self.read),
            "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
            "output_tokens": output_tokens,
            "service_tier": "standard",
        }


class PromptCache:
    """Entries by API key and prefix. They never expire: a test has no five minutes.

    Args:
        minimum: Tokens below which a prefix is silently not cached (the API: 1024, more on some models).
    """

    def __init__(self, minimum: int = 1024) -> None:
        self.minimum = minimum
        self._entries: set[tuple[str, str]] = set()

    def account(self, api_key: str, row: Row) -> Cached:
        """Read and write the cache for one request."""
        ends = list(accumulate(block.size for block in row.blocks))
        marks = [index for index, block in enumerate(row.blocks) if block.ttl]
        found = max((index for mark in marks for index in self._hits(api_key, row, mark)), default=-1)
        read = ends[found] if found >= 0 else 0
        written = {"5m": 0, "1h": 0}
        done = read
        for mark in marks:
            if tokens(ends[mark]) < self.minimum:
                continue
            self._entries.add((api_key, row.blocks[mark].digest))
            if ends[mark] > done:
                written[row.blocks[mark].ttl or "5m"] += ends[mark] - done
                done = ends[mark]
        return Cached(read, written["5m"], written["1h"], row.size - done)

    def _hits(self, api_key: str, row: Row, mark: int) -> list[int]:
        window = range(max(0, mark - LOOKBACK + 1), mark + 1)
        return [index for index in window if (api_key, row.blocks[index].digest) in self._entries]
