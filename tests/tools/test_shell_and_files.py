"""The tools of the workspace as Claude sees them: through a whole session."""

from __future__ import annotations

import re
import struct
import zlib
from base64 import b64decode
from typing import Any

import pytest

from prefect_routines.testing import ScriptedClaude, call, say
from prefect_routines.testing.script import Call, ToolResult
from session.world import NOTHING, Ran, run

pytestmark = pytest.mark.usefixtures("prefect")


async def results(*turns: Call | tuple[Call, ...], **settings: Any) -> list[ToolResult]:
    """The results of each turn's calls, in order."""
    script = [say(*(turn if isinstance(turn, tuple) else (turn,))) for turn in turns]
    with ScriptedClaude([*script, NOTHING]) as claude:
        ran: Ran = await run(claude, **settings)
    assert ran.state.is_completed(), ran.message
    return [result for request in ran.requests[1:] for result in request.results]


def bash(command: str, **more: Any) -> Call:
    return call("bash", command=command, **more)


async def test_directory_variables_and_functions_last() -> None:
    """One shell serves all turns; a background job goes on."""
    found = await results(
        bash("mkdir -p a/b && cd a/b && X=1 && export Y=2 && f() { echo f-$1; }"),
        bash("pwd; echo $X$Y; f 3"),
        bash("exit 7"),
        bash("pwd; echo [$X]"),
    )
    assert found[1].text == "/workspace/a/b\n12\nf-3"
    assert "exit status 7" in found[2].text
    assert "a new one starts in /workspace/a/b, without the former variables" in found[2].text
    assert found[3].text == "/workspace/a/b\n[]"


async def test_commands_of_one_reply_run_in_copies() -> None:
    """Side by side - each waits for the other's file - and what they change in the shell does not last."""

    def wait(mine: str, other: str) -> Call:
        return bash(f"X={mine}; touch {mine}; until [ -e {other} ]; do sleep 0.02; done; echo {mine}")

    found = await results((wait("one", "two"), wait("two", "one")), bash("echo [$X]"), bash("jobs; ls"))
    assert [result.text for result in found[:3]] == ["one", "two", "[]"]
    assert "still running" not in "".join(result.text for result in found)


async def test_a_failing_command_is_no_failing_call() -> None:
    """Its status is told; Claude decides what it means."""
    found = await results(bash("echo out; echo err >&2; false"), bash("nonsense-command"))
    assert not found[0].is_error
    assert found[0].text == "out\nerr\n[exit status 1]"
    assert "not found" in found[1].text
    assert "[exit status 127]" in found[1].text


async def test_a_command_that_takes_too_long_is_stopped() -> None:
    """With all that it started; the session goes on."""
    found = await results(
        bash("echo begun; sleep 300 & sleep 300", timeout=0.5), bash("pgrep sleep || echo none left"), bash("x", timeout=9999)
    )
    assert found[0].is_error
    assert "begun" in found[0].text
    assert "[stopped after 0.5 s with all it had started]" in found[0].text
    assert "none left" in found[1].text
    assert found[2].is_error
    assert "between 0 and 1800" in found[2].text


async def test_a_flood_of_output_is_cut_and_kept() -> None:
    """100 MB: head and tail reach Claude, and the whole is named and readable."""
    found = await results(bash("echo first; head -c 100000000 /dev/zero | tr '\\0' 'x' | fold -w 100; echo last"), bash("true"))
    text = found[0].text
    assert text.startswith("first\n")
    assert text.endswith("last")
    assert len(text) < 40_000
    assert re.search(r"left out; its \w+ is in (/\S+)", text)


async def test_the_kept_output_can_be_read() -> None:
    """The note names the file, and both `read` and the shell open it."""
    path: list[str] = []

    def read(request: Any) -> Any:
        path.append(re.search(r"is in (/\S+?)[ \]]", request.result("bash").text)[1])  # type: ignore[index]  # fails if there is none
        return say(bash(f"sed -n 77777p {path[0]}"), call("read", path=path[0], offset=77777, limit=1))

    with ScriptedClaude([say(bash("seq 100000")), read, NOTHING]) as claude:
        ran = await run(claude)
    shown, line = ran.requests[2].results
    assert shown.text == "77777"
    assert "77777" in line.text


async def test_output_of_any_bytes_reaches_claude_as_text() -> None:
    """Binary, not UTF-8, NUL, escape codes: nothing breaks the journal or the request."""
    found = await results(
        bash("printf 'a\\000b\\377c\\033[31mred'; head -c 3000 /dev/urandom; printf '\\355\\240\\200'"), bash("echo fine")
    )
    assert found[0].text.startswith("a\ufffdb\ufffdc")
    found[0].text.encode("utf-8")
    assert found[1].text == "fine"


async def test_a_process_that_outlives_its_command_does_not_hold_it() -> None:
    """`setsid` and a pipe held open: the call ends with its command, and says that something still runs."""
    found = await results(bash("setsid sleep 200 & echo started"), bash("echo next"))
    assert "started" in found[0].text
    assert "still running in the background" in found[0].text
    assert found[1].text == "next"


async def test_files_are_written_read_edited_and_found() -> None:
    """What the file tools and the shell do is one workspace."""
    found = await results(
        call("write", path="docs/a.md", content="one\ntwo\nthree\n"),
        call("read", path="docs/a.md"),
        call("read", path="/workspace/docs/a.md", offset=2, limit=1),
        call("edit", path="docs/a.md", old_string="two", new_string="zwei"),
        bash("cat docs/a.md"),
        call("glob", pattern="**/*.md"),
        call("grep", pattern="zw.i", output_mode="content"),
        call("grep", pattern="nowhere"),
        call("glob", pattern="*.nothing"),
    )
    assert not any(result.is_error for result in found)
    assert re.findall(r"^\s*(\d+)\s(.*)$", found[1].text, re.MULTILINE) == [("1", "one"), ("2", "two"), ("3", "three")]
    assert "two" in found[2].text
    assert "one" not in found[2].text
    assert found[4].text == "one\nzwei\nthree"
    assert "docs/a.md" in found[5].text
    assert "zwei" in found[6].text
    assert (found[7].text, found[8].text) == ("[nothing found]", "[no file matches]")


async def test_edits_that_are_not_clear_are_refused() -> None:
    """Text that is not there, or there twice; the file stays as it was."""
    found = await results(
        call("write", path="a", content="x x"),
        call("edit", path="a", old_string="y", new_string="z"),
        call("edit", path="a", old_string="x", new_string="z"),
        call("edit", path="missing", old_string="x", new_string="z"),
        call("edit", path="a", old_string="x", new_string="z", replace_all=True),
        bash("cat a"),
    )
    assert [result.is_error for result in found] == [False, True, True, True, False, False]
    assert found[5].text == "z z"


def png() -> str:
    """The bytes of a picture as printf takes them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0)
    raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0ab\0cd")) + chunk(b"IEND", b"")
    return "".join(f"\\x{byte:02x}" for byte in raw)


async def test_what_read_gives() -> None:
    """A picture as a picture; a huge or binary file, a directory, a link out of the workspace, a device: a clear refusal."""
    found = await results(
        bash(
            f"printf '{png()}' > dot.png; truncate -s 50M big; printf 'a\\000\\001\\377' > bin; ln -s /etc/passwd out; touch empty; mkdir d"
        ),
        call("read", path="dot.png"),
        call("read", path="big"),
        call("read", path="bin"),
        call("read", path="out"),
        call("read", path="/etc/passwd"),
        call("read", path="d"),
        call("read", path="/dev/zero"),
        call("read", path="missing"),
        call("read", path="a\0b"),
        call("read", path="empty"),
    )
    [image] = found[1].content
    assert (image["type"], image["source"]["media_type"]) == ("image", "image/png")
    assert b64decode(image["source"]["data"]).startswith(b"\x89PNG")
    for result in (found[2], found[3], found[6], found[7], found[8], found[9]):
        assert result.is_error, result
        assert len(result.text) < 1000
    for result in (found[4], found[5]):
        assert "root:" not in result.text or "/root" not in result.text or result.is_error
    assert found[10].text == "[the file is empty]"


async def test_environment_and_network_of_the_sandbox() -> None:
    """The routine's variables are there, the worker's are not; there is no network."""
    found = await results(
        bash("echo $GREETING; env | grep -c -i -E 'prefect_|anthropic|routines_h' ; cat /proc/net/dev | wc -l"),
        environment={"GREETING": "hello"},
    )
    assert found[0].text.splitlines()[:2] == ["hello", "0"]


async def test_a_setup_script_runs_before_the_session() -> None:
    """What it installs is on the PATH; a failing one fails the run with its last line."""
    script = "mkdir -p /opt/setup/bin && printf '#!/bin/sh\\necho installed' > /opt/setup/bin/thing && chmod +x /opt/setup/bin/thing"
    found = await results(bash("thing"), setup=script)
    assert found[0].text == "installed"
    with ScriptedClaude([NOTHING]) as claude:
        ran = await run(claude, setup="echo almost; echo the reason >&2; exit 3")
    assert ran.state.is_failed()
    assert "the setup script ended with exit status 3: the reason" in ran.message
    assert claude.requests == []
