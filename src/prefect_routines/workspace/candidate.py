"""Examine what came out of a sandbox: every commit of a hostile bundle, in a clean bare repository that is gone afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prefect_routines.errors import PushRefused, RepositoryError
from prefect_routines.secret_shapes import find_secrets
from prefect_routines.workspace.git import HOSTILE, MIB, GitError, Limits, git
from prefect_routines.workspace.guard import (
    Change,
    Header,
    PushRules,
    check_change,
    check_commit,
    check_link,
    check_modes,
    matches,
    read_changes,
    read_header,
)
from prefect_routines.workspace.mirrors import scratch
from prefect_routines.workspace.repositories import Mirror, ensure_commit

_MAX_DIFF = 512 * 1024
# git lists all changes in memory before it writes the first: a few trees that contain each other many times are billions of paths.
_DIFF_LIMITS = Limits(memory=1024 * MIB, cpu=30)
_NO_CODE = ("--no-ext-diff", "--no-textconv", "--no-color")


@dataclass(frozen=True)
class Commit:
    """One new commit."""

    sha: str
    subject: str


@dataclass(frozen=True)
class Candidate:
    """Commits that passed every rule and may be pushed. A value: it holds its bundle and needs nothing else but the mirror.

    Attributes:
        sha: The commit to push.
        base_sha: The commit the session started from.
        last_pushed: The commit this session pushed last.
        session_id: The session whose commits these are.
        commits: All commits after `base_sha`, oldest first.
        files: Paths they change.
        diffstat: `git diff --stat` from base to tip.
        diff: The same as a patch, at most 512 KiB. Its text is the agent's: show it as plain text.
        diff_truncated: Whether the patch is longer.
        bundle: The bytes that were examined.
    """

    sha: str
    base_sha: str
    last_pushed: str | None
    session_id: str
    commits: tuple[Commit, ...]
    files: tuple[str, ...]
    diffstat: str
    diff: str = field(repr=False)
    diff_truncated: bool = False
    bundle: bytes = field(default=b"", repr=False)


async def examine(
    mirror: Mirror,
    bundle: bytes,
    *,
    base_sha: str,
    session_id: str,
    last_pushed: str | None = None,
    rules: PushRules,
    parents: Sequence[str] = (),
) -> Candidate:
    """Look at every commit of a bundle that a sandbox wrote. Nothing of it stays, in the mirror or elsewhere, unless it is pushed.

    Args:
        mirror: The repository it belongs to.
        bundle: `Taken.bundle`.
        base_sha: The commit the session started from.
        session_id: Every new commit must name it in its trailer.
        last_pushed: The commit the session pushed last, if it did.
        rules: What the push may contain.
        parents: The sessions that this one was forked from; a commit may name one of these instead.

    Raises:
        PushRefused: A rule is broken; the text says which, where, and what to change.
        RepositoryError: The mirror cannot be used.

    Example:
        >>> candidate = await examine(mirror, taken.bundle, base_sha=mirror.base_sha, session_id="s1", rules=PushRules())  # doctest: +SKIP
    """
    if len(bundle) > rules.max_bytes:
        raise PushRefused(f"the new commits are larger than {rules.max_bytes // MIB} MiB; remove large files from every new commit")
    header = read_header(bundle)
    known = list(dict.fromkeys(sha for sha in (base_sha, last_pushed) if sha))
    if header.tip in known:
        raise PushRefused(f"there is nothing new to push: HEAD is {header.tip[:12]}, which is at the remote already; commit first")
    for sha in known:
        await ensure_commit(mirror, sha)
    async with unpacked(mirror, bundle, header, known, rules.max_bytes) as clean:
        look = _Look(mirror.repository.name, clean, header.tip, base_sha, known)
        try:
            return await _judge(look, bundle, session_id, last_pushed, rules, parents)
        except GitError as error:
            raise PushRefused(
                f"the new commits cannot be examined: {error}; make them smaller or rebuild them on {base_sha[:12]}"
            ) from error


@asynccontextmanager
async def unpacked(mirror: Mirror, bundle: bytes, header: Header, known: list[str], max_bytes: int) -> AsyncIterator[Path]:
    """A clean bare repository with the bundle's objects, each checked by `--strict`: git's fetch would not do that for a bundle."""
    name = mirror.repository.name
    async with scratch(mirror.path, name) as clean:
        for needed in header.needs - set(known):
            # A branch may start before the base; but what it starts from must be part of it.
            inside = await git("merge-base", "--is-ancestor", needed, known[0], name=name, directory=clean, check=False)
            if inside.exit_code:
                raise PushRefused(
                    f"the new commits build on {needed[:12]}, which is not part of {known[0][:12]}; rebase them on that commit"
                )
        try:
            await git(
                "index-pack", "--stdin", "--fix-thin", "--strict", f"--max-input-size={max_bytes}",
                name=name, directory=clean, stdin=bundle[header.pack_at :], limits=HOSTILE,
            )  # fmt: skip
        except GitError as error:
            if "No space left" in error.stderr:
                raise RepositoryError(name, "the disk is full; free space, or move ROUTINES_HOME and ROUTINES_WORKSPACES") from error
            raise PushRefused(
                f"git does not accept the new objects ({str(error).partition(': ')[2]}); check them with git fsck --strict"
            ) from error
        yield clean


@dataclass(frozen=True)
class _Look:
    name: str
    directory: Path
    tip: str
    base: str
    known: list[str]

    async def git(self, *arguments: str, lines: Iterable[str] = (), max_output: int = 64 * MIB, limits: Limits = HOSTILE) -> bytes:
        stdin = "".join(f"{line}\n" for line in lines).encode()
        return (await git(*arguments, name=self.name, directory=self.directory, stdin=stdin, limits=limits, max_output=max_output)).stdout

    async def objects(self, shas: Iterable[str], max_output: int) -> dict[str, bytes]:
        """Whole objects by name."""
        wanted = sorted(set(shas))
        raw = await self.git("cat-file", "--batch", "--buffer", lines=wanted, max_output=max_output + 100 * len(wanted)) if wanted else b""
        found, at = {}, 0
        while at < len(raw):
            sha, _, size = raw[at : (end := raw.index(b"\n", at))].decode().split(" ")
            found[sha] = raw[end + 1 : end + 1 + int(size)]
            at = end + int(size) + 2
        return found

    async def kinds(self, shas: Iterable[str]) -> dict[str, tuple[str, int]]:
        """Type and size of each object."""
        raw = await self.git("cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize)", "--buffer", lines=shas)
        return {sha: (kind, int(size)) for sha, kind, size in (line.split(" ") for line in raw.decode().splitlines())}


async def _judge(
    look: _Look, bundle: bytes, session_id: str, last_pushed: str | None, rules: PushRules, parents: Sequence[str]
) -> Candidate:
    if (await look.git("cat-file", "-t", look.tip)).strip() != b"commit":
        raise PushRefused("HEAD is not a commit; check out a branch with your commits")
    # Lists what is new, and fails if anything of it is missing.
    new = (await look.git("rev-list", "--objects", "--no-object-names", look.tip, f"^{look.base}")).decode().split()
    kinds = await look.kinds(new)
    if sum(size for _, size in kinds.values()) > rules.max_bytes:
        raise PushRefused(
            f"the new commits are larger than {rules.max_bytes // MIB} MiB unpacked; remove large files from every new commit"
        )
    for sha in look.known:
        if await look.git("rev-list", "--max-count=1", sha, f"^{look.tip}"):
            raise PushRefused(
                f"the new commits do not continue {sha[:12]}; rebase them on that commit (git rebase {sha[:12]}), pushed history stays"
            )
    commits = (await look.git("rev-list", "--topo-order", "--reverse", look.tip, f"^{look.base}")).decode().split()
    if len(commits) > rules.max_commits:
        raise PushRefused(f"{len(commits)} new commits, at most {rules.max_commits} may be pushed; squash them")
    raw_commits = await look.objects(commits, rules.max_bytes)
    listed = [Commit(sha, check_commit(sha, raw_commits[sha], session_id, last_pushed or look.base, parents)) for sha in commits]
    for sha in commits:
        for secret in find_secrets(raw_commits[sha].decode("utf-8", "replace")).values():
            raise PushRefused(f"commit {sha[:12]}: its message contains {secret}; write it again without")
    trees = await look.objects((sha for sha, (kind, _) in kinds.items() if kind == "tree"), rules.max_bytes)
    for tree in trees.values():
        check_modes(tree)
    # Each commit against each of its parents, not the net difference: what is added and removed again is in the history too.
    raw = await look.git(
        "diff-tree", "--stdin", "-r", "-z", "-m", "--root", "--raw", "--no-abbrev", "--no-renames", *_NO_CODE,
        lines=commits, max_output=16 * MIB, limits=_DIFF_LIMITS,
    )  # fmt: skip
    changes = read_changes(raw)
    for change in changes:
        check_change(change, rules)
    files = sorted({change.path for change in changes})
    if len(files) > rules.max_files:
        raise PushRefused(f"{len(files)} files are changed, at most {rules.max_files} may be; split the work or leave generated files out")
    await _check_contents(look, changes, set(kinds), rules)
    stat = await look.git("diff", "--stat=100", "-M", *_NO_CODE, look.base, look.tip, "--")
    diff = await git(
        "diff", "-M", *_NO_CODE, look.base, look.tip, "--",
        name=look.name, directory=look.directory, limits=HOSTILE, max_output=_MAX_DIFF, cut=True,
    )  # fmt: skip
    return Candidate(
        look.tip, look.base, last_pushed, session_id, tuple(listed), tuple(files),
        stat.decode("utf-8", "replace"), diff.stdout.decode("utf-8", "replace"), diff.truncated, bundle,
    )  # fmt: skip


async def _check_contents(look: _Look, changes: list[Change], new: set[str], rules: PushRules) -> None:
    """Links and secrets. Only what is new is read; a token that was in the file before is not this push's."""
    links = [change for change in changes if change.new_mode == b"120000"]
    targets = await look.objects((link.new_sha for link in links), rules.max_bytes)
    for link in links:
        check_link(link, targets[link.new_sha])
    files = [
        change
        for change in changes
        if change.new_sha in new and change.new_mode != b"120000" and not matches(change.path, rules.allow_secrets)
    ]
    texts = await look.objects((change.new_sha for change in files), rules.max_bytes)
    secrets = await asyncio.to_thread(lambda: {sha: find_secrets(_searchable(text)) for sha, text in texts.items()})
    suspects = [change for change in files if secrets[change.new_sha]]
    if not suspects:
        return
    before = await look.objects((change.old_sha for change in suspects if change.old_sha.strip("0")), 4 * rules.max_bytes)
    for change in suspects:
        old = find_secrets(_searchable(before.get(change.old_sha, b"")))
        for secret, kind in secrets[change.new_sha].items():
            if secret not in old:
                raise PushRefused(
                    f"commit {change.commit[:12]}: {change.path} contains {kind}; remove it from every new commit "
                    "(git rebase or a soft reset) and read it from the environment instead"
                )


def _searchable(data: bytes) -> str:
    text = data.decode("latin-1")
    # Without zero bytes UTF-16 reads like ASCII.
    return text if "\0" not in text else f"{text}\n{text.replace(chr(0), '')}"
