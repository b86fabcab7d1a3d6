"""A git forge in a directory: bare repositories with history, and a journal of everything that was pushed to them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

# The developer's own git configuration must not decide how a test ends.
_ENVIRONMENT = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}
_AUTHOR = "A Person <person@example.org>"

# githooks(5): one line per updated ref on standard input; the repository is the working directory.
_HOOK = "#!/bin/sh\nexec cat >> pushes.log\n"

Files = Mapping[str, str | bytes | None]


@dataclass(frozen=True)
class Push:
    """One update of one ref, as the remote saw it. `old` is None for a new branch, `new` for a deleted one."""

    branch: str
    old: str | None
    new: str | None


class ForgeRepository:
    """One bare repository of a `LocalForge`."""

    def __init__(self, forge: LocalForge, name: str, default_branch: str) -> None:
        self._forge, self.name, self.default_branch = forge, name, default_branch
        self.path = forge.directory / f"{name}.git"
        self._seconds = 1_700_000_000  # of the commits' dates: the same history has the same names every time

    @property
    def url(self) -> str:
        """Its address: a file URL, or an http URL while the forge is served."""
        if self._forge.base_url:
            return f"{self._forge.base_url}/{quote(self.name)}.git"
        return self.path.as_uri()

    def commit(self, files: Files, message: str = "Change", branch: str | None = None) -> str:
        """Add a commit to a branch (default: the default branch), as a colleague would; not counted as a push.

        Args:
            files: Path and content; None removes the file.
            message: The commit's message.
            branch: A new one starts at the default branch.

        Returns:
            The commit's name.
        """
        branch = branch or self.default_branch
        before = self.branches()
        start = before.get(branch) or before.get(self.default_branch)
        self._seconds += 60
        lines = [f"commit refs/heads/{branch}\ncommitter {_AUTHOR} {self._seconds} +0000\n".encode(), _data(message.encode())]
        lines += [f"from {start}\n".encode()] if start else []
        for path, content in files.items():
            quoted = b'"' + path.encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'
            if content is None:
                lines.append(b"D " + quoted + b"\n")
            else:
                lines += [b"M 100644 inline " + quoted + b"\n", _data(content.encode() if isinstance(content, str) else content)]
        self.git("fast-import", "--quiet", "--force", stdin=b"".join(lines) + b"\ndone\n")
        return self.sha(branch)

    def branches(self) -> dict[str, str]:
        """Each branch with its commit."""
        lines = self.git("for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", "refs/heads").splitlines()
        return dict(line.rsplit(" ", 1) for line in lines)

    def sha(self, branch: str) -> str:
        """The commit a branch is at."""
        return self.git("rev-parse", "--verify", f"refs/heads/{branch}").strip()

    def show(self, branch: str, path: str) -> str:
        """A file's text on a branch."""
        return self.git("show", f"refs/heads/{branch}:{path}")

    def log(self, branch: str) -> list[str]:
        """The subjects of a branch's commits, newest first."""
        return self.git("log", "--format=%s", f"refs/heads/{branch}").splitlines()

    def diff(self, branch: str) -> str:
        """What a branch changes against the default branch."""
        return self.git("diff", "--no-color", f"refs/heads/{self.default_branch}...refs/heads/{branch}")

    @property
    def pushes(self) -> list[Push]:
        """Every update that was pushed, oldest first: proof of what happened, and of how many times."""
        journal = self.path / "pushes.log"
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [
            Push(ref.removeprefix("refs/heads/"), old if old.strip("0") else None, new if new.strip("0") else None)
            for old, new, ref in (line.split(" ", 2) for line in lines)
        ]

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run git in this repository and return what it writes."""
        result = subprocess.run(
            ["git", "--git-dir", str(self.path), *arguments],
            input=stdin, capture_output=True, check=False, env={**os.environ, **_ENVIRONMENT},
        )  # fmt: skip
        if result.returncode:
            raise RuntimeError(f"git {' '.join(arguments)}: {result.stderr.decode(errors='replace').strip()}")
        return result.stdout.decode("utf-8", "replace")


class LocalForge:
    """Repositories to test a routine against: real git, no network, no account.

    Example:
        ```python
        def test_docs_sync(tmp_path):
            forge = LocalForge(tmp_path)
            docs = forge.repository("docs", files={"README.md": "# Docs"})
            ...  # run the routine with repositories=[docs.url]
            [push] = docs.pushes
            assert docs.show(push.branch, "README.md") == "# Better docs"
        ```
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory).absolute()
        self.base_url = ""

    def repository(
        self, name: str, files: Files | None = None, commits: Sequence[Files] = (), *, default_branch: str = "main"
    ) -> ForgeRepository:
        """Create a bare repository.

        Args:
            name: Its name; the address ends in `NAME.git`.
            files: Content of the first commit. Without any (and without `commits`) the repository is empty.
            commits: One commit each, on top.
            default_branch: Where its HEAD points.
        """
        repository = ForgeRepository(self, name, default_branch)
        repository.path.mkdir(parents=True)
        repository.git("init", "--quiet", "--bare", "--template=", f"--initial-branch={default_branch}", str(repository.path))
        hook = repository.path / "hooks" / "post-receive"
        hook.parent.mkdir()
        hook.write_text(_HOOK)
        hook.chmod(0o755)
        for number, content in enumerate([*([files] if files else []), *commits]):
            repository.commit(content, f"Commit {number + 1}")
        return repository

    @contextmanager
    def serve(self, token: str | None = None, *, writable: bool = True) -> Iterator[str]:
        """Serve the repositories over HTTP on the loopback while the context is open; `url` of each changes accordingly.

        Args:
            token: Password that must be shown (with any user name); others get 401. None: everybody may read and write.
            writable: Whether that token may push; if not, a push gets 403.

        Yields:
            The address of the forge.
        """
        from prefect_routines.testing.forge_http import serving

        with serving(self.directory, token, writable) as address:
            self.base_url = address
            try:
                yield address
            finally:
                self.base_url = ""


def _data(content: bytes) -> bytes:
    return b"data %d\n" % len(content) + content + b"\n"
