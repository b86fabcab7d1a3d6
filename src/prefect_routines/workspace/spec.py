"""What a sandbox is made of, and what comes out of it: plain values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from prefect_routines.errors import SettingsError
from prefect_routines.workspace.limits import Limits


@dataclass(frozen=True)
class SandboxSpec:
    """What a sandbox is made of.

    Args:
        workspace: Host directory that becomes /workspace, read-write. Made if absent; as root it is handed to the sandbox's uid.
        environment: Variables of everything that runs inside. No secrets: Claude can read them.
        network: Hosts that may be reached, by the rules of `proxy.AllowList`. Empty: no network.
        setup: Host directory that becomes /opt/setup, where setup scripts install tools; its `bin` comes first in PATH.
        setup_writable: While the setup script itself runs.
        read_only: Absolute path inside -> host file or directory.
        shared: Another living sandbox of the same session works in this workspace: use that one's user, else neither could read what the
            other wrote. The two still see nothing else of each other.
        limits: See `Limits`.
        mode: "none" runs everything unprotected as the worker itself, with nothing but an empty environment: for trusted tinkering.

    Example:
        ```python
        SandboxSpec(Path("/var/lib/prefect-routines/s1"), network=("@python", "*.example.org"))
        ```
    """

    workspace: Path
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    network: tuple[str, ...] = ()
    setup: Path | None = None
    setup_writable: bool = False
    read_only: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    shared: bool = False
    limits: Limits = field(default_factory=Limits)
    mode: Literal["bubblewrap", "none"] = "bubblewrap"

    def __post_init__(self) -> None:
        for name, value in self.environment.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\0" in value:
                raise SettingsError(f"environment: {name!r} is no environment variable; names have letters, digits and _, values no NUL")
        for inside in self.read_only:
            if not re.fullmatch(r"(/[^/\0]+)+", inside) or "/../" in f"{inside}/":
                raise SettingsError(f"read_only: {inside!r} is no absolute path")


@dataclass(frozen=True)
class CommandResult:
    """What a command in the shell did."""

    exit_code: int | None
    """None: it was stopped, or its process was killed."""
    output: str
    """stdout and stderr as they came, about 30,000 characters at most: head, a line that says what is left out and where it is, tail."""
    output_bytes: int
    output_path: str | None
    """Path inside the sandbox of the output (its first 64 MB), when it was not short."""
    timed_out: bool
    shell_lost: bool
    """The shell ended or had to be killed. The next command gets a new one in `directory`; variables and functions are gone."""
    still_running: bool
    """The command left processes behind; they go on until they end or the sandbox does."""
    directory: str
    """The shell's directory."""


@dataclass(frozen=True)
class ProcessResult:
    """What a program did."""

    exit_code: int
    """Minus the signal's number if a signal ended it; 126 or 127 if it could not be started (stderr says why)."""
    stdout: bytes
    stderr: bytes
    truncated: bool
    """There was more than `max_output`."""
    timed_out: bool
