"""The process inside a sandbox that serves its tools: one epoll loop, process 1 of its pid namespace, standard library only.

It is started with the frame socket as descriptor 0 and speaks the frames of `prefect_routines.workspace.frames`. There are no threads:
commands are child processes, and each file tool runs in a forked child that can be killed, so that no hostile file, pattern or pipe can
hold up the others. Being process 1 means: no process of the sandbox can kill or stop it (pid_namespaces(7)), it reaps what is orphaned,
and when it ends the kernel ends all the rest. It ends as soon as the socket closes.

Nothing in here is a security boundary: whatever it sends is hostile to the host, which checks each frame.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

FRAME_HEADER_MAX = 4 * 1024 * 1024
FRAME_BODY_MAX = 8 * 1024 * 1024
OUTBOX_HIGH = 4 * 1024 * 1024
"""Bytes waiting for the host above which no further output of a process is read."""

Timer = list[Any]


class Loop:
    """Descriptors, timers and children of the one thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._sequence = 0
        self._children: dict[int, Callable[[int], None]] = {}
        self._waker, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.watch(self._waker, select.EPOLLIN, lambda _: self._reap())

    @property
    def children(self) -> set[int]:
        """The processes that were started here and live."""
        return set(self._children)

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler(events)` when something happens on `fd`; a second call changes the events and the handler."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self, fd: int) -> None:
        """Forget `fd` and close it."""
        self.forget(fd)
        os.close(fd)

    def later(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Run `action` once after `seconds`; give the result to `cancel` to prevent it."""
        self._sequence += 1
        timer: Timer = [time.monotonic() + seconds, self._sequence, action]
        heapq.heappush(self._timers, timer)
        return timer

    @staticmethod
    def cancel(timer: Timer | None) -> None:
        if timer is not None:
            timer[2] = None

    def fork(self, child: Callable[[], None], on_exit: Callable[[int], None]) -> int:
        """Run `child` in a copy of this process; `on_exit(status)` gets the exit code, or minus the signal."""
        pid = os.fork()
        if pid:
            self._children[pid] = on_exit
            return pid
        status = 70
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            child()
            status = 0
        except OSError as error:
            os.write(2, f"{error}\n".encode())
            status = 127 if isinstance(error, FileNotFoundError) else 126
        finally:
            os._exit(status)

    def spawn(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Mapping[int, int],
        on_exit: Callable[[int], None],
        *,
        cwd: str,
        cpu_seconds: int,
    ) -> int:
        """Start a program with exactly `descriptors` (number there -> number here) open, in a session of its own."""

        def child() -> None:
            place_descriptors(descriptors)
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
            try:
                os.chdir(cwd)
            except OSError as error:
                os.write(2, f"cannot start in {cwd}: {error.strerror}\n".encode())
                os._exit(126)
            os.execvpe(argv[0], list(argv), dict(environment))

        return self.fork(child, on_exit)

    def run(self) -> NoReturn:
        """Serve for ever: the process ends when the host closes the socket."""
        while True:
            while self._timers and (self._timers[0][2] is None or self._timers[0][0] <= time.monotonic()):
                action = heapq.heappop(self._timers)[2]
                if action is not None:
                    action()
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
            for fd, events in self._epoll.poll(wait):
                handler = self._handlers.get(fd)  # an earlier handler of this round may have closed it
                if handler is not None:
                    handler(events)

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._waker, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            on_exit = self._children.pop(pid, None)  # None: an orphan of the sandbox
            if on_exit is not None:
                on_exit(os.waitstatus_to_exitcode(status))


def place_descriptors(descriptors: Mapping[int, int]) -> None:
    """Leave exactly `descriptors` (number there -> number here) open in this process."""
    above = max(descriptors) + 1
    moved = {there: fcntl.fcntl(here, fcntl.F_DUPFD, above) for there, here in descriptors.items()}
    for there, here in moved.items():
        os.dup2(here, there)
    for gap in set(range(above)) - set(descriptors):
        os.closerange(gap, gap + 1)
    os.closerange(above, 1_048_576)


class Link:
    """The frames of the socket to the host."""

    def __init__(self, loop: Loop, fd: int, on_frame: Callable[[dict[str, Any], bytes], None]) -> None:
        self._loop, self._fd, self._on_frame = loop, fd, on_frame
        self._inbox, self._outbox = bytearray(), bytearray()
        self._waiting: list[Callable[[], None]] = []
        os.set_blocking(fd, False)
        loop.watch(fd, select.EPOLLIN, self._ready)

    @property
    def full(self) -> bool:
        """Whether so much waits for the host that no more should be produced."""
        return len(self._outbox) > OUTBOX_HIGH

    def when_drained(self, action: Callable[[], None]) -> None:
        """Run `action` once when the host has taken what was waiting."""
        self._waiting.append(action)

    def send(self, header: Mapping[str, Any], body: bytes = b"") -> None:
        head = json.dumps(header).encode()
        self._outbox += len(head).to_bytes(4, "big") + len(body).to_bytes(4, "big") + head + body
        self._flush()

    def _flush(self) -> None:
        try:
            while self._outbox:
                written = os.write(self._fd, memoryview(self._outbox)[:1_048_576])
                del self._outbox[:written]
        except BlockingIOError:
            pass
        except OSError:
            leave()  # the host is gone
        self._loop.watch(self._fd, select.EPOLLIN | (select.EPOLLOUT if self._outbox else 0), self._ready)
        if not self._outbox and self._waiting:
            waiting, self._waiting = self._waiting, []
            for action in waiting:
                action()

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if not events & ~select.EPOLLOUT:
            return
        try:
            data = os.read(self._fd, 1_048_576)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            leave()  # the host closed the socket or died
        self._inbox += data
        while len(self._inbox) >= 8:
            head, body = int.from_bytes(self._inbox[:4], "big"), int.from_bytes(self._inbox[4:8], "big")
            if len(self._inbox) < 8 + head + body:
                break
            header, content = json.loads(self._inbox[8 : 8 + head]), bytes(self._inbox[8 + head : 8 + head + body])
            del self._inbox[: 8 + head + body]
            self._on_frame(header, content)


class Supervisor:
    """Takes the host's requests and hands each to the part that does it."""

    def __init__(self, socket: int) -> None:
        self.loop = Loop()
        self.link = Link(self.loop, socket, self._first_frame)
        self.settings: dict[str, Any] = {}

    def _first_frame(self, header: dict[str, Any], _: bytes) -> None:
        from prefect_routines.workspace.processes import Processes
        from prefect_routines.workspace.shell import Shell

        self.settings = header
        set_limits(header["limits"])
        os.makedirs(header["run"], mode=0o700, exist_ok=True)
        self.processes = Processes(self.loop, self.link, header)
        self.shell = Shell(self.loop, self.reply, header)
        if header["proxy_socket"]:
            from prefect_routines.workspace.relay import Relay

            Relay(self.loop, header["proxy_socket"], header["proxy_port"])
        self.link._on_frame = self._request
        self.link.send({"kind": "ready", "id": 0})
        close_memory()

    def reply(self, call: int, result: Mapping[str, Any]) -> None:
        """Answer a request with a JSON object."""
        self.link.send({"kind": "result", "id": call}, json.dumps(result).encode())

    def _request(self, header: dict[str, Any], body: bytes) -> None:
        call, operation = header["id"], header["op"]
        try:
            if operation == "bash":
                self.shell.execute(call, header["command"], header["timeout"], fork=header["fork"])
            elif operation == "run":
                self.processes.start(call, header)
            elif operation == "stdin":
                self.processes.feed(call, body, last=header["last"])
            elif operation == "taken":
                self.processes.taken(call, header["bytes"])
            elif operation == "cancel":
                self.shell.cancel(call)
                self.processes.cancel(call)
            else:
                self.processes.start_tool(call, operation, header["arguments"], header["timeout"])
        except (OSError, ValueError) as error:  # no process, no descriptor, no space: the call fails, the sandbox goes on
            self.reply(call, {"error": f"the sandbox could not start this: {error}"})


def set_limits(limits: Mapping[str, int]) -> None:
    """Bound this process and all that come from it (setrlimit(2)); see `prefect_routines.workspace.limits`."""
    megabyte = 1024 * 1024
    wanted: Iterable[tuple[int, int]] = (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, limits["memory_mb"] * megabyte),
        (resource.RLIMIT_AS, limits["address_space_mb"] * megabyte),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_FSIZE, limits["file_mb"] * megabyte),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
    )
    for number, value in wanted:
        _, hard = resource.getrlimit(number)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (bound, bound))


def close_memory() -> None:
    """Let no other process of the sandbox write into this one through /proc/1/mem, which would make it say what they like
    (PR_SET_DUMPABLE). What is started from here is open again."""
    with suppress(ImportError, OSError):  # the smallest Pythons have no ctypes
        import ctypes

        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)


def become_subreaper() -> None:
    """Without a pid namespace: orphans come to this process and not to the machine's process 1 (PR_SET_CHILD_SUBREAPER)."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)


def leave() -> NoReturn:
    """End, and everything with it: the kernel does that for process 1, without a pid namespace the tree is cut here."""
    if os.getpid() != 1:
        from prefect_routines.workspace import process_tree

        process_tree.kill(lambda: list(process_tree.processes().values()))
    os._exit(0)


def main() -> NoReturn:
    """Serve the socket that is descriptor 0."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 ignores what it does not handle; Python would handle SIGINT
    os.umask(0o022)
    if os.getpid() != 1:
        become_subreaper()
    try:
        Supervisor(0).loop.run()
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        leave()
