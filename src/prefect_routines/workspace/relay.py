"""Inside the sandbox: a TCP port on the loopback that leads to the proxy's unix socket; programs know proxies by host and port only."""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect_routines.workspace.supervisor import Loop

BUFFER = 256 * 1024
CONNECTIONS_MAX = 200


class Relay:
    """Accepts connections and copies bytes both ways."""

    def __init__(self, loop: Loop, target: str, port: int) -> None:
        self._loop, self._target, self._open = loop, target, 0
        self._server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._server.bind(("127.0.0.1", port))
        self._server.listen(64)
        self._server.setblocking(False)
        loop.watch(self._server.fileno(), select.EPOLLIN, self._accept)

    def _accept(self, _: int) -> None:
        try:
            near, _address = self._server.accept()
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if self._open >= CONNECTIONS_MAX:
                raise OSError
            far.connect(self._target)
        except OSError:
            near.close()
            far.close()
            return
        self._open += 1
        Pair(self._loop, near, far, self._closed)

    def _closed(self) -> None:
        self._open -= 1


class Pair:
    """Two sockets; what one says the other hears, half-closes included."""

    def __init__(self, loop: Loop, near: socket.socket, far: socket.socket, on_close: object) -> None:
        self._loop, self._on_close = loop, on_close
        self._sockets = {near.fileno(): near, far.fileno(): far}
        self._other = {near.fileno(): far.fileno(), far.fileno(): near.fileno()}
        self._waiting = {fd: bytearray() for fd in self._sockets}  # to be sent to
        self._ended = dict.fromkeys(self._sockets, False)  # says no more
        for fd, end in self._sockets.items():
            end.setblocking(False)
            self._listen(fd)

    def _listen(self, fd: int) -> None:
        reads = not self._ended[fd] and len(self._waiting[self._other[fd]]) < BUFFER
        events = (select.EPOLLIN if reads else 0) | (select.EPOLLOUT if self._waiting[fd] else 0)
        if events:
            self._loop.watch(fd, events, lambda happened: self._ready(fd, happened))
        else:
            self._loop.forget(fd)

    def _ready(self, fd: int, happened: int) -> None:
        other = self._other[fd]
        try:
            if happened & (select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP) and self._waiting[fd]:
                del self._waiting[fd][: os.write(fd, self._waiting[fd])]
            if happened & (select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP) and not self._ended[fd]:
                data = os.read(fd, 65536)
                self._waiting[other] += data
                self._ended[fd] = not data
                if data:
                    del self._waiting[other][: os.write(other, self._waiting[other])]
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return
        for end in (fd, other):
            if self._ended[self._other[end]] and not self._waiting[end]:
                try:
                    self._sockets[end].shutdown(socket.SHUT_WR)
                except OSError:
                    self._close()
                    return
        if all(self._ended.values()) and not any(self._waiting.values()):
            self._close()
            return
        self._listen(fd)
        self._listen(other)

    def _close(self) -> None:
        for fd, end in self._sockets.items():
            self._loop.forget(fd)
            end.close()
        if callable(self._on_close):
            self._on_close()
