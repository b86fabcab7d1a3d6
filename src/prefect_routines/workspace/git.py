"""Run the host's git: clean environment, bounded, killed with its children, and its complaints in one line without secrets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prefect_routines.errors import RepositoryError

MIB = 1024 * 1024

# What a worker behind a company's proxy needs to reach its forge; everything else of the worker's environment stays out.
_PASSED_ON = (
    "PATH", "SSH_AUTH_SOCK", "TMPDIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy",
)  # fmt: skip

# No configuration but ours: neither the system's nor the user's, no prompt, no replaced objects, no hooks, no helpers.
_CLEAN = {
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
}
_OPTIONS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "core.quotePath": "false",
    "core.bigFileThreshold": "32m",
    "core.packedGitWindowSize": "16m",
    "core.packedGitLimit": "128m",
    "credential.helper": "",
    "diff.external": "",
    "fetch.unpackLimit": "1",  # packs only: whether one is whole shows in its size
    "fetch.fsck.symlinkPointsToGitDir": "error",
    "gc.auto": "0",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
    "init.defaultBranch": "main",
    "maintenance.auto": "false",
    "protocol.ext.allow": "never",
    "submodule.recurse": "false",
}


_BOILERPLATE = ("fatal: Could not read from remote", "Please make sure you have the correct access", "and the repository exists.")


@dataclass(frozen=True)
class Access:
    """How one git command is let in at its remote: made by `remotes.access`, valid while that context is open.

    Attributes:
        protocol: The only protocol git may speak in this command (a redirect to another one is refused).
        environment: Variables that carry the credential. They reach git and its children, never its arguments.
        secrets: Strings that must not show in an error.
    """

    protocol: str = "none"
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: Sequence[str] = field(default=(), repr=False)


@dataclass(frozen=True)
class Limits:
    """What a git that reads hostile bytes may use: memory and file size in bytes, processor time in seconds."""

    memory: int = 2048 * MIB
    file_size: int = 1024 * MIB
    cpu: int = 60

    def command(self) -> list[str]:
        """The words to put before `git`; none where the system has no `prlimit`."""
        prlimit = shutil.which("prlimit")
        return [prlimit, f"--as={self.memory}", f"--fsize={self.file_size}", f"--cpu={self.cpu}", "--core=0"] if prlimit else []


NO_REMOTE = Access()
HOSTILE = Limits()


@dataclass(frozen=True)
class GitResult:
    """What git answered. `truncated`: there was more output than asked for (only with `cut=True`)."""

    exit_code: int
    stdout: bytes
    stderr: str
    truncated: bool = False

    @property
    def text(self) -> str:
        """The output as text without the white space around it."""
        return self.stdout.decode("utf-8", "replace").strip()


class GitError(RepositoryError):
    """A git command of the host failed; `stderr` is all it said, `exit_code` is None if it was stopped."""

    def __init__(self, name: str, command: str, stderr: str, exit_code: int | None) -> None:
        super().__init__(name, f"git {command}: {last_line(stderr) or f'ended with exit code {exit_code} and said nothing'}")
        self.command, self.stderr, self.exit_code = command, stderr, exit_code


def last_line(stderr: str) -> str:
    """The line of git's standard error that says why: the last `fatal:` or `error:`, else the last one."""
    lines = [line for raw in stderr.splitlines() if (line := "".join(c for c in raw if c.isprintable()).strip())]
    # What git adds when a remote's end failed; the reason is what was said before it.
    lines = [line for line in lines if not line.startswith(_BOILERPLATE)] or lines
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote: ", "ssh:"))]
    return (telling or lines or [""])[-1][:500]


def redact(text: str, secrets: Sequence[str]) -> str:
    """`text` without the given secrets and without any `user:password@` of a URL."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return re.sub(r"(?<=://)[^/@\s']+@", "***@", text)


def environment(access: Access = NO_REMOTE) -> dict[str, str]:
    """The complete environment of a host git: clean, plus what `access` needs."""
    variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    variables.update(_CLEAN, GIT_ALLOW_PROTOCOL=access.protocol)
    options = dict(_OPTIONS)
    for name, value in access.environment.items():
        # A name with a dot is an option of git's configuration: it travels with the others, in the environment.
        (options if "." in name else variables)[name] = value
    variables["GIT_CONFIG_COUNT"] = str(len(options))
    for number, (name, value) in enumerate(options.items()):
        variables[f"GIT_CONFIG_KEY_{number}"], variables[f"GIT_CONFIG_VALUE_{number}"] = name, value
    return variables


async def git(
    *arguments: str,
    name: str,
    directory: Path | None = None,
    stdin: bytes = b"",
    access: Access = NO_REMOTE,
    limits: Limits | None = None,
    timeout: float = 120.0,
    max_output: int = 64 * MIB,
    cut: bool = False,
    check: bool = True,
) -> GitResult:
    """Run one git command on the host, never in a directory that a model can write.

    Args:
        arguments: The command and its arguments; none of them may be a secret.
        name: Name of the repository, for errors.
        directory: The bare repository (`--git-dir`).
        stdin: Bytes for its standard input.
        access: How it is let in at the remote; without it no protocol is allowed at all.
        limits: Bounds for a command that reads hostile bytes.
        timeout: Seconds until it is killed, with all its children.
        max_output: Bytes of standard output; more is an error, or is cut off with `cut`.
        cut: End quietly at `max_output`.
        check: Raise if it ends with another code than 0.

    Raises:
        GitError: It failed, took too long, or said too much.

    Example:
        >>> (await git("rev-parse", "HEAD", name="docs", directory=mirror.path)).text  # doctest: +SKIP
    """
    words = [*(limits.command() if limits else ()), "git", *(("--git-dir", str(directory)) if directory else ()), *arguments]
    command = arguments[0]
    try:
        process = await asyncio.create_subprocess_exec(
            *words, cwd="/", env=environment(access), start_new_session=True,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise GitError(name, command, "git is not installed on this machine; install it (Debian: apt install git)", None) from error
    assert process.stdin
    assert process.stdout
    assert process.stderr
    try:
        async with asyncio.timeout(timeout):
            _, (stdout, more), (stderr, _) = await asyncio.gather(
                _feed(process.stdin, stdin),
                _read(process.stdout, max_output, on_excess=lambda: _kill(process)),
                _read(process.stderr, MIB),
            )
            await process.wait()
    except BaseException as error:
        # Also on cancellation: the whole group, so that no ssh or git-remote-https stays behind.
        _kill(process)
        await asyncio.shield(process.wait())
        if isinstance(error, TimeoutError):
            raise GitError(name, command, f"it did not end within {timeout:g} s and was stopped", None) from None
        raise
    complaint = redact(stderr.decode("utf-8", "replace"), access.secrets)
    if more and not cut:
        raise GitError(name, command, f"it wrote more than {max_output} bytes and was stopped", None)
    code = 0 if more else process.returncode or 0
    if check and code:
        raise GitError(name, command, complaint, code)
    return GitResult(code, stdout, complaint, more)


async def _feed(stream: asyncio.StreamWriter, data: bytes) -> None:
    # git may end before it has read everything: its exit code tells more than a broken pipe.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.close()
        await stream.wait_closed()


async def _read(stream: asyncio.StreamReader, limit: int, on_excess: Callable[[], None] = lambda: None) -> tuple[bytes, bool]:
    """At most `limit` bytes, and whether there were more; what is beyond is read and dropped."""
    parts: list[bytes] = []
    size = 0
    while chunk := await stream.read(65536):
        if size < limit:
            parts.append(chunk[: limit - size])
        size += len(chunk)
        if size > limit:
            on_excess()
    return b"".join(parts), size > limit


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
