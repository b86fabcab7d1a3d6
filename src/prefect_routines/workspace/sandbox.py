"""One sandbox per session: start it, run commands and file tools in it, end it.

The host's half. It believes nothing that comes out (`frames`); what is inside is `supervisor`, how it is built is `bubblewrap`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from prefect_routines.errors import SandboxLost, ToolError
from prefect_routines.workspace import frames
from prefect_routines.workspace.container import Container, build, check_sandbox
from prefect_routines.workspace.conversation import Pipe, conversation
from prefect_routines.workspace.exchange import Call, Exchange
from prefect_routines.workspace.limits import Limits
from prefect_routines.workspace.ownership import lend_directory
from prefect_routines.workspace.spec import CommandResult, ProcessResult, SandboxSpec

__all__ = ["CommandResult", "Limits", "ProcessResult", "Sandbox", "SandboxSpec", "check_sandbox", "lend_directory"]

TOOL_SECONDS = 30.0
SIZE_EVERY = 5.0
"""Seconds between two looks at the size of the workspace, while something runs."""
SLACK = 64 * 1024 * 1024
"""Bytes that a command may add to a workspace that is too large already: otherwise nobody could tidy up."""
RUNAWAY = 4 * SLACK
"""Bytes by which a workspace may grow after commands were stopped for its size; more is what they left behind, and ends the sandbox."""
PUT = """set -e; mkdir -p -- "${1%/*}"; t=$(mktemp -- "$1.XXXXXXXX"); trap 'rm -f -- "$t"' EXIT
cat > "$t"; chmod "$2" -- "$t"; mv -fT -- "$t" "$1"
"""


class Sandbox(Exchange):
    """A running sandbox. Make it with `start`, end it with `close`, or use it as a context manager.

    Example:
        ```python
        async with await Sandbox.start(SandboxSpec(Path("/var/lib/prefect-routines/s1"))) as box:
            result = await box.bash("pytest -q", timeout=600)
        ```
    """

    def __init__(self, spec: SandboxSpec, container: Container) -> None:
        self.spec = spec
        self.workspace = container.workspace
        """Path of the workspace as the sandbox sees it: /workspace, except with mode "none"."""
        self._closing: asyncio.Task[None] | None = None
        self._sizes: asyncio.Task[None] | None = None
        self._size = self._stopped_at = 0
        self._looked = 0.0
        self._left_behind = False
        super().__init__(container)

    @classmethod
    async def start(cls, spec: SandboxSpec) -> Sandbox:
        """Build the sandbox and wait until its supervisor answers.

        Call it from the thread that lives as long as the sandbox should: the kernel ends it with the thread that started it.

        Raises:
            SandboxUnavailable: it cannot be built on this machine; the text names the remedy.
            SettingsError: `network` has an entry that is none.
        """
        return cls(spec, await build(spec))

    @property
    def alive(self) -> bool:
        return self._lost is None and self._closing is None

    async def __aenter__(self) -> Sandbox:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def bash(self, command: str, *, timeout: float = 120, fork: bool = False) -> CommandResult:
        """Run a command in the session's shell: directory, variables and functions stay for the next one.

        Args:
            command: Text for bash. Its stdin is /dev/null.
            timeout: Seconds, waiting for the shell included. Then the command's whole tree is killed, and nothing else.
            fork: Run it in a forked copy of the shell as it is now; any number side by side. What it changes in its shell ends with it.

        Raises:
            ToolError: it could not be started, or the workspace grew too large and it was stopped.
            SandboxLost: the sandbox died.
        """
        if "\0" in command:
            raise ToolError("a command cannot contain NUL characters")
        self._watch_size()
        request = {"op": "bash", "command": command, "timeout": timeout, "fork": fork}
        done = await self._ask(frames.BashResult, request, timeout)
        self._left_behind |= done.still_running
        return CommandResult(**done.model_dump())

    async def run(
        self,
        argv: Sequence[str],
        *,
        cwd: str = "/workspace",
        environment: Mapping[str, str] | None = None,
        stdin: bytes | Path | None = None,
        timeout: float = 120,
        max_output: int = 50_000_000,
        merge_stderr: bool = False,
        on_output: Callable[[int, bytes], None] | None = None,
    ) -> ProcessResult:
        """Run a program without a shell, with exact bytes in and out. What it leaves behind goes on without its output.

        Args:
            argv: Program and arguments, found on the sandbox's PATH.
            cwd: Directory inside.
            environment: Variables besides those of the sandbox.
            stdin: What it reads, or the host's file with it; None: nothing.
            timeout: Seconds. Then its tree is killed.
            max_output: Bytes of stdout and stderr together that are kept.
            merge_stderr: stderr goes into stdout.
            on_output: Called with 1 (stdout) or 2 (stderr) and each piece as it comes; the result then holds none of it.

        Raises:
            ToolError: it could not be started, or the workspace grew too large and it was stopped.
            SandboxLost: the sandbox died.
        """
        chunks = None if stdin is None else frames.chunks(stdin)
        return await self._run(
            argv,
            chunks,
            cwd=cwd,
            environment=environment,
            timeout=timeout,
            max_output=max_output,
            merge_stderr=merge_stderr,
            on_output=on_output,
        )

    async def _run(
        self,
        argv: Sequence[str],
        stdin: Iterator[bytes] | None,
        *,
        cwd: str = "/",
        environment: Mapping[str, str] | None = None,
        timeout: float = 120,
        max_output: int = 65536,
        merge_stderr: bool = False,
        on_output: Callable[[int, bytes], None] | None = None,
    ) -> ProcessResult:
        request = _request(argv, self._inside(cwd), environment) | {
            "stdin": stdin is not None,
            "timeout": timeout,
            "max_output": max_output,
            "merge_stderr": merge_stderr,
        }
        self._watch_size()
        call = Call(max_output, on_output)
        done = await self._ask(frames.RunResult, request, timeout, call=call, stdin=stdin)
        out, err = bytes(call.streams[1]), bytes(call.streams[2])
        return ProcessResult(done.exit_code, out, err, done.truncated or call.truncated, done.timed_out)

    def talk(
        self, argv: Sequence[str], *, cwd: str = "/workspace", environment: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[Pipe]:
        """Run a program for as long as the block lasts, with both its pipes open. Leaving the block kills its tree.

        Args:
            argv: Program and arguments, found on the sandbox's PATH.
            cwd: Directory inside.
            environment: Variables besides those of the sandbox.

        Raises:
            ToolError: it could not be started.
            SandboxLost: the sandbox died.

        Example:
            ```python
            async with box.talk(["python3", "server.py"]) as pipe:
                await pipe.send(b"hello\\n")
                async for line in pipe.lines(max_bytes=1_000_000):
                    ...
            ```
        """
        self._watch_size()
        return conversation(self, _request(argv, self._inside(cwd), environment))

    async def call(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Use a file tool: read, write, edit, glob, grep (`file_tools`). The result has `text`, or `image` (base64) and `media_type`.

        Raises:
            ToolError: the tool refused; one line for Claude.
            SandboxLost: the sandbox died.
        """
        if op in ("write", "edit") and self._size > self._cap:
            raise ToolError(f"the workspace is full: {self._too_large(self._size)}; delete files (bash: rm, git clean), then go on")
        if "path" in arguments and isinstance(arguments["path"], str):
            arguments["path"] = self._inside(arguments["path"])
        done = await self._ask(frames.ToolResult, {"op": op, "arguments": arguments, "timeout": TOOL_SECONDS}, TOOL_SECONDS)
        return done.model_dump(exclude_none=True)

    async def put_file(self, path: str, data: bytes | Path, mode: int = 0o644) -> None:
        """Write a file into the sandbox, of any size, replacing what is there; missing directories are made.

        Raises:
            ToolError: it cannot be written there.
            SandboxLost: the sandbox died.
        """
        inside = self._inside(path if path.startswith("/") else f"/workspace/{path}")
        done = await self._run(["/bin/sh", "-c", PUT, "sh", inside, f"{mode:o}"], frames.chunks(data), timeout=600)
        if done.exit_code:
            raise ToolError(f"{path} could not be written: {done.stderr.decode(errors='replace').strip()[-500:]}")

    def network_log(self) -> list[tuple[str, str]]:
        """The hosts that were asked for, with the proxy's verdict ("allowed" or the reason for the refusal); the last 1000."""
        return list(self._container.network_log)

    async def close(self) -> None:
        """Kill everything inside and wait until it is gone. May be called again, also by several at once."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._fail("the sandbox was closed")
        self._listener.cancel()
        if self._sizes is not None:
            self._sizes.cancel()
        await self._container.close()

    def _inside(self, path: str) -> str:
        """With mode "none" /workspace is elsewhere."""
        if path == "/workspace" or path.startswith("/workspace/"):
            return self.workspace + path.removeprefix("/workspace")
        return path

    # -- size of the workspace --------------------------------------------------------------------------------------------------------

    @property
    def _cap(self) -> int:
        return self.spec.limits.workspace_mb * 1024 * 1024

    def _too_large(self, size: int) -> str:
        return f"{size // 2**20:,} MB where {self.spec.limits.workspace_mb:,} MB are allowed"

    def _watch_size(self) -> None:
        if self._sizes is None or self._sizes.done():
            self._sizes = asyncio.create_task(self._watch_sizes(), name="sandbox size")

    async def _watch_sizes(self) -> None:
        """While something runs: every few seconds measure the workspace, and stop what makes it grow above its cap."""
        clock = asyncio.get_running_loop().time
        bound = self._cap if self._size <= self._cap else self._size + SLACK
        while self._lost is None:
            await asyncio.sleep(max(0.0, self._looked + SIZE_EVERY - clock()))
            begun = clock()
            try:
                done = await self._ask(frames.ToolResult, {"op": "usage", "arguments": {}, "timeout": TOOL_SECONDS}, TOOL_SECONDS)
            except (SandboxLost, ToolError):
                return
            self._size = done.bytes
            self._looked = clock() + 10 * (clock() - begun)  # a large tree is looked at less often
            running = dict(self._calls)
            if self._size <= self._cap:
                self._stopped_at = 0
            elif self._stopped_at and self._size > self._stopped_at + RUNAWAY:
                self._fail(f"processes left behind filled the workspace: {self._too_large(self._size)}; the sandbox was stopped")
                self._container.kill()
            elif self._size > bound:
                self._stopped_at = self._stopped_at or self._size
                for number, call in running.items():
                    call.stopped = f"stopped: the workspace grew too large, {self._too_large(self._size)}; delete files, then go on"
                    await self._send({"id": number, "op": "cancel"})
            if not running and not self._left_behind:
                return


def _request(argv: Sequence[str], cwd: str, environment: Mapping[str, str] | None) -> dict[str, Any]:
    if any("\0" in text for text in (*argv, cwd, *(environment or {}).values())):
        raise ToolError("an argument, path or variable cannot contain NUL characters")
    return {"op": "run", "argv": list(argv), "cwd": cwd, "environment": dict(environment or {})}
