"""Archives with everything that an attacker would put there: nothing leaves the folder, and git finds nothing to obey in it."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from prefect_routines.workspace.laying_out import BadArchive, lay_out, make_links


def archive(*members: tarfile.TarInfo | tuple[str, bytes]) -> io.BytesIO:
    """A tar of files, and of whatever else is given ready-made."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size, info.mode = len(member[1]), 0o6755
                tar.addfile(info, io.BytesIO(member[1]))
    made.seek(0)
    return made


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A link, a device, a directory."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o777
    return info


def laid_out(place: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> tuple[set[str], list[str]]:
    """What is in the folder afterwards, and what was left out."""
    place.mkdir()
    links, left_out = lay_out(archive(*members), place)
    left_out += make_links(links, place)
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_symlink() or not path.is_dir()}, left_out


def test_files_and_links_come_as_they_are(tmp_path: Path) -> None:
    """Executable or not; links inside stay links, hard links stay one file; set-uid bits go."""
    found, left_out = laid_out(
        tmp_path / "x",
        ("./docs/a.sh", b"#!/bin/sh\n"),
        special("./docs/b", tarfile.SYMTYPE, "a.sh"),
        special("./docs/deep/c", tarfile.SYMTYPE, "../a.sh"),
        special("./docs/d", tarfile.LNKTYPE, "./docs/a.sh"),
        special("./empty", tarfile.DIRTYPE),
    )
    assert (found, left_out) == ({"docs/a.sh", "docs/b", "docs/deep/c", "docs/d"}, [])
    assert stat.S_IMODE((tmp_path / "x/docs/a.sh").stat().st_mode) == 0o755
    assert (tmp_path / "x/docs/d").samefile(tmp_path / "x/docs/a.sh")
    assert (tmp_path / "x/docs/deep/c").read_text() == "#!/bin/sh\n"
    assert (tmp_path / "x/empty").is_dir()


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    """Neither by a path, nor through a link, of whatever order and kind."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    found, left_out = laid_out(
        tmp_path / "x",
        (str(outside / "absolute"), b"x"),
        ("../outside/up", b"x"),
        ("a/../../outside/up", b"x"),
        special("link", tarfile.SYMTYPE, str(outside)),
        ("link/through", b"x"),
        special("up", tarfile.SYMTYPE, "../outside"),
        ("up/through", b"x"),
        special("one", tarfile.SYMTYPE, "."),
        special("one/more", tarfile.SYMTYPE, "../outside"),
        special("two", tarfile.SYMTYPE, "one/../../outside"),
        special("hard", tarfile.LNKTYPE, str(outside / "secret")),
        special("hard-up", tarfile.LNKTYPE, "../outside/secret"),
        special("device", tarfile.CHRTYPE),
        special("pipe", tarfile.FIFOTYPE),
        ("twice", b"1"),
        ("twice", b"2"),
        ("twice/below", b"x"),
    )
    assert os.listdir(outside) == ["secret"]
    assert found == {"link/through", "up/through", "one", "twice"}
    assert len(left_out) == 13
    assert (tmp_path / "x/twice").read_bytes() == b"1"


@pytest.mark.parametrize("root", ["", "docs/", "docs/vendor/"], ids=["top", "clone", "below"])
def test_git_finds_no_configuration_of_the_models(tmp_path: Path, root: str) -> None:
    """`.git` in each spelling, and directories that git takes for bare repositories; a git that runs there runs nothing else."""
    config = f"[core]\nfsmonitor = touch {tmp_path}/owned\n[alias]\nstatus = !touch {tmp_path}/owned\n".encode()
    named = {"HEAD": b"ref: refs/heads/main\n", "config": config}
    bare = [(f"{root}bare/{name}", data) for name, data in (named | {"objects/x": b"", "refs/x": b""}).items()]
    pointing = [(f"{root}{name}", data) for name, data in (named | {"commondir": b"elsewhere\n"}).items()]
    spelled = [(f"{root}{name}/config", config) for name in (".git", ".GIT", ".g\u200cit", "git~1", ".git. ")]
    more = [(f"{root}sub/.git", b"gitdir: ../bare\n"), special(f"{root}sub/dir", tarfile.SYMTYPE, "../.git"), ("kept", b"x")]
    found, left_out = laid_out(tmp_path / "x", *bare, *pointing, *spelled, *more)
    assert found == ({"kept"} if root else set())
    assert left_out
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path)}
    for place in [tmp_path / "x", *(path for path in (tmp_path / "x").rglob("*") if path.is_dir())]:
        subprocess.run(["git", "status"], cwd=place, capture_output=True, check=False, env=environment)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("raw", [b"no tar at all" * 100, b"\xff" * 2000])
def test_what_is_no_archive_is_refused_in_one_line(tmp_path: Path, raw: bytes) -> None:
    """Whatever took over the sandbox."""
    (tmp_path / "x").mkdir()
    with pytest.raises(BadArchive, match="the workspace could not be read"):
        lay_out(io.BytesIO(raw), tmp_path / "x")
