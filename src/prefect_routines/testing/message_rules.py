"""What the Messages API asks of the transcript: roles, blocks, tool calls and their results.

A rule takes a request and gives a `Problem` or None. Wording in backticks and quotes is the API's own where a comment names a source.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from prefect_routines.testing.asked import Asked, Problem, Rule
from prefect_routines.testing.prefix import content_of

TOOL_RESULT_CONTENT = {"text", "image", "document", "search_result", "tool_reference", "browser_state"}
USER_BLOCKS = {"text", "image", "document", "search_result", "tool_result", "container_upload", "compaction"}
ASSISTANT_BLOCKS = {"text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "mcp_tool_use", "compaction", "fallback"}
SYSTEM_BLOCKS = {"text", "tool_addition", "tool_removal", "mcp_tool_listing"}
IMAGE_TYPES = {"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG", "image/gif": b"GIF8", "image/webp": b"RIFF"}
MAX_IMAGE = 5 * 1024 * 1024


def messages_present(asked: Asked) -> Problem | None:
    """There is at least one message, and at most 100,000."""
    messages = asked.body.get("messages")
    if messages is None:
        return Problem("messages: Field required")
    if not isinstance(messages, list):
        return Problem("messages: Input should be a valid list")
    if not messages:
        return Problem("messages: at least one message is required")
    if len(messages) > 100_000:  # SDK, MessageCreateParams.messages
        return Problem("messages: at most 100000 messages are allowed")
    return None


def message_shape(asked: Asked) -> Problem | None:
    """Each message is an object with a known role and a content of text or blocks."""
    for index, message in enumerate(asked.messages):
        if not isinstance(message, dict) or message.get("role") not in {"user", "assistant", "system"}:
            return Problem(f"messages.{index}.role: Input should be 'user', 'assistant' or 'system'")
        content = message.get("content")
        if content is None and not (message["role"] == "system" and message.get("output_config")):
            return Problem(f"messages.{index}.content: Field required")
        if not isinstance(content, str | list | None):
            return Problem(f"messages.{index}.content: Input should be a valid string or list")
        if any(not isinstance(block, dict) or not isinstance(block.get("type"), str) for block in content_of(message)):
            return Problem(f"messages.{index}.content: each block should be an object with a `type`")
    return None


def message_fields(asked: Asked) -> Problem | None:
    """A message has no fields of its own invention."""
    for index, message in enumerate(asked.messages):
        allowed = {"role", "content", "clear_at", "output_config"} if message["role"] == "system" else {"role", "content"}
        for name in message:
            if name not in allowed:
                return Problem(f"messages.{index}.{name}: Extra inputs are not permitted")
    return None


def first_is_user(asked: Asked) -> Problem | None:
    """The conversation starts with the user, or with a compaction block in place of what it stands for."""
    first = asked.messages[0]
    compacted = any(block["type"] == "compaction" for block in content_of(first)[:1])
    if first["role"] == "assistant" and not compacted:
        return Problem('messages: first message must use the "user" role')
    return None


def not_empty(asked: Asked) -> Problem | None:
    """No message without content, no text block without text."""
    for index, message in enumerate(asked.messages):
        if message["role"] != "system" and not content_of(message):
            return Problem(f"messages.{index}: all messages must have non-empty content except for the optional final assistant message")
    for _, _, _, block in asked.blocks:
        if block["type"] == "text":
            if not isinstance(block.get("text"), str):
                return Problem("messages: text content blocks must have a `text` string")
            if not block["text"]:
                return Problem("messages: text content blocks must be non-empty")
            if not block["text"].strip():
                return Problem("messages: text content blocks must contain non-whitespace text")
    return None


def block_types(asked: Asked) -> Problem | None:
    """Each role has its kinds of blocks. Documents in assistant messages are refused since version 2026-10-21."""
    known = {"user": USER_BLOCKS, "assistant": ASSISTANT_BLOCKS, "system": SYSTEM_BLOCKS}
    for index, position, role, block in asked.blocks:
        kind, where = block["type"], f"messages.{index}.content.{position}"
        if role == "assistant" and kind == "document":  # https://platform.claude.com/docs/en/api/migration-2026-10-21
            if asked.version >= "2026-10-21":
                return Problem(f"{where}: `document` blocks are not permitted in `assistant` messages")
            continue
        if role == "assistant" and kind.endswith("_tool_result"):
            continue
        if kind not in known[role] and not (role == "assistant" and kind in asked.issued):
            expected = ", ".join(f"'{name}'" for name in sorted(known[role]))
            return Problem(f"{where}: Input tag '{kind}' found using 'type' does not match any of the expected tags: {expected}")
        if kind == "text" and role == "user" and block.get("citations") and asked.version >= "2026-10-21":
            return Problem(f"{where}.text.citations: citations are not permitted in `user` messages")
    return None


def tool_uses(asked: Asked) -> Problem | None:
    """A tool call has an id of legal characters, unique in the conversation, a name, and an object as input."""
    seen: set[str] = set()
    for index, position, _, block in asked.blocks:
        if block["type"] != "tool_use":
            continue
        where, id = f"messages.{index}.content.{position}", block.get("id")
        if not isinstance(id, str) or not re.fullmatch(r"[a-zA-Z0-9_-]+", id):
            return Problem(f"{where}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
        if id in seen:
            return Problem(f"{where}: `tool_use` ids must be unique")
        seen.add(id)
        if not isinstance(block.get("name"), str) or not block["name"]:
            return Problem(f"{where}.tool_use.name: String should have at least 1 character")
        if not isinstance(block.get("input"), dict):
            return Problem(f"{where}.tool_use.input: Input should be a valid dictionary")
    return None


def results_answer_calls(asked: Asked) -> Problem | None:
    """Each call is answered in the very next message, results first, each once; and no result without its call.

    Wording: https://github.com/anthropics/claude-code/issues/8612 and /13460.
    """
    open_ids: list[str] = []
    for index, message in enumerate(asked.messages):
        blocks = content_of(message)
        given: list[str] = []
        leading = 0
        for position, block in enumerate(blocks):
            if block["type"] != "tool_result":
                continue
            id = block.get("tool_use_id")
            if message["role"] != "user" or id not in open_ids:
                return Problem(
                    f"messages.{index}.content.{position}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. "
                    "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
                )
            if id in given:
                return Problem(
                    f"messages.{index}.content.{position}: each tool_use must have a single result. "
                    f"Found multiple `tool_result` blocks with id: {id}"
                )
            given.append(id)
            leading += position == len(given) - 1
        missing = [id for id in open_ids if id not in given[:leading]]
        if missing:
            return _unanswered(index - 1, missing)
        open_ids = [block["id"] for block in blocks if block["type"] == "tool_use"]
    if open_ids and not asked.body.get("compaction"):
        return _unanswered(len(asked.messages) - 1, open_ids)
    return None


def _unanswered(index: int, ids: list[str]) -> Problem:
    return Problem(
        f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(ids)}. "
        "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    )


def result_content(asked: Asked) -> Problem | None:
    """A result holds text, images, documents, search results or tool references; a failed one text only."""
    for index, position, _, block in asked.blocks:
        if block["type"] != "tool_result" or isinstance(block.get("content"), str | None):
            continue
        where = f"messages.{index}.content.{position}.tool_result"
        if not isinstance(block["content"], list):
            return Problem(f"{where}.content: Input should be a valid string or list")
        for place, part in enumerate(block["content"]):
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in TOOL_RESULT_CONTENT:
                expected = ", ".join(f"'{name}'" for name in sorted(TOOL_RESULT_CONTENT))
                return Problem(
                    f"{where}.content.{place}: Input tag '{kind}' found using 'type' does not match any of the expected tags: {expected}"
                )
            if kind == "text" and not part.get("text"):
                return Problem("messages: text content blocks must be non-empty")
            if block.get("is_error") and kind != "text":
                return Problem(f"{where}: all content must be type `text` if `is_error` is true")
    return None


def images(asked: Asked) -> Problem | None:
    """An image is one of four types, is what it says it is, and is not larger than 5 MB.

    https://platform.claude.com/docs/en/build-with-claude/vision
    """
    for index, position, _, block in asked.blocks:
        inner = block.get("content")
        nested = [(f".tool_result.content.{place}", part) for place, part in enumerate(inner)] if isinstance(inner, list) else []
        for suffix, image in (("", block), *nested):
            if isinstance(image, dict) and image.get("type") == "image":
                problem = _image(f"messages.{index}.content.{position}{suffix}.image.source", image.get("source") or {})
                if problem:
                    return problem
    return None


def _image(where: str, source: Any) -> Problem | None:
    form = source.get("type") if isinstance(source, dict) else None
    if form != "base64":
        return None if form in ("url", "file") else Problem(f"{where}.type: Input should be 'base64', 'url' or 'file'")
    kind = source.get("media_type")
    if kind not in IMAGE_TYPES:
        return Problem(f"{where}.base64.media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' or 'image/webp'")
    data = source.get("data") or ""
    if len(data) > MAX_IMAGE:
        return Problem(f"{where}.base64: image exceeds 5 MB maximum: {len(data)} bytes > {MAX_IMAGE} bytes")
    try:
        start = base64.b64decode(data, validate=True)[:16]
    except (binascii.Error, ValueError):
        return Problem(f"{where}.base64.data: invalid base64 data")
    if not start.startswith(IMAGE_TYPES[kind]):
        return Problem(f"{where}.base64.data: Image does not match the provided media type {kind}")
    return None


def system_messages(asked: Asked) -> Problem | None:
    """A system message stands right after a user message and is followed by an assistant message or by nothing.

    https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages
    """
    roles = [message["role"] for message in asked.messages]
    for index, role in enumerate(roles):
        if role != "system":
            continue
        if index == 0 or roles[index - 1] == "assistant":
            return Problem(f"messages.{index}: a `system` message must directly follow a `user` message")
        if index + 1 < len(roles) and roles[index + 1] == "user":
            return Problem(f"messages.{index}: a `system` message must not be directly followed by a `user` message")
    return None


def no_prefill(asked: Asked) -> Problem | None:
    """The last word is the user's, unless Claude is to go on after `pause_turn`.

    https://platform.claude.com/docs/en/api/errors#prefill-not-supported
    """
    last = asked.messages[-1]
    if last["role"] != "assistant" or asked.model.prefill or asked.body.get("compaction"):
        return None
    kinds = [block["type"] for block in content_of(last)]
    paused = bool(kinds) and (kinds[-1] in {"server_tool_use", "mcp_tool_use", "compaction"} or kinds[-1].endswith("_tool_result"))
    if paused or asked.body.get("fallback_credit_token"):
        return None
    return Problem("This model does not support assistant message prefill. The conversation must end with a user message.")


RULES: tuple[Rule, ...] = (
    messages_present,
    message_shape,
    message_fields,
    first_is_user,
    not_empty,
    block_types,
    tool_uses,
    results_answer_calls,
    result_content,
    images,
    system_messages,
    no_prefill,
)
