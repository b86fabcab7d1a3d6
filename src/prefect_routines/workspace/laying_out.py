"""Files of a workspace, laid into a folder of a person's: nothing of what the model has made can act there, or lead out of it.

No link exists in the folder while files are written: links come last, and only those that stay inside. What git would take for a
repository is left out, since its configuration can name programs that git then runs.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from prefect_routines.errors import RoutinesError
from prefect_routines.workspace.guard import folded

MOST_FILES = 500_000
_GIT = {".git", "git~1"}
Parts = tuple[str, ...]


class BadArchive(RoutinesError):
    """What came out of the sandbox is no archive that an honest tar has written."""


def lay_out(archive: BinaryIO, directory: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    """Write the files of an archive into an empty directory.

    Args:
        archive: An uncompressed tar, seekable.
        directory: Empty, and nobody else writes there.

    Returns:
        The links that are still to be made (`make_links`), and what was left out, with the reason.

    Raises:
        BadArchive: It cannot be read.
    """
    left_out: list[str] = []
    links: list[tuple[Path, str]] = []
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            members = _members(tar)
            repositories = _repositories(parts for _, parts in members if parts is not None)
            left_out += [f"{'/'.join(place) or '.'}: a bare git repository" for place in sorted(repositories)]
            for member, parts in members:
                if parts is not None and any(parts[:depth] in repositories for depth in range(len(parts) + 1)):
                    continue
                why = _unwanted(parts)
                if why is None and parts:
                    why = _write(tar, member, directory.joinpath(*parts), directory, links)
                if why is not None:
                    left_out.append(f"{member.name.removeprefix('./')}: {why}")
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise BadArchive(f"the workspace could not be read: {error}") from error
    return links, left_out


def make_links(links: Iterable[tuple[Path, str]], directory: Path) -> list[str]:
    """Make the links that stay inside the directory and out of `.git`; those that were left out, with the reason."""
    left_out = []
    for path, target in links:
        inside = _resolved(path.relative_to(directory).parts[:-1], target)
        through = any(parent.is_symlink() for parent in path.parents if parent != directory and directory in parent.parents)
        if through or inside is None or any(folded(part) in _GIT for part in inside):
            left_out.append(f"{path.relative_to(directory)}: a link that leads out of the folder, or to what git keeps there")
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(target, path)
        except OSError as error:
            left_out.append(f"{path.relative_to(directory)}: {error.strerror}")
    return left_out


def _members(tar: tarfile.TarFile) -> list[tuple[tarfile.TarInfo, Parts | None]]:
    found = []
    for member in tar:
        found.append((member, _parts(member.name)))
        if len(found) > MOST_FILES:
            raise BadArchive(f"the workspace has more than {MOST_FILES:,} files; remove what was generated, then try again")
    return found


def _parts(name: str) -> Parts | None:
    """The parts of a path in the archive; None if it leads elsewhere."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    return None if name.startswith("/") or ".." in parts or "\0" in name else parts


def _repositories(paths: Iterable[Parts]) -> set[Parts]:
    """Directories that git would take for a repository without `.git`: HEAD with objects and refs, or with a pointer to them."""
    names: dict[Parts, set[str]] = defaultdict(set)
    for parts in paths:
        for depth, name in enumerate(parts):
            if (plain := folded(name)) in ("head", "objects", "refs", "commondir"):
                names[parts[:depth]].add(plain)
    return {place for place, inside in names.items() if "head" in inside and ("commondir" in inside or {"objects", "refs"} <= inside)}


def _unwanted(parts: Parts | None) -> str | None:
    if parts is None:
        return "its path leads out of the workspace"
    return "git's own" if any(folded(part) in _GIT for part in parts) else None


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, directory: Path, links: list[tuple[Path, str]]) -> str | None:
    """Write one member; why not, if so."""
    try:
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
        elif member.issym():
            links.append((path, member.linkname))
        elif member.isreg():
            path.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            with path.open("xb") as file:
                if source is not None:
                    shutil.copyfileobj(source, file)
            path.chmod(0o755 if member.mode & 0o100 else 0o644)
        elif member.islnk():
            target = _parts(member.linkname)
            if target is None or not (existing := directory.joinpath(*target)).is_file():
                return "a hard link to what is not there"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(existing, path, follow_symlinks=False)
        else:
            return "neither a file nor a directory nor a link"
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return "its path is taken by another file"
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise BadArchive(f"{directory}: the disk is full; free space, then try again with a new folder") from error
        return error.strerror or "it cannot be written"
    return None


def _resolved(place: Parts, target: str) -> Parts | None:
    """Where a link at `place` leads, by its text alone; None: out, or it cannot be told."""
    if not target or target.startswith("/") or "\0" in target:
        return None
    found = list(place)
    climbing = True  # `..` behind a name may pass through another link and end anywhere
    for part in target.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if not found or not climbing:
                return None
            found.pop()
        else:
            climbing = False
            found.append(part)
    return tuple(found)
