"""Push one examined commit to one `claude/` branch that belongs to the session, exactly once."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from prefect_routines.errors import PushRefused, RepositoryError
from prefect_routines.workspace.candidate import Candidate, unpacked
from prefect_routines.workspace.git import GitError, git
from prefect_routines.workspace.guard import read_header
from prefect_routines.workspace.remotes import Credential, access
from prefect_routines.workspace.repositories import Mirror, Repository, ensure_commit, explain, write_bundle

_PUSH_SECONDS = 600.0
_LOOKUP_SECONDS = 45.0
_MAX_BUNDLE = 1024 * 1024 * 1024  # was bounded when it was examined


def branch_name(prefix_slug: str, session_id: str) -> str:
    """The branch of a session: `claude/<slug>-<suffix>`, the suffix being derived from the session's id.

    Example:
        >>> branch_name("Docs sync", "s1")
        'claude/docs-sync-d1dbc1c5f7'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", prefix_slug.lower()).strip("-")[:40].strip("-")
    return f"claude/{slug or 'session'}-{_suffix(session_id)}"


def check_branch(branch: str, session_id: str, default_branch: str) -> None:
    """Refuse every branch but the session's own and those that continue its name: `claude/<slug>-<suffix>-<something>`.

    Raises:
        PushRefused: It is another one; the text says which would do.
    """
    own = re.compile(rf"claude/[a-z0-9][a-z0-9-]{{0,39}}-{_suffix(session_id)}(-[A-Za-z0-9][A-Za-z0-9._-]{{0,60}})?\Z")
    # git-check-ref-format(1): no "..", no ".lock" or "." at the end.
    if not own.match(branch) or ".." in branch or branch.endswith((".lock", ".")) or branch == default_branch:
        raise PushRefused(
            f"{branch[:100]!r} is not a branch of this session; push to {branch_name('work', session_id)!r}, to the branch named before, "
            "or to that name with '-something' appended"
        )


def session_of_branch(branch: str, session_ids: Iterable[str]) -> str | None:
    """The session to which a branch belongs by its name; None if it is none of these."""
    suffixes = {_suffix(session_id): session_id for session_id in session_ids}
    return next((session for suffix, session in suffixes.items() if f"-{suffix}" in branch), None)


def _suffix(session_id: str) -> str:
    return hashlib.sha256(session_id.encode()).hexdigest()[:10]


async def remote_sha(repository: Repository, branch: str, *, credential: Credential | None = None) -> str | None:
    """The commit a branch is at, at the remote now; None if there is no such branch.

    Raises:
        RepositoryError: The remote cannot be asked.
    """
    ref = f"refs/heads/{branch}"
    try:
        with access(repository.remote, credential or repository.credential) as way:
            answer = await git("ls-remote", "--", repository.remote.url, ref, name=repository.name, access=way, timeout=_LOOKUP_SECONDS)
    except GitError as error:
        raise explain(error, repository) from error
    # ls-remote matches patterns from the end of a name: only the exact one counts.
    return next(
        (line.split("\t")[0] for line in answer.stdout.decode("utf-8", "replace").splitlines() if line.split("\t")[1:] == [ref]), None
    )


async def push(
    mirror: Mirror, candidate: Candidate, branch: str, *, credential: Credential | None = None, expected: str | None = None
) -> None:
    """Push a candidate. Done once or not at all: after a crash, call it again.

    Args:
        mirror: Where the candidate was examined.
        candidate: What `examine` returned.
        branch: The session's branch (`branch_name`).
        credential: Shown at the remote instead of the repository's own.
        expected: The commit the branch must be at now; None: it must not exist.

    Raises:
        PushRefused: The branch is not the session's, is elsewhere than expected, or the remote's rules refuse the commits.
        RepositoryError: The remote cannot be reached, or the credential may not push.
    """
    repository = mirror.repository
    check_branch(branch, candidate.session_id, mirror.default_branch)
    known = [sha for sha in (candidate.base_sha, candidate.last_pushed) if sha]
    for sha in [*known, *([expected] if expected else [])]:
        await ensure_commit(mirror, sha)
    async with unpacked(mirror, candidate.bundle, read_header(candidate.bundle), known, _MAX_BUNDLE) as clean:
        # A lease alone allows any history: that it only grows is checked here.
        if (
            expected
            and (await git("merge-base", expected, candidate.sha, name=repository.name, directory=clean, check=False)).text != expected
        ):
            raise PushRefused(
                f"{branch} is at {expected[:12]}, which {candidate.sha[:12]} does not continue; rebase on it: history is never rewritten"
            )
        try:
            with access(repository.remote, credential or repository.credential) as way:
                await git(
                    "push", "--quiet", "--no-verify", "--no-follow-tags", "--no-signed", "--recurse-submodules=no",
                    f"--force-with-lease=refs/heads/{branch}:{expected or ''}",
                    "--", repository.remote.url, f"{candidate.sha}:refs/heads/{branch}",
                    name=repository.name, directory=clean, access=way, timeout=_PUSH_SECONDS,
                )  # fmt: skip
        except GitError as error:
            await _settle(error, repository, candidate, branch, credential)
    with contextlib.suppress(RepositoryError):  # it is pushed: what is not kept here can be fetched again
        await keep(mirror, candidate)


async def _settle(error: GitError, repository: Repository, candidate: Candidate, branch: str, credential: Credential | None) -> None:
    """Find out what a failed push means: it may have arrived, now or before a crash."""
    try:
        there = await remote_sha(repository, branch, credential=credential)
    except RepositoryError:
        raise explain(error, repository) from error
    if there == candidate.sha:
        return
    if "stale info" in error.stderr or "fetch first" in error.stderr or "already exists" in error.stderr:
        where = (
            f"is at {there[:12]} at the remote, which this session did not push" if there else "is gone at the remote: somebody deleted it"
        )
        raise PushRefused(
            f"{branch} {where}; nothing was overwritten. Push to a new branch ('{branch}-2') and say so in the report"
        ) from error
    if declined := re.search(r"! \[remote rejected\].*\((?P<why>.*)\)", error.stderr):
        told = "; ".join(line.removeprefix("remote: ").strip() for line in error.stderr.splitlines() if line.startswith("remote: "))
        told = "".join(c for c in told if c.isprintable())[:500]
        raise PushRefused(
            f"the remote refused {branch} ({declined['why']}{': ' + told if told else ''}); change the commits accordingly"
        ) from error
    raise explain(error, repository) from error


async def keep(mirror: Mirror, candidate: Candidate) -> None:
    """Have a candidate in the mirror, so that later bundles may build on it: `push` does it, a rehearsal must do it itself.

    Raises:
        RepositoryError: The mirror cannot be written.
    """
    name = mirror.repository.name
    pack = candidate.bundle[read_header(candidate.bundle).pack_at :]
    await git("index-pack", "--stdin", "--fix-thin", name=name, directory=mirror.path, stdin=pack)
    await git("update-ref", f"refs/routines/{candidate.sha}", candidate.sha, name=name, directory=mirror.path)


async def checkout_bundle(mirror: Mirror, commit: Candidate | str, destination: Path) -> None:
    """Bundle exactly one commit with its history, for a fresh checkout in a fresh sandbox (`clones.clone_commit_into`).

    Args:
        mirror: The repository.
        commit: A candidate that is not pushed yet, or the full name of a commit that the mirror has.
        destination: The file to write.

    Raises:
        RepositoryError: The mirror has no such commit, or the disk is full.
    """
    if isinstance(commit, str):
        await ensure_commit(mirror, commit)
        await write_bundle(mirror, mirror.path, {"refs/heads/candidate": commit}, destination)
        return
    known = [sha for sha in (commit.base_sha, commit.last_pushed) if sha]
    async with unpacked(mirror, commit.bundle, read_header(commit.bundle), known, _MAX_BUNDLE) as clean:
        await write_bundle(mirror, clean, {"refs/heads/candidate": commit.sha, f"refs/heads/{mirror.branch}": commit.base_sha}, destination)
