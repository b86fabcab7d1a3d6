"""A request as the flat row of blocks that Claude reads: tools, system, messages; what each block hashes to and is bound to.

Three parts of the Messages API compare prefixes of this row: the prompt cache, the check of preserved thinking
(https://platform.claude.com/docs/en/build-with-claude/preserved-thinking/prefix-checks), and our own check that a transcript only grows.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

Json = dict[str, Any]

_KEY = b"prefect-routines scripted claude"
"""Not a secret: it only keeps a test from inventing a signature by accident, and lets a restarted server know its own."""


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def text_of(value: object) -> str:
    """Compact JSON in the order the client sent it: a moved key or 1 for 1.0 gives another text."""
    return _encode(value)


def content_of(message: Mapping[str, Any]) -> list[Json]:
    """The message's blocks; a plain string is shorthand for one text block."""
    content = message.get("content")
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or [])


def _bare(value: Any) -> Any:
    """The value without cache markers, which are no content and may move freely."""
    if isinstance(value, list):
        return [_bare(item) for item in value]
    if isinstance(value, dict) and ("cache_control" in value or isinstance(value.get("content"), list)):
        return {key: _bare(item) if key == "content" else item for key, item in value.items() if key != "cache_control"}
    return value


def meaning(block: Mapping[str, Any]) -> str:
    """What Claude sees of the block: order of the block's own fields and nulls do not matter, order inside `input` does."""
    bare = _bare(block)
    return text_of({key: bare[key] for key in sorted(bare) if bare[key] is not None})


def link(chain: str, *parts: str) -> str:
    """The hash after one more block."""
    return sha256("\x00".join((chain, *parts)).encode("utf-8", "surrogatepass")).hexdigest()


class Block(NamedTuple):
    """One block of the row and the hashes of everything up to and including it."""

    section: str
    """`tools`, `system` or `messages`."""
    path: str
    """Where the API's errors say it is: `messages.3.content.1`."""
    role: str
    value: Json
    size: int
    """Bytes Claude reads."""
    sent: str
    """Hash of the row so far as sent: what may only grow."""
    digest: str
    """Hash of the row so far as understood: the prompt cache's key."""
    bound: str
    """Hash of the messages so far, a summary counting as what it stands for: what thinking is bound to."""
    ttl: str | None
    """Lifetime of the cache entry that a breakpoint here writes."""


@dataclass(frozen=True, slots=True)
class Row:
    """All blocks of one request, and the hashes of its tools and its system prompt."""

    blocks: tuple[Block, ...]
    tools: str
    system: str

    @property
    def bound(self) -> str:
        """The messages' hash at the end: what the next thinking block is bound to."""
        return self.blocks[-1].bound if self.blocks else ""

    @property
    def size(self) -> int:
        """Bytes of the whole prompt."""
        return sum(block.size for block in self.blocks)


@lru_cache(maxsize=65536)
def _step(raw: str, digest: str, bound: str, role: str, text: str) -> tuple[str, str, str, int]:
    """The three hashes after one more block, and its size. A growing conversation pays for its new blocks only."""
    said = meaning(json.loads(text))
    return link(raw, role, text), link(digest, role, said), link(bound, role, said), len(said.encode("utf-8", "surrogatepass"))


def _sections(body: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Json]]:
    for index, tool in enumerate(body.get("tools") or []):
        yield "tools", f"tools.{index}", "", tool
    system = body.get("system") or []
    for index, block in enumerate([{"type": "text", "text": system}] if isinstance(system, str) else system):
        yield "system", f"system.{index}", "", block
    for index, message in enumerate(body.get("messages") or []):
        for position, block in enumerate(content_of(message)):
            yield "messages", f"messages.{index}.content.{position}", message.get("role", ""), block


def cacheable(block: Mapping[str, Any]) -> bool:
    """Whether a breakpoint may stand here; automatic caching passes over blocks where it may not."""
    if block.get("type") in {"thinking", "redacted_thinking"}:
        return False
    return not (block.get("type") == "text" and not block.get("text"))


def row(body: Mapping[str, Any]) -> Row:
    """Lay a request out as its row of blocks.

    Example:
        >>> [block.path for block in row({"system": "Be brief.", "messages": [{"role": "user", "content": "Hi"}]}).blocks]
        ['system.0', 'messages.0.content.0']
    """
    raw = digest = link("model", str(body.get("model")))
    bound = {"tools": "", "system": "", "messages": ""}
    blocks: list[Block] = []
    for section, path, role, value in _sections(body):
        raw, digest, reached, size = _step(raw, digest, bound[section], role, text_of(_bare(value)))
        if value.get("type") != "compaction":
            bound[section] = reached
        elif summary := read_summary(value):  # one without a summary stands for nothing
            bound[section] = summary["bound"]
        ttl = _ttl(value["cache_control"] if value.get("cache_control") is not None else _nested_marker(value))
        blocks.append(Block(section, path, role, value, size, raw, digest, bound[section], ttl))
    if automatic := _ttl(body.get("cache_control")):
        _mark_last(blocks, automatic)
    return Row(tuple(blocks), bound["tools"], bound["system"])


def _nested_marker(block: Mapping[str, Any]) -> Any:
    inner = block.get("content")
    parts = [part for part in inner if isinstance(part, dict)] if isinstance(inner, list) else []
    return next((part["cache_control"] for part in reversed(parts) if part.get("cache_control") is not None), None)


def _ttl(marker: Any) -> str | None:
    if marker is None:
        return None
    return str(marker.get("ttl") or "5m") if isinstance(marker, dict) else "5m"


def _mark_last(blocks: list[Block], ttl: str) -> None:
    for index in reversed(range(len(blocks))):
        block = blocks[index]
        if cacheable(block.value):
            blocks[index] = block._replace(ttl=block.ttl or ttl)
            return


def _mac(*parts: str) -> str:
    return hmac.new(_KEY, "\x00".join(parts).encode("utf-8", "surrogatepass"), "sha256").hexdigest()[:32]


def sign_thinking(where: Row, bound: str, thinking: str) -> str:
    """A thinking block's signature: binds its text to the tools, the system prompt and the messages before it."""
    parts = (where.tools[:16], where.system[:16], bound[:16])
    return base64.b64encode(".".join((*parts, _mac(*parts, thinking))).encode()).decode()


def thinking_differs(block: Mapping[str, Any], where: Row, bound: str) -> str | None:
    """Why a thinking block does not belong where it stands, in the API's words; None if it does.

    `bound` is the hash of the messages before the block.
    """
    try:
        tools, system, messages, mac = base64.b64decode(block.get("signature") or "", validate=True).decode().split(".")
    except ValueError:
        return "The signature was not issued by this API."
    if mac != _mac(tools, system, messages, block.get("thinking") or ""):
        return "The block's text was changed."
    if tools != where.tools[:16]:
        return "The `tools` differ from the ones this block was created with."
    if system != where.system[:16]:
        return "The `system` prompt differs from the one this block was created with."
    return None if messages == bound[:16] else "The `messages` before this block differ from the ones it was created with."


def write_summary(content: str | None, record: Json) -> Json:
    """A signed `compaction` block; `record` says what it stands for and travels with it. Without content: a compaction that failed."""
    if content is None:
        return {"type": "compaction", "content": None, "encrypted_content": None}
    opaque = base64.b64encode(text_of({**record, "content": link("", content)}).encode("utf-8", "surrogatepass")).decode()
    return {"type": "compaction", "content": content, "encrypted_content": opaque, "signature": _mac(opaque)}


def read_summary(block: Mapping[str, Any]) -> Json | None:
    """What a compaction block of ours stands for; None if its signature does not verify, or if it is one that failed."""
    opaque = block.get("encrypted_content")
    if not isinstance(opaque, str) or block.get("signature") != _mac(opaque):
        return None
    record: Json = json.loads(base64.b64decode(opaque))
    return record


def summary_changed(block: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Whether the text is another than the one that was signed."""
    return bool(record["content"] != link("", block.get("content") or ""))


def before_last_assistant(blocks: Sequence[Block], messages: Sequence[Mapping[str, Any]]) -> Block | None:
    """The last block of the request that was answered by the last assistant message; None if there is none."""
    last = max((index for index, message in enumerate(messages) if message.get("role") == "assistant"), default=0)
    earlier = [block for block in blocks if block.section != "messages" or int(block.path.split(".")[1]) < last]
    return earlier[-1] if last and earlier else None
