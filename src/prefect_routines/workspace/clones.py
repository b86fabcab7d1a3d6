"""Clones inside the sandbox: made there from a bundle, and given back as a bundle. The host's git never enters them."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prefect_routines.config import config
from prefect_routines.errors import PushRefused, RepositoryError, SettingsError
from prefect_routines.workspace.git import last_line
from prefect_routines.workspace.repositories import Mirror

TRAILER = "Routine-Session"
SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_CLONE = ("--quiet", "--no-recurse-submodules", "--template=")
_CLONE_SECONDS = 900.0
_MIB = 1024 * 1024

# A forge's large files are not in the bundle, and there is no network to get them: their pointers are checked out instead.
_ENVIRONMENT = {"GIT_LFS_SKIP_SMUDGE": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}


class RunResult(Protocol):
    """What a command in the sandbox left behind. All of it is hostile."""

    @property
    def exit_code(self) -> int: ...
    @property
    def stdout(self) -> bytes: ...
    @property
    def stderr(self) -> bytes: ...
    @property
    def truncated(self) -> bool: ...
    @property
    def timed_out(self) -> bool: ...


class Box(Protocol):
    """The part of a sandbox that clones need."""

    async def run(
        self,
        argv: Sequence[str],
        *,
        cwd: str = "/workspace",
        environment: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout: float = 120.0,
        max_output: int = _MIB,
    ) -> RunResult:
        """Run a command; times in seconds, `max_output` in bytes."""

    async def put_file(self, path: str, data: bytes | Path) -> None:
        """Write a file inside."""


@dataclass(frozen=True)
class Identity:
    """Author and committer of the agent's commits."""

    name: str = "Claude"
    email: str = "noreply@anthropic.com"

    def __post_init__(self) -> None:
        if any(not text or not text.isprintable() or set(text) & set("<>") for text in (self.name, self.email)):
            raise SettingsError(f"{self.name!r} <{self.email!r}> cannot be the author of commits; use plain text without < and >")


CLAUDE = Identity()


@dataclass(frozen=True)
class Taken:
    """What came out of the sandbox: hostile until `guard.examine` has seen it.

    Attributes:
        bundle: The commits that are not pushed yet.
        uncommitted: Changes that are in no commit, as `git status --porcelain` names them (at most 50), to tell Claude.
    """

    bundle: bytes
    uncommitted: tuple[str, ...] = ()


async def clone_into(box: Box, mirror: Mirror, bundle: Path, name: str, *, identity: Identity = CLAUDE) -> None:
    """Clone a bundle to `/workspace/NAME`, inside the sandbox.

    The branch is checked out and follows `origin/BRANCH`; `origin` is the public address, from which nothing can be fetched.

    Args:
        box: The sandbox.
        mirror: Where the bundle comes from.
        bundle: The file that `repositories.bundle` wrote.
        name: Directory under `/workspace`.
        identity: Author of the commits made there.

    Raises:
        RepositoryError: The clone failed, for example because the disk is full.
    """
    inside = f".routines-{secrets.token_hex(6)}.bundle"
    await box.put_file(f"/workspace/{inside}", bundle)
    try:
        await _git(box, name, "clone", *_CLONE, "--branch", mirror.branch, "--", inside, f"./{name}")
    finally:
        await box.run(["rm", "-f", inside])
    for option, value in {
        "remote.origin.url": mirror.repository.remote.public,
        "user.name": identity.name,
        "user.email": identity.email,
    }.items():
        await _git(box, name, "config", option, value, cwd=f"/workspace/{name}")
    head = (await _git(box, name, "rev-parse", "HEAD", cwd=f"/workspace/{name}")).stdout.strip()
    if head != mirror.base_sha.encode():
        raise RepositoryError(
            name, f"the clone is at {head.decode(errors='replace')[:40]} and not at {mirror.base_sha}; start the session again"
        )


async def clone_commit_into(box: Box, bundle: Path, name: str, sha: str) -> None:
    """Check out exactly one commit of a bundle (`push.checkout_bundle`) at `/workspace/NAME` of a fresh sandbox.

    Raises:
        RepositoryError: It failed.
    """
    inside = f".routines-{secrets.token_hex(6)}.bundle"
    await box.put_file(f"/workspace/{inside}", bundle)
    try:
        await _git(box, name, "clone", *_CLONE, "--no-checkout", "--", inside, f"./{name}")
    finally:
        await box.run(["rm", "-f", inside])
    await _git(box, name, "checkout", "--quiet", "--detach", sha, cwd=f"/workspace/{name}")


async def install_trailer(box: Box, name: str, session_id: str) -> None:
    """Have git add `Routine-Session: ID` to each commit made in the clone, and where it may be told the address of the session's page.

    `prepare-commit-msg` and not `commit-msg`: `--no-verify` does not skip it. In the clone's own `.git/hooks` and not through
    `core.hooksPath`, so that a repository's own hook tools (pre-commit, husky) work; whoever turns it off learns it from `examine`.

    Raises:
        RepositoryError: It could not be written.
    """
    if not SESSION_ID.match(session_id):
        raise SettingsError(f"{session_id[:60]!r} is not the id of a session")
    page = config().public_session_page(session_id)
    lines = [f"{TRAILER}: {session_id}", *([f"{TRAILER}-Page: {page}"] if page else [])]
    trailers = " ".join(f"--trailer {shlex.quote(line)}" for line in lines)
    # The path may be given relative to the work tree or absolute; git starts hooks at the top of the work tree.
    hook = f'#!/bin/sh\nexec git interpret-trailers --in-place --if-exists addIfDifferent {trailers} "$1"\n'
    script = (
        'cd "$(git rev-parse --git-common-dir)" && mkdir -p hooks && cd hooks && cat > prepare-commit-msg && '
        "chmod +x prepare-commit-msg && cp -p prepare-commit-msg applypatch-msg"
    )
    result = await box.run(["sh", "-c", script], cwd=f"/workspace/{name}", environment=_ENVIRONMENT, stdin=hook.encode())
    if result.exit_code:
        raise RepositoryError(name, f"the commit hook could not be written in the sandbox: {_said(result)}")


async def take_bundle(box: Box, name: str, base_sha: str, last_pushed: str | None = None, *, max_bytes: int = 64 * _MIB) -> Taken:
    """Take the commits of `HEAD` out of the sandbox.

    Args:
        box: The sandbox.
        name: Directory under `/workspace`.
        base_sha: The commit the session started from.
        last_pushed: The commit this session pushed last.
        max_bytes: A longer bundle is refused.

    Raises:
        PushRefused: There is nothing to push, or git in the sandbox fails; the text says what to do.
    """
    cwd = f"/workspace/{name}"
    known = [sha for sha in (base_sha, last_pushed) if sha]
    head = await box.run(["git", "rev-parse", "--verify", "HEAD^{commit}"], cwd=cwd, environment=_ENVIRONMENT)
    if head.exit_code:
        raise PushRefused(f"{cwd} has no commit at HEAD ({_said(head)}); commit your work first")
    status = await box.run(
        ["git", "status", "--porcelain", "--untracked-files=normal"], cwd=cwd, environment=_ENVIRONMENT, max_output=256 * 1024
    )
    changes = tuple(_plain(line) for line in status.stdout.splitlines()[:50]) if status.exit_code == 0 else ()
    if head.stdout.strip().decode("ascii", "replace") in known:
        left = f"; {len(changes)} changed files are in no commit: {', '.join(change[3:] for change in changes[:5])}" if changes else ""
        raise PushRefused(
            f"there is nothing new to push: HEAD of {name} is {known[-1][:12]}, which is at the remote already{left}. Commit first"
        )
    result = await box.run(
        ["git", "bundle", "create", "-q", "--version=2", "-", "HEAD", *(f"^{sha}" for sha in known), "--"],
        cwd=cwd, environment=_ENVIRONMENT, timeout=300.0, max_output=max_bytes,
    )  # fmt: skip
    if result.truncated:
        raise PushRefused(f"the new commits of {name} are larger than {max_bytes // _MIB} MiB; remove large files from every new commit")
    if result.exit_code:
        raise PushRefused(f"git could not bundle the commits of {name}: {_said(result)}")
    return Taken(result.stdout, changes)


async def _git(box: Box, name: str, *arguments: str, cwd: str = "/workspace") -> RunResult:
    result = await box.run(["git", *arguments], cwd=cwd, environment=_ENVIRONMENT, timeout=_CLONE_SECONDS)
    if result.exit_code or result.timed_out:
        raise RepositoryError(name, f"git {arguments[0]} failed in the sandbox: {_said(result)}")
    return result


def _said(result: RunResult) -> str:
    if result.timed_out:
        return "it took too long"
    return last_line(result.stderr.decode("utf-8", "replace")) or f"exit code {result.exit_code}"


def _plain(line: bytes) -> str:
    return "".join(c if c.isprintable() else "?" for c in line.decode("utf-8", "replace"))[:300]
