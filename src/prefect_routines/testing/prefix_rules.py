"""Rules about the prompt as a whole: cache breakpoints, thinking that is bound to what came before it, compaction blocks.

A rule takes a request and gives a `Problem` or None.
"""

from __future__ import annotations

from collections.abc import Iterator

from prefect_routines.testing.asked import Asked, Problem, Rule
from prefect_routines.testing.prefix import Json, cacheable, content_of, read_summary, summary_changed, thinking_differs

DROP_BETA = "thinking-binding-controls-2026-08-01"
COMPACTION_BETAS = {"compact-2026-09-04", "compact-2026-01-12"}


def _markers(asked: Asked) -> Iterator[tuple[str, Json, Json]]:
    """Path, marked block and marker of every breakpoint in the order the cache reads them; the automatic one has no block."""
    for block in asked.row.blocks:
        if block.ttl is None:
            continue
        inner = block.value.get("content")
        for place, part in enumerate(inner if isinstance(inner, list) else ()):
            if isinstance(part, dict) and part.get("cache_control") is not None:
                yield f"{block.path}.content.{place}", part, part["cache_control"]
        if block.value.get("cache_control") is not None:
            yield block.path, block.value, block.value["cache_control"]
    if asked.body.get("cache_control") is not None:
        yield "cache_control", {}, asked.body["cache_control"]


def breakpoint_shape(asked: Asked) -> Problem | None:
    """A breakpoint has a known kind and lifetime, and stands on a block that can be cached.

    https://platform.claude.com/docs/en/build-with-claude/prompt-caching
    """
    for path, block, mark in _markers(asked):
        if not isinstance(mark, dict) or mark.get("type") != "ephemeral":
            return Problem(f"{path}.cache_control.type: Input should be 'ephemeral'")
        if mark.get("ttl", "5m") not in {"5m", "1h"}:
            return Problem(f"{path}.cache_control.ttl: Input should be '5m' or '1h'")
        if block and not cacheable(block):
            if block["type"] == "text":
                return Problem(f"{path}.text: cache_control cannot be set for empty text blocks")
            return Problem(f"{path}.{block['type']}.cache_control: Extra inputs are not permitted")
    return None


def four_breakpoints(asked: Asked) -> Problem | None:
    """At most four, automatic caching counting as one. https://github.com/Wei-Shaw/sub2api/issues/176"""
    found = len(list(_markers(asked)))
    return Problem(f"A maximum of 4 blocks with cache_control may be provided. Found {found}.") if found > 4 else None


def longer_lifetimes_first(asked: Asked) -> Problem | None:
    """No one-hour breakpoint after a five-minute one. https://github.com/headroomlabs-ai/headroom/issues/2939"""
    short = False
    for path, _, mark in _markers(asked):
        if mark.get("ttl") == "1h" and short:
            return Problem(
                f"{path}.cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. "
                "Note that blocks are processed in the following order: `tools`, `system`, `messages`."
            )
        short = short or mark.get("ttl", "5m") == "5m"
    return None


def thinking_is_whole(asked: Asked) -> Problem | None:
    """A thinking block comes back signed, from the assistant, and never ends a turn."""
    for index, position, _, block in asked.blocks:
        if block["type"] == "thinking":
            for name in ("thinking", "signature"):
                if not isinstance(block.get(name), str):
                    return Problem(f"messages.{index}.content.{position}.thinking.{name}: Field required")
    for index, message in enumerate(asked.messages):
        blocks = content_of(message)
        if message["role"] == "assistant" and blocks and blocks[-1]["type"] in {"thinking", "redacted_thinking"}:
            return Problem(f"messages.{index}: The final block in an assistant message cannot be `thinking`.")
    return None


def misplaced_thinking(asked: Asked) -> Iterator[tuple[str, str]]:
    """Path and reason of each thinking block whose prefix is not the one it was made with."""
    before = ""
    for block in asked.row.blocks:
        if block.section == "messages":
            if block.value["type"] == "thinking" and (reason := thinking_differs(block.value, asked.row, before)):
                yield block.path, reason
            before = block.bound


def drops_misplaced_thinking(asked: Asked) -> bool:
    """Whether the request wants such blocks left out instead of an error."""
    binding = (asked.body.get("thinking") or {}).get("block_binding") or {}
    return bool(binding.get("prefix_mismatch_behavior") == "drop_block")


def preserved_thinking(asked: Asked) -> Problem | None:
    """The system prompt, the tools and all messages before a thinking block are what they were when it was made.

    https://platform.claude.com/docs/en/build-with-claude/preserved-thinking/prefix-checks; wording:
    https://github.com/anomalyco/opencode/issues/48637
    """
    if not asked.model.preserved or drops_misplaced_thinking(asked):
        return None
    for path, reason in misplaced_thinking(asked):
        return Problem(
            f"{path}: Invalid `signature` in `thinking` block. The block is bound to a different conversation. Remove the block, or set "
            '`thinking.block_binding.prefix_mismatch_behavior` to "drop_block". That setting requires the '
            f"`{DROP_BETA}` value in the `anthropic-beta` header. {reason}"
        )
    return None


def compaction_blocks(asked: Asked) -> Problem | None:
    """One at most, at the very start of the conversation, unchanged. Error codes: SDK `_error_classes.py`."""
    found = [(index, position, role, block) for index, position, role, block in asked.blocks if block["type"] == "compaction"]
    if not found:
        return None
    if not asked.betas & COMPACTION_BETAS:
        return Problem(f"messages.{found[0][0]}.content.{found[0][1]}: `compaction` blocks need the `compact-2026-09-04` beta")
    if len(found) > 1:
        return _coded("compaction_block_ambiguous", "messages: only one `compaction` block may be sent")
    index, position, role, _ = found[0]
    if (index, position) != (0, 0) or role == "system":
        return _coded("compaction_block_misplaced", f"messages.{index}.content.{position}: the `compaction` block must come first")
    return None


def compaction_signature(asked: Asked) -> Problem | None:
    """The summary is one that this API wrote, word for word."""
    for _, _, _, block in asked.blocks:
        if block["type"] != "compaction" or block.get("content") is None:
            continue
        summary = read_summary(block)
        if summary is None:
            return _coded("compaction_signature_invalid", "messages.0.content.0: the `compaction` block's `signature` does not verify")
        if summary_changed(block, summary):
            return _coded(
                "compaction_content_mismatch", "messages.0.content.0: the `content` differs from the text its `signature` recorded"
            )
    return None


def compaction_request(asked: Asked) -> Problem | None:
    """Compaction on demand summarizes a conversation in which no call is unanswered, and knows no other mode.

    https://platform.claude.com/docs/en/build-with-claude/compaction-on-demand
    """
    wish = asked.body.get("compaction")
    if wish is None:
        return None
    if not isinstance(wish, dict) or wish.get("type") != "summarize":
        return Problem("compaction.type: Input should be 'summarize'")
    if asked.body.get("context_management"):
        return Problem("compaction: cannot be combined with `context_management`")
    if not any(role in {"user", "assistant"} and block["type"] != "compaction" for _, _, role, block in asked.blocks):
        return _coded("compaction_nothing_to_summarize", "messages: nothing to summarize")
    last = asked.messages[-1]
    if last["role"] == "assistant" and any(block["type"] == "tool_use" for block in content_of(last)):
        return _coded("compaction_incomplete_turn", "messages: the compaction request ends on an `assistant` turn that is not finished")
    return None


def _coded(code: str, message: str) -> Problem:
    return Problem(message, details={"error_code": code})


RULES: tuple[Rule, ...] = (
    breakpoint_shape,
    four_breakpoints,
    longer_lifetimes_first,
    thinking_is_whole,
    compaction_blocks,
    compaction_signature,
    compaction_request,
    preserved_thinking,
)
