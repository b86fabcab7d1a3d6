"""The host's bare mirrors as directories: locked, fetched, checked for damage, rebuilt; and scratch repositories beside them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prefect_routines.errors import RepositoryError
from prefect_routines.workspace.git import git
from prefect_routines.workspace.remotes import access

if TYPE_CHECKING:
    from prefect_routines.workspace.repositories import Repository

STAMP = "routines-packs"  # lists the packs that make a mirror whole
TRANSFER_SECONDS = 1800.0
_MANY_PACKS = 40

# Failures that say nothing about the mirror on this machine.
NOT_THE_MIRROR = re.compile(
    r"hung up|resolve|timed out|did not end within|early EOF|Connection|unable to access|Could not read from remote|No space left"
)


async def fetch(path: Path, repository: Repository, branches: set[str]) -> None:
    """Fetch branches and the tags on them, all as packs."""
    with access(repository.remote, repository.credential) as way:
        await git(
            "fetch", "--quiet", "--no-write-fetch-head", "--no-recurse-submodules", "--force", "--", repository.remote.url,
            *(f"+refs/heads/{branch}:refs/heads/{branch}" for branch in sorted(branches)),
            name=repository.name, directory=path, access=way, timeout=TRANSFER_SECONDS,
        )  # fmt: skip
    if len(list((path / "objects/pack").glob("*.pack"))) > _MANY_PACKS:
        # Nothing is dropped: a running session may hold a commit that its branch has left since.
        await git("repack", "-q", "-a", "-d", "-k", name=repository.name, directory=path, timeout=TRANSFER_SECONDS)


async def rebuild(path: Path, repository: Repository, branches: set[str]) -> None:
    """Fetch into a new mirror and put it in the place of the old one, which is kept until then: the network may fail."""
    new = Path(tempfile.mkdtemp(prefix="scratch-", dir=path.parent))
    try:
        await git("init", "-q", "--bare", "--template=", str(new), name=repository.name)
        await fetch(new, repository, branches)
        if path.is_dir() and not path.is_symlink():
            old = Path(tempfile.mkdtemp(prefix="scratch-", dir=path.parent))
            path.rename(old / "old")
            shutil.rmtree(old, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        new.rename(path)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _packs(path: Path) -> set[str]:
    """Names and sizes of everything that holds objects."""
    return {f"{entry.name} {entry.stat().st_size}" for entry in os.scandir(path / "objects/pack") if entry.name.endswith((".pack", ".idx"))}


def stamp(path: Path) -> None:
    """Write down which packs make the mirror whole."""
    new = path / f"{STAMP}.new"
    new.write_text("\n".join(sorted(_packs(path))))
    new.replace(path / STAMP)


def whole(path: Path) -> bool:
    """Whether every pack of the last good state is there in its full size. (A flipped bit inside shows when git reads it.)"""
    try:
        return (path / "HEAD").is_file() and set((path / STAMP).read_text().splitlines()) <= _packs(path)
    except (OSError, UnicodeDecodeError):
        return False


def distrust(path: Path) -> None:
    """Have the next refresh build the mirror anew: git could not read it."""
    (path / STAMP).unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def locked(path: Path, name: str) -> AsyncIterator[None]:
    """Hold a lock file; it is free again when this process ends, however it ends."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + TRANSFER_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RepositoryError(name, f"another process has been fetching it for {TRANSFER_SECONDS:g} s; stop that one") from None
                # A thread blocked in flock could not be cancelled.
                await asyncio.sleep(0.05)
        yield
    finally:
        os.close(file)


def sweep(mirror_root: Path) -> None:
    """Remove what processes that died left behind more than a day ago."""
    for entry in mirror_root.glob("scratch-*"):
        with contextlib.suppress(OSError):
            if time.time() - entry.stat().st_mtime > 86400:
                shutil.rmtree(entry, ignore_errors=True)


@contextlib.contextmanager
def _scratch_directory(mirror: Path, name: str) -> Iterator[Path]:
    try:
        directory = tempfile.TemporaryDirectory(prefix="scratch-", dir=mirror.parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise RepositoryError(name, f"nothing can be written beside its mirror ({error.strerror}); check the disk") from error
    with directory as path:
        yield Path(path) / "git"


@contextlib.asynccontextmanager
async def scratch(mirror: Path, name: str) -> AsyncIterator[Path]:
    """A clean bare repository that sees the mirror's objects and is gone afterwards: what happens in it leaves no trace."""
    with _scratch_directory(mirror, name) as path:
        await git("init", "-q", "--bare", "--template=", str(path), name=name)
        (path / "objects/info").mkdir(exist_ok=True)
        (path / "objects/info/alternates").write_text(f"{mirror / 'objects'}\n")
        yield path
