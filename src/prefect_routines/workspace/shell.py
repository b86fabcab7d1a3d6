"""Inside the sandbox: one bash that lives as long as the session, and the commands that run in it or in forked copies of it."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import termios
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect_routines.workspace import process_tree

if TYPE_CHECKING:
    from prefect_routines.workspace.supervisor import Loop, Timer

SHOWN = 30_000
"""Characters of output in a result; half of them from the start, half from the end."""
FILE_MAX = 64 * 1024 * 1024
FILES_MAX = 256 * 1024 * 1024
"""Bytes of all kept outputs together: they lie in memory (tmpfs). The oldest go first."""
PIPE_SIZE = 1024 * 1024
INLINE_MAX = 2048
"""bash reads a pipe byte by byte; what is longer goes through a file, which it reads in blocks."""

# Reads requests (mode, call, command; each ended by NUL) from descriptor 3 and reports `call status` on descriptor 4. Commands see neither.
# The status is reported at the head of the loop, in two nested loops, because a command may say `break` or `continue`. `eval` contains
# syntax errors and open quotes. `set +eu` at the end: a `set -e` of one command would let the next failing one end the shell.
LOOP = r"""builtin export -n __routines_loop __routines_run
__routines_pending= __routines_status=0
while :; do while :; do
  builtin set +eu
  if [[ -n $__routines_pending ]]; then __routines_pending= ; builtin printf '%s %s\n' "$ROUTINES_CALL" "$__routines_status" >&4; fi
  IFS= builtin read -r -d '' -u 3 __routines_mode || builtin exit 0
  IFS= builtin read -r -d '' -u 3 ROUTINES_CALL
  IFS= builtin read -r -d '' -u 3 __routines_command
  builtin export ROUTINES_CALL
  [[ -p $__routines_run/$ROUTINES_CALL ]] || builtin continue  # given up by now
  if [[ -z $__routines_command ]]; then
    IFS= builtin read -r -d '' __routines_command < "$__routines_run/$ROUTINES_CALL.sh"
  fi
  if [[ $__routines_mode == fork ]]; then
    builtin set -m
    { ( builtin eval "$__routines_command" ) 4>&-; builtin printf '%s %s\n' "$ROUTINES_CALL" "$?" >&4
    } < /dev/null > "$__routines_run/$ROUTINES_CALL" 2>&1 3<&- &
    builtin disown "$!" 2> /dev/null
    builtin set +m
  else
    __routines_pending=1 __routines_status=0
    { builtin eval "$__routines_command"; } < /dev/null > "$__routines_run/$ROUTINES_CALL" 2>&1 3<&- 4>&-
    __routines_status=$?
  fi
done; done
"""


class Output:
    """What a command says: all of it while it is short, else its head and tail here and the first 64 MB in a file."""

    def __init__(self, path: str, make_room: Callable[[], None]) -> None:
        self.path: str | None = None
        self.total = 0
        self._wanted_path, self._make_room = path, make_room
        self._head, self._tail = bytearray(), bytearray()
        self._file: int | None = None
        self._written = 0

    def add(self, data: bytes) -> None:
        if self.total + len(data) > 4 * SHOWN and self.path is None:
            self._open()
        self.total += len(data)
        if self._file is not None:
            self._write(data)
        room = 4 * SHOWN - len(self._head)
        self._head += data[:room]
        self._tail += data[max(room, 0) :]
        if len(self._tail) > 8 * SHOWN:
            del self._tail[: -4 * SHOWN]

    def _open(self) -> None:
        self._make_room()
        try:
            self._file = os.open(self._wanted_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError:
            return  # the result still has head and tail
        self.path = self._wanted_path
        self._write(bytes(self._head))

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        try:
            self._written += os.write(self._file, data[: FILE_MAX - self._written])
        except OSError:  # no room left there
            self.close()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def text(self) -> str:
        """Readable text of at most about `SHOWN` characters."""
        whole = bytes(self._head + self._tail)
        if self.total <= len(whole):
            text = clean(whole)
            if len(text) <= SHOWN:
                return text
            if self.path is None:
                self._open()
        head, tail = clean(bytes(self._head))[: SHOWN // 2], clean(whole[-4 * SHOWN :])[-SHOWN // 2 :]
        left_out = max(0, self.total - len(head.encode()) - len(tail.encode()))
        where = f"; its {'beginning' if self.total > FILE_MAX else 'whole'} is in {self.path}" if self.path else ""
        return f"{head}\n[... {left_out:,} of {self.total:,} bytes left out{where} ...]\n{tail}"


def clean(data: bytes) -> str:
    """Text that every later place can store: no NUL, no surrogates."""
    return data.decode("utf-8", "replace").replace("\0", "\ufffd")


class Bash:
    """One bash process: requests go in, `(call, status)` reports come out."""

    def __init__(self, loop: Loop, settings: Mapping[str, Any], directory: str, on_report: Callable[[int, int], None]) -> None:
        self._loop, self._on_report = loop, on_report
        self._queue = b""
        self._pending = b""
        requests, self._requests = os.pipe2(os.O_CLOEXEC)
        self._reports, reports = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._requests, False)
        os.set_blocking(self._reports, False)
        devnull = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            self.pid = loop.spawn(
                ["bash", "--norc", "--noprofile", "-c", 'builtin eval "$__routines_loop"', "bash"],  # short, because it is what `ps` shows
                {**settings["environment"], "__routines_loop": LOOP, "__routines_run": settings["run"]},
                {0: devnull, 1: devnull, 2: devnull, 3: requests, 4: reports},
                self._exited,
                cwd=directory,
                cpu_seconds=settings["limits"]["cpu_seconds"],
            )
        finally:
            for fd in (requests, reports, devnull):
                os.close(fd)
        self.on_exit: Callable[[int], None] = lambda _: None
        loop.watch(self._reports, select.EPOLLIN, self.hear)

    def _exited(self, status: int) -> None:
        self.on_exit(status)

    def request(self, data: bytes) -> None:
        self._queue += data
        self._write()

    def _write(self, _: int = 0) -> None:
        try:
            while self._queue:
                self._queue = self._queue[os.write(self._requests, self._queue) :]
        except BlockingIOError:
            self._loop.watch(self._requests, select.EPOLLOUT, self._write)
            return
        except BrokenPipeError:  # it has just ended: `on_exit` comes
            pass
        self._loop.forget(self._requests)

    def hear(self, _: int = 0) -> None:
        """Take the reports that are there."""
        while self._reports >= 0:
            try:
                data = os.read(self._reports, 65536)
            except BlockingIOError:
                return
            if not data:  # the shell and all forked copies are gone
                self._loop.close(self._reports)
                self._reports = -1
            *lines, self._pending = (self._pending + data).split(b"\n")
            for line in lines:
                call, _sep, status = line.partition(b" ")
                if call.isdigit() and status.isdigit():
                    self._on_report(int(call), int(status))

    def directory(self) -> str | None:
        try:
            return os.readlink(f"/proc/{self.pid}/cwd")
        except OSError:
            return None

    def close(self) -> None:
        """Nothing more is asked of it; what its forked copies report is still heard."""
        self._loop.close(self._requests)


class Command:
    """One command, from its request until nothing of it can be heard any more."""

    def __init__(self, call: int, request: bytes, output: Output, fifo: str, *, fork: bool) -> None:
        self.call, self.request, self.output, self.fork = call, request, output, fork
        self.fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with suppress(OSError):  # the user's pipes hold as much as they may: the usual size does
            fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        found = os.fstat(self.fd)
        self.pipe = (found.st_dev, found.st_ino)
        self.started = process_tree.ticks_now()
        self.bash: Bash | None = None
        self.timer: Timer | None = None
        self.answered = False


class Shell:
    """The persistent shell of the session. When its bash ends or must be killed, a new one starts in the same directory."""

    def __init__(self, loop: Loop, reply: Callable[[int, Mapping[str, Any]], None], settings: Mapping[str, Any]) -> None:
        self._loop, self._reply, self._settings = loop, reply, settings
        self._commands: dict[int, Command] = {}
        self._waiting: list[Command] = []
        self._busy: Command | None = None  # runs in the shell itself: the others wait, forked or not
        self._directory: str = settings["workspace"]
        self._bash: Bash | None = None

    def execute(self, call: int, text: str, timeout: float, *, fork: bool) -> None:
        """Run `text` for at most `timeout` seconds (waiting for the shell included); the answer goes to `reply`."""
        run = self._settings["run"]
        encoded = text.encode("utf-8", "replace")
        if len(encoded) > INLINE_MAX or not encoded:
            with open(f"{run}/{call}.sh", "wb") as file:
                file.write(encoded + b"\0")
            encoded = b""
        os.mkfifo(f"{run}/{call}", 0o600)
        output = Output(f"{self._settings['outputs']}/{call}.txt", self._make_room)
        request = b"\0".join([b"fork" if fork else b"shell", str(call).encode(), encoded, b""])
        command = Command(call, request, output, f"{run}/{call}", fork=fork)
        self._commands[call] = command
        self._waiting.append(command)
        command.timer = self._loop.later(timeout, lambda: self.cancel(call))
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self._waiting and self._busy is None:
            if self._bash is None:
                if not os.path.isdir(self._directory):
                    self._directory = self._settings["workspace"]
                bash = self._bash = Bash(self._loop, self._settings, self._directory, self._reported)
                bash.on_exit = partial(self._ended, bash)
            command = self._waiting.pop(0)
            command.bash = self._bash
            command.started = process_tree.ticks_now()
            if not command.fork:
                self._busy = command
            self._loop.watch(command.fd, select.EPOLLIN, partial(self._heard, command))
            self._bash.request(command.request)

    def _heard(self, command: Command, _: int) -> None:
        self._hear(command)

    def _hear(self, command: Command) -> int:
        """Take what the command says; the number of bytes, 0 when there is nothing or nobody is left who could say something."""
        try:
            data = os.read(command.fd, PIPE_SIZE)
        except BlockingIOError:
            return 0
        if data:
            command.output.add(data)
        elif command.answered:
            self._forget(command)
        else:
            self._loop.forget(command.fd)
            if command.fork:  # its wrapper holds the pipe until it has reported: the report is on its way, or it was killed
                self._loop.later(0.5, lambda: self._finish(command, None))
        return len(data)

    def _reported(self, call: int, status: int) -> None:
        command = self._commands.get(call)
        if command is not None and not command.answered:
            if not command.fork and command.bash is not None:
                self._directory = command.bash.directory() or self._directory
            self._finish(command, status)

    def _finish(self, command: Command, status: int | None, *, timed_out: bool = False, shell_lost: bool = False) -> None:
        if command.answered:
            return
        command.answered = True
        self._loop.cancel(command.timer)
        # What was in the pipe when the command ended, and no more: something left behind may go on talking.
        waiting = struct.unpack("i", fcntl.ioctl(command.fd, termios.FIONREAD, b"\0\0\0\0"))[0]
        while waiting > 0 and (heard := self._hear(command)):
            waiting -= heard
        # A forked copy of the shell has reported and is about to end; what a command leaves behind is never a child of the shell itself.
        wrapper = command.bash.pid if command.fork and command.bash is not None else None
        still_running = any(process.parent != wrapper for process in self._belonging(command))
        for name in (f"{command.call}", f"{command.call}.sh"):
            with suppress(OSError):
                os.unlink(f"{self._settings['run']}/{name}")
        result = {
            "exit_code": status,
            "output": command.output.text(),
            "output_bytes": command.output.total,
            "output_path": command.output.path,
            "timed_out": timed_out,
            "shell_lost": shell_lost,
            "directory": self._directory,
            "still_running": still_running,
        }
        if not still_running:
            self._forget(command)
        if self._busy is command:
            self._busy = None
        self._reply(command.call, result)
        self._start_waiting()

    def _forget(self, command: Command) -> None:
        command.output.close()
        if self._commands.pop(command.call, None) is not None:
            self._loop.close(command.fd)

    def _ended(self, bash: Bash, status: int) -> None:
        """A bash is gone: by `exit`, `exec`, `set -e`, or killed. Answer what ran in it; a new one starts with the next command."""
        if self._bash is bash:
            self._bash = None
        bash.close()
        bash.hear()
        for command in list(self._commands.values()):
            if command.bash is bash and not command.answered and (not command.fork or not self._belonging(command)):
                self._finish(command, status if status >= 0 else 128 - status, shell_lost=True)

    def _belonging(self, command: Command) -> list[process_tree.Process]:
        """The processes of a command: marked, holding its pipe, below such; and, if it is alone, what is new and of nobody."""
        alive = process_tree.processes()
        ours = self._loop.children
        if not alive.keys() - ours:
            return []
        calls = process_tree.attribute(alive, {other.pipe: other.call for other in self._commands.values()}, ours)
        alone = all(other.answered for other in self._commands.values() if other is not command)
        return [
            alive[pid]
            for pid, call in calls.items()
            if call == command.call or (call is None and alone and alive[pid].started >= command.started)
        ]

    def cancel(self, call: int) -> None:
        """Kill all of a command. One that runs in the shell itself takes the shell along: bash would go on with the rest of its text."""
        command = self._commands.get(call)
        if command is None or command.answered:
            return
        if command in self._waiting:
            self._waiting.remove(command)
        in_shell = self._busy is command
        if in_shell and command.bash is not None:
            self._directory = command.bash.directory() or self._directory
            self._bash = None
            os.kill(command.bash.pid, signal.SIGKILL)
        process_tree.kill(lambda: self._belonging(command))
        self._finish(command, None, timed_out=True, shell_lost=in_shell)

    def _make_room(self) -> None:
        """Remove the oldest kept outputs while all together could grow above the cap."""
        with suppress(OSError):
            with os.scandir(self._settings["outputs"]) as entries:
                kept = sorted((entry.stat(follow_symlinks=False).st_mtime_ns, entry.stat().st_size, entry.path) for entry in entries)
            while kept and sum(size for _, size, _ in kept) + FILE_MAX > FILES_MAX:
                os.unlink(kept.pop(0)[2])
