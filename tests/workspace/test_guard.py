"""The pure rules: whatever bytes come, the answer is a parsed value or a refusal of one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_routines.errors import PushRefused
from prefect_routines.secret_shapes import find_secrets
from prefect_routines.workspace.guard import GUARDED, Change, PushRules, check_change, check_link, is_guarded, matches, read_header

SHA = "0123456789abcdef0123456789abcdef01234567"
NAMES = st.text(min_size=1).filter(lambda text: "\0" not in text)


def refusal(check: Callable[[], object]) -> str | None:
    """The text of the refusal, or None if there is none."""
    try:
        check()
    except PushRefused as error:
        return str(error)
    return None


def test_a_header_is_taken_apart() -> None:
    header = read_header(f"# v2 git bundle\n-{'a' * 40} Subject: x\n-{'b' * 40}\n{SHA} HEAD\n\nPACK...".encode())
    assert header.tip == SHA
    assert header.needs == {"a" * 40, "b" * 40}


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [f"{SHA} HEAD", f"{SHA} refs/heads/x"],
        [f"{SHA}"],
        [f"{SHA} HEAD", "-x"],
        [f"{SHA[:-1]} HEAD"],
        [f"{SHA.upper()} HEAD"],
        ["@filter=blob:none", f"{SHA} HEAD"],
        [f"{SHA} HEAD\0"],
    ],
)
def test_an_odd_header_is_refused(lines: list[str]) -> None:
    with pytest.raises(PushRefused):
        read_header("\n".join(["# v2 git bundle", *lines, "", "PACK"]).encode())


@given(st.sampled_from([b"", b"# v2 git bundle\n", f"# v2 git bundle\n{SHA} HEAD\n\n".encode()]), st.binary())
def test_any_bytes_are_a_header_or_refused(head: bytes, tail: bytes) -> None:
    refused = refusal(lambda: read_header(head + tail))
    if refused is None:
        assert (head + tail)[read_header(head + tail).pack_at :].startswith(b"PACK")
    else:
        assert "\n" not in refused


@given(NAMES, st.sampled_from([b"100644", b"100755", b"120000", b"160000", b"000000", b"040000"]))
def test_any_path_is_fine_or_refused_in_one_line(path: str, mode: bytes) -> None:
    change = Change(SHA, SHA, mode, SHA, path.encode("utf-8", "surrogatepass"))
    refused = refusal(lambda: check_change(change, PushRules()))
    if refused is not None:
        assert refused.isprintable()
    else:
        assert path.isprintable() or any(ord(c) > 127 for c in path)
        assert ".git" not in path.casefold().split("/")
        assert mode != b"160000"


@pytest.mark.parametrize(
    "path",
    [".github/workflows/a.yml", ".GITHUB/WORKFLOWS/a.yml", ".github./workflows /a.yml", ".github\\workflows\\a.yml",
     ".gith\u200bub/workflows/a.yml",
     "\uff0egithub/workflows/a.yml", ".github", ".github/workflows", "a/b/.gitattributes", ".claude", "CODEOWNERS", "Jenkinsfile"],
)  # fmt: skip
def test_guarded_under_every_disguise(path: str) -> None:
    assert is_guarded(path)


@pytest.mark.parametrize(
    "path", ["docs/index.md", ".github/ISSUE_TEMPLATE/bug.md", "src/github/workflows/x.py", "docs", ".claude/commands/x.md", "CLAUDE.md"]
)
def test_ordinary_files_are_not_guarded(path: str) -> None:
    assert not is_guarded(path)


@pytest.mark.parametrize("pattern", GUARDED)
def test_every_guarded_pattern_is_written_as_it_is_compared(pattern: str) -> None:
    assert pattern == pattern.casefold()
    assert is_guarded(pattern.replace("*", "x"))


def test_a_pattern_of_an_author_allows_without_regard_to_case() -> None:
    assert matches(".github/Workflows/a.yml", (".GitHub/workflows/*",))
    assert not matches(".github/actions/x/action.yml", (".github/workflows/*",))


@given(st.binary(max_size=200), NAMES)
def test_any_link_target_is_fine_or_refused(target: bytes, path: str) -> None:
    change = Change(SHA, SHA, b"120000", SHA, path.encode("utf-8", "surrogatepass"))
    refused = refusal(lambda: check_link(change, target))
    if refused is not None:
        assert refused.isprintable()
    else:
        assert not target.startswith(b"/")
        # Resolved from its own directory it never climbs above the root.
        depth = path.count("/")
        for part in target.split(b"/"):
            depth += -1 if part == b".." else 0
            assert depth >= 0


@pytest.mark.parametrize(
    "text",
    [
        "AKIA" + "IOSFODNN7ABCDEFG"[:16].replace("0", "2").replace("1", "2").replace("8", "2").replace("9", "2"),
        "ghp_" + "a" * 36,
        "github_pat_" + "A1" * 41,
        "glpat-" + "x" * 20,
        "xoxb-" + "1" * 12 + "-abc",
        "sk-ant-api03-" + "x" * 90,
        "sk-proj-" + "x" * 40,
        "AIza" + "x" * 35,
        "npm_" + "x" * 36,
        "pnu_" + "x" * 36,
        "hf_" + "x" * 34,
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_the_shapes_of_tokens_are_found(text: str) -> None:
    assert find_secrets(f'key = "{text}"') == {text: find_secrets(text)[text]}


@pytest.mark.parametrize(
    "text", ["AKIAIOSFODNN7EXAMPLE", "sk-ant-...", "ghp_short", "a" * 200, "-----BEGIN PUBLIC KEY-----", "e3b0c44298fc1c149afbf4c8996fb924"]
)
def test_what_only_resembles_a_token_is_not(text: str) -> None:
    assert find_secrets(text) == {}
