"""The seccomp profile for containers, loaded for real: bubblewrap works under it, and the rest stays refused."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prefect_routines.workspace import bubblewrap
from prefect_routines.workspace.seccomp import filter_program

PROFILE = Path(__file__).parents[2] / "deployments" / "seccomp.json"
CONFINED = Path(__file__).with_name("confined.py")
NAMESPACE_FLAGS = 0x7E020000
"""All CLONE_NEW* flags but CLONE_NEWTIME, as in the mask of Docker's default profile."""
DOCKER = {"mount", "pivot_root", "sethostname", "umount2", "unshare"}
"""What Docker's default profile allows to CAP_SYS_ADMIN only (pivot_root: to nobody), and ours to all."""


def profile() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(PROFILE.read_text())
    return loaded


def like_docker() -> dict[str, Any]:
    """Ours with what was added for bubblewrap taken back: Docker's default in these points."""
    changed = copy.deepcopy(profile())
    ours = [group for group in changed["syscalls"] if group["comment"].startswith("bubblewrap:")]
    assert {name for group in ours for name in group["names"]} == {*DOCKER, "clone"}
    for group in ours:
        changed["syscalls"].remove(group)
    masked = [{"index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    changed["syscalls"].append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": masked})
    return changed


def under(place: Path, rules: dict[str, Any], command: list[str], fds: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command under a profile, as nobody."""
    file = place / "profile.json"
    file.write_text(json.dumps(rules))
    whole = [sys.executable, str(CONFINED), str(file), *command]
    return subprocess.run(whole, capture_output=True, text=True, timeout=60, cwd="/", pass_fds=fds, check=False)


def sandbox(place: Path, rules: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """bubblewrap with the options of a session's sandbox, and a command that looks round in it."""
    filter_fd = os.memfd_create("filter")
    os.write(filter_fd, filter_program())
    os.lseek(filter_fd, 0, os.SEEK_SET)
    info_read, info_write = os.pipe()
    try:
        options = bubblewrap.arguments({}, {}, filter_fd, info_write, tmp_bytes=1 << 20, interpreter="/bin/sh")
        look = ["/bin/sh", "-c", "id -u; hostname; ls /tmp /root /home 2>&1 | head -5; touch /tmp/mine && echo wrote"]
        return under(place, rules, ["bwrap", *options[: options.index("--") + 1], *look], (filter_fd, info_write))
    finally:
        for fd in (filter_fd, info_read, info_write):
            os.close(fd)


def test_the_sandbox_starts_under_the_profile(tmp_path: Path) -> None:
    """As an ordinary user without capabilities, with all the options that a session's sandbox has."""
    done = sandbox(tmp_path, profile())
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["1000", "sandbox"]
    assert "wrote" in done.stdout


def test_the_sandbox_does_not_start_under_dockers_default(tmp_path: Path) -> None:
    """Which shows that the check above can fail, and that the profile is needed; the remedy is the one that we print."""
    done = sandbox(tmp_path, like_docker())
    assert done.returncode != 0
    assert "--security-opt seccomp=PROFILE" in bubblewrap.remedy(done.stderr)


@pytest.mark.parametrize("name", sorted({*DOCKER, "clone"}))
def test_each_call_that_was_added_is_needed(tmp_path: Path, name: str) -> None:
    """Nothing is allowed in reserve: without any one of them the sandbox does not start."""
    rules = profile()
    for group in rules["syscalls"]:
        if name in group["names"]:
            group["names"].remove(name)
    if name == "clone":
        rules["syscalls"] = [*rules["syscalls"], next(group for group in like_docker()["syscalls"] if group["names"] == ["clone"])]
    assert sandbox(tmp_path, rules).returncode != 0


REFUSED = {
    "a kernel module": ("finit_module", "-1, 0, 0", 1),
    "bpf": ("bpf", "0, 0, 0", 1),
    "the keyring": ("keyctl", "0, 0, 0", 1),
    "performance counters": ("perf_event_open", "0, 0, -1, -1, 0", 1),
    "another namespace": ("setns", "-1, 0", 1),
    "a file by its handle": ("open_by_handle_at", "-1, 0, 0", 1),
    "another process's memory": ("process_vm_readv", "1, 0, 0, 0, 0, 0", 1),
    "page faults": ("userfaultfd", "0", 1),
    "the clock": ("settimeofday", "0, 0", 1),
    "the machine's end": ("reboot", "0, 0, 0, 0", 1),
    "a new kernel": ("kexec_load", "0, 0, 0, 0", 1),
    "the host of a virtual machine": ("socket", "40, 1, 0", 1),
    "an odd personality": ("personality", "0x0040000", 1),
    "a mount through the newer calls": ("fsopen", "0, 0", 1),
    "a namespace by clone3": ("clone3", "0, 0", 38),
    "io_uring": ("io_uring_setup", "0, 0", 38),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_rest_stays_refused(tmp_path: Path, what: str) -> None:
    """With "not permitted" (1), or "no such call" (38) where programs then take another way."""
    import pyseccomp

    name, arguments, number = REFUSED[what]
    call = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    code = f"import ctypes; c = ctypes.CDLL(None, use_errno=True); r = c.syscall({call}, {arguments}); print(r, ctypes.get_errno())"
    done = under(tmp_path, profile(), ["/usr/bin/python3", "-c", code])
    assert done.stdout.split() == ["-1", str(number)], done.stderr


def test_a_call_is_named_once() -> None:
    """Twice would mean that one group undoes another; only `personality` has several conditions."""
    names = [name for group in profile()["syscalls"] for name in group["names"] if name != "personality"]
    assert len(names) == len(set(names))
