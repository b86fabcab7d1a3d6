"""`routines sandbox`: a command as a session's bash would run it."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest

from .terminal import Terminal


@pytest.fixture
def box(terminal: Terminal) -> Path:
    """A directory to work in."""
    directory = terminal.directory / "box"
    directory.mkdir()
    (directory / "given.txt").write_text("given\n")
    return directory


def test_output_and_status_are_passed_on(terminal: Terminal, box: Path) -> None:
    """stdout and stderr come through apart, the exit status is the command's, DIR is /workspace."""
    done = terminal.run("sandbox", "box", "--", "bash", "-c", "pwd; cat given.txt; echo wrong >&2; exit 7")
    assert (done.status, done.out, done.err) == (7, "/workspace\ngiven\n", "wrong\n")


def test_bytes_are_exact_however_many(terminal: Terminal, box: Path) -> None:
    """Binary output of 100 MB arrives as it was written."""
    with terminal.start("sandbox", "box", "--", "head", "-c", "100000000", "/dev/zero") as process:
        assert process.stdout is not None
        digest = hashlib.sha256()
        while chunk := process.stdout.buffer.read(1 << 20):
            digest.update(chunk)
    assert process.returncode == 0
    assert digest.digest() == hashlib.sha256(bytes(100_000_000)).digest()


def test_output_comes_while_the_command_runs(terminal: Terminal, box: Path) -> None:
    """A line is there before the command has ended; stopping ends the command, and DIR belongs to its owner again."""
    with terminal.start("sandbox", "box", "--", "bash", "-c", "touch made; echo first; sleep 3117") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    assert not _running("sleep\x003117")
    assert {(box / name).stat().st_uid for name in ("made", "given.txt")} == {os.getuid()}


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["no-such-program"], 127),
        (["/workspace/given.txt"], 126),
        (["bash", "-c", "kill -9 $$"], 137),
        (["cd", "/tmp"], 0),
    ],
)
def test_the_status_tells_what_became_of_the_command(terminal: Terminal, box: Path, command: list[str], status: int) -> None:
    """Statuses are those of a shell, also for what cannot be run; a shell's own commands work."""
    assert terminal.run("sandbox", "box", "--", *command).status == status


def test_time_is_limited(terminal: Terminal, box: Path) -> None:
    """After the timeout the command is killed, and the status is timeout(1)'s."""
    done = terminal.run("sandbox", "--timeout", "0.5", "box", "--", "bash", "-c", "echo begun; sleep 3118")
    assert (done.status, done.out) == (124, "begun\n")
    assert "stopped after 0.5 s" in done.err


def test_it_is_the_sandbox_of_a_session(terminal: Terminal, box: Path) -> None:
    """No secrets of the caller, no network, its own user; the settings' environment is there."""
    (terminal.directory / "settings.yaml").write_text("environment: {COLOUR: green}\n")
    probe = "echo $COLOUR; id -u; env | grep -c SECRET; (exec 3<>/dev/tcp/127.0.0.1/22) 2>/dev/null || echo closed"
    done = terminal.run("sandbox", "--settings", "settings.yaml", "box", "--", "bash", "-c", probe, MY_SECRET="x")
    assert done.out.split() == ["green", "1000", "0", "closed"]


def test_a_setup_script_is_run_before(terminal: Terminal, box: Path) -> None:
    """What the script installs is on the PATH; a script that fails is told, with the status of a sandbox that is not there."""
    install = "mkdir -p /opt/setup/bin\nprintf 'echo tool works' > /opt/setup/bin/tool\nchmod +x /opt/setup/bin/tool\n"
    (terminal.directory / "setup.sh").write_text(install)
    done = terminal.run("sandbox", "--setup", "setup.sh", "box", "--", "tool")
    assert (done.status, done.out) == (0, "tool works\n")
    (terminal.directory / "broken.sh").write_text("echo that is why >&2\nexit 3\n")
    broken = terminal.run("sandbox", "--setup", "broken.sh", "box", "--", "tool")
    assert broken.status == 125
    assert "that is why" in broken.err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nowhere", "--", "true"], 2, "nowhere: there is no such directory"),
        (["--settings", "nowhere.yaml", "box", "--", "true"], 2, "nowhere.yaml: No such file"),
        (["--setup", "nowhere.sh", "box", "--", "true"], 2, "nowhere.sh: No such file"),
        (["--network", "http://x", "box", "--", "true"], 2, "network"),
    ],
)
def test_mistakes_are_told_in_one_line(terminal: Terminal, box: Path, arguments: list[str], status: int, said: str) -> None:
    """What is wrong with the command line has exit status 2 and names it."""
    done = terminal.run("sandbox", *arguments)
    assert done.status == status
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_a_machine_without_bubblewrap_is_told_the_remedy(terminal: Terminal, box: Path) -> None:
    """Without bubblewrap nothing runs unprotected; the remedy is named and the status is that of a sandbox that cannot be built."""
    done = terminal.run("sandbox", "box", "--", "touch", "made", PATH=str(terminal.directory))
    assert done.status == 125
    assert "apt-get install bubblewrap" in done.err
    assert not (box / "made").exists()


def _running(command: str) -> bool:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_text(errors="replace"))
        except OSError:
            continue
    return any(command in line for line in found)
