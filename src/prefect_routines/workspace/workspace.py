"""A session's workspace: its sandbox with the clones, and the one way by which work leaves it."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_routines.config import config
from prefect_routines.errors import RepositoryError, SandboxUnavailable, ToolError
from prefect_routines.policy import decide
from prefect_routines.settings import Repository as RepositorySettings
from prefect_routines.settings import Settings
from prefect_routines.tools.tool import ToolResult, Write
from prefect_routines.verdict import GREEN, Verdict
from prefect_routines.workspace import limits, places, push, repositories
from prefect_routines.workspace import snapshot as snapshots
from prefect_routines.workspace.candidate import Candidate, examine
from prefect_routines.workspace.checks import CheckResult, run_checks
from prefect_routines.workspace.clones import clone_into, install_trailer, take_bundle
from prefect_routines.workspace.guard import PushRules
from prefect_routines.workspace.remotes import Credential, credential_from_block
from prefect_routines.workspace.repositories import Mirror
from prefect_routines.workspace.sandbox import Sandbox, SandboxSpec, check_sandbox
from prefect_routines.workspace.setup import prepared
from prefect_routines.workspace.trees import remove_tree

if TYPE_CHECKING:
    from prefect_routines.session.transcript import Transcript

DIFF_KEPT = 200_000  # characters of a push's diff in the journal
OUTPUT_FOR_CLAUDE = 6_000  # characters of a failed check's output


@dataclass
class Clone:
    """One repository of the session: the host's mirror of it, and how far its work has left."""

    settings: RepositorySettings
    mirror: Mirror
    branch: str
    may_push: bool
    transcript: Transcript
    rounds: int = 0

    @property
    def last_pushed(self) -> str | None:
        """The commit that left last, as the journal tells: an earlier process may have pushed it."""
        return next((push["sha"] for push in reversed(self.transcript.pushes) if push["repository"] == self.settings.name), None)

    @property
    def tip(self) -> str | None:
        """The commit up to which the work is at the remote: on the session's branch, or on that of the session it was forked from."""
        mine = [push for push in self.transcript.inherited_pushes if push["repository"] == self.settings.name and not push.get("captured")]
        return self.last_pushed or (mine[-1]["sha"] if mine else None)

    async def log_in_again(self) -> None:
        """Get the login anew: a token that was fetched when the session began may have ended by now."""
        if self.settings.credentials:
            credential = await credential_from_block(self.settings.credentials)
            self.mirror = replace(self.mirror, repository=replace(self.mirror.repository, credential=credential))


class Workspace:
    """The sandbox and the clones of a session."""

    def __init__(self, session_id: str, settings: Settings, box: Sandbox, spec: SandboxSpec, clones: dict[str, Clone]) -> None:
        self.session_id, self.settings, self.box, self.spec, self.clones = session_id, settings, box, spec, clones
        self.with_guidelines: list[str] = []
        self.made_anew = False
        self.restored: str | None = None
        self.place = ""
        self._notice: str | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, session_id: str, routine: str, settings: Settings, transcript: Transcript) -> AsyncIterator[Workspace]:
        """Bring the workspace up: new, or as an earlier process of this session left it on this machine.

        Raises:
            SandboxUnavailable: The sandbox cannot be built here.
            RepositoryError: A repository cannot be read, or may not be pushed to although the policy allows it.
            WorkspaceLost: The session is to be resumed, and its workspace is neither here nor in the storage.
            SetupFailed: The setup script failed.
        """
        directory = config().workspaces / session_id
        _, setup, clones = await gather_or_cancel(
            check_sandbox(settings.sandbox), prepared(settings), cls._clones(session_id, routine, settings, transcript)
        )
        known = places.is_current(directory, transcript.workspace)
        kept = places.Kept() if known else await places.fetch(session_id, settings, transcript, directory)
        try:
            if not known:
                await asyncio.to_thread(remove_tree, directory)
            _make_passable(directory.parent)
            directory.mkdir(exist_ok=True)
            directory.chmod(0o711)  # the session's own user passes through, but sees nothing here
        except OSError as error:
            raise SandboxUnavailable(
                f"{directory} cannot be made ({error.strerror}); set ROUTINES_WORKSPACES to a directory that can be written"
            ) from error
        spec = SandboxSpec(
            workspace=directory / "workspace",
            environment=settings.environment,
            network=tuple(settings.network),
            setup=setup,
            limits=limits.Limits(
                memory_mb=settings.limits.memory_mb,
                processes=settings.limits.processes,
                file_mb=settings.limits.file_mb,
                workspace_mb=settings.limits.workspace_mb,
            ),
            mode=settings.sandbox,
        )
        async with await Sandbox.start(spec) as box:
            workspace = cls(session_id, settings, box, spec, clones)
            await workspace._take_up(transcript, known, directory, kept)
            yield workspace

    @staticmethod
    async def _clones(session_id: str, routine: str, settings: Settings, transcript: Transcript) -> dict[str, Clone]:
        async def one(repository: RepositorySettings) -> Clone:
            credential: Credential | None = await credential_from_block(repository.credentials) if repository.credentials else None
            described = repositories.Repository(repository.name, repository.url, repository.branch, credential)
            may_push = decide(settings.policy, "push", {"repository": repository.name}, main="repository", writes=True).answer == "allow"
            mirror, _ = await gather_or_cancel(
                repositories.refresh(config().home / "mirrors", described),
                repositories.can_push(described) if may_push and not settings.rehearsal else asyncio.sleep(0),
            )
            return Clone(repository, mirror, push.branch_name(routine, session_id), may_push, transcript)

        clones = {clone.settings.name: clone for clone in await gather_or_cancel(*map(one, settings.repositories))}
        for before in (transcript.workspace or {}).get("repositories", []):  # a restarted session keeps the base it began with
            if clone := clones.get(before["name"]):
                await repositories.ensure_commit(clone.mirror, before["base_sha"])
                clone.mirror = replace(clone.mirror, base_sha=before["base_sha"])
        return clones

    async def _take_up(self, transcript: Transcript, known: bool, directory: Path, kept: places.Kept) -> None:
        self._transcript = transcript
        for clone in self.clones.values():
            clone.rounds = len(
                {check["sha"] for check in transcript.checks if check["repository"] == clone.settings.name and not check["passed"]}
            )
            if await repositories.read_file_at(clone.mirror, clone.mirror.default_sha, "CLAUDE.md", 1) is not None:
                self.with_guidelines.append(clone.settings.name)
        if known:
            self._notice = "the session was restarted: this is a new shell in /workspace, without the former directory and variables"
            return
        self.place = places.mark(directory)
        there: set[str] = set()
        if kept.file is not None:
            self.restored = await places.put_back(self.box, kept, transcript)
            there = {repository["name"] for repository in (transcript.workspace or {}).get("repositories", [])}
            for name in there & self.clones.keys():
                with contextlib.suppress(RepositoryError):  # Claude may have removed it
                    await install_trailer(self.box, name, self.session_id)
        for name, clone in self.clones.items():
            if name in there:
                continue
            bundle = directory / f"{name}.bundle"
            await repositories.bundle(clone.mirror, bundle)
            await clone_into(self.box, clone.mirror, bundle, name)
            await install_trailer(self.box, name, self.session_id)
            bundle.unlink()
        if transcript.workspace is not None:
            self.made_anew, self._notice = True, kept.notice

    def describe(self) -> dict[str, Any]:
        """What the journal keeps of the workspace."""
        return {
            "path": str(self.spec.workspace),
            "place": self.place,
            **({"restored": self.restored} if self.restored else {}),
            "repositories": [
                {"name": name, "url": clone.settings.url, "branch": clone.mirror.branch, "base_sha": clone.mirror.base_sha}
                for name, clone in self.clones.items()
            ],
        }

    async def snapshot(self, prefix: str, *, seconds: float = snapshots.SECONDS) -> dict[str, Any]:
        """Put all that is in the workspace into Prefect's result storage; what the journal keeps of it.

        Args:
            prefix: Key in the storage.
            seconds: How long it may take.

        Raises:
            NotKept: It was not made; the reason.
        """
        most = self.settings.limits.snapshot_mb * snapshots.MIB
        if not most:
            raise snapshots.NotKept("limits.snapshot_mb is 0")
        storage = await snapshots.result_storage()
        return await snapshots.take(self.box, storage, prefix, most=most, scratch=self.spec.workspace.parent, seconds=seconds)

    @property
    def secrets(self) -> list[str]:
        """Values that must not show up in anything that is kept."""
        credentials = [clone.mirror.repository.credential for clone in self.clones.values()]
        held = [secret for credential in credentials if credential for secret in (credential.password, credential.private_key) if secret]
        return [secret.get_secret_value() for secret in held]

    @property
    def pushed(self) -> bool:
        """Whether anything has left the workspace."""
        return any(clone.last_pushed for clone in self.clones.values())

    def take_notice(self) -> str | None:
        """What Claude has to be told with the next output of its shell; told once."""
        notice, self._notice = self._notice, None
        return notice

    def clone(self, name: str) -> Clone:
        """The clone of that name; ToolError names those that exist."""
        if name not in self.clones:
            raise ToolError(f"there is no repository {name!r}; there is {', '.join(self.clones) or 'none'}")
        return self.clones[name]

    async def guidelines(self, repository: str) -> str | None:
        """The CLAUDE.md of the remote's default branch, wherever the session works: a branch may be a stranger's."""
        mirror = self.clone(repository).mirror
        raw = await repositories.read_file_at(mirror, mirror.default_sha, "CLAUDE.md")
        return None if raw is None else raw.decode("utf-8", "replace")

    async def loose_ends(self) -> list[str]:
        """Work that is only in the sandbox: changes without a commit, commits that were not pushed.

        Only of repositories that the policy lets out: what lies about in a clone that is only read is nobody's work.
        """
        found = []
        for name, clone in self.clones.items():
            if not clone.may_push:
                continue
            cwd = f"/workspace/{name}"
            status = await self.box.run(["git", "status", "--porcelain"], cwd=cwd, max_output=100_000)
            head = await self.box.run(["git", "rev-parse", "HEAD"], cwd=cwd, max_output=100)
            changed = len(status.stdout.splitlines())
            if changed:
                found.append(f"{changed} changed file{'s' if changed > 1 else ''} in {name} in no commit")
            if head.stdout.decode("ascii", "replace").strip() not in (clone.mirror.base_sha, clone.tip):
                found.append(f"commits in {name} that are not pushed")
        return found

    def judge(self, verdict: Verdict) -> tuple[Verdict, list[str]]:
        """The verdict that holds: checks have to pass on what was pushed, and each write must be known to be done."""
        notes, failed = [], False
        for name, clone in self.clones.items():
            for check in self._transcript.checks:
                if check["repository"] == name and check["sha"] == clone.last_pushed:
                    failed |= not check["passed"]
                    notes.append(f"check {'passed' if check['passed'] else 'FAILED'} on {name} {check['sha'][:12]}: {check['command']}")
        notes += [f"refused and not made up for: {title}" for title in self._transcript.refused]
        unknown = [f"{output['tool']} to {output['target']}" for output in self._transcript.outputs if output["status"] == "unknown"]
        notes += [f"outcome unknown: {title}" for title in unknown]
        short = failed or bool(self._transcript.refused) or bool(unknown)
        return ("needs_attention" if short and verdict in GREEN else verdict), list(dict.fromkeys(notes))

    async def deliver(self, repository: str) -> Write | ToolResult:
        """Prepare the push of what is committed: taken out as a bundle, examined, checked. Failed checks come back as the result.

        Raises:
            PushRefused: The commits break a rule.
            ToolError: There is no such repository.
        """
        clone = self.clone(repository)
        taken = await take_bundle(self.box, repository, clone.mirror.base_sha, clone.tip)
        rules = PushRules(allow_guarded=tuple(clone.settings.guarded), default_branch=clone.mirror.default_branch)
        candidate = await examine(
            clone.mirror,
            taken.bundle,
            base_sha=clone.mirror.base_sha,
            session_id=self.session_id,
            last_pushed=clone.tip,
            rules=rules,
            parents=self._transcript.parents,
        )
        results = await self._check(clone, candidate)
        failed = [result for result in results if not result["passed"]]
        if failed and clone.rounds < self.settings.check_rounds:
            clone.rounds += 1
            return self._sent_back(clone, failed, results)
        expected = clone.last_pushed

        async def send() -> ToolResult:
            await clone.log_in_again()
            await push.push(clone.mirror, candidate, clone.branch, expected=expected)
            return self._sent(clone, candidate, results, captured=False, uncommitted=taken.uncommitted)

        async def find() -> ToolResult | None:
            await clone.log_in_again()
            there = await push.remote_sha(clone.mirror.repository, clone.branch)
            return await send() if there == candidate.sha else None  # it is there: this only takes note of it

        async def unsent() -> None:
            await push.keep(clone.mirror, candidate)  # so that further commits can be examined against it

        return Write(
            request={"repository": repository, "branch": clone.branch, "sha": candidate.sha, "files": list(candidate.files)},
            send=send,
            find=find,
            captured=self._sent(clone, candidate, results, captured=True, uncommitted=taken.uncommitted),
            unsent=unsent,
        )

    async def _check(self, clone: Clone, candidate: Candidate) -> list[CheckResult]:
        checks = [check for check in self.settings.checks if check.repository == clone.settings.name]
        others = [other.mirror for other in self.clones.values() if other is not clone]
        return await run_checks(checks, candidate, clone.mirror, others, self.spec)

    def _sent_back(self, clone: Clone, failed: list[CheckResult], results: list[CheckResult]) -> ToolResult:
        left = self.settings.check_rounds - clone.rounds
        parts = [f"Not pushed: {len(failed)} of {len(results)} checks failed on a fresh checkout of {failed[0]['sha'][:12]}."]
        parts += [
            f"$ {result['command']}\n{result['output'][-OUTPUT_FOR_CLAUDE:]}\n[exit status {result['exit_code']}]" for result in failed
        ]
        rest = f"failures come back to you {left} more time{'s' if left > 1 else ''}, then" if left else "if it fails once more,"
        parts.append(f"Mend it, commit, push again; {rest} the work goes out marked as failing and the verdict cannot be done.")
        return ToolResult("\n\n".join(parts), is_error=True, note="checks failed", data={"checks": results})

    def _sent(
        self, clone: Clone, candidate: Candidate, results: list[CheckResult], *, captured: bool, uncommitted: tuple[str, ...]
    ) -> ToolResult:
        name, count = clone.settings.name, len(candidate.commits)
        failed = [result for result in results if not result["passed"]]
        text = f"{'Captured (rehearsal, nothing was sent)' if captured else 'Pushed'}: {count} commit{'s' if count > 1 else ''} of {name} "
        text += f"on {clone.branch} at {candidate.sha[:12]}.\n{candidate.diffstat.rstrip()}"
        if results:
            text += f"\n{len(results) - len(failed)} of {len(results)} checks passed."
        if failed:
            text += " The verdict cannot be done with failing checks: report needs_attention and say what is wrong."
        if uncommitted:
            text += f"\n{len(uncommitted)} changed files are in no commit and stayed behind."
        pushed = {
            "repository": name,
            "branch": clone.branch,
            "sha": candidate.sha,
            "files": list(candidate.files),
            "captured": captured,
            "checks_passed": not failed,
            "diff": candidate.diff[:DIFF_KEPT],
        }
        return ToolResult(text, note=clone.branch, data={"pushed": [pushed], "checks": results})


def _make_passable(directory: Path) -> None:
    """Make a directory that other users pass through without seeing what is in it; one that is there keeps what it allows already."""
    if not directory.is_dir():
        directory.mkdir(parents=True)
        directory.chmod(0o711)
    elif not (mode := stat.S_IMODE(directory.stat().st_mode)) & stat.S_IXOTH:
        directory.chmod(mode | stat.S_IXGRP | stat.S_IXOTH)


async def gather_or_cancel(*work: Any) -> list[Any]:
    """`asyncio.gather` that leaves nothing running when one part fails."""
    tasks = [asyncio.ensure_future(part) for part in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
