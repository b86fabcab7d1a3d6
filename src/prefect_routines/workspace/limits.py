"""How much of the machine one sandbox may use."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of one sandbox. All but the last three hold for each process or file (setrlimit(2)); they are set once and cannot be raised.

    `memory_mb` bounds what a process may write to (RLIMIT_DATA), not its address space: Node, Java and browsers reserve tens of gigabytes
    that they never touch. `address_space_mb` is the coarse bound of that (RLIMIT_AS). To bound the memory of *all* processes of all
    sessions together, run the worker in a cgroup (`systemd-run -p MemoryMax=...`, or the memory limit of its container).

    Example:
        ```python
        SandboxSpec(workspace, limits=Limits(memory_mb=8192, workspace_mb=50_000))
        ```
    """

    memory_mb: int = 4096
    address_space_mb: int = 65_536
    file_mb: int = 2048
    open_files: int = 4096
    cpu_seconds: int = 3600
    processes: int = 512
    """Processes and threads of the whole sandbox (RLIMIT_NPROC; not enforced by the kernel for root, which is one reason why nothing in
    a sandbox is root)."""
    workspace_mb: int = 10_240
    """Bytes on disk under /workspace. Looked at every few seconds: what runs is stopped when there is more."""
    tmp_mb: int = 1024
    """Size of /tmp and of the home directory each: both lie in memory."""

    def as_numbers(self) -> dict[str, int]:
        return asdict(self)
