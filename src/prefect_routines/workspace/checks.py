"""The routine's checks: run in a fresh sandbox, on a fresh checkout of exactly the commit that wants to leave."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from prefect_routines.settings import Check
from prefect_routines.workspace.candidate import Candidate
from prefect_routines.workspace.clones import clone_commit_into
from prefect_routines.workspace.push import checkout_bundle
from prefect_routines.workspace.repositories import Mirror
from prefect_routines.workspace.sandbox import Sandbox, SandboxSpec
from prefect_routines.workspace.trees import remove_tree

KEPT = 20_000  # characters of a check's output, its end


class CheckResult(TypedDict):
    """What came of one check, as the journal keeps it."""

    repository: str
    command: str
    sha: str
    passed: bool
    exit_code: int | None
    seconds: float
    output: str


async def run_checks(
    checks: Sequence[Check], candidate: Candidate, mirror: Mirror, others: Sequence[Mirror], spec: SandboxSpec
) -> list[CheckResult]:
    """Run the checks of one repository.

    Args:
        checks: Its checks; all of them run, also after one has failed.
        candidate: The examined commits; the last one is checked out.
        mirror: The repository.
        others: The session's other repositories, checked out as they were at its start: a check may compare with them.
        spec: The session's sandbox; the workspace in it is replaced by an empty one.
    """
    if not checks:
        return []
    parent = spec.workspace.parent
    directory = Path(tempfile.mkdtemp(prefix="check-", dir=parent))
    directory.chmod(0o711)
    try:
        fresh = SandboxSpec(
            workspace=directory / "workspace",
            environment=spec.environment,
            network=spec.network,
            setup=spec.setup,
            limits=spec.limits,
            mode=spec.mode,
        )
        async with await Sandbox.start(fresh) as box:
            for other in others:
                await _check_out(box, other, other.base_sha, other.base_sha, directory)
            await _check_out(box, mirror, candidate, candidate.sha, directory)
            return [await _run(box, check, candidate.sha) for check in checks]
    finally:
        await asyncio.to_thread(remove_tree, directory)


async def _check_out(box: Sandbox, mirror: Mirror, commit: Candidate | str, sha: str, directory: Path) -> None:
    bundle = directory / f"{mirror.repository.name}.bundle"
    await checkout_bundle(mirror, commit, bundle)
    await clone_commit_into(box, bundle, mirror.repository.name, sha)
    bundle.unlink()


async def _run(box: Sandbox, check: Check, sha: str) -> CheckResult:
    began = time.monotonic()
    done = await box.run(
        ["bash", "-c", check.command], cwd=f"/workspace/{check.repository}", timeout=check.timeout, max_output=4_000_000, merge_stderr=True
    )
    output = done.stdout.decode("utf-8", "replace")
    if done.timed_out:
        output += f"\n[stopped after {check.timeout:g} s]"
    return CheckResult(
        repository=check.repository,
        command=check.command,
        sha=sha,
        passed=done.exit_code == 0 and not done.timed_out,
        exit_code=None if done.timed_out else done.exit_code,
        seconds=round(time.monotonic() - began, 2),
        output=output[-KEPT:],
    )
