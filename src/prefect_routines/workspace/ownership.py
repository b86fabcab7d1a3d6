"""Who owns what a sandbox works on, when the worker runs as root: a uid per session, and directories handed over and given back."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect_routines.errors import SandboxUnavailable
from prefect_routines.workspace.trees import go_through

UIDS = range(64001, 65000)
"""Outside of what distributions give to people (1000-59999) and to nobody (65534). One per living sandbox, so that RLIMIT_NPROC counts per
session and no session can signal another's processes."""

CAP_SYS_ADMIN = 21


class SessionUid:
    """A uid of the range that no other living sandbox of this machine has. Ends with `release`, or with the process.

    The lock is an abstract unix socket (unix(7)): it needs no file and cannot outlive its owner.
    """

    def __init__(self, preferred: int | None = None) -> None:
        candidates = [preferred, *UIDS] if preferred in UIDS else list(UIDS)
        for uid in candidates:
            lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                lock.bind(f"\0prefect-routines-uid-{uid}")
            except OSError:
                lock.close()
                continue
            assert uid is not None
            self.uid, self._lock = uid, lock
            return
        raise SandboxUnavailable(f"all {len(UIDS)} sandbox uids ({UIDS.start}-{UIDS.stop - 1}) are in use: end some sessions")

    def release(self) -> None:
        self._lock.close()


def is_root() -> bool:
    return os.geteuid() == 0


def may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN (a container's root usually has not)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_SYS_ADMIN & 1)
    return False


def blocked_ancestor(path: Path) -> Path | None:
    """The first directory above `path` that other users may not enter."""
    for ancestor in reversed(path.parents):
        if not ancestor.stat().st_mode & stat.S_IXOTH:
            return ancestor
    return None


def hand_over(directory: Path, uid: int, gid: int) -> None:
    """Give a tree to `uid`, itself included. Links are not followed, other file systems and files that have it already are left alone,
    set-uid and set-gid bits of files are taken away."""
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        device = os.fstat(root).st_dev
        os.fchown(root, uid, gid)
    finally:
        os.close(root)

    def give(parent: int, name: str, found: os.stat_result) -> bool:
        if found.st_dev != device:
            return False
        if (found.st_uid, found.st_gid) != (uid, gid):
            os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) and found.st_mode & (stat.S_ISUID | stat.S_ISGID):
            _clear_set_id(name, parent)
        return True

    go_through(directory, give)


def _clear_set_id(name: str, parent: int) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
    try:
        os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) & ~(stat.S_ISUID | stat.S_ISGID))
    finally:
        os.close(fd)


@contextmanager
def lend_directory(directory: Path) -> Iterator[Path]:
    """A person's own directory as a sandbox's workspace: afterwards all of it, also what is new, belongs to the directory's owner again.

    As an ordinary user there is nothing to do. As root every file changes hands twice; if this process is killed in between, the remedy is
    `chown -R`. Do not lend a directory whose files are hard-linked from elsewhere (a `git clone --local`): both names change hands.

    Example:
        ```python
        with lend_directory(Path("~/project").expanduser()) as workspace:
            async with await Sandbox.start(SandboxSpec(workspace)) as box: ...
        ```
    """
    owner = directory.stat()
    try:
        yield directory
    finally:
        if is_root():
            hand_over(directory, owner.st_uid, owner.st_gid)
