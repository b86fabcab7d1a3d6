"""Every commit of a hostile bundle is looked at; what breaks a rule is refused with a remedy and leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from git_world import SESSION, TRAILER, Agent, World

from prefect_routines.errors import PushRefused
from prefect_routines.workspace.guard import PushRules
from prefect_routines.workspace.push import branch_name, push
from prefect_routines.workspace.repositories import bundle, refresh

GITHUB_TOKEN = "ghp_" + "a1B2c3D4e5" * 4


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await World.build(tmp_path)


async def refused(world: World, match: str, bundle: bytes | None = None, **options: object) -> None:
    """The bundle is refused in one line that matches, and neither mirror nor remote has changed."""
    before, main = world.host_files(), world.remote.branches()
    with pytest.raises(PushRefused, match=match) as caught:
        await world.examine(bundle, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert world.host_files() == before
    assert world.remote.branches() == main
    assert world.remote.pushes == []


async def test_an_honest_change_passes_and_is_described(world: World) -> None:
    first = world.agent.commit({"README.md": "# Better\n", "ein neuer name/ß.md": "x\n"}, f"Improve the readme\n\n{TRAILER}")
    second = world.agent.commit({"src/app.py": "print(2)\n"})
    before = world.host_files()
    candidate = await world.examine()
    assert candidate.sha == second
    assert [(commit.sha, commit.subject) for commit in candidate.commits] == [(first, "Improve the readme"), (second, "Change")]
    assert candidate.files == ("README.md", "ein neuer name/ß.md", "src/app.py")
    assert "+# Better" in candidate.diff
    assert "3 files changed" in candidate.diffstat
    assert not candidate.diff_truncated
    assert world.host_files() == before


async def test_a_long_diff_is_cut(world: World) -> None:
    world.agent.commit({"big.txt": "line\n" * 200_000})
    candidate = await world.examine()
    assert candidate.diff_truncated
    assert len(candidate.diff) <= 512 * 1024


async def test_merges_of_own_branches_pass(world: World) -> None:
    agent = world.agent
    agent.git("checkout", "-q", "-b", "side", "HEAD~1")
    agent.commit({"side.md": "side\n"})
    agent.git("checkout", "-q", "main")
    agent.commit({"main.md": "main\n"})
    agent.git("merge", "-q", "--no-ff", "-m", f"Merge\n\n{TRAILER}", "side")
    assert len((await world.examine()).commits) == 3


async def test_a_second_push_builds_on_the_first(world: World) -> None:
    first = world.agent.commit({"a.md": "a\n"})
    world.agent.git("push", "-q", world.remote.url, f"{first}:refs/heads/claude/x")
    second = world.agent.commit({"b.md": "b\n"})
    candidate = await world.examine(last_pushed=first)
    assert candidate.sha == second
    assert candidate.files == ("a.md", "b.md")


# -- history -----------------------------------------------------------------------------------------------------------------------------


async def test_nothing_new_is_refused(world: World) -> None:
    world.agent.git("checkout", "-q", "--detach", "HEAD~1")
    await refused(world, "nothing new", world.agent.bundle("HEAD~1", tip="main"))


async def test_history_that_leaves_out_the_base_is_refused(world: World) -> None:
    world.agent.git("reset", "-q", "--hard", "HEAD~1")
    world.agent.commit({"other.md": "x\n"})
    await refused(world, "do not continue")


async def test_rewriting_what_was_pushed_is_refused(world: World) -> None:
    first = world.agent.commit({"a.md": "a\n"})
    world.agent.git("push", "-q", world.remote.url, f"{first}:refs/heads/claude/x")
    world.agent.commit({"a.md": "b\n"}, f"Again\n\n{TRAILER}", "--amend")
    with pytest.raises(PushRefused, match="do not continue"):
        await world.examine(last_pushed=first)


async def test_orphan_history_is_refused(world: World) -> None:
    world.agent.git("checkout", "-q", "--orphan", "fresh")
    world.agent.git("rm", "-rfq", ".")
    world.agent.commit({"x": "x"})
    await refused(world, "do not continue")


async def test_a_bundle_that_needs_unknown_commits_is_refused(world: World) -> None:
    first = world.agent.commit({"a.md": "a\n"})
    world.agent.commit({"b.md": "b\n"})
    await refused(world, "not part of", world.agent.bundle(first))


async def test_too_many_commits_are_refused(world: World) -> None:
    for number in range(4):
        world.agent.commit({"a.md": f"{number}\n"})
    await refused(world, "4 new commits, at most 3", rules=PushRules(max_commits=3))


# -- guarded paths -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        ".github/workflows/ci.yml",
        ".github/workflows/new.yml",
        ".GitHub/Workflows/ci.yml",
        ".github/actions/x/action.yml",
        "CODEOWNERS",
        "docs/CodeOwners",
        ".gitattributes",
        "src/.gitattributes",
        ".github/dependabot.yaml",
        ".claude/settings.json",
        ".claude/settings.local.json",
        ".mcp.json",
        ".gitlab-ci.yml",
    ],
)
async def test_guarded_paths_are_refused_unless_allowed(world: World, path: str) -> None:
    world.agent.commit({path: "evil\n"})
    await refused(world, "guarded")
    assert path in (await world.examine(rules=PushRules(allow_guarded=(path,)))).files


async def test_a_workflow_added_and_removed_again_is_refused(world: World) -> None:
    world.agent.commit({".github/workflows/evil.yml": "on: push\n"})
    world.agent.git("rm", "-q", ".github/workflows/evil.yml")
    world.agent.commit()
    await refused(world, "guarded")


async def test_removing_a_workflow_is_refused(world: World) -> None:
    world.agent.git("rm", "-q", ".github/workflows/ci.yml")
    world.agent.commit()
    await refused(world, "guarded")


async def test_a_workflow_hidden_in_an_evil_merge_is_refused(world: World) -> None:
    agent = world.agent
    agent.git("checkout", "-q", "-b", "side")
    agent.commit({"side.md": "x\n"})
    agent.git("checkout", "-q", "main")
    agent.commit({"main.md": "x\n"})
    agent.git("merge", "-q", "--no-ff", "--no-commit", "side")
    agent.commit({".github/workflows/ci.yml": "evil\n"})
    await refused(world, "guarded")


async def test_a_workflow_behind_a_replace_ref_is_refused(world: World) -> None:
    innocent = world.agent.commit({"a.md": "a\n"})
    world.agent.git("reset", "-q", "--hard", "HEAD~1")
    evil = world.agent.commit({".github/workflows/ci.yml": "evil\n"})
    world.agent.git("replace", evil, innocent)
    environment = {"GIT_NO_REPLACE_OBJECTS": "1"}
    bundle = world.agent.git("bundle", "create", "-q", "-", "HEAD", f"^{world.mirror.base_sha}", environment=environment)
    await refused(world, "guarded", bundle)


async def test_a_link_in_the_place_of_a_guarded_directory_is_refused(world: World) -> None:
    world.agent.git("rm", "-q", "-r", ".github")
    world.agent.write({"ci/workflows/x.yml": "evil\n"})
    os.symlink("ci", world.agent.path / ".github")
    world.agent.commit()
    await refused(world, "guarded", rules=PushRules(allow_guarded=(".github/workflows/*",)))


# -- links, submodules, modes, names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../secret", "..", "src/../../x", ".git/config", "src/.GIT/config", "a/../b", "~root", "..\\x"]
)
async def test_links_that_may_leave_the_repository_are_refused(world: World, target: str) -> None:
    os.symlink(target, world.agent.path / "link")
    world.agent.commit()
    await refused(world, "symbolic link")


async def test_links_inside_the_repository_pass(world: World) -> None:
    os.symlink("../README.md", world.agent.path / "src/readme")
    os.symlink("src", world.agent.path / "code")
    world.agent.commit()
    await world.examine()


async def test_a_submodule_is_refused(world: World) -> None:
    world.agent.git("update-index", "--add", "--cacheinfo", f"160000,{world.mirror.base_sha},vendor")
    world.agent.git("commit", "-q", "-m", f"Change\n\n{TRAILER}")
    await refused(world, "submodule")


async def test_gitmodules_with_a_command_are_refused(world: World) -> None:
    world.agent.commit({".gitmodules": '[submodule "x"]\n\tpath = x\n\turl = "ext::sh -c evil"\n'})
    await refused(world, "guarded|does not accept")


@pytest.mark.parametrize("name", [b".git", b".GIT", b"..", b".", b"a/b", b".g\xe2\x80\x8cit", b"git~1"])
async def test_trees_with_reserved_names_are_refused(world: World, name: bytes) -> None:
    agent = world.agent
    inner = agent.tree(("100644", "blob", b"config", agent.blob(b"[core]\n")))
    agent.commit_tree(agent.tree(("40000", "tree", name, inner)), world.mirror.base_sha)
    await refused(world, "does not accept|reserves|invisible")


@pytest.mark.parametrize("name", [b"bell\x07", b"esc\x1b[31m", b"latin-\xe9", "rtl\u202egpj.exe".encode(), b"line\nbreak"])
async def test_names_that_deceive_a_reader_are_refused(world: World, name: bytes) -> None:
    agent = world.agent
    agent.commit_tree(agent.base_tree_with("100644", name, agent.blob(b"x")), world.mirror.base_sha)
    await refused(world, "invisible|not UTF-8")


@pytest.mark.parametrize("mode", ["100666", "100600", "104755", "010000"])
async def test_odd_modes_are_refused(world: World, mode: str) -> None:
    agent = world.agent
    agent.commit_tree(agent.base_tree_with(mode, b"file", agent.blob(b"x")), world.mirror.base_sha)
    await refused(world, "mode|does not accept|submodule|cannot be examined")


# -- sizes -------------------------------------------------------------------------------------------------------------------------------


async def test_301_files_are_refused_and_300_pass(world: World) -> None:
    world.agent.commit({f"many/{number}.md": f"{number}\n" for number in range(300)})
    assert len((await world.examine()).files) == 300
    world.agent.commit({"one-more.md": "x\n"})
    await refused(world, "301 files")


async def test_a_bundle_above_the_cap_is_refused(world: World) -> None:
    world.agent.commit({"noise.bin": os.urandom(200_000)})
    await refused(world, "larger than", rules=PushRules(max_bytes=100_000))


async def test_what_is_small_packed_and_large_unpacked_is_refused(world: World) -> None:
    world.agent.commit({"zeros.bin": b"\0" * 60_000_000})
    bundle = world.agent.bundle(world.mirror.base_sha)
    assert len(bundle) < 1_000_000
    await refused(world, "unpacked", bundle)


async def test_a_tree_that_explodes_is_refused_in_bounded_time(world: World) -> None:
    agent = world.agent
    tree = agent.tree(*(("100644", "blob", b"f%d" % number, agent.blob(b"x")) for number in range(10)))
    for _ in range(9):
        tree = agent.tree(*(("40000", "tree", b"d%d" % number, tree) for number in range(10)))
    agent.commit_tree(tree, world.mirror.base_sha)
    await refused(world, "cannot be examined")


# -- damaged bundles ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [lambda _: b"", lambda _: b"garbage" * 100, lambda good: good[:40], lambda good: b"\n\n" + good],
    ids=["empty", "garbage", "cut", "shifted"],
)
async def test_what_is_no_bundle_is_refused(world: World, spoil: Callable[[bytes], bytes]) -> None:
    world.agent.commit({"a.md": "a\n"})
    await refused(world, "not a bundle", spoil(world.agent.bundle(world.mirror.base_sha)))


@pytest.mark.parametrize("cut", [1, 20, 60])
async def test_a_truncated_bundle_is_refused(world: World, cut: int) -> None:
    world.agent.commit({"a.md": "a\n"})
    await refused(world, "does not accept", world.agent.bundle(world.mirror.base_sha)[:-cut])


@pytest.mark.parametrize("at", [-1, -25, -40])
async def test_a_flipped_bit_is_refused(world: World, at: int) -> None:
    world.agent.commit({"a.md": "a\n" * 50})
    data = bytearray(world.agent.bundle(world.mirror.base_sha))
    data[at] ^= 4
    await refused(world, "does not accept", bytes(data))


async def test_a_bundle_with_two_tips_is_refused(world: World) -> None:
    world.agent.git("branch", "second")
    world.agent.commit({"a.md": "a\n"})
    world.agent.git("update-ref", "refs/heads/second", "HEAD")
    await refused(world, "not a bundle", world.agent.git("bundle", "create", "-q", "-", "HEAD", "second", f"^{world.mirror.base_sha}"))


async def test_a_tip_that_is_no_commit_is_refused(world: World) -> None:
    agent = world.agent
    agent.commit({"a.md": "a\n"})
    tree = agent.git("rev-parse", "HEAD^{tree}").decode().strip()
    bundle = agent.bundle(world.mirror.base_sha)
    await refused(world, "not a commit", bundle.replace(agent.head.encode(), tree.encode(), 1))


async def test_a_tip_that_is_not_in_the_bundle_is_refused(world: World) -> None:
    world.agent.commit({"a.md": "a\n"})
    bundle = world.agent.bundle(world.mirror.base_sha)
    await refused(world, "cannot be examined", bundle.replace(world.agent.head.encode(), b"1" * 40, 1))


async def test_a_missing_object_is_refused(world: World) -> None:
    agent = world.agent
    agent.commit({"a.md": "a\n"})
    pack = agent.git("pack-objects", "--stdout", "-q", stdin=f"{agent.head}\n".encode())  # the commit alone, without its tree
    header = f"# v2 git bundle\n-{world.mirror.base_sha} x\n{agent.head} HEAD\n\n".encode()
    await refused(world, "does not accept|cannot be examined", header + pack)


# -- messages and secrets ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["Change", "Change\n\nRoutine-Session: another", f"{TRAILER}\n\nChange"])
async def test_a_commit_without_its_trailer_is_refused_with_the_remedy(world: World, message: str) -> None:
    world.agent.commit({"a.md": "a\n"}, message)
    await refused(world, r"git rebase \w+ --exec")


async def test_the_remedy_for_missing_trailers_works(world: World) -> None:
    world.agent.commit({"a.md": "a\n"}, "One")
    world.agent.commit({"b.md": "b\n"}, "Two\n\nWith a body.")
    with pytest.raises(PushRefused) as caught:
        await world.examine()
    command = "git rebase" + str(caught.value).partition("git rebase")[2]
    world.agent.git("-c", f"alias.do=!{command}", "do")
    assert [commit.subject for commit in (await world.examine()).commits] == ["One", "Two"]


@pytest.mark.parametrize(
    "message",
    [f"\x1b[2Jcleared\n\n{TRAILER}", f"rtl \u202e txt\n\n{TRAILER}", f"{'x' * 70_000}\n\n{TRAILER}"],
    ids=["ansi", "bidi", "long"],
)
async def test_messages_that_deceive_a_reader_are_refused(world: World, message: str) -> None:
    world.agent.commit({"a.md": "a\n"}, message)
    await refused(world, "git commit --amend")


async def test_a_message_in_another_encoding_is_refused(world: World) -> None:
    world.agent.git("config", "i18n.commitEncoding", "latin1")
    world.agent.commit({"a.md": "a\n"}, f"Change\n\n{TRAILER}")
    await refused(world, "UTF-8")


@pytest.mark.parametrize(
    "content",
    [
        f"token = {GITHUB_TOKEN}\n".encode(),
        f"token = {GITHUB_TOKEN}\n".encode("utf-16"),
        b"\0binary\0" + GITHUB_TOKEN.encode(),
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n",
    ],
)
async def test_a_secret_is_refused_even_when_removed_again(world: World, content: bytes) -> None:
    world.agent.commit({"settings.ini": content})
    world.agent.git("rm", "-q", "settings.ini")
    world.agent.commit()
    await refused(world, r"settings\.ini contains a (GitHub token|private key)")


async def test_a_secret_cannot_hide_behind_attributes(world: World) -> None:
    world.agent.commit({".gitattributes": "* -diff\n", "settings.ini": f"token = {GITHUB_TOKEN}\n"})
    await refused(world, "contains a GitHub token", rules=PushRules(allow_guarded=(".gitattributes",)))


async def test_a_secret_in_a_message_is_refused(world: World) -> None:
    world.agent.commit({"a.md": "a\n"}, f"Use {GITHUB_TOKEN}\n\n{TRAILER}")
    await refused(world, "message contains a GitHub token")


async def test_a_refusal_does_not_repeat_the_secret(world: World) -> None:
    world.agent.commit({"a.md": GITHUB_TOKEN})
    with pytest.raises(PushRefused) as caught:
        await world.examine()
    assert GITHUB_TOKEN not in str(caught.value)


async def test_a_secret_that_was_there_before_is_not_this_pushs(world: World) -> None:
    world.remote.commit({"fixture.txt": f"{GITHUB_TOKEN}\n"})
    world.mirror = await refresh(world.mirror.path.parent, world.mirror.repository)
    await bundle(world.mirror, world.agent.path.parent / "new.bundle")
    Agent(world.agent.path.parent).git("clone", "-q", "--branch", "main", "new.bundle", "agent2")
    world.agent = Agent(world.agent.path.parent / "agent2")
    world.agent.commit({"fixture.txt": f"{GITHUB_TOKEN}\nanother line\n"})
    await world.examine()
    world.agent.commit({"copy.txt": f"other {GITHUB_TOKEN}\n"})
    await refused(world, "copy.txt contains")
    await world.examine(rules=PushRules(allow_secrets=("copy.*",)))


# -- the repository itself ---------------------------------------------------------------------------------------------------------------


async def test_a_poisoned_repository_runs_nothing_on_the_host(world: World, tmp_path: Path) -> None:
    """Hooks, filters, drivers, helpers and redirections all stay in the sandbox: the host reads a bundle and nothing else."""
    world.agent.commit({"a.md": "a\n", "x.dat": "x\n"})
    taken = world.agent.bundle(world.mirror.base_sha)
    marker = tmp_path / "executed"
    evil = f"touch {marker}; false"
    for option in (
        "core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass", "core.gitProxy", "diff.external", "gpg.program",
        "filter.x.clean", "filter.x.smudge", "filter.x.process", "diff.x.textconv", "merge.x.driver", "credential.helper",
        "remote.origin.uploadpack", "remote.origin.receivepack", "uploadpack.packObjectsHook", "sequence.editor", "alias.push",
    ):  # fmt: skip
        world.agent.git("config", option, f"!{evil}" if option.startswith("alias") else evil)
    world.agent.git("config", f"url.{tmp_path}/elsewhere.insteadOf", world.remote.url)
    world.agent.git("config", "protocol.ext.allow", "always")
    world.agent.git("config", "remote.evil.url", f"ext::sh -c '{evil}'")
    hooks = world.agent.path / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("pre-commit", "pre-push", "post-checkout", "reference-transaction", "post-index-change", "post-rewrite"):
        (hooks / hook).write_text(f"#!/bin/sh\n{evil}\n")
        (hooks / hook).chmod(0o755)
    (world.agent.path / ".git/info/attributes").write_text("* filter=x diff=x merge=x\n")
    (world.agent.path / ".git/objects/info/alternates").write_text(f"{tmp_path}\n")
    candidate = await world.examine(taken)
    assert candidate.session_id == SESSION
    await push(world.mirror, candidate, branch_name("docs", SESSION))
    assert len(world.remote.pushes) == 1
    assert not marker.exists()
