"""What the git tests share: a forge, the host's mirror, and an agent's clone in which tests do as an attacker would."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prefect_routines.testing.forge import ForgeRepository, LocalForge
from prefect_routines.workspace.candidate import Candidate, examine
from prefect_routines.workspace.guard import PushRules
from prefect_routines.workspace.repositories import Mirror, Repository, bundle, refresh

SESSION = "session-1"
TRAILER = f"Routine-Session: {SESSION}"
FILES = {
    "README.md": "# Docs\n",
    "src/app.py": "print('hello')\n",
    ".github/workflows/ci.yml": "on: push\n",
    "a name with blanks/ünï.md": "text\n",
}
_CLEAN = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "LC_ALL": "C.UTF-8", "GIT_ALLOW_PROTOCOL": "file"}
_AGENT = {
    f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in (("NAME", "Claude"), ("EMAIL", "c@example.org"))
}


@dataclass
class Agent:
    """The agent's clone: anything may happen in it."""

    path: Path

    def git(self, *arguments: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> bytes:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            input=stdin,
            capture_output=True,
            check=False,
            env={**os.environ, **_CLEAN, **_AGENT, **(environment or {})},
        )
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    def write(self, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, files: Mapping[str, str | bytes] | None = None, message: str = f"Change\n\n{TRAILER}", *options: str) -> str:
        """Commit everything there is; returns the commit's name."""
        self.write(files or {})
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--cleanup=verbatim", "--no-verify", "-F", "-", *options, stdin=message.encode())
        return self.head

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD").decode().strip()

    def tree(self, *entries: tuple[str, str, bytes, str]) -> str:
        """A tree object as no honest git would write it, from (mode, type, name, object)."""
        raw = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(sha) for mode, _, name, sha in entries)
        return self.git("hash-object", "-t", "tree", "-w", "--stdin", "--literally", stdin=raw).decode().strip()

    def base_tree_with(self, mode: str, name: bytes, sha: str) -> str:
        """HEAD's tree and one entry more, sorted as git wants it."""
        entries = [line.split(b"\t") for line in self.git("ls-tree", "-z", "HEAD").split(b"\0") if line]
        known = [(about.decode().split(" ")[0].lstrip("0"), "", found, about.decode().split(" ")[2]) for about, found in entries]
        return self.tree(*sorted([*known, (mode, "", name, sha)], key=lambda entry: entry[2] + (b"/" if entry[0] == "40000" else b"")))

    def blob(self, content: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", stdin=content).decode().strip()

    def commit_tree(self, tree: str, *parents: str, message: str = f"Change\n\n{TRAILER}") -> str:
        """Commit a tree and move HEAD to it, whatever is in the work tree."""
        links = [word for parent in parents for word in ("-p", parent)]
        sha = self.git("commit-tree", tree, *links, stdin=message.encode()).decode().strip()
        self.git("update-ref", "HEAD", sha)
        return sha

    def bundle(self, *exclude: str, tip: str = "HEAD") -> bytes:
        return self.git("bundle", "create", "-q", "-", tip, *(f"^{sha}" for sha in exclude))


_template: list[tempfile.TemporaryDirectory[str]] = []


@dataclass
class World:
    """A remote `docs`, its mirror, and the agent's clone of it."""

    remote: ForgeRepository
    mirror: Mirror
    agent: Agent

    @classmethod
    async def build(cls, directory: Path) -> World:
        """A world of its own, copied from one that is made once."""
        if not _template:
            _template.append(tempfile.TemporaryDirectory(prefix="routines-git-world-"))
            await cls._make(Path(_template[0].name))
        made = Path(_template[0].name)
        shutil.copytree(made, directory, symlinks=True, dirs_exist_ok=True)
        remote = ForgeRepository(LocalForge(directory / "forge"), "docs", "main")
        base = remote.sha("main")
        [mirror] = (path for path in (directory / "mirrors").iterdir() if path.is_dir())
        return cls(remote, Mirror(Repository("docs", remote.url), mirror, "main", base, "main", base), Agent(directory / "agent"))

    @staticmethod
    async def _make(directory: Path) -> None:
        remote = LocalForge(directory / "forge").repository(
            "docs", files={"README.md": "# Old\n"}, commits=[FILES, {"src/app.py": "print(1)\n"}]
        )
        mirror = await refresh(directory / "mirrors", Repository("docs", remote.url))
        await bundle(mirror, directory / "docs.bundle")
        Agent(directory).git("clone", "--quiet", "--branch", "main", "docs.bundle", "agent")

    async def examine(self, bundle: bytes | None = None, *, last_pushed: str | None = None, rules: PushRules | None = None) -> Candidate:
        """Examine what the agent has at HEAD, or the given bytes."""
        known = [self.mirror.base_sha, *([last_pushed] if last_pushed else [])]
        return await examine(
            self.mirror,
            self.agent.bundle(*known) if bundle is None else bundle,
            base_sha=self.mirror.base_sha,
            session_id=SESSION,
            last_pushed=last_pushed,
            rules=rules or PushRules(),
        )

    def host_files(self) -> set[str]:
        """Everything in the mirrors' directory but the lock: to see that a refusal leaves nothing behind."""
        return {str(path.relative_to(self.mirror.path.parent)) for path in self.mirror.path.parent.rglob("*")}
