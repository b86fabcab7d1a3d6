"""What a connector is: a Prefect block with a login for one outside service, and the tools that it gives a session."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from prefect.blocks.core import Block
from pydantic import SecretStr

from prefect_routines.blocks import load_block
from prefect_routines.errors import RoutinesError, SettingsError
from prefect_routines.tools.tool import Tool


async def _nothing() -> None:
    """Nothing was opened that would have to be closed."""


@dataclass
class Connection:
    """One session's use of a connector. Made without I/O: it logs in when a tool is first called.

    Args:
        tools: What Claude may call.
        hosts: Hosts of the service, to which text may link.
        secrets: Gives the values that must not show up in anything that is kept, those fetched meanwhile included.
        close: Ends it.
    """

    tools: list[Tool]
    hosts: tuple[str, ...] = ()
    secrets: Callable[[], Iterable[str]] = tuple
    close: Callable[[], Awaitable[None]] = field(default=_nothing)


class Connector(Block):
    """A Prefect block that gives a session tools for one outside service. Subclasses say which.

    A routine names it: `@routine(connectors=["github/docs-bot"])`.
    """

    @abstractmethod
    def open(self, name: str) -> Connection:
        """The connector as one session uses it; no I/O, and no heavy import.

        Args:
            name: Name of the block, 'docs-bot' of 'github/docs-bot'.
        """

    @abstractmethod
    async def check(self) -> str:
        """Log in for real. Says in one line who that is and what it may do.

        Raises:
            RoutinesError: It does not work; the text says what to set right.
        """


class Toolset:
    """Methods made tools with `@tool`; the object holds what they share, such as the connection."""

    def tools(self, prefix: str) -> list[Tool]:
        """The tools, bound to this object, in alphabetical order.

        Args:
            prefix: What their names begin with: 'github' makes `github_issue` of a method `issue`.
        """
        found = {name: value for kind in reversed(type(self).__mro__) for name, value in vars(kind).items() if isinstance(value, Tool)}
        return [found[name].bound(self, f"{prefix}_{found[name].name}") for name in sorted(found)]


def revealed(*secrets: SecretStr | None) -> list[str]:
    """The values of those that are set."""
    return [secret.get_secret_value() for secret in secrets if secret is not None and secret.get_secret_value()]


class Connections:
    """All connectors of a session."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections

    @classmethod
    async def load(cls, references: Sequence[str]) -> Connections:
        """Load the blocks that a routine names, side by side.

        Raises:
            SettingsError: One is not there, is no connector, or needs a package that is not installed.
        """
        return cls([block.open(reference.partition("/")[2]) for reference, block in await load_connectors(references)])

    @property
    def tools(self) -> list[Tool]:
        """What they give, in the order in which the routine names them."""
        return [tool for connection in self._connections for tool in connection.tools]

    @property
    def hosts(self) -> list[str]:
        """Hosts of their services."""
        return [host for connection in self._connections for host in connection.hosts]

    @property
    def secrets(self) -> list[str]:
        """Their secrets, as far as they are known by now."""
        return [secret for connection in self._connections for secret in connection.secrets()]

    async def close(self) -> None:
        """End them all."""
        await asyncio.gather(*(connection.close() for connection in self._connections), return_exceptions=True)


async def load_connectors(references: Sequence[str]) -> list[tuple[str, Connector]]:
    """The blocks of these references.

    Raises:
        SettingsError: One is not there, is no connector, or needs a package that is not installed.
    """

    async def one(reference: str) -> tuple[str, Connector]:
        block = await load_block(reference)
        if not isinstance(block, Connector):
            raise SettingsError(
                f"{reference} is a block of type {block.get_block_type_slug()} and gives no tools; "
                "make a connector around it (see blocks/ for how) and name that"
            )
        return reference, block

    found = await asyncio.gather(*map(one, references), return_exceptions=True)
    for problem in found:
        if isinstance(problem, BaseException):
            raise problem if isinstance(problem, RoutinesError) else SettingsError(f"a connector cannot be loaded: {problem}") from problem
    return [pair for pair in found if not isinstance(pair, BaseException)]
