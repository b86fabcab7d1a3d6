"""Inside the sandbox: glob and grep, and the size of the workspace. Like the other file tools they run in a child process each."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from fnmatch import translate
from typing import Any

from prefect_routines.workspace.file_tools import SNIFF, TEXT_MAX, Place, RefusedError, open_file, similar, whole_number

GLOB_MAX = 200
SEARCHED_FILE_MAX = 64 * 1024 * 1024


def _walk(top: str) -> Iterator[os.DirEntry[str]]:
    """Regular files below `top`, without what is in .git; links are not followed."""
    pending = [top]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name, reverse=True):
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name != ".git":
                            pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        yield entry
        except OSError:
            continue


def _glob(pattern: object) -> re.Pattern[str]:
    """A path pattern: `*`, `?` stay within a name, `**/` spans directories, `{a,b}` is one of both; without `/` it fits the name alone."""
    if not isinstance(pattern, str) or not pattern:
        raise RefusedError("glob: give a pattern such as **/*.py")
    choices = [pattern]
    while len(choices) < 100 and (brace := next((m for m in (re.search(r"\{([^{}]*,[^{}]*)\}", c) for c in choices) if m), None)):
        choices = [
            choice.replace(brace.group(0), part, 1) if brace.group(0) in choice else choice
            for choice in choices
            for part in (brace.group(1).split(",") if brace.group(0) in choice else [""])
        ]
    expressions = []
    for choice in choices:
        parts = (choice.removeprefix("./") if "/" in choice else f"**/{choice}").split("/")
        made = ""
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            if part == "**":
                made += ".*" if last else "(?:.*/)?"
            else:
                made += re.sub(r"^\(\?s:(.*)\)\\[zZ]$", r"\1", translate(part)).replace(".*", "[^/]*") + ("" if last else "/")
        expressions.append(made)
    return re.compile("|".join(f"(?:{expression})" for expression in expressions), re.DOTALL)


def find(place: Place, pattern: object, path: object = None) -> dict[str, Any]:
    """Files whose path below `path` fits the pattern, the newest first."""
    top = place.resolve(path or place.workspace)
    if isinstance(pattern, str) and pattern.startswith(top + "/"):
        pattern = pattern[len(top) + 1 :]
    if not os.path.isdir(top):
        raise RefusedError(f"{path}: is no directory")
    fits = _glob(pattern)
    found = []
    for entry in _walk(top):
        if fits.fullmatch(os.path.relpath(entry.path, top)):
            try:
                found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path))
            except OSError:
                continue
    found.sort(reverse=True)
    lines = [name for _, name in found[:GLOB_MAX]]
    if len(found) > GLOB_MAX:
        lines.append(f"[{len(found) - GLOB_MAX} more; use a narrower pattern]")
    return {"text": "\n".join(lines)}


def grep(
    place: Place,
    *,
    pattern: object,
    path: object = None,
    glob: object = None,
    output_mode: object = "files_with_matches",
    context: object = 0,
    ignore_case: object = False,
    head_limit: object = 200,
) -> dict[str, Any]:
    """Lines that a regular expression (Python's) finds, file by file."""
    if not isinstance(pattern, str) or not pattern:
        raise RefusedError("pattern: give a regular expression")
    if output_mode not in ("files_with_matches", "content", "count"):
        raise RefusedError("output_mode: files_with_matches, content or count")
    around = 0 if context == 0 else whole_number("context", context, 0)
    wanted = whole_number("head_limit", head_limit, 200)
    try:
        expression = re.compile(pattern.encode("utf-8", "replace"), re.MULTILINE | (re.IGNORECASE if ignore_case else 0))
    except (re.error, OverflowError, RecursionError) as error:
        raise RefusedError(f"pattern: is no regular expression ({error}); escape ( ) [ ] {{ }} . * + ? with \\") from None
    top = place.resolve(path or place.workspace)
    fits = _glob(glob) if glob else None
    lines: list[str] = []
    for name in _searched(top, path):
        if fits is not None and not fits.fullmatch(os.path.relpath(name, top) if name != top else os.path.basename(name)):
            continue
        lines += _matches(name, expression, str(output_mode), around, wanted - len(lines) + 1)
        if len(lines) > wanted:
            lines = [*lines[:wanted], f"[more; narrow it down, or raise head_limit above {wanted}]"]
            break
    text = "\n".join(lines)
    return {"text": text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + "\n[more; narrow it down]"}


def _searched(top: str, shown: object) -> Iterator[str]:
    if os.path.isdir(top):
        for entry in _walk(top):
            yield entry.path
    elif os.path.exists(top):
        yield top
    else:
        raise RefusedError(f"{shown}: there is no such file or directory{similar(top)}")


def _matches(name: str, expression: re.Pattern[bytes], mode: str, around: int, wanted: int) -> list[str]:
    try:
        fd, found = open_file(name, name)
        with os.fdopen(fd, "rb") as file:
            if found.st_size > SEARCHED_FILE_MAX:
                return [f"{name}: [not searched: {found.st_size:,} bytes; use bash: grep]"]
            data = file.read()
    except (RefusedError, OSError):
        return []
    lines = [] if b"\0" in data[:SNIFF] or not expression.search(data) else data.removesuffix(b"\n").split(b"\n")
    hits = [number for number, line in enumerate(lines) if expression.search(line)]
    if not hits:
        return []
    if mode == "files_with_matches":
        return [name]
    if mode == "count":
        return [f"{name}:{len(hits)}"]
    shown: list[str] = []
    last, hit = -1, set(hits)
    for number in hits:
        if around and shown and number - around > last + 1:
            shown.append("--")
        for near in range(max(last + 1, number - around), min(len(lines), number + around + 1)):
            text = lines[near].decode("utf-8", "replace").rstrip("\r")
            text = text if len(text) <= 500 else text[:500] + " [line cut]"
            shown.append(f"{name}{':' if near in hit else '-'}{near + 1}{':' if near in hit else '-'}{text}")
            last = near
        if len(shown) > wanted:
            break
    return shown


def usage(place: Place) -> dict[str, Any]:
    """Bytes on disk of the workspace."""
    total = 0
    pending = [place.workspace]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    total += found.st_blocks * 512
                    if stat.S_ISDIR(found.st_mode):
                        pending.append(entry.path)
        except OSError:
            continue
    return {"bytes": total}
