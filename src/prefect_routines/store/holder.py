"""Who holds a lease, told so exactly that another process on the same machine can see that the holder is dead."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _pid_namespace() -> int | None:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None


_GONE = -1


def _started(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; `_GONE` for a zombie, None when it cannot be told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before it may hold spaces and brackets
    return _GONE if fields[0] in (b"Z", b"X") else int(fields[19])


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, identified beyond its number: numbers are reused, and mean nothing on another machine or in a container.

    Attributes:
        boot_id: Changes with each start of the machine; None where the system does not tell.
        pid_namespace: Tells containers on one machine apart.
        started: Start of the process in clock ticks since boot.
    """

    host: str
    pid: int
    boot_id: str | None = None
    pid_namespace: int | None = None
    started: int | None = None

    @classmethod
    def current(cls) -> Holder:
        """This process."""
        return cls(socket.gethostname(), os.getpid(), _boot_id(), _pid_namespace(), _started(os.getpid()))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Holder:
        """The holder that `as_json` described; unknown fields of a newer version are left out."""
        return cls(**{name: data.get(name) for name in cls.__slots__})  # type: ignore[arg-type]

    def as_json(self) -> dict[str, Any]:
        """For the lease's row."""
        return asdict(self)

    def certainly_dead(self) -> bool:
        """True only when this process could see the holder and it is not there; False whenever in doubt."""
        here = Holder.current()
        if None in (self.boot_id, self.pid_namespace, self.started, here.started):
            return False
        if (self.host, self.boot_id, self.pid_namespace) != (here.host, here.boot_id, here.pid_namespace):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # it is another user's, so it exists
        started = _started(self.pid)  # None: hidden by the mount option hidepid
        return started is not None and started != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"
