"""Tools over the files of the workspace. The work is done by the supervisor inside the sandbox."""

from __future__ import annotations

import posixpath
from typing import Annotated, Literal

from pydantic import AfterValidator

from prefect_routines.tools.tool import ToolContext, ToolResult, tool


def from_workspace(path: str) -> str:
    """One spelling for each path, so that `deny=["edit(docs/*)"]` also holds for `./docs/x` and `/workspace/docs/x`.

    Example:
        >>> from_workspace("/workspace/docs/../src//x.py")
        'src/x.py'
    """
    whole = posixpath.normpath(posixpath.join("/workspace", path)) if path else path
    return posixpath.relpath(whole, "/workspace") if whole == "/workspace" or whole.startswith("/workspace/") else whole


Path = Annotated[str, AfterValidator(from_workspace)]


@tool(idempotent=True)
async def read(context: ToolContext, path: Path, offset: int | None = None, limit: int | None = None) -> ToolResult:
    """Read a file: text with line numbers, or an image.

    Args:
        path: Path, absolute or from /workspace.
        offset: First line, counted from 1.
        limit: How many lines; by default 2000.
    """
    found = await context.workspace.box.call("read", path=path, offset=offset, limit=limit)
    if "image" in found:
        source = {"type": "base64", "media_type": found["media_type"], "data": found["image"]}
        return ToolResult([{"type": "image", "source": source}], note=found["media_type"])
    return ToolResult(found["text"] or "[the file is empty]")


@tool(idempotent=True, alone=True)
async def write(context: ToolContext, path: Path, content: str) -> str:
    """Write a file, making its folders; what it held before is replaced.

    Args:
        path: Path, absolute or from /workspace.
        content: The whole text of the file.
    """
    done = await context.workspace.box.call("write", path=path, content=content)
    return str(done["text"])


@tool(alone=True)
async def edit(context: ToolContext, path: Path, old_string: str, new_string: str, replace_all: bool = False) -> str:
    """Replace a piece of text in a file. The piece must stand there exactly once, unless replace_all is set.

    Args:
        path: Path, absolute or from /workspace.
        old_string: The text as it stands in the file, white space included, without line numbers.
        new_string: The text that takes its place.
        replace_all: Replace every occurrence.
    """
    done = await context.workspace.box.call("edit", path=path, old_string=old_string, new_string=new_string, replace_all=replace_all)
    return str(done["text"])


@tool(idempotent=True)
async def glob(context: ToolContext, pattern: str, path: Path = "/workspace") -> str:
    """Find files by name, the newest first.

    Args:
        pattern: Such as '**/*.md'.
        path: Folder to search.
    """
    found = await context.workspace.box.call("glob", pattern=pattern, path=path)
    return str(found["text"]) or "[no file matches]"


@tool(idempotent=True)
async def grep(
    context: ToolContext,
    pattern: str,
    path: Path = "/workspace",
    glob: str | None = None,
    output_mode: Literal["files_with_matches", "content", "count"] = "files_with_matches",
    context_lines: int = 0,
    ignore_case: bool = False,
    head_limit: int = 200,
) -> str:
    """Search the text of files with a regular expression.

    Args:
        pattern: The expression, in Python's syntax.
        path: File or folder to search.
        glob: Only files of this name, such as '*.py'.
        output_mode: Names of the files, the lines themselves, or a count for each file.
        context_lines: Lines shown before and after, with output_mode content.
        ignore_case: Whether letters match in either case.
        head_limit: Most lines of output.
    """
    found = await context.workspace.box.call(
        "grep",
        pattern=pattern,
        path=path,
        glob=glob,
        output_mode=output_mode,
        context=context_lines,
        ignore_case=ignore_case,
        head_limit=head_limit,
    )
    return str(found["text"]) or "[nothing found]"
