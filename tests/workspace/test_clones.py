"""Clones live in a real sandbox: work goes in as a bundle and comes out as a bundle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from git_world import SESSION, World

from prefect_routines.errors import PushRefused, RepositoryError, SettingsError
from prefect_routines.workspace.candidate import examine
from prefect_routines.workspace.clones import Identity, clone_commit_into, clone_into, install_trailer, take_bundle
from prefect_routines.workspace.guard import PushRules
from prefect_routines.workspace.push import branch_name, checkout_bundle, push
from prefect_routines.workspace.repositories import bundle
from prefect_routines.workspace.sandbox import Sandbox, SandboxSpec


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await World.build(tmp_path / "host")


@pytest.fixture
async def box(tmp_path: Path, let_others_in: Callable[[Path], None]) -> AsyncIterator[Sandbox]:
    let_others_in(tmp_path)
    async with await Sandbox.start(SandboxSpec(tmp_path / "workspace")) as sandbox:
        yield sandbox


@pytest.fixture
async def clone(world: World, box: Sandbox, tmp_path: Path) -> World:
    """The repository, cloned into the sandbox as `docs`, with the trailer."""
    await bundle(world.mirror, tmp_path / "docs.bundle")
    await clone_into(box, world.mirror, tmp_path / "docs.bundle", "docs")
    await install_trailer(box, "docs", SESSION)
    return world


async def sh(box: Sandbox, script: str, cwd: str = "/workspace/docs") -> str:
    result = await box.run(["bash", "-ec", script], cwd=cwd)
    assert result.exit_code == 0, result.stderr.decode(errors="replace")
    return result.stdout.decode()


async def test_a_clone_looks_like_one_from_the_forge(clone: World, box: Sandbox) -> None:
    assert (await sh(box, "git rev-parse HEAD origin/main")).split() == [clone.mirror.base_sha] * 2
    assert "## main...origin/main" in await sh(box, "git status --branch --porcelain")
    assert await sh(box, "cat 'a name with blanks/ünï.md'") == "text\n"
    assert str(clone.remote.path) not in await sh(box, "cat .git/config")
    assert await sh(box, "ls -A", cwd="/workspace") == "docs\n"


async def test_work_goes_from_the_sandbox_to_the_remote(clone: World, box: Sandbox, tmp_path: Path) -> None:
    await sh(box, "echo better > README.md; git commit -qam 'Improve the readme'; echo x > left.md; echo y >> src/app.py")
    taken = await take_bundle(box, "docs", clone.mirror.base_sha)
    assert taken.uncommitted == (" M src/app.py", "?? left.md")
    candidate = await examine(clone.mirror, taken.bundle, base_sha=clone.mirror.base_sha, session_id=SESSION, rules=PushRules())
    await push(clone.mirror, candidate, branch_name("docs", SESSION))
    [update] = clone.remote.pushes
    assert clone.remote.show(update.branch, "README.md") == "better\n"
    assert clone.remote.git("log", "-1", "--format=%an <%ae>", update.branch).strip() == "Claude <noreply@anthropic.com>"
    await sh(box, "git commit -qam 'More'")
    more = await take_bundle(box, "docs", clone.mirror.base_sha, candidate.sha)
    again = await examine(
        clone.mirror, more.bundle, base_sha=clone.mirror.base_sha, session_id=SESSION, last_pushed=candidate.sha, rules=PushRules()
    )
    await push(clone.mirror, again, update.branch, expected=candidate.sha)
    assert len(clone.remote.pushes) == 2
    await checkout_bundle(clone.mirror, candidate, tmp_path / "exact.bundle")
    await clone_commit_into(box, tmp_path / "exact.bundle", "exact", candidate.sha)
    assert (await sh(box, "git rev-parse HEAD", cwd="/workspace/exact")).strip() == candidate.sha


@pytest.mark.parametrize(
    "script",
    [
        "git commit -q --allow-empty -m one",
        "git commit -q --allow-empty --no-verify -m one",
        "printf 'one\\n\\nbody\\n\\nSigned-off-by: A <a@b>\\n' | git commit -q --allow-empty -F -",
        "GIT_EDITOR='sed -i 1ione' git commit -q --allow-empty",
        "git commit -q --allow-empty -m one; git commit -q --amend --allow-empty -m two",
        "git checkout -q -b side; echo x > x; git add x; git commit -qm side; git checkout -q main; git merge -q --no-ff --no-edit side",
        "git checkout -q -b side; echo x > x; git add x; git commit -qm side; git checkout -q main; git cherry-pick side >/dev/null",
        "echo x > x; git add x; git commit -qm x; git revert --no-edit HEAD >/dev/null",
        "mkdir -p sub; cd sub; echo x > x; git add x; git commit -qm sub",
        "git worktree add -q ../tree; cd ../tree; git commit -q --allow-empty -m one; cd ../docs; git merge -q tree",
    ],
)  # fmt: skip
async def test_every_way_of_committing_adds_the_trailer_once(clone: World, box: Sandbox, script: str) -> None:
    await sh(box, script)
    taken = await take_bundle(box, "docs", clone.mirror.base_sha)
    await examine(clone.mirror, taken.bundle, base_sha=clone.mirror.base_sha, session_id=SESSION, rules=PushRules())
    for commit in (await sh(box, f"git rev-list HEAD ^{clone.mirror.base_sha}")).split():
        assert (await sh(box, f"git log -1 --format=%B {commit}")).count("Routine-Session:") == 1


async def test_a_commit_names_the_page_where_others_can_reach_it(clone: World, box: Sandbox, configure: Callable[..., None]) -> None:
    """Beside the session, once, also when it is amended; the examination takes it."""
    configure(ROUTINES_GATEWAY_URL="https://routines.example.org")
    await install_trailer(box, "docs", SESSION)
    await sh(box, "git commit -q --allow-empty -m one; git commit -q --amend --allow-empty --no-edit")
    said = (await sh(box, "git log -1 --format=%B")).strip()
    assert said == f"one\n\nRoutine-Session: {SESSION}\nRoutine-Session-Page: https://routines.example.org/sessions/{SESSION}"
    taken = await take_bundle(box, "docs", clone.mirror.base_sha)
    await examine(clone.mirror, taken.bundle, base_sha=clone.mirror.base_sha, session_id=SESSION, rules=PushRules())


async def test_nothing_committed_is_told_with_what_lies_around(clone: World, box: Sandbox) -> None:
    await sh(box, "echo x > new.md")
    with pytest.raises(PushRefused, match=r"nothing new to push.*1 changed files are in no commit: new\.md\. Commit first"):
        await take_bundle(box, "docs", clone.mirror.base_sha)


async def test_a_bundle_above_the_cap_is_told(clone: World, box: Sandbox) -> None:
    await sh(box, "head -c 3000000 /dev/urandom > noise; git add noise; git commit -qm noise")
    with pytest.raises(PushRefused, match="larger than 1 MiB"):
        await take_bundle(box, "docs", clone.mirror.base_sha, max_bytes=1024 * 1024)


async def test_a_clone_that_claude_destroyed_is_told(clone: World, box: Sandbox) -> None:
    await sh(box, "rm -rf .git/objects; echo hi")
    with pytest.raises(PushRefused):
        await take_bundle(box, "docs", clone.mirror.base_sha)


async def test_names_with_blanks_and_other_scripts_work(world: World, box: Sandbox, tmp_path: Path) -> None:
    await bundle(world.mirror, tmp_path / "x.bundle")
    await clone_into(box, world.mirror, tmp_path / "x.bundle", "Dökümänte 1", identity=Identity("Bot", "bot@example.org"))
    await install_trailer(box, "Dökümänte 1", SESSION)
    await sh(box, "git commit -q --allow-empty -m one", cwd="/workspace/Dökümänte 1")
    assert "Bot <bot@example.org>" in await sh(box, "git log -1", cwd="/workspace/Dökümänte 1")


async def test_a_clone_that_fails_is_a_repository_error(world: World, box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "bad.bundle").write_text("no bundle")
    with pytest.raises(RepositoryError, match="git clone failed in the sandbox"):
        await clone_into(box, world.mirror, tmp_path / "bad.bundle", "docs")
    assert await sh(box, "ls -A", cwd="/workspace") == ""


@pytest.mark.parametrize("session", ["", "a b", "x'; touch /tmp/x; '", "a\nb", "-x"])
async def test_odd_session_ids_are_refused(box: Sandbox, session: str) -> None:
    with pytest.raises(SettingsError):
        await install_trailer(box, "docs", session)


@pytest.mark.parametrize(("name", "email"), [("", "a@b"), ("A\nB", "a@b"), ("A <x>", "a@b"), ("A", "")])
def test_odd_authors_are_refused(name: str, email: str) -> None:
    with pytest.raises(SettingsError):
        Identity(name, email)
