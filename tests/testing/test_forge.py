"""The forge users test their routines with: real history, and an honest journal of what was pushed."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from prefect_routines.testing.forge import ForgeRepository, LocalForge, Push


def git(path: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "credential.helper=", "-c", "core.askPass=true"]
    done = subprocess.run(["git", *identity, *arguments], cwd=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def forge(tmp_path: Path) -> LocalForge:
    return LocalForge(tmp_path / "forge")


def clone(repository: ForgeRepository, path: Path, url: str = "") -> Path:
    git(path, "clone", "-q", url or repository.url, "clone")
    return path / "clone"


def test_history_is_as_described(forge: LocalForge, tmp_path: Path) -> None:
    docs = forge.repository("docs", files={"a b/ü.md": "1\n", 'q"uote.md': "2\n"}, commits=[{"new.md": b"\x00\xff"}, {'q"uote.md': None}])
    assert docs.log("main") == ["Commit 3", "Commit 2", "Commit 1"]
    assert docs.show("main", "a b/ü.md") == "1\n"
    work = clone(docs, tmp_path)
    assert sorted(str(path.relative_to(work)) for path in work.rglob("*.md")) == ["a b/ü.md", "new.md"]
    assert (work / "new.md").read_bytes() == b"\x00\xff"
    assert docs.pushes == []


def test_the_same_description_gives_the_same_commits(forge: LocalForge, tmp_path: Path) -> None:
    one = forge.repository("docs", files={"a": "a"})
    other = LocalForge(tmp_path / "other").repository("docs", files={"a": "a"})
    assert one.branches() == other.branches()


def test_the_journal_tells_every_update_in_order(forge: LocalForge, tmp_path: Path) -> None:
    docs = forge.repository("docs", files={"a": "a"})
    work = clone(docs, tmp_path)
    git(work, "commit", "-q", "--allow-empty", "-m", "one")
    git(work, "push", "-q", "origin", "HEAD:refs/heads/x")
    one = docs.sha("x")
    git(work, "commit", "-q", "--allow-empty", "-m", "two")
    git(work, "push", "-q", "origin", "HEAD:refs/heads/x")
    two = docs.sha("x")
    git(work, "push", "-q", "origin", ":refs/heads/x")
    assert docs.pushes == [Push("x", None, one), Push("x", one, two), Push("x", two, None)]


def test_a_colleagues_commit_is_no_push_and_shows_in_the_diff(forge: LocalForge) -> None:
    docs = forge.repository("docs", files={"a": "a\n"})
    docs.commit({"b": "b\n"}, "Add b", branch="side")
    docs.commit({"c": "c\n"})
    assert docs.log("side") == ["Add b", "Commit 1"]
    assert "+++ b/b" in docs.diff("side")
    assert "b/c" not in docs.diff("side")
    assert docs.pushes == []


def test_an_empty_repository_has_no_branches(forge: LocalForge) -> None:
    assert forge.repository("new").branches() == {}


def test_served_it_wants_the_token(forge: LocalForge, tmp_path: Path) -> None:
    docs = forge.repository("docs", files={"a": "a"})
    with forge.serve("t0ken") as address:
        assert docs.url == f"{address}/docs.git"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{docs.url}/info/refs?service=git-upload-pack")
        work = clone(docs, tmp_path, docs.url.replace("http://", "http://me:t0ken@"))
        (work / "big.bin").write_bytes(bytes(range(256)) * 20_000)
        git(work, "add", ".")
        git(work, "commit", "-q", "-m", "big")
        git(work, "-c", "http.postBuffer=65536", "-c", "core.compression=0", "push", "-q", "origin", "HEAD:refs/heads/big")
    assert [push.branch for push in docs.pushes] == ["big"]
    assert docs.url.startswith("file://")


def test_a_token_that_may_only_read_cannot_push(forge: LocalForge, tmp_path: Path) -> None:
    docs = forge.repository("docs", files={"a": "a"})
    with forge.serve("t0ken", writable=False):
        work = clone(docs, tmp_path, docs.url.replace("http://", "http://me:t0ken@"))
        with pytest.raises(AssertionError, match="403"):
            git(work, "push", "-q", "origin", "HEAD:refs/heads/x")
    assert docs.pushes == []
