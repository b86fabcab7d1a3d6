"""The shell of a sandbox: what survives, what runs side by side, what is killed, and output of every kind.

Most tests also run without a sandbox, with this machine's processes in reach: they end what they started by its id, never by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prefect_routines.errors import SandboxLost, ToolError
from prefect_routines.workspace.sandbox import Limits, Sandbox, SandboxSpec


@pytest.fixture(params=["bubblewrap", "none"])
async def box(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with await Sandbox.start(SandboxSpec(tmp_path / "workspace", mode=request.param)) as box:
        yield box


async def eventually(box: Sandbox, condition: str) -> None:
    """Wait until a shell condition holds."""
    done = await box.bash(f"until {condition}; do sleep 0.01; done", timeout=10, fork=True)
    assert done.exit_code == 0, condition


async def test_directory_variables_and_functions_survive(box: Sandbox) -> None:
    """One command continues where the last one ended."""
    await box.bash("mkdir -p a/b; cd a/b; x='a  b'; declare -A map=([k]=v); f() { echo \"$1!\"; }; export Y=1")
    done = await box.bash('echo "$x" ${map[k]}; f hi; pwd; env | grep ^Y=')
    assert done.output == f"a  b v\nhi!\n{box.workspace}/a/b\nY=1\n"
    assert done.directory == f"{box.workspace}/a/b"


async def test_forks_see_the_shell_and_do_not_change_it(box: Sandbox) -> None:
    """A forked copy knows variables and functions; its own changes end with it."""
    await box.bash("x=1; f() { echo f$x; }")
    done = await asyncio.gather(*(box.bash(f"x={n}; cd /; f", fork=True) for n in range(5)))
    assert [one.output for one in done] == [f"f{n}\n" for n in range(5)]
    assert (await box.bash("f; pwd")).output == f"f1\n{box.workspace}\n"


async def test_forks_run_side_by_side(box: Sandbox) -> None:
    """Eight calls can all run at the same time: each waits for the others."""
    meet = "touch meet-$N; until [[ $(ls meet-* | wc -l) == 8 ]]; do sleep 0.01; done"
    done = await asyncio.gather(*(box.bash(f"N={n}; {meet}", fork=True, timeout=20) for n in range(8)))
    assert all(one.exit_code == 0 for one in done)


async def test_calls_in_the_shell_itself_wait_for_each_other(box: Sandbox) -> None:
    """Two commands that are no forks run one after the other."""
    done = await asyncio.gather(box.bash("x=1; sleep 0.05; x=2"), box.bash("echo $x"))
    assert done[1].output == "2\n"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("echo 'open", 2),
        ('echo "open', 2),
        ("cat <<END\nopen", 0),
        ("if true; then", 2),
        (")", 2),
        ("break", 0),
        ("continue", 0),
        ("return 4", 2),
        ("", 0),
        ("# nothing", 0),
        ("false", 1),
        ("(exit 7)", 7),
        ("kill -9 $BASHPID", None),
        ("exec 3>&- 4>&- 1>&-", 0),
        ("set -x; trap 'echo no' DEBUG", 0),
        ("cat", 0),
        ("echo " + "x" * 5000 + " > /dev/null", 0),
        ("eval() { :; }; read() { :; }; printf() { :; }", 0),
    ],
)
async def test_no_command_breaks_the_shell(box: Sandbox, command: str, status: int | None) -> None:
    """After whatever command, the next one works."""
    done = await box.bash(command, timeout=10)
    assert done.exit_code == status or done.shell_lost
    assert not done.timed_out
    after = await box.bash("echo fine", timeout=10)
    assert after.output.endswith("fine\n")
    assert after.exit_code == 0


@pytest.mark.parametrize("command", ["exit 3", "exec false", "set -e; false; echo no", "kill -9 $$"])
async def test_a_lost_shell_is_told_and_replaced_in_place(box: Sandbox, command: str) -> None:
    """The result says that the shell ended; the next one starts in the same directory, without the variables."""
    await box.bash("mkdir sub; cd sub; x=1")
    done = await box.bash(command)
    assert done.shell_lost
    assert done.exit_code in (1, 3, 137)
    after = await box.bash("echo [$x]; pwd")
    assert after.output == f"[]\n{box.workspace}/sub\n"
    assert not after.shell_lost


async def test_exit_in_a_fork_is_contained(box: Sandbox) -> None:
    """A forked call may exit; the shell stays."""
    await box.bash("x=1")
    done = await box.bash("exit 3", fork=True)
    assert (done.exit_code, done.shell_lost) == (3, False)
    assert (await box.bash("echo $x")).output == "1\n"


async def test_set_e_does_not_outlive_its_command(box: Sandbox) -> None:
    """`set -e` of one command does not make the next failing one end the shell."""
    await box.bash("set -eu; true")
    done = await box.bash("false")
    assert (done.exit_code, done.shell_lost) == (1, False)


async def test_a_deep_directory_that_is_removed_does_no_harm(box: Sandbox) -> None:
    """The shell is lost in a directory that is gone: the next one starts in the workspace."""
    await box.bash("mkdir gone; cd gone; rmdir ../gone; true")
    await box.bash("exit")
    assert (await box.bash("pwd")).output == f"{box.workspace}\n"


async def test_timeout_kills_the_tree_and_nothing_else(box: Sandbox) -> None:
    """Also what left session, parent and environment is killed; a call at its side goes on."""
    leave = "os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0)"
    escape = f"import os, time; {leave}; open('deep', 'w').write(str(os.getpid())); time.sleep(100)"
    beside = asyncio.create_task(box.bash("until [[ -e go ]]; do sleep 0.01; done; echo beside", fork=True, timeout=30))
    done = await box.bash(f'setsid sleep 101 & echo $! > left; python3 -c "{escape}"; sleep 102; touch never', timeout=0.7, fork=True)
    assert (done.timed_out, done.exit_code, done.shell_lost) == (True, None, False)
    assert not done.still_running
    await box.bash("touch go")
    assert (await beside).output == "beside\n"
    left = await box.bash("kill -0 $(cat deep) || echo deep gone; kill -0 $(cat left) || echo left gone; [[ -e never ]] || echo never")
    assert {"deep gone", "left gone", "never"} <= set(left.output.splitlines())


async def test_timeout_in_the_shell_itself(box: Sandbox) -> None:
    """The rest of the command does not run; the result says that the shell was lost; the directory stays."""
    await box.bash("mkdir sub")
    done = await box.bash("cd sub; echo before; sleep 100; echo after > after", timeout=0.3)
    assert (done.timed_out, done.shell_lost, done.output) == (True, True, "before\n")
    assert (await box.bash("pwd; ls")).output == f"{box.workspace}/sub\n"


@pytest.mark.parametrize("command", ["while :; do :; done", "trap '' TERM INT HUP; sleep 100", "yes > /dev/null", "kill -STOP $BASHPID"])
async def test_timeout_ends_everything(box: Sandbox, command: str) -> None:
    """No command survives its time: loops, ignored signals, stopped processes."""
    started = time.monotonic()
    for fork in (True, False):
        done = await box.bash(command, timeout=0.3, fork=fork)
        assert done.timed_out or done.shell_lost
    assert time.monotonic() - started < 15
    assert (await box.bash("echo fine")).output == "fine\n"


async def test_what_is_left_running_is_told(box: Sandbox) -> None:
    """A process in the background does not hold up its call, and the result says that it runs."""
    done = await box.bash("setsid sleep 1000 & echo $! > pid; echo started")
    assert (done.output, done.still_running, done.exit_code) == ("started\n", True, 0)
    assert not (await box.bash("true")).still_running
    await box.bash("kill $(cat pid)")
    await eventually(box, "! kill -0 $(cat pid)")


async def test_talk_in_the_background_is_bounded(box: Sandbox) -> None:
    """What is left running may write for ever: it is drained and dropped."""
    done = await box.bash("(echo $BASHPID > pid; exec yes) & until [[ -e pid ]]; do sleep 0.01; done")
    assert done.still_running
    assert (await box.bash("echo fine")).output == "fine\n"
    await box.bash("kill $(cat pid)")


async def test_much_output(box: Sandbox) -> None:
    """100 MB: the result is short and says where the first 64 MB are."""
    done = await box.bash("head -c 100000000 /dev/zero | tr '\\0' x; echo; echo end")
    assert done.output_bytes == 100_000_005
    assert len(done.output) < 31_000
    assert done.output.endswith("x\nend\n")
    assert "of 100,000,005 bytes left out" in done.output
    assert done.output_path is not None
    assert (await box.bash(f"stat -c %s {done.output_path}")).output == f"{64 * 1024 * 1024}\n"


async def test_a_million_lines(box: Sandbox) -> None:
    """Head and tail are shown, and all is in the file."""
    done = await box.bash("seq 1000000")
    assert done.output.startswith("1\n2\n")
    assert done.output.endswith("999999\n1000000\n")
    assert (await box.bash(f"md5sum < {done.output_path}; seq 1000000 | md5sum")).output.splitlines()[0] in (
        await box.bash("seq 1000000 | md5sum")
    ).output


async def test_output_that_is_no_text(box: Sandbox) -> None:
    """Bytes that are no UTF-8, NUL and escapes arrive as text that can be stored."""
    done = await box.bash(r"printf 'a\0b\377\xed\xa0\x80\033[31m\n'")
    assert done.output.startswith("a\ufffdb\ufffd")
    assert "\0" not in done.output
    done.output.encode()


async def test_old_outputs_make_room(tmp_path: Path) -> None:
    """Kept outputs are bounded together: the oldest go."""
    async with await Sandbox.start(SandboxSpec(tmp_path)) as box:
        for _ in range(6):
            done = await box.bash("head -c 70000000 /dev/zero")
        assert done.output_path is not None
        kept = (await box.bash("ls /outputs | wc -l; du -sm /outputs | cut -f1")).output.split()
        assert int(kept[0]) <= 4
        assert int(kept[1]) <= 257


async def test_commands_read_nothing(box: Sandbox) -> None:
    """stdin is empty: nothing waits for a person."""
    assert (await box.bash("read x; echo [$x]; cat; wc -c")).output == "[]\n0\n"


async def test_nul_is_refused(box: Sandbox) -> None:
    """bash cannot have NUL in a command; that is said."""
    with pytest.raises(ToolError, match="NUL"):
        await box.bash("echo a\0b")


async def test_a_call_that_is_not_awaited_any_more_ends(box: Sandbox) -> None:
    """Cancelling the call kills its command."""
    task = asyncio.create_task(box.bash("sleep 1234 & echo $! > pid; wait", fork=True))
    await eventually(box, "[[ -s pid ]]")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(box, "! kill -0 $(cat pid)")


async def test_exact_bytes_in_and_out(box: Sandbox) -> None:
    """`run` passes any bytes, of any size, and keeps both streams apart."""
    data = os.urandom(30_000_000)
    done = await box.run(["sh", "-c", "cat; echo problem >&2; exit 5"], stdin=data)
    assert (done.stdout == data, done.stderr, done.exit_code, done.truncated) == (True, b"problem\n", 5, False)


async def test_run_is_bounded(box: Sandbox) -> None:
    """More output than wanted is dropped and said; time is up at its end."""
    done = await box.run(["head", "-c", "5000000", "/dev/zero"], max_output=1_000_000)
    assert (len(done.stdout), done.truncated) == (1_000_000, True)
    done = await box.run(["sh", "-c", "setsid sleep 987 & echo $! > pid; sleep 987"], timeout=0.3)
    assert done.timed_out
    assert (await box.bash("kill -0 $(cat pid) 2> /dev/null || echo gone")).output == "gone\n"


async def test_run_does_not_wait_for_what_is_left_behind(box: Sandbox) -> None:
    """A program is done when it ends, though a child of it holds its streams."""
    done = await box.run(["sh", "-c", "echo out; sleep 654 & echo $! > pid"], timeout=30)
    assert (done.stdout, done.timed_out) == (b"out\n", False)
    await box.bash("kill $(cat pid)")


async def test_run_says_what_cannot_be_started(box: Sandbox) -> None:
    """No such program, no such directory: exit status and a line."""
    assert (await box.run(["no-such-program"])).exit_code == 127
    done = await box.run(["true"], cwd="/workspace/no-such-directory")
    assert done.exit_code == 126
    assert b"no-such-directory" in done.stderr


async def test_run_ignores_unread_stdin(box: Sandbox) -> None:
    """A program may end without reading what it was given."""
    assert (await box.run(["true"], stdin=b"x" * 10_000_000)).exit_code == 0


async def test_files_are_put_inside(box: Sandbox, tmp_path: Path) -> None:
    """Bytes and files of any size, with mode and missing directories; a pipe in the way is replaced."""
    await box.bash("mkdir new; mkfifo new/b")
    await box.put_file("new/a/script", b"#!/bin/sh\necho hi\n", mode=0o755)
    large = tmp_path / "large"
    large.write_bytes(os.urandom(1 << 20) * 120)
    await box.put_file("/workspace/new/b", large)
    assert (await box.run(["new/a/script"])).stdout == b"hi\n"
    assert (await box.bash("stat -c %s,%a new/b")).output == f"{120 << 20},644\n"
    with pytest.raises(ToolError, match="could not be written"):
        await box.put_file("/proc/x", b"")


async def test_hundred_commands_leave_nothing(box: Sandbox) -> None:
    """The supervisor does not collect descriptors, files or processes."""
    for _ in range(100):
        await box.bash("true")
    await asyncio.gather(*(box.bash("true", fork=True) for _ in range(50)))
    if box.spec.mode == "bubblewrap":
        assert (await box.bash("ls /run/routines | wc -l")).output in ("1\n", "0\n")
        about = Path(f"/proc/self/fdinfo/{box._container._inner}").read_text()
        assert len(os.listdir(f"/proc/{about.partition('Pid:')[2].split()[0]}/fd")) < 20


async def test_a_forked_command_that_has_ended_is_not_said_to_run(box: Sandbox) -> None:
    """Its copy of the shell reports before it ends: that is nothing that the command left behind."""
    for _ in range(25):
        done = await asyncio.gather(*(box.bash("echo x", fork=True) for _ in range(8)))
        assert not any(one.still_running for one in done)
    assert (await box.bash("sleep 100 &", fork=True)).still_running


async def test_kill_everything_from_inside(tmp_path: Path) -> None:
    """`kill -9 -1` in a sandbox does not reach its supervisor."""
    async with await Sandbox.start(SandboxSpec(tmp_path)) as box:
        await box.bash("kill -9 -1")
        done = await box.bash("pkill -9 python3; kill -STOP 1; kill -9 1; echo fine")
        assert done.output == "fine\n"


async def test_a_workspace_that_grows_too_large(tmp_path: Path) -> None:
    """What fills the workspace is stopped with a clear message; tidying up stays possible."""
    spec = SandboxSpec(tmp_path, limits=Limits(workspace_mb=20))
    async with await Sandbox.start(spec) as box:
        with pytest.raises(ToolError, match="20 MB are allowed"):
            await box.bash("head -c 50000000 /dev/urandom > big; sleep 100")
        with pytest.raises(ToolError, match="the workspace is full"):
            await box.call("write", path="x", content="x")
        assert (await box.bash("rm big; echo tidy")).output == "tidy\n"


async def runs(box: Sandbox) -> bool:
    """Whether there is a process left to run something."""
    try:
        return (await box.run(["echo", "fine"])).stdout == b"fine\n"
    except ToolError as error:
        assert "Resource temporarily unavailable" in str(error)  # noqa: PT017 - both outcomes are looked at
        return False


async def test_out_of_processes_is_an_answer(tmp_path: Path) -> None:
    """With no process left a call fails with a line; the sandbox goes on."""
    fill = "import os, signal\nif not os.fork():\n    try:\n        while os.fork(): pass\n    except OSError: pass\n    signal.pause()"
    async with await Sandbox.start(SandboxSpec(tmp_path, limits=Limits(processes=20))) as box:
        await box.bash("true")
        assert (await box.run(["python3", "-c", fill])).exit_code == 0
        await box.bash("sleep 1000 &")  # in the place of the first one, which has ended
        while await runs(box):
            pass
        kill = "for p in /proc/[0-9]*; do p=${p#/proc/}; [[ $p == 1 || $p == $$ ]] || kill -9 $p; done"
        while not await runs(box):
            with contextlib.suppress(ToolError):  # there may be no process left for this either, until one has ended
                await box.bash(kill)


async def test_a_fork_bomb_ends_with_its_sandbox(tmp_path: Path) -> None:
    """It stays within its processes, and closing ends it."""
    box = await Sandbox.start(SandboxSpec(tmp_path, limits=Limits(processes=50)))
    done = await box.bash(":(){ :|:& };:", fork=True)
    assert done.exit_code is not None
    await box.close()


async def test_after_close_calls_are_refused(box: Sandbox) -> None:
    """A closed sandbox says so."""
    await box.close()
    await box.close()
    assert not box.alive
    with pytest.raises(SandboxLost, match="closed"):
        await box.bash("true")
