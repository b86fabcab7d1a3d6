"""The host's mirrors: fetched by many at once, rebuilt when damaged, and clear about what is wrong at the remote."""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from git_world import FILES, Agent
from pydantic import SecretStr

from prefect_routines.errors import RepositoryError, SettingsError
from prefect_routines.testing.forge import ForgeRepository, LocalForge
from prefect_routines.workspace.remotes import Credential
from prefect_routines.workspace.repositories import Mirror, Repository, bundle, can_push, ensure_commit, read_file_at, refresh

TOKEN = "right-token"


@pytest.fixture
def forge(tmp_path: Path) -> LocalForge:
    return LocalForge(tmp_path / "forge")


@pytest.fixture
def docs(forge: LocalForge) -> ForgeRepository:
    return forge.repository("docs", files=FILES, commits=[{"src/app.py": "print(1)\n"}])


async def test_a_mirror_knows_branch_and_commit(docs: ForgeRepository, tmp_path: Path) -> None:
    side = docs.commit({"side.md": "x\n"}, branch="side")
    mirror = await refresh(tmp_path / "m", Repository("docs", docs.url))
    assert (mirror.branch, mirror.base_sha) == ("main", docs.sha("main"))
    mirror = await refresh(tmp_path / "m", Repository("docs", str(docs.path), "side"))
    assert (mirror.branch, mirror.base_sha, mirror.default_branch, mirror.default_sha) == ("side", side, "main", docs.sha("main"))


async def test_a_refresh_sees_new_and_rewritten_history(docs: ForgeRepository, tmp_path: Path) -> None:
    first = await refresh(tmp_path / "m", Repository("docs", docs.url))
    docs.git("update-ref", "refs/heads/main", "main~1")
    docs.commit({"other.md": "x\n"})
    second = await refresh(tmp_path / "m", Repository("docs", docs.url))
    assert second.base_sha == docs.sha("main") != first.base_sha
    await ensure_commit(second, first.base_sha)  # a session that began before goes on


async def test_a_bundle_holds_the_commit_of_the_session_whatever_others_fetch(docs: ForgeRepository, tmp_path: Path) -> None:
    docs.git("tag", "v1", "main~1")
    mirror = await refresh(tmp_path / "m", Repository("docs", docs.url))
    docs.commit({"later.md": "x\n"})
    docs.git("tag", "v2", "main")
    await refresh(tmp_path / "m", Repository("docs", docs.url))
    await bundle(mirror, tmp_path / "b.bundle")
    heads = Agent(tmp_path).git("bundle", "list-heads", "b.bundle").decode()
    assert f"{mirror.base_sha} refs/heads/main" in heads
    assert "refs/tags/v1" in heads
    assert "refs/tags/v2" not in heads
    assert not list((tmp_path / "m").glob("scratch-*"))


async def test_many_sessions_refresh_one_repository_at_once(docs: ForgeRepository, tmp_path: Path) -> None:
    mirrors = await asyncio.gather(*(refresh(tmp_path / "m", Repository("docs", docs.url)) for _ in range(6)))
    assert {mirror.base_sha for mirror in mirrors} == {docs.sha("main")}
    assert len([entry for entry in (tmp_path / "m").iterdir() if entry.is_dir()]) == 1


def _remove_pack(mirror: Mirror) -> None:
    next(mirror.path.glob("objects/pack/*.pack")).unlink()


def _truncate_pack(mirror: Mirror) -> None:
    pack = next(mirror.path.glob("objects/pack/*.pack"))
    pack.chmod(0o600)
    pack.write_bytes(pack.read_bytes()[:-30])


def _remove_head(mirror: Mirror) -> None:
    (mirror.path / "HEAD").unlink()


def _empty_refs(mirror: Mirror) -> None:
    (mirror.path / "refs/heads/main").write_text("")


def _zero_ref(mirror: Mirror) -> None:
    (mirror.path / "refs/heads/main").write_bytes(b"\0" * 41)


def _break_config(mirror: Mirror) -> None:
    (mirror.path / "config").write_bytes(b"\xff[[[")


def _replace_by_file(mirror: Mirror) -> None:
    mirror.path.rename(mirror.path.with_name("moved"))
    mirror.path.write_text("not a directory")


@pytest.mark.parametrize("damage", [_remove_pack, _truncate_pack, _remove_head, _empty_refs, _zero_ref, _break_config, _replace_by_file])
async def test_a_damaged_mirror_is_rebuilt(docs: ForgeRepository, tmp_path: Path, damage: object) -> None:
    mirror = await refresh(tmp_path / "m", Repository("docs", docs.url))
    damage(mirror)  # type: ignore[operator]
    mirror = await refresh(tmp_path / "m", Repository("docs", docs.url))
    await bundle(mirror, tmp_path / "b")
    Agent(tmp_path).git("clone", "-q", "-b", "main", "b", "clone")


async def test_a_flipped_bit_is_found_when_it_is_read_and_mended_at_the_next_refresh(docs: ForgeRepository, tmp_path: Path) -> None:
    mirror = await refresh(tmp_path / "m", Repository("docs", docs.url))
    pack = next(mirror.path.glob("objects/pack/*.pack"))
    data = bytearray(pack.read_bytes())
    for at in range(20, len(data) - 30, 7):
        data[at] ^= 0xFF
    pack.chmod(0o600)
    pack.write_bytes(data)
    with pytest.raises(RepositoryError):
        await bundle(mirror, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    await bundle(await refresh(tmp_path / "m", Repository("docs", docs.url)), tmp_path / "b")


async def test_a_mirror_directory_that_cannot_be_written_is_told(docs: ForgeRepository, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RepositoryError, match="ROUTINES_HOME"):
        await refresh(tmp_path / "file/mirrors", Repository("docs", docs.url))


async def test_an_empty_repository_is_told(forge: LocalForge, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="has no commits yet"):
        await refresh(tmp_path / "m", Repository("new", forge.repository("new").url))


async def test_an_unknown_branch_is_told_with_those_there_are(docs: ForgeRepository, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="no branch 'nope'; it has: main"):
        await refresh(tmp_path / "m", Repository("docs", docs.url, "nope"))


async def test_an_unknown_repository_is_told(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="there is no repository at"):
        await refresh(tmp_path / "m", Repository("docs", str(tmp_path / "nowhere")))


async def test_a_host_that_does_not_listen_is_told_quickly(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(RepositoryError, match="cannot be reached"):
        await refresh(tmp_path / "m", Repository("docs", f"http://127.0.0.1:{port}/docs.git"))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_no_or_wrong_credentials_are_told_without_a_prompt(
    forge: LocalForge, docs: ForgeRepository, tmp_path: Path, token: str | None
) -> None:
    with forge.serve(TOKEN):
        credential = Credential(password=SecretStr(token)) if token else None
        with pytest.raises(RepositoryError, match=r"was denied .* credentials=<block>"):
            await refresh(tmp_path / "m", Repository("docs", docs.url, credential=credential))


async def test_a_repository_over_http_with_a_token(forge: LocalForge, docs: ForgeRepository, tmp_path: Path) -> None:
    with forge.serve(TOKEN):
        repository = Repository("docs", docs.url, credential=Credential(password=SecretStr(TOKEN)))
        assert (await refresh(tmp_path / "m", repository)).base_sha == docs.sha("main")
        await can_push(repository)
        with pytest.raises(RepositoryError, match="there is no repository"):
            await refresh(tmp_path / "m", Repository("x", docs.url.replace("docs", "other"), credential=repository.credential))
    assert docs.pushes == []


async def test_a_token_that_may_only_read_is_told_before_work_begins(forge: LocalForge, docs: ForgeRepository) -> None:
    with forge.serve(TOKEN, writable=False), pytest.raises(RepositoryError, match="no right to push"):
        await can_push(Repository("docs", docs.url, credential=Credential(password=SecretStr(TOKEN))))
    with pytest.raises(RepositoryError, match=r"no right to push|does not exist"):
        await can_push(Repository("docs", "/nowhere/at/all"))


async def test_asking_for_push_rights_changes_nothing(docs: ForgeRepository) -> None:
    before = {str(path): path.stat().st_mtime_ns for path in docs.path.rglob("*")}
    await can_push(Repository("docs", docs.url))
    assert {str(path): path.stat().st_mtime_ns for path in docs.path.rglob("*")} == before


@contextmanager
def listening(answer: object) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that keeps the Authorization headers it sees and answers with `answer(handler)`."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            answer(self)  # type: ignore[operator]

        def log_message(self, format: str, *arguments: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", seen
        finally:
            server.shutdown()
            thread.join()


async def test_a_redirect_to_another_host_does_not_get_the_token(tmp_path: Path) -> None:
    def unauthorized(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(401)
        handler.send_header("WWW-Authenticate", 'Basic realm="evil"')
        handler.end_headers()

    with listening(unauthorized) as (elsewhere, seen_elsewhere):

        def redirect(handler: BaseHTTPRequestHandler) -> None:
            if not handler.headers.get("Authorization"):
                unauthorized(handler)
                return
            handler.send_response(302)
            handler.send_header("Location", elsewhere.replace("127.0.0.1", "localhost") + handler.path)
            handler.end_headers()

        with listening(redirect) as (home, seen_at_home):
            repository = Repository("docs", f"{home}/docs.git", credential=Credential(password=SecretStr(TOKEN)))
            with pytest.raises(RepositoryError):
                await refresh(tmp_path / "m", repository)
    wanted = "Basic " + base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    assert wanted in seen_at_home
    assert set(seen_elsewhere) == {""}


async def test_a_server_that_never_answers_does_not_hang_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_routines.workspace.repositories.LOOKUP_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(RepositoryError, match="cannot be reached"):
        await refresh(tmp_path / "m", Repository("docs", f"http://127.0.0.1:{silent.getsockname()[1]}/docs.git"))


async def test_a_file_is_read_as_it_is_in_the_commit(docs: ForgeRepository, tmp_path: Path) -> None:
    docs.commit({"CLAUDE.md": "Be kind.\r\n", ".gitattributes": "* text eol=lf\n", "[a]*.md": "literal\n", "sub/x.md": "x\n"})
    mirror = await refresh(tmp_path / "m", Repository("docs", docs.url))
    assert await read_file_at(mirror, mirror.default_sha, "CLAUDE.md", 1000) == b"Be kind.\r\n"
    assert await read_file_at(mirror, mirror.default_sha, "CLAUDE.md", 4) == b"Be k"
    assert await read_file_at(mirror, mirror.default_sha, "[a]*.md", 1000) == b"literal\n"
    assert await read_file_at(mirror, mirror.default_sha, "a name with blanks/ünï.md", 1000) == b"text\n"
    for absent in ("nope.md", "sub", "*.md", ":/CLAUDE.md", "sub/"):
        assert await read_file_at(mirror, mirror.default_sha, absent, 1000) is None


@pytest.mark.parametrize("name", ["", ".", "..", ".git", ".GIT", "a/b", "-x", "a\nb", "a\0b", "x" * 101])
def test_names_that_cannot_be_a_directory_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="cannot name a directory"):
        Repository(name, "https://example.org/x")


async def test_a_commit_that_nobody_has_is_told(docs: ForgeRepository, tmp_path: Path) -> None:
    mirror = await refresh(tmp_path / "m", Repository("docs", docs.url))
    with pytest.raises(RepositoryError, match="neither on this machine nor"):
        await ensure_commit(mirror, "1" * 40)
    with pytest.raises(RepositoryError, match="not the full name"):
        await ensure_commit(mirror, "--upload-pack=x")
