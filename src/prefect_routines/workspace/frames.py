"""The frames between the host and a sandbox's supervisor: two lengths, a JSON header, raw bytes. The host believes none of them.

A frame is `u32 header length, u32 body length, header (JSON object), body`. Requests: `{"id", "op", ...}`. Answers by `kind`: `ready`,
`chunk` (bytes of a program's stdout or stderr), `credit` (bytes of stdin were taken), `result` (its body is a JSON object; ends the call).
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from prefect_routines.errors import SandboxLost
from prefect_routines.visible import storable

HEADER_MAX = 64 * 1024
STDIN_CHUNK = 512 * 1024
BODY_MAX = 8 * 1024 * 1024


Text = Annotated[str, BeforeValidator(storable)]
Count = Annotated[int, Field(ge=0, le=2**53)]


class _Frame(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Result = TypeVar("Result", bound=_Frame)


class Header(_Frame):
    kind: Literal["ready", "chunk", "credit", "result"]
    id: Count
    stream: Literal[1, 2] = 1
    bytes: Count = 0


class Refusal(_Frame):
    """The call could not be done; the text is for Claude."""

    error: Text = Field(max_length=20_000)


class BashResult(_Frame):
    exit_code: Annotated[int, Field(ge=-255, le=255)] | None
    output: Text = Field(max_length=40_000)
    output_bytes: Count
    output_path: Text | None = Field(max_length=4096)
    timed_out: bool
    shell_lost: bool
    still_running: bool
    directory: Text = Field(max_length=4096)


class RunResult(_Frame):
    exit_code: int = Field(ge=-255, le=255)
    truncated: bool
    timed_out: bool


class ToolResult(_Frame):
    """What a file tool gives: text, or an image; counts for the host's own use."""

    text: Text = Field(default="", max_length=400_000)
    image: str | None = Field(default=None, max_length=7_000_000, pattern=r"^[A-Za-z0-9+/]*={0,2}$")
    media_type: Literal["image/png", "image/jpeg", "image/gif", "image/webp"] | None = None
    bytes: Count = 0


def encode(header: Mapping[str, Any], body: bytes | memoryview = b"") -> bytes:
    """One frame to the supervisor."""
    head = json.dumps(header).encode()
    return b"".join((len(head).to_bytes(4, "big"), len(body).to_bytes(4, "big"), head, body))


def chunks(data: bytes | Path) -> Iterator[bytes]:
    """What goes to some stdin, or the content of a file, in pieces for one frame each."""
    with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as file:
        while chunk := file.read(STDIN_CHUNK):
            yield chunk


async def read(reader: asyncio.StreamReader) -> tuple[Header, bytes]:
    """The next frame from the supervisor.

    Raises:
        SandboxLost: the stream ended, or what came is not a frame.
    """
    try:
        lengths = await reader.readexactly(8)
        head, body = int.from_bytes(lengths[:4], "big"), int.from_bytes(lengths[4:], "big")
        if head > HEADER_MAX or body > BODY_MAX:
            raise SandboxLost(f"the sandbox sent a frame of {head + body:,} bytes and was stopped: its supervisor was taken over")
        header = Header.model_validate_json(await reader.readexactly(head))
        return header, await reader.readexactly(body)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise SandboxLost("the sandbox has ended") from error
    except ValidationError as error:
        raise SandboxLost("the sandbox sent a malformed frame and was stopped: something in it took over its supervisor") from error


def parse(model: type[Result], body: bytes) -> Result | Refusal:
    """The JSON body of a `result`, as what was expected or as a refusal.

    Raises:
        SandboxLost: it is neither.
    """
    try:
        found = json.loads(body)  # and not pydantic's own parser, which refuses the lone surrogates that file names may contain
        return Refusal.model_validate(found) if isinstance(found, dict) and "error" in found else model.model_validate(found)
    except (ValueError, RecursionError) as error:
        raise SandboxLost("the sandbox sent a malformed result and was stopped: something in it took over its supervisor") from error
