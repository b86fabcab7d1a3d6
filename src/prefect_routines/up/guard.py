"""The process between `routines up` and one of its parts: starts the part, tells how it ended, and leaves no process behind.

A program of its own (`python -I -S guard.py FD COMMAND...`, standard library only), because somebody must still be there when `up` was
ended by SIGKILL. FD is a socket: bytes from `up` are orders (`T` tell the part to stop, `K` kill everything), its end means that `up` is
gone, so everything is killed; `up` gets the line `started PID` and, when the part has ended, `exited STATUS` (minus the signal's number).
The guard reaps what the part leaves behind (PR_SET_CHILD_SUBREAPER, prctl(2)), so nothing below it escapes, and ends when nothing is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CANNOT_START = 127
PATIENCE_AFTER_TERM = 10.0
"""Seconds that processes left behind get, once told to stop, until they are killed."""


def below() -> list[int]:
    """All living processes below this one (proc_pid_stat(5))."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b") ")[2].split()
            except OSError:
                continue  # it has ended
            if fields[0] not in (b"Z", b"X"):
                parents[int(name)] = int(fields[1])
    found, added = {os.getpid()}, True
    while added:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found, added = found | more, bool(more)
    return sorted(found & parents.keys() - {os.getpid()})


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def start(libc: ctypes.CDLL, command: list[str], control: socket.socket) -> int:
    """Start the part: in a session of its own, signals as a shell would leave them, dead as soon as the guard is."""
    guard = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        control.close()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guard:
            os._exit(CANNOT_START)
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)  # a part that ignores SIGINT would not stop: `nohup` and `&` set that
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execvp(command[0], command)  # noqa: S606 - there is no shell on purpose
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(CANNOT_START)


class Guard:
    """One part and whatever it started."""

    def __init__(self, control: socket.socket, command: list[str]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.control, self.listening = control, True
        self.waker, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # only `up` says when to stop
        self.part: int | None = start(libc, command, control)
        self.stopping = False
        self.deadline: float | None = None
        self.tell(f"started {self.part}")

    def tell(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self.control.sendall(line.encode() + b"\n")

    def reap(self) -> bool:
        """Take leave of what has ended; False when nothing is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid == self.part:
                self.part = None
                self.tell(f"exited {os.waitstatus_to_exitcode(status)}")
                if self.stopping:
                    self.stop_the_rest()

    def stop_the_rest(self) -> None:
        send(below(), signal.SIGTERM)
        self.deadline = time.monotonic() + PATIENCE_AFTER_TERM

    def obey(self, orders: bytes) -> None:
        if b"K" in orders:
            self.stopping, self.deadline = True, time.monotonic()
        elif b"T" in orders:
            self.stopping = True
            if self.part is not None:
                send([self.part], signal.SIGTERM)
            else:
                self.stop_the_rest()

    def run(self) -> None:
        """Until nothing is left below this process."""
        while self.reap():
            watched: list[Any] = [self.waker, self.control] if self.listening else [self.waker]
            wait = None if self.deadline is None else max(0.05, self.deadline - time.monotonic())
            ready, _, _ = select.select(watched, [], [], wait)
            with contextlib.suppress(BlockingIOError):
                os.read(self.waker, 4096)
            if self.control in ready:
                try:
                    orders = self.control.recv(64)
                except OSError:
                    orders = b""
                self.listening = bool(orders)
                self.obey(orders or b"K")
            if self.deadline is not None and time.monotonic() >= self.deadline:
                send(below(), signal.SIGKILL)  # again and again: they may have started others meanwhile


def main() -> NoReturn:
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    with contextlib.suppress(PermissionError):  # already the leader of its session
        os.setsid()
    Guard(control, sys.argv[2:]).run()
    os._exit(0)


if __name__ == "__main__":
    main()
