"""A session's workspace in a folder of a person's: its files, and clones made anew from its commits.

The sandbox packs, the host lays out. The clones' `.git` is made here, by the host's git, from commits that it has checked: no hook, no
configuration, no attribute file of the model's comes along. Nothing that the model wrote is run.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from prefect_routines.errors import PushRefused, RepositoryError, RoutinesError
from prefect_routines.workspace import snapshot as snapshots
from prefect_routines.workspace.git import HOSTILE, GitError, git
from prefect_routines.workspace.guard import read_header
from prefect_routines.workspace.laying_out import lay_out, make_links
from prefect_routines.workspace.remotes import Remote
from prefect_routines.workspace.repositories import SHA
from prefect_routines.workspace.sandbox import Sandbox, SandboxSpec
from prefect_routines.workspace.snapshot import MIB

MOST = 10_240 * MIB
_MOST_BUNDLE = 1024 * MIB
_PACK = ("tar", "--create", "--file=-", "--exclude=.git", "--ignore-failed-read", "--one-file-system", "--numeric-owner", ".")
_SECONDS = 900.0


@dataclass(frozen=True)
class LaidOut:
    """A clone as it is in the folder.

    Args:
        name: Its directory.
        branch: What is checked out; None: no branch.
        sha: The commit; None when there is no repository.
        problem: Why there is none.
    """

    name: str
    branch: str | None = None
    sha: str | None = None
    problem: str | None = None


@asynccontextmanager
async def opened(workspace: Path | None, snapshot: Mapping[str, Any] | None, scratch: Path) -> AsyncIterator[Sandbox]:
    """A sandbox, without network, that holds the workspace: the session's own directory, or its snapshot in one that is gone afterwards.

    Raises:
        SnapshotMissing: The snapshot is not to be had.
        SandboxUnavailable: The sandbox cannot be built here.
    """
    if workspace is not None:
        async with await Sandbox.start(SandboxSpec(workspace)) as box:
            yield box
        return
    from prefect_routines.workspace.trees import remove_tree

    assert snapshot is not None
    scratch.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=scratch, prefix="teleport-"))
    place.chmod(0o711)
    try:
        async with await Sandbox.start(SandboxSpec(place / "workspace")) as box:
            await snapshots.restore(box, dict(snapshot), place)
            yield box
    finally:
        await asyncio.to_thread(remove_tree, place)


async def teleport(
    box: Sandbox, repositories: Sequence[Mapping[str, Any]], directory: Path, scratch: Path
) -> tuple[list[LaidOut], list[str]]:
    """Lay the workspace of a sandbox into an empty directory; the clones, and what was left out.

    Args:
        repositories: Those of the session, as its journal has them.

    Raises:
        RoutinesError: It cannot be packed, or does not fit.
    """
    with tempfile.TemporaryFile(dir=scratch) as spool:
        await _pack(box, spool)  # before any git runs in there: it would do what the model has configured
        links, left_out = await asyncio.to_thread(lay_out, spool, directory)
    clones = [await _clone(box, one, directory) for one in repositories]
    left_out += await asyncio.to_thread(make_links, links, directory)
    return clones, left_out


async def _pack(box: Sandbox, spool: BinaryIO) -> None:
    said = bytearray()

    def keep(stream: int, piece: bytes) -> None:
        if stream == 1:
            spool.write(piece)
        elif len(said) < 4000:
            said.extend(piece)

    done = await box.run(_PACK, timeout=_SECONDS, max_output=MOST, on_output=keep)
    if done.truncated:
        raise RoutinesError(f"the workspace is larger than {MOST // MIB:,} MB; that is not laid out")
    if done.timed_out or done.exit_code not in (0, 1):
        raise RoutinesError(f"the workspace cannot be packed: {said.decode('utf-8', 'replace').strip()[-200:] or 'it took too long'}")
    spool.seek(0)


async def _clone(box: Sandbox, repository: Mapping[str, Any], directory: Path) -> LaidOut:
    """Make one clone's `.git` from the commits of the sandbox's."""
    name = str(repository["name"])
    cwd = f"/workspace/{name}"
    place = directory / name
    try:
        place.mkdir(exist_ok=True)
    except OSError:
        return LaidOut(name, problem="its place is taken by a file")
    branch = await box.run(["git", "symbolic-ref", "--short", "-q", "HEAD"], cwd=cwd, max_output=1000)
    made = await box.run(["git", "bundle", "create", "-q", "--version=2", "-", "HEAD"], cwd=cwd, timeout=_SECONDS, max_output=_MOST_BUNDLE)
    if made.truncated or made.exit_code:
        return LaidOut(name, problem="its commits are too large" if made.truncated else "it is no git repository any more")
    try:
        header = read_header(made.stdout)
        if header.needs:
            return LaidOut(name, problem="its history is not whole")
        await _fill(place, name, made.stdout[header.pack_at :], header.tip, branch.stdout.decode("utf-8", "replace").strip(), repository)
        return LaidOut(name, await _branch(place, name), header.tip)
    except (PushRefused, RepositoryError) as error:
        from prefect_routines.workspace.trees import remove_tree

        await asyncio.to_thread(remove_tree, place / ".git")
        return LaidOut(name, problem=f"its commits are not accepted ({str(error).partition(': ')[2] or error})")


async def _fill(place: Path, name: str, pack: bytes, tip: str, branch: str, repository: Mapping[str, Any]) -> None:
    await git("init", "-q", "--template=", str(place), name=name)
    own = place / ".git"
    await git("index-pack", "--stdin", "--strict", name=name, directory=own, stdin=pack, limits=HOSTILE, timeout=_SECONDS)
    ref = f"refs/heads/{branch}"
    if branch and (await git("check-ref-format", ref, name=name, check=False)).exit_code == 0:
        await git("update-ref", ref, tip, name=name, directory=own)
        await git("symbolic-ref", "HEAD", ref, name=name, directory=own)
    else:
        await git("update-ref", "--no-deref", "HEAD", tip, name=name, directory=own)
    await git("read-tree", "HEAD", name=name, directory=own, limits=HOSTILE)
    if (url := Remote.parse(str(repository["url"])).public) and not url.startswith("-"):
        await git("config", "remote.origin.url", url, name=name, directory=own)
        await git("config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*", name=name, directory=own)
    base, tracked = str(repository.get("base_sha", "")), f"refs/remotes/origin/{repository.get('branch', '')}"
    if SHA.match(base) and (await git("check-ref-format", tracked, name=name, check=False)).exit_code == 0:
        await git("update-ref", tracked, base, name=name, directory=own, check=False)


async def _branch(place: Path, name: str) -> str | None:
    try:
        return (await git("symbolic-ref", "--short", "-q", "HEAD", name=name, directory=place / ".git")).text or None
    except GitError:
        return None
