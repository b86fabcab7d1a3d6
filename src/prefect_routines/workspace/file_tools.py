"""Inside the sandbox: read, write and edit files. Each call runs in a child process of its own, so it may block, and be killed."""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

LINES = 2000
LINE_MAX = 2000
TEXT_MAX = 150_000
"""Characters of text in one answer."""
IMAGE_MAX = 5 * 1024 * 1024 * 3 // 4
"""Bytes; the service allows 5 MiB of base64."""
EDIT_MAX = 32 * 1024 * 1024
SNIFF = 8192
SIGNATURES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF87a", "image/gif"), (b"GIF89a", "image/gif"))
KNOWN_BINARY = (
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a zip archive (or what is packed as one: jar, docx, xlsx, wheel)"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x7fELF", "an ELF program"),
    (b"SQLite format 3\0", "an SQLite database"),
)


class RefusedError(Exception):
    """One line for Claude: what is wrong and what to do instead."""


def perform(operation: str, arguments: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Do one operation; what goes wrong becomes `{"error": ...}`."""
    from prefect_routines.workspace import search_tools

    tools: dict[str, Callable[..., dict[str, Any]]] = {
        "read": read,
        "write": write,
        "edit": edit,
        "glob": search_tools.find,
        "grep": search_tools.grep,
        "usage": search_tools.usage,
    }
    try:
        tool = tools.get(operation)
        if tool is None:
            raise RefusedError(f"there is no file tool {operation!r}; there are read, write, edit, glob, grep")
        return tool(Place(settings), **arguments)
    except RefusedError as refused:
        return {"error": str(refused)}
    except OSError as error:
        return {"error": f"{operation}: {error.filename or arguments.get('path', '')}: {error.strerror or error}"}
    except MemoryError:
        return {"error": f"{operation}: not enough memory for this; use bash with head, sed or split"}
    except TypeError as error:
        return {"error": f"{operation}: {error}".replace("()", "")}


class Place:
    """Which paths the file tools may touch."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.workspace: str = settings["workspace"]
        self._roots = [os.path.realpath(root) for root in settings["roots"]]

    def resolve(self, path: object) -> str:
        """The absolute path with links followed; a relative one counts from the workspace."""
        if not isinstance(path, str) or not path:
            raise RefusedError("path: give the path of a file as text")
        try:
            encoded = path.encode()
        except UnicodeEncodeError:
            raise RefusedError("path: contains characters that are no text (lone surrogates)") from None
        if b"\0" in encoded:
            raise RefusedError("path: contains a NUL character")
        if len(encoded) > 4096:
            raise RefusedError("path: longer than 4096 bytes")
        real = os.path.realpath(os.path.join(self.workspace, path))
        if not any(real == root or real.startswith(root.rstrip("/") + "/") for root in self._roots):
            raise RefusedError(f"{path}: the path leaves the workspace ({', '.join(self._roots)} may be used)")
        return real


def open_file(path: str, shown: object) -> tuple[int, os.stat_result]:
    """A readable descriptor of a regular file; nothing that could block or have an effect when it is opened."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise RefusedError(f"{shown}: there is no such file{similar(path)}") from None
    except PermissionError:
        raise RefusedError(f"{shown}: permission denied") from None
    except OSError as error:
        raise RefusedError(f"{shown}: not a regular file ({error.strerror})") from None
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise RefusedError(f"{shown}: {_kind(found.st_mode)}")
    return fd, found


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "is a directory; list it with bash (ls) or glob"
    return "is a pipe, socket or device, not a regular file"


def similar(path: str) -> str:
    import difflib

    try:
        names = os.listdir(os.path.dirname(path))[:5000]
    except OSError:
        return ""
    close = difflib.get_close_matches(os.path.basename(path), names, 3, 0.6)
    return f"; there is {', '.join(close)}" if close else ""


def whole_number(name: str, value: object, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**40:
        raise RefusedError(f"{name}: a whole number from 1 on")
    return value


def read(place: Place, path: object, offset: object = None, limit: object = None) -> dict[str, Any]:
    """Lines with their numbers, from line `offset` on; or an image."""
    first, wanted = whole_number("offset", offset, 1), whole_number("limit", limit, LINES)
    fd, found = open_file(place.resolve(path), path)
    with os.fdopen(fd, "rb", buffering=1024 * 1024) as file:
        start = file.read(SNIFF)
        file.seek(0)
        media_type = next((kind for magic, kind in SIGNATURES if start.startswith(magic)), None)
        if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
            media_type = "image/webp"
        if media_type:
            if found.st_size > IMAGE_MAX:
                raise RefusedError(f"{path}: an image of {found.st_size:,} bytes; at most {IMAGE_MAX:,} can be shown")
            return {"image": base64.b64encode(file.read(IMAGE_MAX)).decode(), "media_type": media_type}
        if b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):
            what = next((name for magic, name in KNOWN_BINARY if start.startswith(magic)), "binary data")
            raise RefusedError(f"{path}: {what}, {found.st_size:,} bytes, not text; look into it with bash (file, xxd, strings)")
        return {"text": _lines(file, start, first, wanted, path)}


def _lines(file: Any, start: bytes, first: int, wanted: int, path: object) -> str:
    encoding = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    if encoding == "utf-16":
        raise RefusedError(f"{path}: UTF-16 text; convert it with bash: iconv -f utf-16 -t utf-8")
    parts: list[str] = []
    used = number = 0
    for number, line, cut in _physical_lines(file):
        if number < first:
            continue
        if number >= first + wanted or used > TEXT_MAX:
            parts.append(f"[there are more lines; go on with offset={number}]")
            break
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if cut or len(text) > LINE_MAX:
            text = text[:LINE_MAX] + " [line cut]"
        parts.append(f"{number:6}\t{text}")
        used += len(parts[-1]) + 1
    else:
        if first > max(number, 1):
            raise RefusedError(f"{path}: has {number} lines; offset={first} is behind its end")
    return "\n".join(parts)


def _physical_lines(file: Any) -> Iterator[tuple[int, bytes, bool]]:
    """Number, start and whether there is more of each line: a line may be gigabytes long."""
    number = 0
    while line := file.readline(4 * LINE_MAX + 2):
        number += 1
        cut = not line.endswith(b"\n")
        yield number, line, cut and len(line) > 4 * LINE_MAX
        while cut and (rest := file.readline(1024 * 1024)):
            cut = not rest.endswith(b"\n")


def write(place: Place, path: object, content: object) -> dict[str, Any]:
    """Replace or make a file, and its directories."""
    if not isinstance(content, str):
        raise RefusedError("content: give the file's text")
    target = place.resolve(path)
    before = _target(target, path)
    data = content.encode("utf-8", "replace")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    _replace(target, data, before)
    return {"text": f"{'Replaced' if before else 'Created'} {path} ({len(data):,} bytes)", "bytes": len(data)}


def _target(target: str, shown: object) -> os.stat_result | None:
    try:
        found = os.lstat(target)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise RefusedError(f"{shown}: {_kind(found.st_mode)}")
    return found


def _replace(target: str, data: bytes, before: os.stat_result | None) -> None:
    """Write in place if hard links share the file, else by renaming: a reader never sees half a file."""
    if before is not None and before.st_nlink > 1:
        fd = os.open(target, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        return
    temporary = f"{os.path.dirname(target)}/.{os.getpid()}.writing"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            if before is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
        os.rename(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def edit(place: Place, path: object, old_string: object, new_string: object, replace_all: object = False) -> dict[str, Any]:
    """Replace text that stands there exactly once, or everywhere."""
    if not isinstance(old_string, str) or not isinstance(new_string, str):
        raise RefusedError("old_string, new_string: give text")
    if not old_string:
        raise RefusedError("old_string: is empty; to make or replace a whole file use write")
    if old_string == new_string:
        raise RefusedError("old_string and new_string are the same; nothing would change")
    target = place.resolve(path)
    fd, found = open_file(target, path)
    with os.fdopen(fd, "rb") as file:
        if found.st_size > EDIT_MAX:
            raise RefusedError(f"{path}: {found.st_size:,} bytes are too many for edit (at most {EDIT_MAX:,}); use bash (sed)")
        data = file.read(EDIT_MAX + 1)
    old, new = old_string.encode("utf-8", "replace"), new_string.encode("utf-8", "replace")
    count = data.count(old)
    if not count and b"\r\n" in data and b"\r" not in old:  # shown without their carriage returns by read
        old, new = old.replace(b"\n", b"\r\n"), new.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        count = data.count(old)
    if not count:
        raise RefusedError(f"{path}: old_string is not in the file{_hint(data, old_string)}")
    if count > 1 and not replace_all:
        raise RefusedError(f"{path}: old_string is there {count} times; add lines around it until it is unique, or set replace_all")
    _replace(target, data.replace(old, new), found)
    return {"text": f"Edited {path} ({count} replacement{'s' if count > 1 else ''})"}


def _hint(data: bytes, old: str) -> str:
    text = data.decode("utf-8", "replace")
    if re.search(r"^\s*\d+\t", old):
        return "; leave out the line numbers that read shows"
    if " ".join(old.split()) in " ".join(text.split()):
        return "; it is there with other white space: copy it exactly (tabs, spaces, line ends)"
    first = next((line.strip() for line in old.splitlines() if line.strip()), "")
    for number, line in enumerate(text.splitlines(), 1):
        if first and first in line:
            return f"; its first line is like line {number}: read the file there again"
    return "; read the file again"
