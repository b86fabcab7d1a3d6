"""Runs a command as a container would: as an ordinary user, with a seccomp profile in Docker's format loaded.

A program of its own (`python confined.py PROFILE COMMAND...`): a filter cannot be taken off again. What the format means:
https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp and, for `archMap`, Docker's own documentation.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyseccomp as seccomp

NOBODY = 65534
PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 38, 24
COMPARE = {"SCMP_CMP_NE": seccomp.NE, "SCMP_CMP_EQ": seccomp.EQ, "SCMP_CMP_MASKED_EQ": seccomp.MASKED_EQ}


def action(name: str, number: int | None) -> object:
    """libseccomp's word for an action of the profile."""
    return seccomp.ALLOW if name == "SCMP_ACT_ALLOW" else seccomp.ERRNO(1 if number is None else number)


def condition(argument: Mapping[str, Any]) -> object:
    """`value` and `valueTwo` stand in the order that libseccomp wants them in (for MASKED_EQ: the mask first)."""
    if argument["op"] == "SCMP_CMP_MASKED_EQ":
        return seccomp.Arg(argument["index"], seccomp.MASKED_EQ, argument["value"], argument.get("valueTwo", 0))
    return seccomp.Arg(argument["index"], COMPARE[argument["op"]], argument["value"])


def build(profile: Mapping[str, Any]) -> Any:
    """The filter of a profile, for this machine's architecture."""
    program = seccomp.SyscallFilter(defaction=action(profile["defaultAction"], profile.get("defaultErrnoRet")))
    for group in profile["syscalls"]:
        for name in group["names"]:
            try:
                number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
            except ValueError:
                continue  # this libseccomp is older than the call; a container runtime passes over it, too
            if number >= 0:
                program.add_rule(action(group["action"], group.get("errnoRet")), name, *map(condition, group.get("args", [])))
    return program


def become_ordinary() -> None:
    """No root, no capability and none to be had again, as `USER` and `no-new-privileges` make it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.getuid() == 0:
        for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def main() -> None:
    """Load the profile, then become the command."""
    program = build(json.loads(Path(sys.argv[1]).read_text()))
    become_ordinary()
    program.load()
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
