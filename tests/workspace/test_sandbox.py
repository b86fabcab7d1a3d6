"""The life of a sandbox: how it starts, what it is made of, how it ends, also when nobody ends it; and that the host believes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefect_routines.errors import SandboxLost, SandboxUnavailable, SettingsError, ToolError
from prefect_routines.settings import Settings
from prefect_routines.workspace import bubblewrap, frames, ownership, sandbox
from prefect_routines.workspace.sandbox import Limits, Sandbox, SandboxSpec, check_sandbox, lend_directory
from prefect_routines.workspace.setup import prepared
from waiting import until

as_root = pytest.mark.skipif(os.getuid() != 0, reason="an ordinary user has one uid")


def processes_with(mark: str) -> list[int]:
    """Processes of this machine whose environment has `mark`."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark.encode() in Path("/proc", name, "environ").read_bytes():
                found.append(int(name))
        except OSError:
            continue
    return found


async def test_check() -> None:
    """This machine can build sandboxes."""
    await check_sandbox("bubblewrap")
    await check_sandbox("none")


async def test_environment_is_exactly_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The author's variables and a few of ours; nothing of this process."""
    monkeypatch.setenv("OWN_SECRET", "x")
    for mode in ("bubblewrap", "none"):
        async with await Sandbox.start(SandboxSpec(tmp_path, environment={"A": "b c", "TERM": "vt100"}, mode=mode)) as box:
            environment = dict(line.split("=", 1) for line in (await box.run(["env"])).stdout.decode().splitlines())
            assert (environment["A"], environment["TERM"]) == ("b c", "vt100")
            assert "OWN_SECRET" not in environment
            assert set(environment) - {*bubblewrap.ENVIRONMENT, "PATH", "HOME", "PWD", "A", "ROUTINES_CALL"} == set()


async def test_setup_directory(tmp_path: Path) -> None:
    """Tools of the setup directory come first; it is read-only except while the setup script runs."""
    setup = tmp_path / "setup"
    setup.mkdir()
    async with await Sandbox.start(SandboxSpec(tmp_path / "w", setup=setup, setup_writable=True)) as box:
        await box.put_file("/opt/setup/bin/tool", b"#!/bin/sh\necho tool $PIP_USER\n", mode=0o755)
        assert (await box.bash("tool")).output == "tool 1\n"
    async with await Sandbox.start(SandboxSpec(tmp_path / "w", setup=setup)) as box:
        assert (await box.bash("tool; touch /opt/setup/x")).output.startswith("tool\ntouch: cannot touch")


@as_root
async def test_a_worker_with_a_closed_umask(tmp_path: Path) -> None:
    """Services often run with 077: what sandboxes share must be readable for the uid of each."""
    before = os.umask(0o077)
    try:
        settings = Settings(
            setup=f"mkdir -p /opt/setup/bin; echo echo made > /opt/setup/bin/tool; chmod +x /opt/setup/bin/tool # {tmp_path}"
        )
        setup = await prepared(settings)
        for place in ("a", "b"):  # side by side, so with uids of their own
            (tmp_path / place).mkdir()
        spec = SandboxSpec(tmp_path / "a", setup=setup, network=("none.invalid",))
        async with await Sandbox.start(spec) as one, await Sandbox.start(replace(spec, workspace=tmp_path / "b")) as other:
            assert [(await box.bash("tool")).output for box in (one, other)] == ["made\n", "made\n"]
    finally:
        os.umask(before)


async def test_read_only_directories(tmp_path: Path) -> None:
    """Host directories and files can be shown at any path, and not changed."""
    shown = tmp_path / "shown"
    shown.mkdir()
    (shown / "f").write_text("content")
    spec = SandboxSpec(tmp_path / "w", read_only={"/opt/shown": shown, "/opt/file": shown / "f"})
    async with await Sandbox.start(spec) as box:
        assert (await box.bash("cat /opt/shown/f /opt/file; echo x > /opt/file")).output.startswith("contentcontentbash: ")
        assert (await box.call("read", path="/opt/file"))["text"] == "     1\tcontent"


def test_wrong_specs_are_the_authors_mistake() -> None:
    """Names of variables and paths are checked before anything starts."""
    for wrong in (
        {"environment": {"A=B": "x"}},
        {"environment": {"A": "x\0"}},
        {"read_only": {"opt": Path("/")}},
        {"read_only": {"/a/../b": Path("/")}},
    ):
        with pytest.raises(SettingsError):
            SandboxSpec(Path("/tmp/x"), **wrong)  # type: ignore[arg-type]


async def test_missing_bubblewrap_is_told_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bubblewrap: no sandbox, and the message says how to get it. Nothing else is tried."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap"):
        await Sandbox.start(SandboxSpec(tmp_path / "w"))


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("bwrap: No permissions to create new namespace", "unprivileged_userns_clone"),
        ("bwrap: setting up uid map: Permission denied", "apparmor_restrict_unprivileged_userns"),
        ("bwrap: Unknown option --disable-userns", "newer"),
    ],
)
async def test_a_failing_bubblewrap_is_told_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, let_others_in: Callable[[Path], None], message: str, remedy: str
) -> None:
    """What bubblewrap says on other machines leads to what to do there."""
    program = tmp_path / "bin" / "bwrap"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{message}' >&2\nexit 1\n")
    program.chmod(0o755)
    let_others_in(program.parent)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    if ownership.may_mount():
        monkeypatch.setattr(ownership, "may_mount", lambda: False)  # /tmp is covered then, and this program lies there
    with pytest.raises(SandboxUnavailable, match=remedy) as caught:
        await Sandbox.start(SandboxSpec(tmp_path / "w"))
    assert message in str(caught.value)


@as_root
async def test_a_workspace_below_closed_directories(tmp_path: Path) -> None:
    """As root the workspace may lie anywhere; its files are not root's."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    async with await Sandbox.start(SandboxSpec(closed / "w")) as box:
        await box.bash("touch f; cp /usr/bin/id g; chmod 6755 g")
        assert (closed / "w/f").stat().st_uid in ownership.UIDS
        assert (closed / "w/g").stat().st_uid in ownership.UIDS


@as_root
async def test_a_workspace_that_cannot_be_reached_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right to mount: the message names the closed directory and the setting."""
    monkeypatch.setattr(ownership, "may_mount", lambda: False)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(SandboxUnavailable, match="ROUTINES_WORKSPACES"):
        await Sandbox.start(SandboxSpec(closed / "w"))


@as_root
async def test_sandboxes_have_uids_of_their_own(tmp_path: Path) -> None:
    """Two at once never share one; afterwards it is free again, and a workspace keeps its own."""
    boxes = [await Sandbox.start(SandboxSpec(tmp_path / str(n))) for n in range(3)]
    uids = [(tmp_path / str(n)).stat().st_uid for n in range(3)]
    assert len(set(uids)) == 3
    assert set(uids) <= set(ownership.UIDS)
    for box in boxes:
        await box.close()
    async with await Sandbox.start(SandboxSpec(tmp_path / "2")):
        assert (tmp_path / "2").stat().st_uid == uids[2]


@as_root
async def test_a_lent_directory_comes_back(tmp_path: Path) -> None:
    """All of it belongs to its owner again, without set-uid bits; links are not followed."""
    directory, outside = tmp_path / "project", tmp_path / "outside"
    directory.mkdir()
    outside.write_text("x")
    (directory / "old").write_text("x")
    os.chown(directory, 1234, 1235)
    (directory / "link").symlink_to(outside)
    with lend_directory(directory):
        async with await Sandbox.start(SandboxSpec(directory)) as box:
            await box.bash(
                "echo y > old; mkdir -p a/b; cp /usr/bin/id a/b/id; chmod 6755 a/b/id; ln -s /etc/passwd a/passwd; mkfifo a/fifo"
            )
    for name in ("", "old", "link", "a", "a/b", "a/b/id", "a/passwd", "a/fifo"):
        found = (directory / name).lstat()
        assert (found.st_uid, found.st_gid) == (1234, 1235), name
        assert not found.st_mode & 0o6000 or name == "", name
    assert (outside.stat().st_uid, Path("/etc/passwd").stat().st_uid) == (0, 0)


async def test_close_ends_everything(tmp_path: Path) -> None:
    """Also what left session and parent, in both modes; several may close at once."""
    for mode in ("bubblewrap", "none"):
        mark = f"close-{mode}-{os.getpid()}"
        box = await Sandbox.start(SandboxSpec(tmp_path / mode, environment={"MARK": mark}, mode=mode))
        await box.bash("setsid -f sleep 1000; trap '' TERM; (setsid sleep 1001 &)")
        running = asyncio.create_task(box.bash("sleep 1002"))
        assert len(processes_with(mark)) >= 2
        await asyncio.gather(*(box.close() for _ in range(3)))
        assert processes_with(mark) == []
        with pytest.raises(SandboxLost):
            await running


@pytest.mark.parametrize("mode", ["bubblewrap", "none"])
def test_everything_ends_with_a_killed_flow(tmp_path: Path, mode: str) -> None:
    """The process that started the sandbox is killed with SIGKILL: its tree, its proxy and what escaped the tree end too."""
    mark = f"killed-{mode}-{os.getpid()}"
    program = f"""
        import asyncio
        from pathlib import Path
        from prefect_routines.workspace.sandbox import Sandbox, SandboxSpec
        async def main():
            network = ("@python",) if {mode!r} != "none" else ()
            spec = SandboxSpec(Path({str(tmp_path / "w")!r}), environment={{"MARK": {mark!r}}}, mode={mode!r}, network=network)
            box = await Sandbox.start(spec)
            await box.bash("setsid -f sleep 1000; (setsid sleep 1001 &); sleep 1002 &")
            print(box._container.proxy._process.pid if network else 0, flush=True)
            await box.bash("sleep 1003")
        asyncio.run(main())
    """
    flow = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE)
    assert flow.stdout is not None
    proxy = int(flow.stdout.readline())
    try:
        until(lambda: len(processes_with(mark)) >= 5, 10)  # shell and four sleeps
    finally:
        flow.send_signal(signal.SIGKILL)
        flow.wait()
        flow.stdout.close()
    until(lambda: processes_with(mark) == [], 10)
    until(lambda: not proxy or not Path(f"/proc/{proxy}").exists() or "Z" in Path(f"/proc/{proxy}/stat").read_text().split()[2], 10)


def test_a_loop_in_a_thread(tmp_path: Path) -> None:
    """A flow may run in a thread: the sandbox lives as long as that thread's loop."""
    results: list[str] = []

    async def main() -> None:
        async with await Sandbox.start(SandboxSpec(tmp_path)) as box:
            results.append((await box.bash("echo fine")).output)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
    assert results == ["fine\n"]


async def test_nothing_is_left_of_closed_sandboxes(tmp_path: Path) -> None:
    """Descriptors, processes and temporary files are given back."""
    async with await Sandbox.start(SandboxSpec(tmp_path / "first")):
        pass
    before = set(os.listdir("/proc/self/fd"))
    for mode in ("bubblewrap", "none"):
        for _ in range(5):
            async with await Sandbox.start(SandboxSpec(tmp_path / "w", mode=mode)) as box:
                await box.bash("true")
    assert set(os.listdir("/proc/self/fd")) == before


async def test_a_killed_sandbox_is_lost(tmp_path: Path) -> None:
    """Its calls end at once, and later ones too."""
    box = await Sandbox.start(SandboxSpec(tmp_path))
    running = asyncio.create_task(box.bash("touch begun; sleep 1000", fork=True))
    await box.bash("until [[ -e begun ]]; do sleep 0.01; done", fork=True)
    box._container.kill()
    with pytest.raises(SandboxLost):
        await running
    with pytest.raises(SandboxLost):
        await box.bash("true")
    assert not box.alive
    await box.close()


HOSTILE: dict[str, bytes] = {
    "garbage": b"GET / HTTP/1.1\r\n\r\n" * 100,
    "huge header": b"\xff\xff\xff\xff\0\0\0\0",
    "huge body": b"\0\0\0\x02\xff\xff\xff\xff{}",
    "no JSON": frames.encode({}, b"")[:8].replace(b"\0\0\0\x02", b"\0\0\0\x03", 1) + b"abc",
    "no object": b"\0\0\0\x02\0\0\0\0[]",
    "unknown kind": frames.encode({"kind": "other", "id": 1}),
    "another field": frames.encode({"kind": "result", "id": 1, "x": 1}, b"{}"),
    "number as text": frames.encode({"kind": "result", "id": "1"}, b"{}"),
    "huge number": b'\0\0\x10\x20\0\0\0\0{"kind":"result","id":' + b"9" * 4104 + b" }",
    "nobody asked": frames.encode({"kind": "result", "id": 999}, b"{}"),
    "ready again": frames.encode({"kind": "ready", "id": 0}),
    "result without fields": frames.encode({"kind": "result", "id": 1}, b"{}"),
    "result of another kind": frames.encode({"kind": "result", "id": 1}, b'{"exit_code": "0", "output": "", "output_bytes": 0}'),
    "deep result": frames.encode({"kind": "result", "id": 1}, b"[" * 100_000),
    "result that is no UTF-8": frames.encode({"kind": "result", "id": 1}, b'{"error": "\xff"}'),
    "output of a call that has none": frames.encode({"kind": "chunk", "id": 1}, b"x"),
    "empty output": frames.encode({"kind": "chunk", "id": 1}),
    "more taken than was sent": frames.encode({"kind": "credit", "id": 1, "bytes": 1}),
    "a flood for nobody": frames.encode({"kind": "credit", "id": 0}) * 100_001,
    "end": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_frames_end_the_sandbox(tmp_path: Path, name: str) -> None:
    """Whatever a taken-over supervisor sends: the call ends with SandboxLost, the process is killed, the host goes on."""
    box = await Sandbox.start(SandboxSpec(tmp_path))
    near, far = socket.socketpair()
    real = box._container.reader
    box._listener.cancel()
    box._container.reader, writer = await asyncio.open_connection(sock=near)
    box._listener = asyncio.create_task(box._listen())
    running = asyncio.create_task(box.bash("sleep 1000"))
    await asyncio.sleep(0)  # the request is on its way
    assert box._calls
    far.setblocking(False)
    await asyncio.get_running_loop().sock_sendall(far, HOSTILE[name])
    far.shutdown(socket.SHUT_WR) if name in ("end", "garbage") else None
    with pytest.raises(SandboxLost):
        await asyncio.wait_for(running, 10)
    assert not box.alive
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(real.read(-1), 10)  # its process is gone
    await box.close()
    writer.close()
    far.close()


def test_results_can_be_stored() -> None:
    """Surrogates and NUL in a supervisor's text do not get further."""
    body = json.dumps({"error": "a\ud800b\0c"}).encode()
    refusal = frames.parse(frames.ToolResult, body)
    assert isinstance(refusal, frames.Refusal)
    assert refusal.error == "a\ufffdb\ufffdc"


async def test_ten_sandboxes_at_once(tmp_path: Path) -> None:
    """They start side by side, do not meet, and take little memory."""
    boxes = await asyncio.gather(*(Sandbox.start(SandboxSpec(tmp_path / str(n))) for n in range(10)))
    try:
        done: list[Any] = await asyncio.gather(*(box.bash(f"echo {n} > own; cat own; ls | wc -l") for n, box in enumerate(boxes)))
        assert [one.output for one in done] == [f"{n}\n1\n" for n in range(10)]
        memory = 0
        for box in boxes:
            tree = [box._container.process.pid]
            for pid in tree:
                tree += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                memory += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        assert memory < 150_000, f"{memory} kB"
    finally:
        await asyncio.gather(*(box.close() for box in boxes))


async def test_what_commands_leave_behind_cannot_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in the background goes on when its call has ended: it is watched too, and ends the sandbox when nothing else helps."""
    monkeypatch.setattr(sandbox, "SIZE_EVERY", 0.2)
    monkeypatch.setattr(sandbox, "RUNAWAY", 30 << 20)
    async with await Sandbox.start(SandboxSpec(tmp_path, limits=Limits(workspace_mb=10))) as box:
        await box.bash("for i in {1..100}; do head -c 10M /dev/zero > $i; sleep 0.1; done &")
        async with asyncio.timeout(30):
            await box._listener  # ends with the sandbox; nobody calls anything meanwhile
        with pytest.raises(SandboxLost, match="left behind filled the workspace"):
            await box.bash("true")
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 500 << 20


async def test_limits_hold_for_tools_too(tmp_path: Path) -> None:
    """A file tool that would grow too large is refused by the kernel, and says so."""
    async with await Sandbox.start(SandboxSpec(tmp_path, limits=Limits(file_mb=1))) as box:
        with pytest.raises(ToolError, match=r"File too large|ended with"):
            await box.call("write", path="f", content="x" * 2_000_000)
        assert (await box.bash("echo fine; ls")).output == "fine\n"
