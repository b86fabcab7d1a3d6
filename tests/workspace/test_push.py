"""One examined commit reaches one branch of the session, once; everything else stays where it was."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from git_world import SESSION, Agent, World
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from prefect_routines.errors import PushRefused, RepositoryError
from prefect_routines.testing.forge import LocalForge
from prefect_routines.workspace.push import branch_name, check_branch, checkout_bundle, keep, push, remote_sha
from prefect_routines.workspace.remotes import Credential
from prefect_routines.workspace.repositories import Repository, refresh

BRANCH = branch_name("Docs sync!", SESSION)


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await World.build(tmp_path)


async def test_a_push_creates_the_branch_once_and_moves_nothing_else(world: World) -> None:
    main = world.remote.sha("main")
    world.agent.commit({"README.md": "# Better\n"})
    candidate = await world.examine()
    await push(world.mirror, candidate, BRANCH)
    assert world.remote.branches() == {"main": main, BRANCH: candidate.sha}
    assert [(update.branch, update.old, update.new) for update in world.remote.pushes] == [(BRANCH, None, candidate.sha)]
    assert world.remote.show(BRANCH, "README.md") == "# Better\n"


async def test_a_push_repeated_after_a_crash_changes_nothing(world: World) -> None:
    world.agent.commit({"a.md": "a\n"})
    candidate = await world.examine()
    for _ in range(3):
        await push(world.mirror, candidate, BRANCH)
    assert len(world.remote.pushes) == 1


async def test_two_processes_pushing_the_same_are_one_push(world: World) -> None:
    world.agent.commit({"a.md": "a\n"})
    candidate = await world.examine()
    await asyncio.gather(*(push(world.mirror, candidate, BRANCH) for _ in range(3)))
    assert len(world.remote.pushes) == 1


async def test_a_second_push_continues_the_first(world: World) -> None:
    world.agent.commit({"a.md": "a\n"})
    first = await world.examine()
    await push(world.mirror, first, BRANCH)
    world.agent.commit({"b.md": "b\n"})
    second = await world.examine(last_pushed=first.sha)
    await push(world.mirror, second, BRANCH, expected=first.sha)
    assert [update.old for update in world.remote.pushes] == [None, first.sha]


async def test_a_second_push_works_from_another_machine(world: World, tmp_path: Path) -> None:
    world.agent.commit({"a.md": "a\n"})
    first = await world.examine()
    await push(world.mirror, first, BRANCH)
    world.mirror = await refresh(tmp_path / "other-machine", world.mirror.repository)
    world.agent.commit({"b.md": "b\n"})
    await push(world.mirror, await world.examine(last_pushed=first.sha), BRANCH, expected=first.sha)
    assert len(world.remote.pushes) == 2


async def test_a_rehearsal_can_build_on_what_it_kept(world: World) -> None:
    world.agent.commit({"a.md": "a\n"})
    first = await world.examine()
    await keep(world.mirror, first)
    world.agent.commit({"b.md": "b\n"})
    assert len((await world.examine(last_pushed=first.sha)).commits) == 2
    assert world.remote.pushes == []


async def test_a_branch_that_somebody_made_is_not_overwritten(world: World) -> None:
    theirs = world.remote.commit({"theirs.md": "x\n"}, branch=BRANCH)
    world.agent.commit({"a.md": "a\n"})
    with pytest.raises(PushRefused, match=f"is at {theirs[:12]} at the remote, which this session did not push"):
        await push(world.mirror, await world.examine(), BRANCH)
    assert world.remote.sha(BRANCH) == theirs


async def test_a_colleagues_commit_on_our_branch_is_not_overwritten(world: World) -> None:
    world.agent.commit({"a.md": "a\n"})
    first = await world.examine()
    await push(world.mirror, first, BRANCH)
    theirs = world.remote.commit({"theirs.md": "x\n"}, branch=BRANCH)
    world.agent.commit({"b.md": "b\n"})
    with pytest.raises(PushRefused, match="did not push"):
        await push(world.mirror, await world.examine(last_pushed=first.sha), BRANCH, expected=first.sha)
    assert world.remote.sha(BRANCH) == theirs


async def test_a_branch_that_somebody_deleted_does_not_come_back(world: World) -> None:
    world.agent.commit({"a.md": "a\n"})
    first = await world.examine()
    await push(world.mirror, first, BRANCH)
    world.remote.git("update-ref", "-d", f"refs/heads/{BRANCH}")
    world.agent.commit({"b.md": "b\n"})
    with pytest.raises(PushRefused, match="deleted"):
        await push(world.mirror, await world.examine(last_pushed=first.sha), BRANCH, expected=first.sha)


async def test_history_is_not_rewritten_even_with_the_lease(world: World) -> None:
    theirs = world.remote.commit({"theirs.md": "x\n"}, branch=BRANCH)
    world.agent.commit({"a.md": "a\n"})
    with pytest.raises(PushRefused, match="does not continue"):
        await push(world.mirror, await world.examine(), BRANCH, expected=theirs)
    assert world.remote.sha(BRANCH) == theirs


@pytest.mark.parametrize(
    "branch",
    [
        "main",
        "refs/heads/main",
        "claude/../main",
        f"{BRANCH}:refs/heads/main",
        "--receive-pack=touch /tmp/x",
        f"{BRANCH}\n",
        f"{BRANCH}..x",
        f"{BRANCH}-x.lock",
        f"{BRANCH}-x.",
        f"{BRANCH}/x",
        f"+{BRANCH}",
        f"{BRANCH}-a b",
        branch_name("docs", "another-session"),
        "claude/docs",
        "",
    ],
)
async def test_other_branches_are_refused(world: World, branch: str) -> None:
    world.agent.commit({"a.md": "a\n"})
    candidate = await world.examine()
    with pytest.raises(PushRefused, match="not a branch of this session"):
        await push(world.mirror, candidate, branch)
    assert world.remote.pushes == []


@given(st.text(), st.text(min_size=1))
def test_every_branch_name_we_make_is_accepted_by_us_and_by_git(slug: str, session: str) -> None:
    branch = branch_name(slug, session)
    check_branch(branch, session, "main")
    check_branch(f"{branch}-2", session, "main")
    # git-check-ref-format(1) refuses exactly these in names made of this alphabet.
    assert branch.isascii()
    assert ".." not in branch
    assert "//" not in branch
    assert not branch.endswith((".", "/", ".lock"))


@given(st.text() | st.from_regex(r"claude/[a-z0-9.:/\\~^-]+"))
def test_no_other_branch_is_accepted(branch: str) -> None:
    with pytest.raises(PushRefused):
        check_branch(branch, SESSION, "main")


async def test_what_the_remote_refuses_is_told_with_its_reason(world: World) -> None:
    hook = world.remote.path / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho 'commits must be signed' >&2\nexit 1\n")
    hook.chmod(0o755)
    world.agent.commit({"a.md": "a\n"})
    with pytest.raises(PushRefused, match="pre-receive hook declined: commits must be signed"):
        await push(world.mirror, await world.examine(), BRANCH)


async def test_a_push_that_arrived_although_the_answer_was_lost_counts(world: World) -> None:
    """The remote has the commit, but its last word is an error."""
    hook = world.remote.path / "hooks/post-receive"
    hook.write_text('#!/bin/sh\ncat >> pushes.log\nkill -9 "$PPID"\n')
    world.agent.commit({"a.md": "a\n"})
    candidate = await world.examine()
    await push(world.mirror, candidate, BRANCH)
    assert world.remote.sha(BRANCH) == candidate.sha


async def test_a_remote_that_is_gone_is_a_repository_error(world: World) -> None:
    world.agent.commit({"a.md": "a\n"})
    candidate = await world.examine()
    shutil.rmtree(world.remote.path)
    with pytest.raises(RepositoryError, match="there is no repository"):
        await push(world.mirror, candidate, BRANCH)


async def test_remote_sha_names_exactly_that_branch(world: World) -> None:
    sha = world.remote.commit({"x": "x"}, branch="x/claude/a")
    assert await remote_sha(world.mirror.repository, "claude/a") is None
    assert await remote_sha(world.mirror.repository, "x/claude/a") == sha


async def test_a_checkout_bundle_holds_exactly_the_commit(world: World, tmp_path: Path) -> None:
    world.agent.commit({"a.md": "a\n"})
    candidate = await world.examine()
    for number, commit in enumerate([candidate, world.mirror.base_sha]):
        await checkout_bundle(world.mirror, commit, tmp_path / f"{number}.bundle")
        Agent(tmp_path).git("clone", "-q", "--no-checkout", f"{number}.bundle", f"clone{number}")
        Agent(tmp_path / f"clone{number}").git("checkout", "-q", "--detach", commit if isinstance(commit, str) else commit.sha)
    assert (tmp_path / "clone0/a.md").read_text() == "a\n"
    assert not (tmp_path / "clone1/a.md").exists()


def _command_lines() -> Iterator[bytes]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield (entry / "cmdline").read_bytes()
            except OSError:
                continue


async def test_a_token_reaches_the_forge_and_nothing_else(tmp_path: Path) -> None:
    """Not in a command line while git runs, not in the mirror, not in an error."""
    token = "s3cr3t-Token/with+odd%chars"
    forge = LocalForge(tmp_path / "forge")
    docs = forge.repository("docs", files={"README.md": "# Docs\n"})
    with forge.serve(token):
        repository = Repository("docs", docs.url, credential=Credential(password=SecretStr(token)))
        seen: list[bytes] = []

        async def watch() -> None:
            while True:
                seen.extend(line for line in await asyncio.to_thread(lambda: list(_command_lines())) if b"git" in line)

        watching = asyncio.create_task(watch())
        mirror = await refresh(tmp_path / "mirrors", repository)
        agent = Agent(tmp_path)
        agent.git("clone", "-q", str(docs.path), "agent")
        world = World(docs, mirror, Agent(tmp_path / "agent"))
        world.agent.commit({"a.md": "a\n"})
        await push(mirror, await world.examine(), BRANCH)
        watching.cancel()
        wrong = Credential(password=SecretStr("wrong-" + token))
        world.agent.commit({"b.md": "b\n"})
        with pytest.raises(RepositoryError) as caught:
            await push(mirror, await world.examine(), f"{BRANCH}-2", credential=wrong)
    assert len(docs.pushes) == 1
    assert any(b"git-remote-http" in line or b"push" in line for line in seen)
    assert not any(token.encode() in line for line in seen)
    assert token not in str(caught.value)
    assert "was denied" in str(caught.value)
    for path in (tmp_path / "mirrors").rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes()
    assert token not in repr(repository)
