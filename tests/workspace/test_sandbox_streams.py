"""A program that one talks to for as long as a block lasts: lines, bounds, ends."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from prefect_routines.errors import SandboxLost, ToolError
from prefect_routines.workspace import frames
from prefect_routines.workspace.conversation import WINDOW
from prefect_routines.workspace.sandbox import Sandbox, SandboxSpec
from waiting import until_async

ECHO = ["sh", "-c", 'while read -r line; do echo "<$line>"; done; echo bye >&2; exit 3']


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with await Sandbox.start(SandboxSpec(tmp_path)) as box:
        yield box


async def test_lines_go_both_ways(box: Sandbox) -> None:
    """What is sent arrives, what it answers comes line by line, while the program goes on."""
    async with box.talk(ECHO) as pipe, aclosing(pipe.lines(max_bytes=100)) as lines:
        for word in (b"one", b"two"):
            await pipe.send(word + b"\n")
            assert await anext(lines) == b"<" + word + b">"
        assert not pipe.ended


async def test_environment_and_directory(box: Sandbox) -> None:
    """They are as asked; the directory is the workspace by default."""
    async with box.talk(["sh", "-c", "echo $A; pwd"], environment={"A": "x y"}) as pipe:
        assert [line async for line in pipe.lines(max_bytes=100)] == [b"x y", b"/workspace"]
    with pytest.raises(ToolError, match="NUL"):
        box.talk(["sh", "-c", "a\0b"])


async def test_a_program_that_ends(box: Sandbox) -> None:
    """Its last words, also without a line's end, its exit status and its stderr are there; sending fails with a line."""
    async with box.talk(["sh", "-c", "printf 'a\\nb'; echo why >&2; exit 7"]) as pipe:
        assert [line async for line in pipe.lines(max_bytes=100)] == [b"a", b"b"]
        assert (pipe.exit_code, pipe.stderr) == (7, "why\n")
        with pytest.raises(ToolError, match="exit status 7"):
            await pipe.send(b"x\n")


async def test_a_program_that_is_not_there(box: Sandbox) -> None:
    """It ends at once and its stderr says why."""
    async with box.talk(["no-such-program"]) as pipe:
        assert [line async for line in pipe.lines(max_bytes=100)] == []
        assert pipe.exit_code == 127
        assert "No such file" in pipe.stderr


async def test_only_the_end_of_stderr_is_kept(box: Sandbox) -> None:
    """However much it says there."""
    async with box.talk(["sh", "-c", "head -c 50000000 /dev/zero | tr '\\0' x >&2; echo END >&2"]) as pipe:
        assert [line async for line in pipe.lines(max_bytes=100)] == []
        assert pipe.stderr.endswith("xEND\n")
        assert len(pipe.stderr) <= 8192


async def test_a_line_without_end_is_refused(box: Sandbox) -> None:
    """A hundred megabytes in a line cost an error, not memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with box.talk(["sh", "-c", "head -c 100000000 /dev/zero; sleep 1000"]) as pipe:
        with pytest.raises(ToolError, match="a line of more than 1,000,000 bytes"):
            [line async for line in pipe.lines(max_bytes=1_000_000)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # kB
    assert (await box.bash("echo fine")).output == "fine\n"


async def test_unread_output_holds_the_program_up(box: Sandbox) -> None:
    """Nobody reads: the program blocks when the window is full, and goes on when some was taken. Nothing is lost."""
    count = 3_000_000
    async with box.talk(["sh", "-c", f"seq {count}; touch done"]) as pipe:
        await until_async(lambda: len(pipe._unread) == WINDOW)
        assert (await box.bash("ls")).output == ""  # some 23 MB were to come
        lines = [int(line) async for line in pipe.lines(max_bytes=100)]
    assert lines == list(range(1, count + 1))
    assert (await box.bash("ls")).output == "done\n"


async def test_a_program_that_does_not_read_holds_the_sender_up(box: Sandbox) -> None:
    """Sending waits instead of piling up, and can be given up."""
    async with box.talk(["sleep", "1000"]) as pipe:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pipe.send(b"x" * 50_000_000), 2)
        assert pipe._call.unacknowledged < 6 << 20
    assert (await box.bash("echo fine")).output == "fine\n"


async def test_leaving_the_block_kills_the_tree(box: Sandbox) -> None:
    """Also what went into a session of its own, also when the block is left by cancellation."""
    talking = asyncio.Event()

    async def talk() -> None:
        async with box.talk(["sh", "-c", "setsid -f sleep 1001; (sleep 1002 &); echo up; exec sleep 1003"]) as pipe:
            async for _ in pipe.lines(max_bytes=100):
                talking.set()

    task = asyncio.create_task(talk())
    await talking.wait()
    count = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o 'sleep 100[123]' | wc -l"
    all_up = f"until [[ $({count}) = 3 ]]; do sleep 0.01; done; echo up"
    assert (await box.bash(all_up, timeout=20)).output == "up\n"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await box.bash(count)).output == "0\n"


async def test_the_end_of_the_sandbox_ends_the_talk(box: Sandbox) -> None:
    """Who waits for a line learns it at once."""
    async with box.talk(["sleep", "1000"]) as pipe:
        waiting = asyncio.ensure_future(anext(pipe.lines(max_bytes=100)))
        await asyncio.sleep(0)
        box._container.kill()
        with pytest.raises(SandboxLost):
            await waiting
        with pytest.raises(SandboxLost):
            await pipe.send(b"x")


async def test_a_supervisor_that_ignores_the_window_is_stopped(tmp_path: Path) -> None:
    """More than was asked for can only come from one that was taken over."""
    box = await Sandbox.start(SandboxSpec(tmp_path))
    near, far = socket.socketpair()
    box._listener.cancel()
    box._container.reader, writer = await asyncio.open_connection(sock=near)
    box._listener = asyncio.create_task(box._listen())
    far.setblocking(False)
    async with box.talk(["sleep", "1000"]) as pipe:
        chunk = frames.encode({"kind": "chunk", "id": pipe._number, "stream": 1}, b"x" * (WINDOW // 4))
        await asyncio.get_running_loop().sock_sendall(far, chunk * 4)
        await until_async(lambda: len(pipe._unread) == WINDOW)
        assert box.alive
        await asyncio.get_running_loop().sock_sendall(far, chunk)
        await until_async(lambda: not box.alive)
    with pytest.raises(SandboxLost, match="took over its supervisor"):
        await box.bash("true")
    await box.close()
    writer.close()
    far.close()


async def test_two_sandboxes_of_one_session_share_the_workspace(tmp_path: Path) -> None:
    """Each reads and writes what the other made; neither sees the other's processes."""
    async with await Sandbox.start(SandboxSpec(tmp_path)) as one:
        await one.bash("umask 077; echo one > one; sleep 1000 &")
        owner = tmp_path.stat().st_uid
        async with await Sandbox.start(SandboxSpec(tmp_path, shared=True)) as other:
            sleeping = "cat /proc/[0-9]*/cmdline 2>/dev/null | grep -c '[s]leep'"  # processes may end while they are listed
            assert (await other.bash(f"cat one; echo two >> one; {sleeping}")).output == "one\n0\n"
        assert tmp_path.stat().st_uid == owner
        assert (await one.bash("cat one")).output == "one\ntwo\n"
    assert owner == os.getuid() or os.getuid() == 0
