"""What an MCP tool answered, as a tool result of the Messages API: bounded, and never of a form that the API refuses."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from typing import TYPE_CHECKING, Any

from prefect_routines.tools.tool import Block, ToolResult
from prefect_routines.visible import one_line, storable

if TYPE_CHECKING:
    from mcp_types import CallToolResult

HALF_DONE = "[The tool reported this error itself: a part of it may have been done, and it counts as made. Look before you repeat it.]"
TEXT_MAX = 50_000  # characters
IMAGES_MAX = 5
IMAGE_BYTES = 3_500_000
"""The Messages API takes images of 5 MB of base64: https://platform.claude.com/docs/en/build-with-claude/vision"""
SIDE_MAX = 8000  # pixels


def converted(result: CallToolResult) -> ToolResult:
    """The result for Claude. Audio, links and what cannot be shown become lines of text."""
    texts: list[str] = []
    images: list[Block] = []
    for item in result.content:
        if item.type == "text":
            texts.append(item.text)
        elif item.type == "image":
            image = _image(item.data) if len(images) < IMAGES_MAX else f"more than {IMAGES_MAX} in one answer"
            if isinstance(image, str):
                texts.append(f"[an image that cannot be shown: {image}]")
            else:
                images.append(image)
        elif item.type == "audio":
            texts.append(f"[audio of type {one_line(item.mime_type, 60)}, {len(item.data) * 3 // 4:,} bytes: it cannot be shown]")
        elif item.type == "resource_link":
            described = f": {one_line(item.description, 300)}" if item.description else ""
            texts.append(f"[link to the resource {one_line(item.name, 100)} at {one_line(str(item.uri), 500)}{described}]")
        else:
            texts.append(_resource(item.resource))
    if result.structured_content is not None and not _said_already(result.structured_content, texts):
        texts.append(json.dumps(result.structured_content, ensure_ascii=False))
    text = shortened(storable("\n".join(texts)))
    if not images:
        return ToolResult(text or "[the answer is empty]", is_error=result.is_error)
    return ToolResult([*([{"type": "text", "text": text}] if text.strip() else []), *images], is_error=result.is_error)


def half_done(result: ToolResult) -> ToolResult:
    """The error that a tool which writes reports: unlike a refusal it does not say that nothing happened.

    https://modelcontextprotocol.io/specification/2025-11-25/server/tools#error-handling
    """
    told = result.content
    told = f"{told}\n\n{HALF_DONE}" if isinstance(told, str) else [*told, {"type": "text", "text": HALF_DONE}]
    return ToolResult(told, is_error=True, note="the tool reported an error")


def shortened(text: str) -> str:
    """The beginning of a long text, and how much is missing."""
    rest = len(text) - TEXT_MAX
    if rest <= 0:
        return text
    return f"{text[:TEXT_MAX]}\n\n[{rest:,} more characters were left out; ask for less, or for a part, if the tool's arguments allow that]"


def _said_already(structured: Any, texts: list[str]) -> bool:
    """Servers repeat structured content as text, for clients that do not know it; a plain value is wrapped in an object of one field."""
    if len(texts) != 1 or len(texts[0]) > 10 * TEXT_MAX:
        return False
    forms = [structured, *(structured.values() if isinstance(structured, dict) and len(structured) == 1 else ())]
    if texts[0] in forms:
        return True
    try:
        return json.loads(texts[0]) in forms
    except (ValueError, RecursionError):
        return False


def _resource(resource: Any) -> str:
    name = one_line(str(resource.uri), 300)
    if hasattr(resource, "text"):
        return f"[resource {name}]\n{resource.text}"
    return f"[resource {name}, {len(resource.blob) * 3 // 4:,} bytes of {one_line(resource.mime_type or 'unknown type', 60)}: not shown]"


def _image(data: str) -> Block | str:
    """An image block, or why there is none: one that the API refuses would end the session. The server's word on its type is not taken."""
    if len(data) * 3 // 4 > IMAGE_BYTES:
        return f"{len(data) * 3 // 4:,} bytes, at most {IMAGE_BYTES:,}"
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return "it is not base64"
    found = _kind_and_size(raw)
    if found is None:
        return "it is no PNG, JPEG, GIF or WebP"
    media_type, width, height = found
    if not (0 < width <= SIDE_MAX and 0 < height <= SIDE_MAX):
        return f"{width} x {height} pixels, at most {SIDE_MAX} each way"
    source = {"type": "base64", "media_type": media_type, "data": base64.b64encode(raw).decode()}
    return {"type": "image", "source": source}


def _kind_and_size(raw: bytes) -> tuple[str, int, int] | None:
    try:
        if raw.startswith(b"\x89PNG\r\n\x1a\n") and raw[12:16] == b"IHDR":
            return "image/png", *struct.unpack(">II", raw[16:24])
        if raw.startswith((b"GIF87a", b"GIF89a")):
            return "image/gif", *struct.unpack("<HH", raw[6:10])
        if raw.startswith(b"RIFF") and raw[8:12] == b"WEBP":
            return _webp(raw)
        if raw.startswith(b"\xff\xd8\xff"):
            return _jpeg(raw)
    except (struct.error, IndexError):
        pass
    return None


def _webp(raw: bytes) -> tuple[str, int, int] | None:
    """https://developers.google.com/speed/webp/docs/riff_container"""
    kind = raw[12:16]
    if kind == b"VP8X":
        return "image/webp", int.from_bytes(raw[24:27], "little") + 1, int.from_bytes(raw[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(raw[21:25], "little")
        return "image/webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", raw[26:30])
        return "image/webp", width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg(raw: bytes) -> tuple[str, int, int] | None:
    """Its segments up to the first frame header (ITU-T T.81, B.2.2)."""
    place = 2
    while place + 9 < len(raw):
        if raw[place] != 0xFF:
            return None
        marker = raw[place + 1]
        if marker == 0xFF:
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", raw[place + 5 : place + 9])
            return "image/jpeg", width, height
        else:
            place += 2 + struct.unpack(">H", raw[place + 2 : place + 4])[0]
    return None
