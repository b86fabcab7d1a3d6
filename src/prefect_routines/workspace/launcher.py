"""Run as root on the host, just before bubblewrap: shows the session's directories where another uid can reach them, then gives up root.

A program of its own (`python -I -S launcher.py FD`, standard library only): what it does must not happen in the flow's process. FD holds
JSON: `uid`, `mounts` (host paths; the n-th appears at /tmp/n in a mount namespace of its own; empty: no such namespace is made),
`command` (argv), `probe` (paths that the uid must be able to read). On failure: one line on stderr, exit code 96.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import NoReturn

MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
CLONE_NEWNS = 0x00020000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24
STAGE = "/tmp"  # noqa: S108 - exists everywhere and may be entered by all; only this process's own view of it is replaced
FAILED = 96


def fail(text: str) -> NoReturn:
    os.write(2, f"{text}\n".encode())
    os._exit(FAILED)


def check(result: int, what: str) -> None:
    if result != 0:
        fail(f"{what}: {os.strerror(ctypes.get_errno())}")


def stage(libc: ctypes.CDLL, sources: list[str]) -> None:
    """Bind each source below /tmp, in a mount namespace that ends with this process."""
    check(libc.unshare(CLONE_NEWNS), "cannot make a mount namespace")
    check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "cannot make the mounts private")
    opened = [os.open(source, os.O_PATH | os.O_CLOEXEC) for source in sources]  # some may lie below /tmp, which is covered next
    check(libc.mount(b"tmpfs", STAGE.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=0755,size=1m"), f"cannot mount on {STAGE}")
    for index, (source, fd) in enumerate(zip(sources, opened, strict=True)):
        target = f"{STAGE}/{index}"
        if os.path.isdir(source_of(fd)):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
        check(libc.mount(source_of(fd).encode(), target.encode(), None, MS_BIND | MS_REC, None), f"cannot bind {source}")


def source_of(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def give_up_root(libc: ctypes.CDLL, uid: int) -> None:
    """Become `uid`, for good: no groups, no capabilities, none to be had again."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())
    for capability in range(last + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of uid had cleared it


def main() -> NoReturn:
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    with os.fdopen(int(sys.argv[1])) as file:
        order = json.load(file)
    try:
        if order["mounts"]:
            stage(libc, order["mounts"])
        give_up_root(libc, order["uid"])
        if os.getppid() != parent:
            os._exit(FAILED)
        for path in order["probe"]:
            if not os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)):
                fail(f"{path} cannot be read by uid {order['uid']}")
        os.execve(order["command"][0], order["command"], {})  # noqa: S606 - there is no shell on purpose
    except OSError as error:
        fail(str(error))


if __name__ == "__main__":
    main()
