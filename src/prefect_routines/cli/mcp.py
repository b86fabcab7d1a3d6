"""`routines mcp`: an author looks at the tools of an MCP server and approves them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prefect_routines.cli.terminal import NOT_DONE, console, text
from prefect_routines.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect_routines.connectors.mcp import MCP
    from prefect_routines.connectors.mcp.approval import Approved, Choice, Offer, State

app = typer.Typer(name="mcp", help="Approve and show the tools of MCP servers.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the block: tickets of mcp/tickets.")]
STYLES = {"new": "cyan", "changed": "yellow", "same": "dim", "gone": "red"}


@app.command("approve")
def approve(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    only: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Approve these tools and no others.")] = None,
    writes: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="These write, whatever the server says.")] = None,
    reads: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="These only read, though the server does not say so.")] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB=ARGUMENT,...", help="Arguments that name what a write goes to. Default: all required ones."),
    ] = None,
    workspace: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="For a server over stdio: a directory that becomes its /workspace. Default: an empty one."),
    ] = None,
) -> int:
    """Show the tools of an MCP server and what changed since the last time, ask, and keep the answer in its block."""
    import asyncio

    from prefect_routines.connectors.mcp.approval import Choice

    choice = Choice(tuple(only or ()), tuple(writes or ()), tuple(reads or ()), dict(_target(word) for word in target or ()))
    return asyncio.run(_approve(name, choice, workspace, yes=yes))


@app.command("show")
def show(name: Name) -> None:
    """Show which tools of an MCP server are approved."""
    import asyncio

    block = asyncio.run(_load(name))
    if not block.approved:
        console().print(text(f"No tool of mcp/{name} is approved; `routines mcp approve {name}` shows what it has."))
    for tool, approved in sorted(block.approved.items()):
        _print_tool(name, tool, approved, "same")


def _target(word: str) -> tuple[str, tuple[str, ...]]:
    glob, equals, names = word.partition("=")
    if not equals or not glob or not names:
        raise SettingsError(f"--target {word!r}: write it as GLOB=ARGUMENT,..., for example 'create_*=owner,repo'")
    return glob, tuple(name.strip() for name in names.split(","))


async def _load(name: str) -> MCP:
    from prefect_routines.blocks import load_block
    from prefect_routines.connectors.mcp import MCP

    block = await load_block(f"mcp/{name}")
    assert isinstance(block, MCP)
    return block


async def _approve(name: str, choice: Choice, workspace: Path | None, *, yes: bool) -> int:
    from prefect_routines.connectors.mcp import approval

    block = await _load(name)
    offers = await _offers(block, name, workspace)
    before, chosen = block.approved, approval.approve(offers, choice)
    states = approval.compare(before, offers)
    _print_all(name, offers, before, chosen, states)
    same = {tool: entry.model_dump() for tool, entry in before.items()} == {tool: entry.model_dump() for tool, entry in chosen.items()}
    if same:
        console().print(text(f"Nothing to do: {len(chosen)} tools of mcp/{name} are approved as they are."))
        return 0
    if not yes and not typer.confirm(f"Approve these {len(chosen)} tools of mcp/{name}?", default=False):
        console().print(text("Nothing was changed."))
        return NOT_DONE
    block.approved = chosen
    await block.asave(name, overwrite=True)
    writing = sum(entry.writes for entry in chosen.values())
    console().print(text(f"Approved: {len(chosen)} tools of mcp/{name}, {writing} of them write."))
    return 0


async def _offers(block: MCP, name: str, workspace: Path | None) -> list[Offer]:
    from contextlib import nullcontext

    from prefect_routines.workspace.sandbox import SandboxSpec, lend_directory

    if workspace is not None and not workspace.is_dir():
        raise SettingsError(f"--workspace {workspace}: there is no such directory")
    if block.setup:
        console().print(text("If its setup script has not run on this machine yet, it runs now; that may take some minutes."))
    with lend_directory(workspace.resolve()) if workspace is not None else nullcontext(None) as lent:
        async with block.connected(name, SandboxSpec(lent) if lent is not None else None) as (server, spec):
            return await server.offers(spec)


def _print_all(
    name: str, offers: list[Offer], before: Mapping[str, Approved], chosen: Mapping[str, Approved], states: Mapping[str, State]
) -> None:
    from prefect_routines.connectors.mcp import approval

    offered = {offer.name: offer for offer in offers}
    for tool, state in states.items():
        if tool in chosen:
            _print_tool(name, tool, chosen[tool], state, hint=offered[tool].read_only)
        elif state == "gone":
            console().print(text((tool, "bold"), "  ", ("gone: the server has it no more", STYLES["gone"])))
        else:
            console().print(text((tool, "bold"), "  ", ("not chosen", "dim")))
        if state == "changed" and tool in before:
            for line in approval.difference(before[tool], offered[tool]):
                console().print(text("      ", (line, {"-": "red", "+": "green"}.get(line[:1], "dim"))))


def _print_tool(server: str, tool: str, approved: Approved, state: State, *, hint: bool | None = None) -> None:
    """One tool for a person. All of it is text from outside, so nothing in it is markup, and what hides is shown."""
    from prefect_routines.connectors.mcp.approval import properties, tool_name

    said = {None: "", True: ", the server calls it read-only", False: ", the server does not call it read-only"}[hint]
    kind = f"writes to {', '.join(approved.targets) or 'an unnamed place'}" if approved.writes else "reads"
    marked = "" if state == "same" else f"  {state}"
    console().print(
        text(
            (tool, "bold"),
            f"  {tool_name(server, tool)}  ",
            (f"{kind}{said}", "red" if approved.writes else "green"),
            (marked, STYLES[state]),
        )
    )
    for line in approved.description.strip().splitlines() or ["(no description)"]:
        console().print(text("    ", line))
    required = approved.input_schema.get("required")
    for argument, schema in properties(approved.input_schema).items():
        described = schema.get("description") if isinstance(schema, dict) else None
        kinds = schema.get("type", "any") if isinstance(schema, dict) else "any"
        needed = "" if isinstance(required, list) and argument in required else ", optional"
        console().print(text(f"      {argument} ({kinds}{needed})", (f": {described}" if isinstance(described, str) else "", "dim")))
