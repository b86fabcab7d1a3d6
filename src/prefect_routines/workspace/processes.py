"""Inside the sandbox: programs that the host runs with exact bytes in and out, and file tools in forked children that can be killed."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prefect_routines.workspace import process_tree

if TYPE_CHECKING:
    from prefect_routines.workspace.supervisor import Link, Loop, Timer

CHUNK = 256 * 1024
RESULT_MAX = 8 * 1024 * 1024
STDERR_TAIL = 8192


class Program:
    """One running program: its pipes, its timer, what it has said so far (in bytes)."""

    def __init__(self, call: int, max_output: int, window: int | None) -> None:
        self.call = call
        self.window = window
        """Bytes of stdout that the host still takes; None: all. With a window only the end of stderr is kept, until the program ends."""
        self.stderr = b""
        self.pid = 0
        self.stdin: int | None = None
        self.stdin_queue: list[tuple[memoryview, int, bool]] = []
        self.outputs: dict[int, int] = {}  # descriptor -> 1 or 2
        self.left = max_output
        self.truncated = self.timed_out = False
        self.status: int | None = None
        self.timer: Timer | None = None


class Processes:
    """Starts programs and file tools, streams what they say, kills them in time."""

    def __init__(self, loop: Loop, link: Link, settings: Mapping[str, Any]) -> None:
        self._loop, self._link, self._settings = loop, link, settings
        self._programs: dict[int, Program] = {}
        self._tools: dict[int, Callable[[str], None]] = {}

    def start(self, call: int, request: Mapping[str, Any]) -> None:
        """Run `argv`; the answers are chunks of stdout (1) and stderr (2) and at last a result with the exit code."""
        program = Program(call, request["max_output"], request.get("window"))
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        (in_read, in_write), (out_read, out_write), (err_read, err_write) = pipes
        environment = {**self._settings["environment"], **request["environment"], process_tree.MARK: str(call)}
        try:
            program.pid = self._loop.spawn(
                request["argv"],
                environment,
                {0: in_read, 1: out_write, 2: out_write if request["merge_stderr"] else err_write},
                lambda status: self._exited(program, status),
                cwd=request["cwd"],
                cpu_seconds=self._settings["limits"]["cpu_seconds"],
            )
        except OSError:
            for pair in pipes:
                os.close(pair[0])
                os.close(pair[1])
            raise
        for fd in (in_read, out_write, err_write):
            os.close(fd)
        self._programs[call] = program
        program.stdin = in_write
        os.set_blocking(in_write, False)
        for fd, stream in ((out_read, 1), (err_read, 2)):
            program.outputs[fd] = stream
            os.set_blocking(fd, False)
            self._listen(program, fd)
        if request["timeout"] is not None:
            program.timer = self._loop.later(request["timeout"], lambda: self._stop(program))
        if not request["stdin"]:
            self._close_stdin(program)

    def feed(self, call: int, data: bytes, *, last: bool) -> None:
        """Pass bytes to the program's stdin; each chunk that it has taken is answered with a credit."""
        program = self._programs.get(call)
        if program is None or program.stdin is None:
            self._link.send({"kind": "credit", "id": call, "bytes": len(data)})
            return
        program.stdin_queue.append((memoryview(data), len(data), last))
        self._write_stdin(program)

    def _write_stdin(self, program: Program, _: int = 0) -> None:
        while program.stdin is not None and program.stdin_queue:
            data, size, last = program.stdin_queue[0]
            try:
                written = os.write(program.stdin, data) if data else 0
            except BlockingIOError:
                self._loop.watch(program.stdin, select.EPOLLOUT, lambda _: self._write_stdin(program))
                return
            except OSError:  # the program does not read on
                self._close_stdin(program)
                return
            if written < len(data):
                program.stdin_queue[0] = (data[written:], size, last)
                continue
            program.stdin_queue.pop(0)
            self._link.send({"kind": "credit", "id": program.call, "bytes": size})
            if last:
                self._close_stdin(program)
                return
        if program.stdin is not None:
            self._loop.forget(program.stdin)

    def _close_stdin(self, program: Program) -> None:
        if program.stdin is not None:
            self._loop.close(program.stdin)
            program.stdin = None
        for _, size, _last in program.stdin_queue:
            self._link.send({"kind": "credit", "id": program.call, "bytes": size})
        program.stdin_queue.clear()

    def _listen(self, program: Program, fd: int) -> None:
        if fd in program.outputs:
            self._loop.watch(fd, select.EPOLLIN, lambda _: self._hear(program, fd))

    def _hear(self, program: Program, fd: int) -> None:
        self._read(program, fd)

    def _read(self, program: Program, fd: int) -> bool:
        """Send on what is there; False at the end of the stream, or when nothing is there."""
        if self._link.full:
            self._loop.forget(fd)
            self._link.when_drained(lambda: self._listen(program, fd))
            return False
        if program.window == 0 and program.outputs[fd] == 1:
            self._loop.forget(fd)  # until the host has taken some
            return False
        try:
            data = os.read(fd, CHUNK if program.window is None else min(CHUNK, program.window or CHUNK))
        except BlockingIOError:
            return False
        if not data:
            self._loop.close(fd)
            del program.outputs[fd]
            self._finish_if_done(program)
            return False
        if program.window is not None and program.outputs[fd] == 2:
            program.stderr = (program.stderr + data)[-STDERR_TAIL:]
            return True
        if program.window is not None:
            program.window -= len(data)
        kept = data[: program.left]
        program.left -= len(kept)
        program.truncated |= len(kept) < len(data)
        if kept:
            self._link.send({"kind": "chunk", "id": program.call, "stream": program.outputs[fd]}, kept)
        return True

    def taken(self, call: int, count: int) -> None:
        """The host has taken bytes of the program's stdout, so as many more may come."""
        program = self._programs.get(call)
        if program is None or program.window is None:
            return
        program.window += count
        for fd, stream in program.outputs.items():
            if stream == 1:
                self._listen(program, fd)

    def _exited(self, program: Program, status: int) -> None:
        program.status = status
        self._loop.cancel(program.timer)
        self._close_stdin(program)
        # What the program itself wrote is in the pipes by now. Something it left behind may hold them open: it gets a moment, no more.
        program.timer = self._loop.later(0.2, lambda: self._abandon_outputs(program))
        self._finish_if_done(program)

    def _abandon_outputs(self, program: Program) -> None:
        for fd in list(program.outputs):
            for _ in range(64):
                if not self._read(program, fd):
                    break
        if program.outputs and self._link.full:
            self._link.when_drained(lambda: self._abandon_outputs(program))
            return
        for fd in list(program.outputs):
            self._loop.close(fd)
        program.outputs.clear()
        self._finish_if_done(program)

    def _finish_if_done(self, program: Program) -> None:
        if program.status is None or program.outputs or self._programs.pop(program.call, None) is None:
            return
        self._loop.cancel(program.timer)
        if program.stderr:
            self._link.send({"kind": "chunk", "id": program.call, "stream": 2}, program.stderr)
        result = {"exit_code": program.status, "truncated": program.truncated, "timed_out": program.timed_out}
        self._link.send({"kind": "result", "id": program.call}, json_bytes(result))

    def _stop(self, program: Program) -> None:
        program.timed_out = True

        def belongs() -> list[process_tree.Process]:
            alive = process_tree.processes()
            calls = process_tree.attribute(alive, {}, self._loop.children - {program.pid})
            return [alive[pid] for pid, call in calls.items() if call == program.call]

        process_tree.kill(belongs)

    def cancel(self, call: int) -> None:
        """The host does not wait any longer: kill it."""
        if call in self._programs:
            self._stop(self._programs[call])
        elif call in self._tools:
            self._tools[call]("the call was cancelled")

    def start_tool(self, call: int, operation: str, arguments: Mapping[str, Any], timeout: float) -> None:
        """Run one file tool in a forked child; the child's JSON is sent on as it is."""
        read, write = os.pipe2(os.O_CLOEXEC)
        answer = bytearray()
        state: dict[str, Any] = {"error": None, "status": None, "open": True}

        def child() -> None:
            from prefect_routines.workspace.supervisor import place_descriptors

            devnull = os.open(os.devnull, os.O_RDWR)
            place_descriptors({0: devnull, 1: write, 2: devnull})
            from prefect_routines.workspace import file_tools

            data = memoryview(json_bytes(file_tools.perform(operation, arguments, self._settings)))
            while data:
                data = data[os.write(1, data) :]

        def on_exit(status: int) -> None:
            state["status"] = status
            finish()

        def on_data(_: int) -> None:
            data = os.read(read, CHUNK)
            answer.extend(data)
            if not data or len(answer) > RESULT_MAX:
                self._loop.close(read)
                state["open"] = False
                finish()

        def stop(error: str) -> None:
            state["error"] = error
            with suppress(OSError):
                os.kill(pid, 9)

        def finish() -> None:
            if state["status"] is None or state["open"]:
                return
            self._loop.cancel(timer)
            self._tools.pop(call, None)
            if state["error"] is None and state["status"] != 0:
                state["error"] = f"{operation} failed: its process ended with {state['status']}, perhaps out of memory"
            body = bytes(answer) if state["error"] is None else json_bytes({"error": state["error"]})
            self._link.send({"kind": "result", "id": call}, body)

        try:
            pid = self._loop.fork(child, on_exit)
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)
        self._tools[call] = stop
        self._loop.watch(read, select.EPOLLIN, on_data)
        timer = self._loop.later(timeout, lambda: stop(f"{operation} took longer than {timeout:g} s and was stopped"))


def json_bytes(value: Mapping[str, Any]) -> bytes:
    import json

    return json.dumps(value).encode()
