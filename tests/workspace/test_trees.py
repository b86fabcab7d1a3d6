"""Trees that a model has made: the host gets through them, and follows nothing out of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_routines.workspace import ownership
from prefect_routines.workspace.trees import go_through, remove_tree
from prefect_routines.workspace.workspace import _make_passable

DEEP = 3000


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A directory deeper than Python recurses, than a process may have files open, and than a path may be long."""
    top = here = tmp_path / "deep"
    top.mkdir()
    before = os.getcwd()
    try:
        os.chdir(here)
        for _ in range(DEEP):
            os.mkdir("d")
            os.chdir("d")
        Path("file").touch()
    finally:
        os.chdir(before)
    yield top
    remove_tree(top)


def test_depth_is_no_limit(deep: Path) -> None:
    """All of it is seen, and removed."""
    seen: list[str] = []
    go_through(deep, lambda _, name, __: not seen.append(name))  # type: ignore[func-returns-value]
    assert (seen.count("d"), seen.count("file")) == (DEEP, 1)
    remove_tree(deep)
    assert not deep.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="an ordinary user owns all of it anyhow")
def test_a_deep_workspace_is_handed_over(deep: Path) -> None:
    """Else a session that made one could never be started again."""
    ownership.hand_over(deep, 64001, 64001)
    owners: set[int] = set()
    go_through(deep, lambda _, __, found: not owners.add(found.st_uid))  # type: ignore[func-returns-value]
    assert owners == {64001}


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    """Neither one inside, nor one in the place of the directory."""
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (outside / "kept").touch()
    tree.mkdir()
    (tree / "to-directory").symlink_to(outside)
    (tree / "to-file").symlink_to(outside / "kept")
    os.mkfifo(tree / "pipe")
    remove_tree(tree)
    assert not tree.exists()
    (tmp_path / "link").symlink_to(outside)
    remove_tree(tmp_path / "link")
    assert (outside / "kept").exists()


def test_closed_directories_are_removed(tmp_path: Path) -> None:
    """A model may take its own rights away."""
    inner = tmp_path / "tree" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    inner.chmod(0)
    inner.parent.chmod(0)
    remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_nothing_there_is_fine(tmp_path: Path) -> None:
    """Removing is done when it is gone."""
    remove_tree(tmp_path / "none")


def test_an_operators_directory_keeps_what_it_allows(tmp_path: Path) -> None:
    """ROUTINES_WORKSPACES=/tmp must not close /tmp for everybody else."""
    shared, closed = tmp_path / "shared", tmp_path / "closed"
    shared.mkdir()
    shared.chmod(0o1777)
    closed.mkdir(mode=0o700)
    for directory in (shared, closed, tmp_path / "new/one"):
        _make_passable(directory)
    assert [oct(d.stat().st_mode & 0o7777) for d in (shared, closed, tmp_path / "new/one")] == ["0o1777", "0o711", "0o711"]
