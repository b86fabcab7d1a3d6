"""The command line of a sandbox: what of the machine is in it (little), and everything it needs to start."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from prefect_routines.config import config
from prefect_routines.errors import SandboxUnavailable

PARTS = ("supervisor", "processes", "process_tree", "shell", "file_tools", "search_tools", "relay")
"""The modules of this package that run inside. They import nothing of it but each other."""

CODE, HOME, OUTPUTS, RUN, SETUP, PROXY = "/opt/routines", "/home/agent", "/outputs", "/run/routines", "/opt/setup", "/run/proxy"
BOOT = "import sys; sys.path.insert(0, {code!r}); from prefect_routines.workspace.supervisor import main; main()"
INSIDE_ID = 1000
"""The uid and gid that the sandbox sees as its own, whatever they are outside."""

ETC = [
    "ssl/certs",
    "ssl/openssl.cnf",
    "ca-certificates",
    "ca-certificates.conf",
    "pki/ca-trust",
    "pki/tls/certs",
    "crypto-policies",
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "nsswitch.conf",
    "protocols",
    "services",
    "localtime",
    "mime.types",
    "fonts",
]
FILES = {
    "/etc/passwd": f"agent:x:{INSIDE_ID}:{INSIDE_ID}:agent:{HOME}:/bin/bash\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "/etc/group": f"agent:x:{INSIDE_ID}:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
}
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "SHELL": "/bin/bash",
    "USER": "agent",
    "LOGNAME": "agent",
    "TERM": "dumb",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "DEBIAN_FRONTEND": "noninteractive",
}
PROXY_PORT = 3128


@cache
def python() -> tuple[str, bytes]:
    """The interpreter of the supervisor and the magic number of its byte code.

    Raises:
        SandboxUnavailable: none of the candidates lies under /usr and runs.
    """
    chosen = config().sandbox_python
    for candidate in [chosen] if chosen else ["/usr/bin/python3", "/usr/local/bin/python3"]:
        if not Path(os.path.realpath(candidate)).is_relative_to("/usr"):
            continue
        probe = "import _frozen_importlib_external as e, sys; assert sys.version_info >= (3, 9); print(e.MAGIC_NUMBER.hex())"
        try:
            done = subprocess.run([candidate, "-I", "-S", "-c", probe], env={}, capture_output=True, text=True, timeout=30, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        return candidate, bytes.fromhex(done.stdout.strip())
    raise SandboxUnavailable(
        f"the sandbox needs a Python (3.9 or later) under /usr, and {chosen or '/usr/bin/python3'} is none or does not run: "
        "apt-get install python3-minimal, or set ROUTINES_SANDBOX_PYTHON"
    )


def code(magic: bytes) -> dict[str, bytes]:
    """The supervisor's modules by file name: byte code if the interpreter inside takes ours (saves 20 ms per start), else source."""
    files = {}
    for part in PARTS:
        source = Path(__file__).with_name(f"{part}.py")
        if magic == importlib.util.MAGIC_NUMBER:
            files[f"{part}.pyc"] = _byte_code(source, source.stat().st_mtime_ns)
        else:
            files[f"{part}.py"] = source.read_bytes()
    return files


@cache
def _byte_code(source: Path, _changed: int) -> bytes:
    import marshal

    compiled = compile(source.read_bytes(), source.name, "exec", dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(compiled)


def arguments(
    binds: Mapping[str, tuple[str, bool]],
    data: Mapping[str, int],
    filter_fd: int,
    info_fd: int,
    *,
    tmp_bytes: int,
    interpreter: str,
) -> list[str]:
    """The options of bwrap. `binds`: path inside -> (host path, writable); `data`: path inside -> descriptor with the file's content."""
    options = (
        "--unshare-all --unshare-user --disable-userns --die-with-parent --new-session --as-pid-1 --cap-drop ALL --hostname sandbox "
        f"--uid {INSIDE_ID} --gid {INSIDE_ID} --ro-bind /usr /usr"
    ).split()
    for name in ("bin", "sbin", "lib", "lib64", "lib32"):
        top = Path("/", name)
        if top.is_symlink():
            options += ["--symlink", os.readlink(top), str(top)]
        elif top.is_dir():
            options += ["--ro-bind", str(top), str(top)]
    options += ["--dir", "/etc"]
    for name in ETC:
        path = Path("/etc", name)
        if path.exists():
            options += ["--ro-bind", str(path), str(path)]
    options += ["--proc", "/proc", "--dev", "/dev", "--size", str(64 << 20), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]  # noqa: S108
    tmpfs = (("/tmp", tmp_bytes, "1777"), (HOME, tmp_bytes, "0755"), (OUTPUTS, 320 << 20, "0755"), (RUN, 16 << 20, "0700"))  # noqa: S108
    for path_inside, size, mode in tmpfs:
        options += ["--perms", mode, "--size", str(size), "--tmpfs", path_inside]
    for path_inside, fd in data.items():
        options += ["--perms", "0444", "--ro-bind-data", str(fd), path_inside]
    for path_inside, (source, writable) in binds.items():
        options += ["--bind" if writable else "--ro-bind", source, path_inside]
    options += ["--remount-ro", "/", "--chdir", "/", "--seccomp", str(filter_fd), "--info-fd", str(info_fd)]
    return [*options, "--", interpreter, "-I", "-S", "-c", BOOT.format(code=CODE)]


def remedy(stderr: str) -> str:
    """What to do about a bubblewrap that does not start."""
    text = stderr.lower()
    if "namespace" in text or "uid map" in text or "operation not permitted" in text or "no permissions" in text:
        return (
            "user namespaces are refused here. On a machine: sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000, "
            "and on Ubuntu 24.04 or later also kernel.apparmor_restrict_unprivileged_userns=0. In a container: start it with a seccomp "
            "profile that allows unshare, clone and mount: docker run --security-opt seccomp=PROFILE --security-opt apparmor=unconfined "
            "--security-opt systempaths=unconfined"
        )
    if "unknown option" in text:
        return "bubblewrap is older than 0.8: install a newer one"
    return "run `bwrap --unshare-all --ro-bind / / true` to see why bubblewrap does not start on this machine"
