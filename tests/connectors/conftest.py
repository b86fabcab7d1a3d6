"""What the tests of connectors share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from session.conftest import prefect

from .emulator import Emulator, running
from .github_world import Caller, World, github_world

__all__ = ["emulator", "prefect"]


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    """GitHub, Slack and Google on loopback: `with emulator.start("slack", seed) as slack: slack.url`."""
    with running() as started:
        yield started


@pytest.fixture
def world(emulator: Emulator) -> Iterator[World]:
    """A GitHub of the test's own, with something in it."""
    with github_world(emulator) as made:
        yield made


@pytest.fixture
async def github(world: World) -> AsyncIterator[Caller]:
    """The connector's tools there, as docs-bot."""
    connection = world.block().open("docs-bot")
    yield Caller(connection)
    await connection.close()
