"""Repositories and what the host does with its bare mirrors of them: refresh, read, bundle, ask for push rights. No work tree."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from prefect_routines.errors import RepositoryError, SettingsError
from prefect_routines.workspace.git import GitError, git
from prefect_routines.workspace.mirrors import (
    NOT_THE_MIRROR,
    TRANSFER_SECONDS,
    distrust,
    fetch,
    locked,
    rebuild,
    scratch,
    stamp,
    sweep,
    whole,
)
from prefect_routines.workspace.remotes import Credential, Remote, access

SHA = re.compile(r"[0-9a-f]{40}\Z")
LOOKUP_SECONDS = 45.0


@dataclass(frozen=True)
class Repository:
    """A repository as this package works with it: the settings' one, with its credential loaded.

    Attributes:
        name: Directory in the workspace, and the name in errors.
        url: https, ssh or file URL, `git@host:path`, or a local path; never with a login in it.
        branch: Branch to start from; None is the remote's default branch.
        credential: What the host shows there.
    """

    name: str
    url: str
    branch: str | None = None
    credential: Credential | None = None

    def __post_init__(self) -> None:
        if self.name in {"", ".", ".."} or self.name.casefold() == ".git" or len(self.name.encode("utf-8", "replace")) > 100:
            raise SettingsError(f"{self.name!r} cannot name a directory of the workspace; set another name for the repository")
        if self.name.startswith("-") or "/" in self.name or not self.name.isprintable():
            raise SettingsError(f"{self.name!r} cannot name a directory of the workspace; set another name for the repository")
        _ = self.remote

    @property
    def remote(self) -> Remote:
        """The address, understood; SettingsError if it is none."""
        return Remote.parse(self.url)


@dataclass(frozen=True)
class Mirror:
    """The host's bare copy of a repository, as one session sees it.

    Attributes:
        repository: What it mirrors.
        path: The bare repository. Only functions of this package touch it.
        branch: The branch the session starts from.
        base_sha: Its commit when this mirror was refreshed; stays what it is when another session refreshes.
        default_branch: The remote's default branch.
        default_sha: Its commit.
    """

    repository: Repository
    path: Path
    branch: str
    base_sha: str
    default_branch: str
    default_sha: str


def explain(error: GitError, repository: Repository) -> RepositoryError:
    """The same failure in words that name a remedy."""
    text, where = error.stderr, repository.url  # as the author wrote it
    for pattern, message in _REMEDIES:
        if re.search(pattern, text, re.IGNORECASE):
            return RepositoryError(repository.name, message.format(url=where, line=str(error).partition(": ")[2]))
    return error


_REMEDIES = [
    (
        r"Host key verification failed",
        "the ssh host key of {url} is not known; add it to this worker's known_hosts: ssh-keyscan HOST >> ~/.ssh/known_hosts",
    ),
    (r"No space left on device|Disk quota exceeded", "the disk is full; free space, or move ROUTINES_HOME and ROUTINES_WORKSPACES"),
    (r"dubious ownership", "{url} belongs to another user of this machine; make it this worker's own (chown), or use a file server"),
    (
        r"could not read (Username|Password)|Authentication failed|Permission denied|error: 40[13]|marked as read only|Write access",
        "access to {url} was denied ({line}); set credentials=<block> to a token or key that is valid and may use this repository",
    ),
    (
        r"repository .*not found|does not appear to be a git repository|not a git repository|error: 404|Repository not found",
        "there is no repository at {url}, or this credential may not see it; check the URL and credentials=<block>",
    ),
    (
        r"Could not resolve|Failed to connect|Connection refused|timed out|did not end within|Network is unreachable|Operation too slow",
        "{url} cannot be reached from this machine ({line}); check the address, the network and the proxy settings",
    ),
    (r"mismatched algorithms|object format", "{url} uses SHA-256 object names, which is not supported; use a repository with SHA-1"),
]  # fmt: skip


async def refresh(mirror_root: Path, repository: Repository) -> Mirror:
    """Bring the host's mirror of a repository up to date; several sessions and processes may do so at once.

    Args:
        mirror_root: Directory of the mirrors: `config().home / "mirrors"`.
        repository: What to fetch: the wanted branch, the default branch and the tags on them.

    Raises:
        RepositoryError: It does not exist, is empty, cannot be reached, lets us not in, or lacks the branch.
    """
    remote, name = repository.remote, repository.name
    heads, default_branch = await look(repository)
    branch = repository.branch or default_branch
    if not heads:
        raise RepositoryError(name, f"{remote.public} has no commits yet; push a first one")
    if branch is None or default_branch is None:
        raise RepositoryError(name, f"{remote.public} has a default branch without commits; set branch= to one of: {_listed(heads)}")
    if branch not in heads:
        raise RepositoryError(name, f"{remote.public} has no branch {branch!r}; it has: {_listed(heads)}")
    mirror_root = mirror_root.absolute()
    path = mirror_root / hashlib.sha256(remote.url.encode()).hexdigest()[:24]
    try:
        mirror_root.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with locked(mirror_root / f"{path.name}.lock", name):
            sweep(mirror_root)
            if not whole(path):
                await rebuild(path, repository, {branch, default_branch})
            else:
                try:
                    await fetch(path, repository, {branch, default_branch})
                except GitError as error:
                    if NOT_THE_MIRROR.search(error.stderr):
                        raise
                    await rebuild(path, repository, {branch, default_branch})
            stamp(path)
            base_sha = await _sha_of(path, name, branch)
            default_sha = await _sha_of(path, name, default_branch)
    except GitError as error:
        raise explain(error, repository) from error
    except OSError as error:
        raise RepositoryError(
            name, f"its mirror in {mirror_root} cannot be used ({error.strerror or error}); check the disk, or set ROUTINES_HOME"
        ) from error
    return Mirror(repository, path, branch, base_sha, default_branch, default_sha)


def _listed(heads: dict[str, str]) -> str:
    return ", ".join(sorted(heads)[:8]) + (f" and {len(heads) - 8} more" if len(heads) > 8 else "")


async def look(repository: Repository) -> tuple[dict[str, str], str | None]:
    """The remote's branches with their commits, and its default branch, without using the mirror."""
    try:
        with access(repository.remote, repository.credential) as way:
            answer = await git(
                "ls-remote", "--symref", "--", repository.remote.url, "HEAD", "refs/heads/*",
                name=repository.name, access=way, timeout=LOOKUP_SECONDS,
            )  # fmt: skip
    except GitError as error:
        raise explain(error, repository) from error
    heads: dict[str, str] = {}
    default = head = None
    for line in answer.stdout.decode("utf-8", "replace").splitlines():
        value, _, ref = line.partition("\t")
        if value.startswith("ref: refs/heads/") and ref == "HEAD":
            default = value.removeprefix("ref: refs/heads/")
        elif ref == "HEAD":
            head = value
        elif ref.startswith("refs/heads/"):
            heads[ref.removeprefix("refs/heads/")] = value
    if default is None:  # an old server names no symbolic ref: the branch that stands where HEAD stands
        default = next((branch for branch, sha in sorted(heads.items()) if sha == head), None)
    return heads, default if default in heads else None


async def _sha_of(path: Path, name: str, branch: str) -> str:
    return (await git("rev-parse", "--verify", "--end-of-options", f"refs/heads/{branch}^{{commit}}", name=name, directory=path)).text


async def ensure_commit(mirror: Mirror, sha: str) -> None:
    """Have a commit in the mirror, for example one that this session pushed from another machine.

    Raises:
        RepositoryError: Neither the mirror nor the remote has it.
    """
    name = mirror.repository.name
    if not SHA.match(sha):
        raise RepositoryError(name, f"{sha[:60]!r} is not the full name of a commit")
    if (await git("cat-file", "-e", f"{sha}^{{commit}}", name=name, directory=mirror.path, check=False)).exit_code == 0:
        return
    try:
        with access(mirror.repository.remote, mirror.repository.credential) as way:
            await git(
                "fetch", "--quiet", "--no-write-fetch-head", "--no-tags", "--no-recurse-submodules", "--", mirror.repository.remote.url,
                f"{sha}:refs/routines/{sha}", name=name, directory=mirror.path, access=way, timeout=TRANSFER_SECONDS,
            )  # fmt: skip
    except GitError as error:
        raise RepositoryError(
            name, f"commit {sha} is neither on this machine nor at {mirror.repository.remote.public}; start a new session"
        ) from error


async def bundle(mirror: Mirror, destination: Path) -> None:
    """Write the session's branch at its base commit, with its full history and the tags on it, into a file for the sandbox.

    Raises:
        RepositoryError: The mirror is damaged (it is rebuilt at the next refresh) or the disk is full.
    """
    await write_bundle(mirror, mirror.path, {f"refs/heads/{mirror.branch}": mirror.base_sha}, destination)


async def write_bundle(mirror: Mirror, source: Path, refs: dict[str, str], destination: Path) -> None:
    """Bundle commits of `source` (the mirror, or a scratch repository of it) under the given ref names."""
    name = mirror.repository.name
    tags = await git(
        "for-each-ref", "--format=%(refname)%00%(objectname)", f"--merged={mirror.base_sha}", "refs/tags", name=name, directory=mirror.path
    )
    wanted = dict(line.split("\0") for line in tags.stdout.decode("utf-8", "surrogateescape").splitlines()) | refs
    try:
        # From a scratch repository: only there do the refs stay what they are while another session fetches.
        async with scratch(mirror.path, name) as clean:
            if source != mirror.path:
                with (clean / "objects/info/alternates").open("a") as alternates:
                    alternates.write(f"{source / 'objects'}\n")
            updates = "".join(f"create {ref}\0{sha}\0" for ref, sha in wanted.items())
            await git("update-ref", "-z", "--stdin", name=name, directory=clean, stdin=updates.encode("utf-8", "surrogateescape"))
            await git(
                "bundle", "create", "-q", "--version=2", str(destination.absolute()), "--all",
                name=name, directory=clean, timeout=TRANSFER_SECONDS,
            )  # fmt: skip
    except GitError as error:
        destination.unlink(missing_ok=True)
        if not NOT_THE_MIRROR.search(error.stderr):
            distrust(mirror.path)
        raise explain(error, mirror.repository) from error


async def read_file_at(mirror: Mirror, sha: str, path: str, max_bytes: int = 256 * 1024) -> bytes | None:
    """A file as it is in a commit, from the mirror: no filter, no text conversion, no link followed.

    Args:
        mirror: Where to read.
        sha: The commit, for instructions to the agent always `mirror.default_sha`: a branch may be a stranger's.
        path: From the root of the repository.
        max_bytes: The rest of a longer file is left out.

    Returns:
        Its bytes, or None if there is no regular file of that name.
    """
    name = mirror.repository.name
    listed = await git("--literal-pathspecs", "ls-tree", "-z", sha, "--", path, name=name, directory=mirror.path)
    for entry in listed.stdout.split(b"\0"):
        about, _, found = entry.partition(b"\t")
        if found == path.encode() and about.startswith((b"100644 ", b"100755 ")):
            blob = about.split(b" ")[2].decode()
            return (await git("cat-file", "blob", blob, name=name, directory=mirror.path, max_output=max_bytes, cut=True)).stdout
    return None


async def can_push(repository: Repository) -> None:
    """Ask the remote whether this credential may push, without changing anything there.

    Raises:
        RepositoryError: It may not; the message names the remedy.
    """
    remote, name = repository.remote, repository.name
    if remote.path is not None and not os.access(
        remote.path / ("objects" if (remote.path / "objects").is_dir() else ".git/objects"), os.W_OK
    ):
        raise RepositoryError(name, f"{remote.path} does not exist or cannot be written by this worker; check the path and its owner")
    try:
        with tempfile.TemporaryDirectory(prefix="routines-probe-") as directory, access(remote, repository.credential) as way:
            empty = Path(directory) / "git"
            await git("init", "-q", "--bare", "--template=", str(empty), name=name)
            tree = (await git("mktree", name=name, directory=empty)).text
            commit = await git(
                "hash-object", "-t", "commit", "-w", "--stdin", name=name, directory=empty, stdin=_PROBE.format(tree=tree).encode()
            )
            await git(
                "push", "--dry-run", "--quiet", "--no-verify", "--", remote.url,
                f"{commit.text}:refs/heads/claude/push-rights-{os.urandom(8).hex()}",
                name=name, directory=empty, access=way, timeout=LOOKUP_SECONDS,
            )  # fmt: skip
    except GitError as error:
        told = explain(error, repository)
        raise RepositoryError(name, f"no right to push: {str(told).partition(': ')[2]}") from error


_PROBE = "tree {tree}\nauthor Claude <noreply@anthropic.com> 0 +0000\ncommitter Claude <noreply@anthropic.com> 0 +0000\n\nprobe\n"
