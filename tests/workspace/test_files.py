"""The file tools of a sandbox: what they show and change, and what they refuse."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prefect_routines.errors import ToolError
from prefect_routines.workspace.sandbox import Limits, Sandbox, SandboxSpec

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with await Sandbox.start(SandboxSpec(tmp_path / "workspace", limits=Limits(memory_mb=512))) as box:
        yield box


async def text(box: Sandbox, op: str, **arguments: object) -> str:
    return str((await box.call(op, **arguments))["text"])


async def test_read_numbers_lines(box: Sandbox) -> None:
    """Like `cat -n`; relative paths count from the workspace."""
    await box.put_file("a/b.txt", "eins\r\nzwei ü\n".encode())
    assert await text(box, "read", path="a/b.txt") == "     1\teins\n     2\tzwei ü"
    assert await text(box, "read", path="/workspace/a/b.txt", offset=2) == "     2\tzwei ü"
    with pytest.raises(ToolError, match="has 2 lines"):
        await box.call("read", path="a/b.txt", offset=3)


async def test_read_goes_on(box: Sandbox) -> None:
    """A long file is read in parts, a long line is cut, and both say so."""
    await box.bash("seq 5000 > long; head -c 3000000 /dev/zero | tr '\\0' x > wide; echo end >> wide; : > empty")
    shown = await text(box, "read", path="long")
    assert shown.endswith("  2000\t2000\n[there are more lines; go on with offset=2001]")
    assert (await text(box, "read", path="long", offset=2001, limit=2)).startswith("  2001\t2001\n  2002\t2002\n[there are more")
    assert await text(box, "read", path="wide") == "     1\t" + "x" * 2000 + " [line cut]"
    assert await text(box, "read", path="empty") == ""


async def test_read_of_a_very_large_file_takes_little_memory(box: Sandbox) -> None:
    """Lines far into a file that is larger than the memory of a process."""
    await box.bash("seq 10000000 > large; for i in 1 2 3 4 5 6 7 8; do cat large; done > larger", timeout=60)
    assert await text(box, "read", path="larger", offset=9_999_999, limit=2) == (
        "9999999\t9999999\n10000000\t10000000\n[there are more lines; go on with offset=10000001]"
    )


async def test_read_shows_images(box: Sandbox) -> None:
    """A picture comes as base64 with its type, known by its content."""
    await box.put_file("picture.txt", PNG)
    found = await box.call("read", path="picture.txt")
    assert (found["media_type"], base64.b64decode(found["image"])) == ("image/png", PNG)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("binary", "binary data, 6 bytes"),
        ("archive", "gzip data"),
        ("directory", "is a directory"),
        ("pipe", "not a regular file"),
        ("missing", "no such file; there is missing-one"),
        ("/etc/passwd", "leaves the workspace"),
        ("../etc/passwd", "leaves the workspace"),
        ("outside", "leaves the workspace"),
        ("loop", "leaves the workspace|not a regular file|symbolic"),
        ("/proc/self/environ", "leaves the workspace"),
        ("/dev/zero", "leaves the workspace"),
        ("", "give the path"),
        ("a\0b", "NUL"),
        ("a\ud800b", "surrogates"),
        ("x" * 5000, "longer than 4096"),
        ("x" * 300, "File name too long|not a regular file"),
    ],
)
async def test_read_refuses(box: Sandbox, path: str, reason: str) -> None:
    """What is no text file of the workspace is refused with the reason, and nothing hangs."""
    await box.bash(
        "printf 'a\\0bcde' > binary; echo x | gzip > archive; mkdir directory; mkfifo pipe; echo > missing-one; "
        "ln -s /etc/passwd outside; ln -s loop loop"
    )
    with pytest.raises(ToolError, match=reason):
        await box.call("read", path=path)


async def test_write_makes_and_replaces(box: Sandbox) -> None:
    """Directories are made; the mode stays; a link inside the workspace is followed, one that leaves it is not."""
    assert (await text(box, "write", path="a/b/c.sh", content="one\n")).startswith("Created")
    await box.bash("chmod 755 a/b/c.sh; ln -s a/b/c.sh link; ln -s /etc out; mkfifo pipe")
    assert (await text(box, "write", path="link", content="two")).startswith("Replaced")
    assert (await box.bash("stat -c %a a/b/c.sh; cat a/b/c.sh; readlink link")).output == "755\ntwoa/b/c.sh\n"
    for path, reason in (("out/x", "leaves the workspace"), ("pipe", "pipe"), ("a", "is a directory"), ("a/b/c.sh/d", "directory")):
        with pytest.raises(ToolError, match=reason):
            await box.call("write", path=path, content="x")
    assert (await box.bash("ls -A a/b")).output == "c.sh\n"


async def test_edit_replaces_unique_text(box: Sandbox) -> None:
    """Exactly one place, or all of them; everything else stays byte for byte, line ends included."""
    await box.put_file("f", b"a\r\nb\r\nb\r\n\xff\n", mode=0o750)
    await box.call("edit", path="f", old_string="a\nb", new_string="A\nB")
    await box.call("edit", path="f", old_string="b", new_string="c")
    assert (await box.run(["cat", "f"])).stdout == b"A\r\nB\r\nc\r\n\xff\n"
    assert (await box.bash("stat -c %a f")).output == "750\n"
    await box.put_file("g", b"x x x")
    with pytest.raises(ToolError, match="there 3 times"):
        await box.call("edit", path="g", old_string="x", new_string="y")
    await box.call("edit", path="g", old_string="x", new_string="y", replace_all=True)
    assert (await box.run(["cat", "g"])).stdout == b"y y y"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("nothing", "x", "not in the file; read the file again"),
        ("  def f():", "x", "other white space"),
        ("     1\tdef f():", "x", "line numbers"),
        ("def f():\n  pass", "x", "its first line is like line 1"),
        ("", "x", "is empty"),
        ("def", "def", "the same"),
    ],
)
async def test_edit_explains_what_is_wrong(box: Sandbox, old: str, new: str, reason: str) -> None:
    """The refusal names the likely mistake."""
    await box.put_file("f.py", b"def f():\n\treturn 1\n")
    with pytest.raises(ToolError, match=reason):
        await box.call("edit", path="f.py", old_string=old, new_string=new)


async def test_glob_finds_newest_first(box: Sandbox) -> None:
    """Patterns span directories with **, .git is left out, links are not followed."""
    await box.bash("mkdir -p a/b .git; touch -d 2020-01-01 a/old.py; touch -d 2021-01-01 a/b/new.py c.md .git/x.py; ln -s / root")
    assert await text(box, "glob", pattern="**/*.py") == "/workspace/a/b/new.py\n/workspace/a/old.py"
    assert await text(box, "glob", pattern="*.py") == "/workspace/a/b/new.py\n/workspace/a/old.py"
    assert await text(box, "glob", pattern="a/*.py") == "/workspace/a/old.py"
    assert await text(box, "glob", pattern="*.{md,txt}") == "/workspace/c.md"
    assert await text(box, "glob", pattern="*.py", path="a/b") == "/workspace/a/b/new.py"
    assert await text(box, "glob", pattern="*.none") == ""
    with pytest.raises(ToolError, match="leaves the workspace"):
        await box.call("glob", pattern="*", path="/etc")


async def test_names_that_are_no_text(box: Sandbox) -> None:
    """A file name that is no UTF-8 is shown as well as it can be, and ends nothing."""
    await box.bash("printf 'two' > $'bad\\xff.md'")
    assert await text(box, "glob", pattern="*.md") == "/workspace/bad�.md"
    assert await text(box, "grep", pattern="two") == "/workspace/bad�.md"


async def test_grep_modes(box: Sandbox) -> None:
    """File names, lines with their surroundings, counts; binary files are left out."""
    await box.put_file("a.py", b"one\ntwo\nthree\nfour\n")
    await box.put_file("b.md", b"Two\n")
    await box.put_file("c.bin", b"two\0")
    assert await text(box, "grep", pattern="two") == "/workspace/a.py"
    assert await text(box, "grep", pattern="^t", output_mode="content") == "/workspace/a.py:2:two\n/workspace/a.py:3:three"
    around = await text(box, "grep", pattern="two", output_mode="content", context=1)
    assert around == "/workspace/a.py-1-one\n/workspace/a.py:2:two\n/workspace/a.py-3-three"
    assert set((await text(box, "grep", pattern="two", output_mode="count", ignore_case=True)).split()) == {
        "/workspace/a.py:1",
        "/workspace/b.md:1",
    }
    assert await text(box, "grep", pattern="two", glob="*.md", ignore_case=True) == "/workspace/b.md"
    assert await text(box, "grep", pattern="four", path="a.py") == "/workspace/a.py"
    with pytest.raises(ToolError, match="no regular expression"):
        await box.call("grep", pattern="(")


async def test_grep_is_bounded(box: Sandbox) -> None:
    """Many hits are cut, with a line that says so."""
    await box.bash("seq 100000 > many")
    lines = (await text(box, "grep", pattern="1", output_mode="content", head_limit=10)).splitlines()
    assert len(lines) == 11
    assert lines[-1].startswith("[more")


async def test_a_slow_pattern_is_stopped_and_holds_nobody_up(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """An expression that takes exponential time ends in an error, and other calls go on meanwhile."""
    monkeypatch.setattr("prefect_routines.workspace.sandbox.TOOL_SECONDS", 1.0)
    await box.put_file("f", b"a" * 60 + b"b\n")
    slow = asyncio.create_task(box.call("grep", pattern="(a+)+$"))
    assert await text(box, "grep", pattern="b") == "/workspace/f"
    assert not slow.done()
    with pytest.raises(ToolError, match="took longer than 1 s"):
        await slow


async def test_wrong_arguments_are_refused(box: Sandbox) -> None:
    """A tool or argument that does not exist, or of the wrong kind, is an error and no crash."""
    for op, arguments in (
        ("nothing", {}),
        ("read", {"path": 3}),
        ("read", {"path": "f", "offset": -1}),
        ("read", {"path": "f", "limit": "x"}),
        ("read", {}),
        ("write", {"path": "f", "content": None}),
        ("grep", {"pattern": "x", "output_mode": "other"}),
    ):
        with pytest.raises(ToolError):
            await box.call(op, **arguments)
    assert box.alive
