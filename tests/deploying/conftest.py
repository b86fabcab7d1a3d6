"""A project with a routine and a plain flow, on the real Prefect server."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prefect import get_client

from prefect_routines.cli.loading import load_flow
from prefect_routines.deploying.checks import Checked, check_files
from prefect_routines.deploying.deploy import deploy
from prefect_routines.deploying.deployed import Deployed
from prefect_routines.deploying.problems import Problem
from prefect_routines.deploying.surroundings import Surroundings

FLOW = """\
from prefect import flow
from prefect_routines import Event, Policy, routine

@routine(repositories=["https://github.com/acme/docs"], policy=Policy(allow=["push(repository=docs) x1"]), name="{name}")
def look(event: Event | None = None, times: int = 1) -> str:
    '''Look at it.'''
    return "Look."

@flow(name="{name}-plain")
def plain(name: str) -> str:
    return name
"""


@dataclass
class Project:
    """A directory with `flows/work.py` and prefect files; the routine's flow has a name of its own, so that tests do not meet."""

    directory: Path
    flow: str

    def write(self, text: str, name: str = "one.yaml") -> Path:
        """A prefect file; a deployment's head is `HEAD`, its entrypoint the routine."""
        path = self.directory / "deployments" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("HEAD", "entrypoint: flows/work.py:look\n    work_pool: {name: routines}"))
        return path

    async def check(self, *files: Path) -> tuple[list[Checked], list[Problem]]:
        """What `routines deploy --check` finds."""
        async with get_client() as client:
            return await check_files(files, load_flow, await Surroundings.read(client))

    async def deploy(self, text: str) -> dict[str, Deployed]:
        """Deploy a file with this text; the deployments by name."""
        checked, problems = await self.check(self.write(text))
        assert [str(problem) for problem in problems if problem.weight == "error"] == []
        async with get_client() as client:
            surroundings = await Surroundings.read(client)
            if "routines" not in surroundings.pools:
                await surroundings.make_pool()
            return {str(one.data["name"]): one for one in await deploy(client, checked)}


@pytest.fixture
def project(tmp_path: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch, configure: Callable[..., None]) -> Iterator[Project]:
    """A project of its own, which is the current directory: entrypoints count from there."""
    assert prefect_server
    name = f"look-{uuid.uuid4().hex[:8]}"
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "work.py").write_text(FLOW.format(name=name))
    monkeypatch.chdir(tmp_path)
    configure(ROUTINES_HOME=str(tmp_path / "home"))
    return Project(tmp_path, name)
