"""`routines pause` and `routines unpause`: nothing starts a routine by itself, until it may again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prefect_routines.cli.terminal import console, text

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

Name = Annotated[str, typer.Argument(metavar="ROUTINE", help="flow/deployment, or a part of it that only one has.")]


def pause(context: typer.Context, name: Name) -> None:
    """Pause a routine: its schedules and triggers start nothing. Runs under way go on; `run-now` still works."""
    from prefect_routines.cli.naming import with_prefect

    async def work(client: PrefectClient) -> None:
        from prefect_routines.cli.naming import named
        from prefect_routines.deploying.gating import pause as pause_it

        deployed = await named(client, name)
        await pause_it(client, deployed)
        console().print(text(("✓ ", "green"), (deployed.name, "bold"), " is paused" if not deployed.paused else " was paused already"))
        if count := len(deployed.one_offs):
            console().print(text(f"    {count} one-off run{'s' if count != 1 else ''} stay: `routines schedule {deployed.name} --list`"))

    with_prefect(context, work)


def unpause(context: typer.Context, name: Name) -> None:
    """Let a paused routine start by itself again. Times that passed meanwhile are not made up for."""
    from prefect_routines.cli.naming import with_prefect

    async def work(client: PrefectClient) -> None:
        from prefect_routines.cli.naming import named
        from prefect_routines.cli.routine_lines import time_lines
        from prefect_routines.deploying.gating import unpause as unpause_it

        deployed = await named(client, name)
        await unpause_it(client, deployed)
        console().print(text(("✓ ", "green"), (deployed.name, "bold"), " is on" if deployed.paused else " was on already"))
        for line in time_lines(await named(client, deployed.id), 1):
            console().print(line)

    with_prefect(context, work)
