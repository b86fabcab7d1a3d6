"""The host's git: a clean environment, bounds, nothing left behind, and one line that says why."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from prefect_routines.workspace.git import Access, GitError, Limits, environment, git, last_line, redact
from waiting import until_async


@pytest.fixture
async def repository(tmp_path: Path) -> Path:
    path = tmp_path / "a b.git"
    await git("init", "-q", "--bare", "--template=", str(path), name="docs")
    return path


async def test_the_users_and_the_systems_configuration_do_not_count(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = repository.parent
    (home / ".gitconfig").write_text("[user]\n\tname = Somebody\n[alias]\n\thello = !echo hello\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", "/somewhere/else")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'user.name=Another'")
    assert (await git("config", "user.name", name="docs", directory=repository, check=False)).stdout == b""
    with pytest.raises(GitError, match="git hello"):
        await git("hello", name="docs", directory=repository)
    assert not {"GIT_DIR", "GIT_CONFIG_PARAMETERS"} & set(environment())


async def test_the_workers_secrets_do_not_reach_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    assert "secret" not in environment().values()


async def test_hooks_of_a_repository_do_not_run(repository: Path) -> None:
    hook = repository / "hooks/reference-transaction"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {repository}/ran\n")
    hook.chmod(0o755)
    blob = (await git("hash-object", "-w", "--stdin", name="docs", directory=repository, stdin=b"x")).text
    await git("update-ref", "refs/x", blob, name="docs", directory=repository)
    assert not (repository / "ran").exists()


@pytest.mark.parametrize("url", ["ext::sh -c true", "https://example.org/x", "/etc"])
async def test_a_command_without_access_reaches_no_remote(url: str) -> None:
    with pytest.raises(GitError, match="not allowed"):
        await git("ls-remote", "--", url, name="docs")


async def test_ext_is_never_allowed() -> None:
    with pytest.raises(GitError, match="not allowed"):
        await git("ls-remote", "--", "ext::sh -c true", name="docs", access=Access("file"))


async def test_an_error_is_gits_own_line(repository: Path) -> None:
    with pytest.raises(GitError, match=r"repository docs: git rev-parse: fatal: Needed a single revision") as caught:
        await git("rev-parse", "--verify", "nope", name="docs", directory=repository)
    assert caught.value.exit_code == 128


def _alive(marker: str) -> bool:
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdigit()
                and marker.encode() in (entry / "cmdline").read_bytes()
                and b"Z" not in (entry / "stat").read_bytes().split()[2]
            ):
                return True
        except OSError:
            continue
    return False


def _slow(marker: str) -> dict[str, str]:
    return {f"alias.{marker}": f"!sleep 60; true {marker}"}


async def test_a_command_that_takes_too_long_is_stopped_with_its_children() -> None:
    started = time.monotonic()
    with pytest.raises(GitError, match=r"did not end within 0\.3 s"):
        await git("slow4711", name="docs", access=Access(environment=_slow("slow4711")), timeout=0.3)
    assert time.monotonic() - started < 10
    assert not _alive("true slow4711")


async def test_a_cancelled_command_leaves_no_process() -> None:
    task = asyncio.create_task(git("slow4712", name="docs", access=Access(environment=_slow("slow4712"))))
    await until_async(lambda: _alive("true slow4712"), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not _alive("true slow4712")


async def test_endless_output_is_an_error_or_cut() -> None:
    endless = Access(environment={"alias.endless": "!yes"})
    with pytest.raises(GitError, match="wrote more than 1000 bytes"):
        await git("endless", name="docs", access=endless, max_output=1000)
    result = await git("endless", name="docs", access=endless, max_output=1000, cut=True)
    assert len(result.stdout) == 1000
    assert result.truncated


async def test_input_that_nobody_reads_does_not_block(repository: Path) -> None:
    await git("rev-parse", "--git-dir", name="docs", directory=repository, stdin=b"x" * 5_000_000)


async def test_limits_hold(repository: Path) -> None:
    zeros, noise = b"\0" * 80_000_000, os.urandom(3_000_000)
    with pytest.raises(GitError):
        await git("hash-object", "-w", "--stdin", name="docs", directory=repository, stdin=noise, limits=Limits(file_size=1_000_000))
    with pytest.raises(GitError):
        await git("hash-object", "--stdin", name="docs", directory=repository, stdin=zeros, limits=Limits(memory=40_000_000))


def test_secrets_and_logins_are_taken_out() -> None:
    assert redact("fatal: https://u:abc@h/x and abc", ["abc", ""]) == "fatal: https://***@h/x and ***"


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        ("hint: x\nfatal: bad\n", "fatal: bad"),
        ("Host key verification failed.\nfatal: Could not read from remote repository.\n\nand the repository exists.\n", "Host key"),
        ("remote: no\nfatal: worse\nerror: worst \x1b[31mred\x07\n", "error: worst [31mred"),
        ("", ""),
    ],
)
def test_the_telling_line_is_found(stderr: str, line: str) -> None:
    assert last_line(stderr).startswith(line)
