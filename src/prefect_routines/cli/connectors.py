"""`routines connectors`: which connector blocks there are, what they give a session, and whether their logins work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from prefect_routines.cli.terminal import console, text

if TYPE_CHECKING:
    from prefect_routines.doctor.reach import Found


def connectors(
    names: Annotated[list[str] | None, typer.Argument(help="Only these, e.g. github/docs-bot.", metavar="[TYPE/NAME]...")] = None,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Log in to each, for real.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list for programs.")] = False,
) -> int:
    """List the connectors: their tools, which of them write, and whether their logins work. Exit status 1 if one does not."""
    from prefect_routines.cli.data import print_json

    found = asyncio.run(_look(names or _references(), check=check))
    if as_json:
        print_json([each.data() for each in found])
    elif found:
        for each in found:
            _print(each)
    else:
        console().print(text("No connectors yet; the scripts in blocks/ make them: `python blocks/save_github.py`."))
    return 1 if any(each.works is False for each in found) else 0


def _references() -> list[str]:
    """All blocks of our types on this server."""
    from prefect_routines.blocks import CONNECTORS
    from prefect_routines.cli.server import prefect_api

    with prefect_api() as client:
        asked = {"block_types": {"slug": {"any_": list(CONNECTORS)}}, "include_secrets": False, "limit": 200}
        documents = client.request("POST", "/block_documents/filter", json=asked).json()
    return sorted(f"{document['block_type']['slug']}/{document['name']}" for document in documents if document["name"])


async def _look(references: list[str], *, check: bool) -> list[Found]:
    from prefect_routines.doctor.reach import look_at_connector

    return list(await asyncio.gather(*(look_at_connector(reference, check=check) for reference in references)))


def _print(found: Found) -> None:
    mark = {True: ("✓", "green"), False: ("✗", "red"), None: ("·", "dim")}[found.works]
    out = console()
    out.print(text(mark, (f" {found.reference}", "bold"), f"  {found.said}" if found.said else ""))
    reads = [tool.name for tool in found.tools if not tool.writes]
    writes = [f"{tool.name}({', '.join(tool.targets)})" if tool.targets else tool.name for tool in found.tools if tool.writes]
    for word, listed in (("reads", reads), ("writes", writes)):
        if listed:
            out.print(text((f"    {word:7}", "dim"), ", ".join(listed)))
