"""Checks of what routines reach: blocks with their logins, repositories with the right to push."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefect_routines.audience import notice_targets
from prefect_routines.doctor.check import Check, Finding, ok, red
from prefect_routines.errors import RoutinesError
from prefect_routines.settings import Repository, Settings

if TYPE_CHECKING:
    from prefect_routines.tools.tool import Tool

SECONDS = 30.0
"""For one login."""


@dataclass
class Found:
    """One connector block, and what came of looking at it.

    Args:
        reference: 'type/name'.
        tools: What it gives a session.
        works: Whether its login works; None if nobody tried.
        said: What it said of itself, or what is wrong.
    """

    reference: str
    tools: list[Tool] = field(default_factory=list)
    works: bool | None = None
    said: str = ""
    error: RoutinesError | None = None

    def data(self) -> dict[str, object]:
        """For programs."""
        listed = [{"name": tool.name, "writes": tool.writes, "targets": list(tool.targets)} for tool in self.tools]
        return {"connector": self.reference, "works": self.works, "check": self.said, "tools": listed}


async def look_at_connector(reference: str, *, check: bool = True) -> Found:
    """Load a connector's block and log in.

    Args:
        reference: 'type/name'.
        check: Log in, for real.
    """
    from prefect_routines.connectors.connector import load_connectors

    found = Found(reference)
    try:
        [(_, block)] = await load_connectors([reference])
        found.tools = block.open(reference.partition("/")[2]).tools
        if check:
            async with asyncio.timeout(SECONDS):
                found.said = await block.check()
            found.works = True
    except TimeoutError:
        found.works, found.said = False, f"did not answer within {SECONDS:g} s"
    except RoutinesError as error:
        found.works, found.said, found.error = False, str(error), error
    return found


def block_checks(settings: Iterable[Settings], told: Iterable[str] = ()) -> Iterator[Check]:
    """A check for each block that these settings name: connectors log in, the others are there and can be read.

    Args:
        settings: Of the routines.
        told: Who else is told of sessions, as the setting `notify` has it. Webhooks are sent a `ping`.
    """
    every = list(settings)
    connectors = {reference for one in every for reference in one.connectors}
    others = {repository.credentials for one in every for repository in one.repositories if repository.credentials} - connectors
    for reference in sorted(connectors):
        yield Check(reference, lambda reference=reference: _connector(reference), "routines connectors", SECONDS + 5)  # type: ignore[misc]
    targets = notice_targets([*(name for one in every for name in one.notify), *told])
    for reference in sorted({target.partition("#")[0] for target in targets} - connectors):
        yield Check(reference, lambda reference=reference: _teller(reference), "see `prefect block ls`", SECONDS + 5)  # type: ignore[misc]
    for reference in sorted(others):
        yield Check(reference, lambda reference=reference: _credential(reference), "see `prefect block ls`", SECONDS)  # type: ignore[misc]


async def _connector(reference: str) -> Finding:
    found = await look_at_connector(reference)
    if found.error is not None:
        raise found.error
    if not found.works:
        raise TimeoutError(found.said)
    writes = sum(tool.writes for tool in found.tools)
    return ok(f"{found.said} ({len(found.tools)} tools, {writes} of them write)")


async def _teller(reference: str) -> Finding:
    from prefect_routines.blocks import load_block

    block: Any = await load_block(reference)
    async with asyncio.timeout(SECONDS):
        return ok(await block.check())


async def _credential(reference: str) -> Finding:
    from prefect_routines.workspace.remotes import credential_from_block

    credential = await credential_from_block(reference)
    return ok("holds a private key" if credential.private_key else "holds a token")


def repository_checks(settings: Iterable[Settings]) -> Iterator[Check]:
    """A check for each repository and login: it can be read, and pushed to where a policy allows that."""
    wanted: dict[tuple[str, str | None, str | None], tuple[Repository, bool]] = {}
    for one in settings:
        for repository in one.repositories:
            key = (repository.url, repository.credentials, repository.branch)
            before = wanted.get(key, (repository, False))[1]
            wanted[key] = (repository, before or (may_push(one, repository) and not one.rehearsal))
    for repository, push in wanted.values():
        look = lambda repository=repository, push=push: look_at_repository(repository, push=push)  # noqa: E731
        yield Check(f"repository {repository.name}", look, "check its URL, its credentials and the network", 100)


def may_push(settings: Settings, repository: Repository) -> bool:
    """Whether the policy lets work out of this repository."""
    from prefect_routines.policy import decide

    return decide(settings.policy, "push", {"repository": repository.name}, main="repository", writes=True).answer == "allow"


async def look_at_repository(repository: Repository, *, push: bool) -> Finding:
    """Ask the remote for its branches, and whether it would take a push; nothing is changed there.

    Args:
        repository: As the settings name it.
        push: Whether work is to leave for it.
    """
    from prefect_routines.workspace import repositories
    from prefect_routines.workspace.remotes import credential_from_block

    credential = await credential_from_block(repository.credentials) if repository.credentials else None
    described = repositories.Repository(repository.name, repository.url, repository.branch, credential)
    async with asyncio.TaskGroup() as looks:
        read = looks.create_task(repositories.look(described))
        if push:
            looks.create_task(repositories.can_push(described))
    heads, default = read.result()
    branch = repository.branch or default
    if branch not in heads:
        there = ", ".join(sorted(heads)[:5]) or "none"
        return red(f"{repository.url} has no branch {branch!r}; it has {there}", "set branch= to one of them, or push a first commit")
    return ok(f"{repository.url}: {branch} @ {heads[branch][:12]}{', may be pushed to' if push else ', read only'}")
