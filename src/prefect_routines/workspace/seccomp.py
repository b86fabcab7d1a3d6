"""The system calls that a sandbox may not make: a deny list compiled to BPF, loaded by bubblewrap before the supervisor starts.

The list closes what namespaces leave open (AF_VSOCK, the kernel keyring, io_uring, bpf, perf) and what an unprivileged process could use
to build new namespaces. 32-bit system calls kill the caller: libseccomp's answer to a foreign architecture.
"""

from __future__ import annotations

import errno
from functools import cache

from prefect_routines.errors import SandboxUnavailable

NAMESPACES = [
    "mount",
    "umount2",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsmount",
    "fsconfig",
    "fspick",
    "mount_setattr",
    "pivot_root",
    "chroot",
    "setns",
    "unshare",
]
OTHER_PROCESSES = ["ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd"]
KERNEL = [
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "keyctl",
    "add_key",
    "request_key",
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "reboot",
    "swapon",
    "swapoff",
    "acct",
    "quotactl",
    "quotactl_fd",
    "open_by_handle_at",
    "name_to_handle_at",
    "lookup_dcookie",
    "settimeofday",
    "clock_settime",
    "adjtimex",
    "clock_adjtime",
    "syslog",
    "personality",
    "fanotify_init",
    "vhangup",
    "ioperm",
    "iopl",
    "modify_ldt",
    "nfsservctl",
]
FALLBACK = ["io_uring_setup", "io_uring_enter", "io_uring_register", "clone3"]
"""Answered with ENOSYS, so that libraries take the older way. clone3 because its flags lie behind a pointer that a filter cannot read."""

NAMESPACE_FLAGS = (0x10000000, 0x00020000, 0x40000000, 0x20000000, 0x08000000, 0x04000000, 0x02000000)
"""CLONE_NEWUSER, NEWNS, NEWNET, NEWPID, NEWIPC, NEWUTS, NEWCGROUP (clone(2))."""

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_MAX = 1, 2, 10, 16, 46
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
INT_MASK = 0xFFFFFFFF
"""The kernel looks at the low half of these arguments only; comparing all 64 bits was CVE-2019-10063."""


@cache
def filter_program() -> bytes:
    """The filter for this machine's architecture, built once per process.

    Raises:
        SandboxUnavailable: libseccomp is not installed.
    """
    try:
        import pyseccomp as seccomp
    except (ImportError, OSError, RuntimeError) as error:
        raise SandboxUnavailable(
            f"the sandbox's system call filter needs libseccomp ({error}): apt-get install libseccomp2 (Fedora: dnf install libseccomp)"
        ) from error
    program = seccomp.SyscallFilter(defaction=seccomp.ALLOW)
    refuse, absent = seccomp.ERRNO(errno.EPERM), seccomp.ERRNO(errno.ENOSYS)

    def same(index: int, value: int) -> object:
        return seccomp.Arg(index, seccomp.MASKED_EQ, INT_MASK, value)

    for names, action in ((NAMESPACES, refuse), (OTHER_PROCESSES, refuse), (KERNEL, refuse), (FALLBACK, absent)):
        for name in names:
            try:
                number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
            except ValueError:
                continue  # this libseccomp is older than the call
            if number >= 0:  # negative: not a call of this architecture
                program.add_rule(action, name)
    for flag in NAMESPACE_FLAGS:
        program.add_rule(refuse, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
    for family in set(range(AF_MAX)) - {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK}:
        program.add_rule(seccomp.ERRNO(errno.EAFNOSUPPORT), "socket", same(0, family))
    program.add_rule(seccomp.ERRNO(errno.EAFNOSUPPORT), "socket", seccomp.Arg(0, seccomp.GE, AF_MAX))
    for request in (TIOCSTI, TIOCLINUX):
        program.add_rule(refuse, "ioctl", same(1, request))
    return _export(program)


def _export(program: object) -> bytes:
    import os

    fd = os.memfd_create("filter")
    with os.fdopen(fd, "r+b") as file:
        program.export_bpf(file)  # type: ignore[attr-defined]  # pyseccomp ships no types
        file.seek(0)
        return file.read()
