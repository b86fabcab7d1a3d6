"""What may leave in a commit: pure rules over paths, modes, links and messages. A refusal tells Claude what to change."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from prefect_routines.errors import PushRefused
from prefect_routines.workspace.clones import TRAILER

# Files that run code or decide who reviews, at the forge or on the machine of whoever opens the repository.
GUARDED = (
    ".github/workflows/*", ".github/actions/*", ".github/dependabot.y*ml", ".github/copilot-setup-steps.y*ml",
    "codeowners", ".github/codeowners", "docs/codeowners", ".gitlab/codeowners",
    ".gitmodules", "*/.gitmodules", ".gitattributes", "*/.gitattributes", ".lfsconfig",
    ".gitlab-ci.y*ml", ".circleci/*", ".buildkite/*", ".woodpecker/*", ".woodpecker.y*ml", ".gitea/workflows/*", ".forgejo/workflows/*",
    ".travis.yml", "azure-pipelines.y*ml", "bitbucket-pipelines.yml", "jenkinsfile", ".drone.yml",
    ".claude/settings*", ".claude/hooks/*", ".mcp.json",
)  # fmt: skip

# A file or link in the place of a directory that holds guarded files.
_GUARDED_PARENTS = frozenset(
    "/".join(parts[:end]) for pattern in GUARDED if "*" not in (parts := pattern.split("/"))[0] for end in range(1, len(parts))
) - {"docs"}

_MODES = {b"100644", b"100755", b"120000", b"000000"}
_TREE_MODES = {b"100644", b"100755", b"120000", b"40000", b"160000"}
_HEADER_LINE = re.compile(rb"-(?P<needs>[0-9a-f]{40})(?: [^\n]*)?\Z|(?P<tip>[0-9a-f]{40}) (?P<ref>[!-~]{1,255})\Z")
_MAX_MESSAGE = 64 * 1024


@dataclass(frozen=True)
class PushRules:
    """What one push may contain.

    Attributes:
        allow_guarded: Patterns (`*` matches everything, `/` too) of guarded paths that may change after all, without regard to case.
        allow_secrets: Patterns of paths in which the shapes of tokens are no secrets (recorded test data).
        max_files: Files changed, over all commits of the branch.
        max_bytes: Size of the bundle, and of everything new in it once unpacked.
        max_commits: Commits of the branch.
        default_branch: Never pushed to.
    """

    allow_guarded: tuple[str, ...] = ()
    allow_secrets: tuple[str, ...] = ()
    max_files: int = 300
    max_bytes: int = 50 * 1024 * 1024
    max_commits: int = 200
    default_branch: str = "main"


@dataclass(frozen=True)
class Header:
    """The head of a bundle: its one tip, the commits it needs, and where the pack begins."""

    tip: str
    needs: frozenset[str]
    pack_at: int


@dataclass(frozen=True)
class Change:
    """One path changed by one commit, as `git diff-tree --raw` names it."""

    commit: str
    old_sha: str
    new_mode: bytes
    new_sha: str
    raw_path: bytes

    @property
    def path(self) -> str:
        """The path as text for a person: what cannot be shown is replaced."""
        return "".join(c if c.isprintable() else "�" for c in self.raw_path.decode("utf-8", "replace"))


def read_header(bundle: bytes) -> Header:
    """Take the head of a bundle apart (https://git-scm.com/docs/gitformat-bundle, version 2).

    Raises:
        PushRefused: It is no bundle of version 2 with exactly one tip.
    """
    end = bundle.find(b"\n\n", 0, 64 * 1024)
    first, *lines = bundle[: max(end, 0)].split(b"\n")
    found = [_HEADER_LINE.match(line) for line in lines]
    tips = [match["tip"] for match in found if match and match["tip"]]
    if first != b"# v2 git bundle" or not all(found) or len(tips) != 1 or bundle[end + 2 : end + 6] != b"PACK":
        raise PushRefused(
            "what git in the sandbox wrote is not a bundle with one tip; check that `git bundle create` and `git fsck` work in the clone"
        )
    return Header(tips[0].decode(), frozenset(match["needs"].decode() for match in found if match and match["needs"]), end + 2)


def read_changes(raw: bytes) -> list[Change]:
    """Parse `git diff-tree --stdin --raw -z`: commit names, and under each the paths it changes."""
    changes: list[Change] = []
    commit = ""
    fields = iter(raw.split(b"\0"))
    for item in fields:
        if item.startswith(b":"):
            _, mode, old, new, _ = item.decode("ascii").split(" ")
            changes.append(Change(commit, old, mode.encode(), new, next(fields)))
        elif item.strip():
            commit = item.decode("ascii", "replace").split()[0]
    return changes


def folded(path: str) -> str:
    """A path as the least careful file system compares it: no case, no invisible characters, no dots or blanks at the ends of names."""
    text = "".join(c for c in unicodedata.normalize("NFKC", path).casefold() if unicodedata.category(c) != "Cf")
    return "/".join(part.rstrip(" .") or part for part in text.replace("\\", "/").split("/"))


def is_guarded(path: str) -> bool:
    """Whether only a person may change this path.

    Example:
        >>> is_guarded(".GitHub/workflows/ci.yml")
        True
    """
    name = folded(path)
    return name in _GUARDED_PARENTS or any(fnmatchcase(name, pattern) for pattern in GUARDED)


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path matches one of an author's patterns, without regard to case."""
    return any(fnmatchcase(folded(path), pattern.casefold()) for pattern in patterns)


def check_change(change: Change, rules: PushRules) -> None:
    """Refuse a change by its path and mode. What a link points to is `check_link`'s."""
    try:
        path = change.raw_path.decode("utf-8")
    except UnicodeDecodeError:
        raise _refused(change, f"the name of {change.path} is not UTF-8; rename the file") from None
    parts = path.split("/")
    if any(unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"} for c in path):
        raise _refused(change, f"the name of {change.path} contains invisible or control characters; rename the file")
    if any(folded(part) in {"", ".", "..", ".git", "git~1"} for part in parts):
        raise _refused(change, f"{change.path} has a part that git reserves; rename it")
    if change.new_mode == b"160000":
        raise _refused(change, f"{change.path} is a submodule (or a repository inside the repository); remove it, or add its files instead")
    if change.new_mode not in _MODES:
        raise _refused(change, f"{change.path} has mode {change.new_mode.decode()}; only files, executables and links may be committed")
    if is_guarded(path) and not matches(path, rules.allow_guarded):
        raise _refused(
            change, f"{change.path} is guarded: only a person may change it; undo the change and describe it in the report instead"
        )


def check_modes(tree: bytes) -> None:
    """Refuse a tree object with modes that git does not write itself; reading it, git would show them as ordinary ones.

    Args:
        tree: The object: entries of mode, blank, name, zero byte, 20 bytes of object name.
    """
    at = 0
    while at < len(tree):
        blank, end = tree.index(b" ", at), tree.index(b"\0", at)
        if tree[at:blank] not in _TREE_MODES:
            name = "".join(c if c.isprintable() else "�" for c in tree[blank + 1 : end].decode("utf-8", "replace"))
            raise PushRefused(
                f"{name} has mode {tree[at:blank].decode('ascii', 'replace')}; make the commits again with git add and git commit"
            )
        at = end + 21


def check_link(change: Change, target: bytes) -> None:
    """Refuse a symbolic link that leads, or could lead through another link, out of the repository or into `.git`."""
    text = target.decode("utf-8", "surrogateescape")
    parts = text.split("/")
    up = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    # `..` after a name may pass through another link and end anywhere: only leading ones can be counted.
    leaves = text.startswith(("/", "~")) or "\\" in text or up > change.raw_path.count(b"/") or ".." in parts[up:]
    if not text or len(target) > 4096 or "\0" in text or leaves or any(folded(part) in {".git", "git~1"} for part in parts):
        raise _refused(change, f"the symbolic link {change.path} leads out of the repository; make it relative and inside, or remove it")


def check_commit(sha: str, raw: bytes, session_id: str, since: str, parents: Sequence[str] = ()) -> str:
    """Refuse a commit by its headers and message; returns its subject.

    Args:
        sha: Its name.
        raw: The commit object.
        session_id: Which session must stand in its trailer.
        since: The commit after which it may be rewritten, for the remedy.
        parents: The sessions that it was forked from: what they committed is its own, too.
    """
    head, _, body = raw.partition(b"\n\n")
    short = sha[:12]
    try:
        headers, message = head.decode("utf-8"), body.decode("utf-8")
    except UnicodeDecodeError:
        raise PushRefused(f"commit {short}: author and message must be UTF-8; write them again: git commit --amend") from None
    if re.search(r"^encoding (?!utf-?8$)", headers, re.MULTILINE | re.IGNORECASE):
        raise PushRefused(
            f"commit {short}: its message is not declared as UTF-8; unset i18n.commitEncoding and write it again: git commit --amend"
        )
    if any(unicodedata.category(c) in {"Cc", "Cf"} and c not in "\n\t\u200d" for c in headers + message):
        raise PushRefused(
            f"commit {short}: author or message contain control or invisible characters; write them again: git commit --amend"
        )
    if len(body) > _MAX_MESSAGE:
        raise PushRefused(f"commit {short}: its message is longer than {_MAX_MESSAGE // 1024} KiB; shorten it: git commit --amend")
    wanted = f"{TRAILER}: {session_id}"
    named = {line.strip() for line in message.rstrip().split("\n\n")[-1].split("\n")}
    if named.isdisjoint([wanted, *(f"{TRAILER}: {parent}" for parent in parents)]):
        raise PushRefused(
            f"commit {short} lacks the line '{wanted}' at the end of its message; add it to every new commit: "
            f"git rebase {since[:12]} --exec \"git commit --amend --no-edit --trailer '{wanted}'\""
        )
    return message.strip().split("\n", 1)[0][:200]


def _refused(change: Change, text: str) -> PushRefused:
    return PushRefused(f"commit {change.commit[:12]}: {text} (in every new commit: rewrite them with git rebase or a soft reset)")
