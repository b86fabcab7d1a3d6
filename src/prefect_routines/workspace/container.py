"""A sandbox's process on the host: built by bubblewrap (or, on explicit wish, not at all), ended with everything in it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect_routines.errors import SandboxLost, SandboxUnavailable
from prefect_routines.workspace import bubblewrap, frames, ownership, seccomp
from prefect_routines.workspace.trees import remove_tree

if TYPE_CHECKING:
    from prefect_routines.workspace.proxy import ProxyProcess
    from prefect_routines.workspace.spec import SandboxSpec

START_SECONDS = 30.0
FRAME_BUFFER = 2 * 1024 * 1024


class Container:
    """The running process and what must be tidied up after it."""

    def __init__(self, process: subprocess.Popen[bytes], stderr: int, cleanup: contextlib.ExitStack, workspace: str) -> None:
        self.process, self.workspace = process, workspace
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.proxy: ProxyProcess | None = None
        self._stderr, self._said, self._cleanup = stderr, bytearray(), cleanup
        self._inner: int | None = None
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self._on_end)
        os.set_blocking(stderr, False)
        self._loop.add_reader(stderr, self._on_stderr)

    @property
    def network_log(self) -> Iterable[tuple[str, str]]:
        return self.proxy.log if self.proxy else ()

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.process.wait()
        self._ended.set()

    def _on_stderr(self) -> None:
        try:
            data = os.read(self._stderr, 4096)
        except BlockingIOError:
            return
        self._said = (self._said + data)[-4096:]
        if not data:
            self._loop.remove_reader(self._stderr)

    async def connect(self, host_end: socket.socket, hello: Mapping[str, Any], info: int | None) -> None:
        """Say hello and wait for the supervisor.

        Raises:
            SandboxUnavailable: it does not come up.
        """
        self.reader, self.writer = await asyncio.open_connection(sock=host_end, limit=FRAME_BUFFER)
        self.writer.write(frames.encode(hello))
        try:
            async with asyncio.timeout(START_SECONDS):
                header, _ = await frames.read(self.reader)
        except TimeoutError:
            await self.close()
            raise SandboxUnavailable(f"the sandbox did not come up within {START_SECONDS:.0f} s; is this machine overloaded?") from None
        except SandboxLost:
            said = await self.last_words()
            await self.close()
            raise SandboxUnavailable(f"the sandbox cannot be built{said}. Remedy: {bubblewrap.remedy(said)}") from None
        if header.kind != "ready":
            await self.close()
            raise SandboxUnavailable("the sandbox's supervisor did not start as it should")
        if info is not None:
            self._inner = _pidfd_of_child(os.read(info, 4096), self.process.pid)

    async def last_words(self) -> str:
        """What the ended process said, for an error message."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._ended.wait()
        self._on_stderr()
        said = " | ".join(line for line in self._said.decode(errors="replace").splitlines()[-3:] if line.strip())
        code = self.process.returncode
        reason = {-9: "it was killed (out of memory?)", None: "it does not end"}.get(code, f"exit status {code}")
        return f": {said or reason}"

    def kill(self) -> None:
        """Kill process 1 of the sandbox, with which the kernel ends all others, or, while there is none, what builds it."""
        with contextlib.suppress(ProcessLookupError):
            if self._inner is not None:
                signal.pidfd_send_signal(self._inner, signal.SIGKILL)
            elif self.workspace == "/workspace" and not self._ended.is_set():
                self.process.kill()

    async def close(self) -> None:
        """End all of it, wait for that, free what it used."""
        if hasattr(self, "writer"):
            self.writer.close()  # the supervisor ends at once when its socket closes, and takes its tree along
        self.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await self._ended.wait()
        if not self._ended.is_set():
            self.process.kill()
            await self._ended.wait()
        if self.proxy is not None:
            await self.proxy.close()
        self._loop.remove_reader(self._stderr)
        if self._inner is not None:
            os.close(self._inner)
            self._inner = None
        await asyncio.to_thread(self._cleanup.close)


def _pidfd_of_child(info: bytes, parent: int) -> int | None:
    """A handle on the sandbox's process 1, which bubblewrap names on its information descriptor."""
    try:
        pid = int(json.loads(info)["child-pid"])
        handle = os.pidfd_open(pid)
        with open(f"/proc/{pid}/stat", "rb") as file:
            if int(file.read().rpartition(b") ")[2].split()[1]) == parent:
                return handle
        os.close(handle)
    except (OSError, ValueError, KeyError):
        pass
    return None


async def build(spec: SandboxSpec) -> Container:
    """Start what `spec` describes.

    Raises:
        SandboxUnavailable: it cannot be built on this machine.
    """
    with contextlib.ExitStack() as cleanup:
        proxy = None
        if spec.network:
            from prefect_routines.workspace.proxy import ProxyProcess

            proxy = ProxyProcess(spec.network, cleanup)
            cleanup.callback(proxy.kill)
        spec.workspace.mkdir(parents=True, exist_ok=True)
        start = _start_directly if spec.mode == "none" else _start_bubblewrap
        with contextlib.suppress(SandboxUnavailable):
            await asyncio.to_thread(bubblewrap.python)  # finds the interpreter, once per process
        container, host_end, hello, info = await start(spec, cleanup, proxy)
        container.proxy = proxy
        cleanup_later = cleanup.pop_all()
        container._cleanup = cleanup_later
    try:
        await container.connect(host_end, hello, info)
        if proxy is not None:
            await proxy.ready()
    except BaseException:
        await asyncio.shield(container.close())
        raise
    finally:
        if info is not None:
            os.close(info)
    return container


def _memfd(cleanup: contextlib.ExitStack, data: bytes) -> int:
    fd = os.memfd_create("sandbox", os.MFD_CLOEXEC)
    cleanup.callback(os.close, fd)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _hello(spec: SandboxSpec, *, workspace: str, home: str, outputs: str, run: str, path: str) -> dict[str, Any]:
    setup = bubblewrap.SETUP if spec.mode != "none" else str(spec.setup)
    environment = {**bubblewrap.ENVIRONMENT, "PATH": path, "HOME": home, "PWD": workspace}
    if spec.setup is not None:
        environment |= {"PATH": f"{setup}/bin:{path}", "PYTHONUSERBASE": setup, "NPM_CONFIG_PREFIX": setup}
        if spec.setup_writable:
            environment |= {"PIP_USER": "1", "PIP_BREAK_SYSTEM_PACKAGES": "1"}
    if spec.network and spec.mode != "none":
        url = f"http://127.0.0.1:{bubblewrap.PROXY_PORT}"
        environment |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), url)
        environment |= {"no_proxy": "localhost,127.0.0.1", "NO_PROXY": "localhost,127.0.0.1", "NODE_USE_ENV_PROXY": "1"}
    return {
        "id": 0,
        "op": "hello",
        "workspace": workspace,
        "home": home,
        "outputs": outputs,
        "run": run,
        "roots": [workspace, home, outputs, "/tmp", *([setup] if spec.setup else []), *spec.read_only],  # noqa: S108
        "environment": environment | dict(spec.environment),
        "limits": spec.limits.as_numbers(),
        "proxy_socket": f"{bubblewrap.PROXY}/socket" if spec.network and spec.mode != "none" else None,
        "proxy_port": bubblewrap.PROXY_PORT,
    }


def _launch(argv: list[str], descriptors: Iterable[int]) -> tuple[subprocess.Popen[bytes], socket.socket, int]:
    """Start the process with a socket as stdin. No thread may do this: the kernel would end the sandbox with the thread."""
    host_end, inner_end = socket.socketpair()
    stderr, stderr_write = os.pipe2(os.O_CLOEXEC)
    try:
        process = subprocess.Popen(
            argv,
            env=dict[str, str](),
            cwd="/",
            stdin=inner_end.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=stderr_write,
            pass_fds=tuple(descriptors),
            start_new_session=True,
        )
    except OSError as error:
        host_end.close()
        os.close(stderr)
        raise SandboxUnavailable(f"the sandbox cannot be started: {error}") from error
    finally:
        inner_end.close()
        os.close(stderr_write)
    return process, host_end, stderr


_Started = tuple[Container, socket.socket, dict[str, Any], int | None]


async def _start_directly(spec: SandboxSpec, cleanup: contextlib.ExitStack, proxy: ProxyProcess | None) -> _Started:
    """Mode "none": the supervisor as a child of this process, with this process's rights."""
    place = Path(tempfile.mkdtemp(prefix="routines-"))
    cleanup.callback(remove_tree, place)
    package = place / "code/prefect_routines/workspace"
    for directory in (package, place / "home", place / "outputs", place / "run"):
        directory.mkdir(parents=True)
    try:
        interpreter, magic = bubblewrap.python()
    except SandboxUnavailable:
        interpreter, magic = sys.executable, importlib.util.MAGIC_NUMBER
    for name, content in bubblewrap.code(magic).items():
        (package / name).write_bytes(content)
    workspace = str(spec.workspace.resolve())
    places = {name: str(place / name) for name in ("home", "outputs", "run")}
    hello = _hello(spec, workspace=workspace, path=os.environ.get("PATH", os.defpath), **places)
    process, host_end, stderr = _launch([interpreter, "-I", "-S", "-c", bubblewrap.BOOT.format(code=str(place / "code"))], ())
    cleanup.callback(os.close, stderr)
    return Container(process, stderr, cleanup, workspace), host_end, hello, None


async def _start_bubblewrap(spec: SandboxSpec, cleanup: contextlib.ExitStack, proxy: ProxyProcess | None) -> _Started:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxUnavailable("bubblewrap is not installed, and the sandbox is built with it: apt-get install bubblewrap (or dnf)")
    interpreter, magic = bubblewrap.python()
    binds = {"/workspace": (str(spec.workspace.resolve()), True)}
    if spec.setup is not None:
        binds[bubblewrap.SETUP] = (str(spec.setup.resolve()), spec.setup_writable)
    if proxy is not None:
        binds[bubblewrap.PROXY] = (str(proxy.directory), False)
    binds |= {inside: (str(source.resolve()), False) for inside, source in spec.read_only.items()}

    order, binds = await _order(binds, spec, cleanup) if ownership.is_root() else (None, binds)
    modules = {f"{bubblewrap.CODE}/prefect_routines/workspace/{name}": content for name, content in bubblewrap.code(magic).items()}
    files = modules | {path: content.encode() for path, content in bubblewrap.FILES.items()}
    data = {path: _memfd(cleanup, content) for path, content in files.items()}
    filter_fd = _memfd(cleanup, seccomp.filter_program())
    info, info_write = os.pipe2(os.O_CLOEXEC)
    try:
        options = bubblewrap.arguments(binds, data, filter_fd, info_write, tmp_bytes=spec.limits.tmp_mb << 20, interpreter=interpreter)
        # The options go by descriptor: /proc/PID/cmdline would show host paths to everybody on the machine.
        split = options.index("--")
        options_fd = _memfd(cleanup, "\0".join(options[:split]).encode() + b"\0")
        argv = [bwrap, "--args", str(options_fd), *options[split:]]
        descriptors = [*data.values(), filter_fd, info_write, options_fd]
        if order is not None:
            order["command"] = argv
            order_fd = _memfd(cleanup, json.dumps(order).encode())
            argv = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launcher.py")), str(order_fd)]
            descriptors.append(order_fd)
        process, host_end, stderr = _launch(argv, descriptors)
    except BaseException:
        os.close(info)
        raise
    finally:
        os.close(info_write)
    cleanup.callback(os.close, stderr)
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    places = {"home": bubblewrap.HOME, "outputs": bubblewrap.OUTPUTS, "run": bubblewrap.RUN}
    hello = _hello(spec, workspace="/workspace", path=path, **places)
    return Container(process, stderr, cleanup, "/workspace"), host_end, hello, info


async def _order(
    binds: dict[str, tuple[str, bool]], spec: SandboxSpec, cleanup: contextlib.ExitStack
) -> tuple[dict[str, Any], dict[str, tuple[str, bool]]]:
    """As root: what the launcher has to do, and the paths at which the directories will be reachable for the sandbox's uid."""
    uid = owner = spec.workspace.stat().st_uid
    if not (spec.shared and owner in ownership.UIDS):
        own = ownership.SessionUid(preferred=owner)
        cleanup.callback(own.release)
        uid = own.uid
        for source, writable in binds.values():
            if writable:
                await asyncio.to_thread(ownership.hand_over, Path(source), uid, uid)
    mounts: list[str] = []
    if ownership.may_mount():
        mounts = [source for source, _ in binds.values()]
        binds = {inside: (f"/tmp/{index}", writable) for index, (inside, (_, writable)) in enumerate(binds.items())}  # noqa: S108
    else:
        _check_reachable(source for source, _ in binds.values())
    return {"uid": uid, "mounts": mounts, "probe": [source for source, _ in binds.values()]}, binds


def _check_reachable(sources: Iterable[str]) -> None:
    for source in sources:
        blocked = ownership.blocked_ancestor(Path(source))
        if blocked is not None:
            raise SandboxUnavailable(
                f"{source} cannot be shown to the sandbox's own uid: {blocked} is closed to other users, and this process may not mount "
                f"(no CAP_SYS_ADMIN). Set ROUTINES_WORKSPACES to a directory that others may enter, or: chmod o+x {blocked}"
            )


async def check_sandbox(mode: Literal["bubblewrap", "none"] = "bubblewrap") -> None:
    """Build a sandbox and end it again.

    Raises:
        SandboxUnavailable: it cannot be built here; the text names the remedy.
    """
    from prefect_routines.workspace.sandbox import Sandbox, SandboxSpec

    with tempfile.TemporaryDirectory(prefix="routines-check-") as directory:
        async with await Sandbox.start(SandboxSpec(Path(directory), mode=mode)) as box:
            done = await box.run(["true"], timeout=20)
    if done.exit_code:
        raise SandboxUnavailable(f"the sandbox starts, but `true` in it ends with {done.exit_code}")
