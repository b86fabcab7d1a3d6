"""`routines deploy`: checks prefect files, deploys them, and tells when what they hold will start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prefect_routines.cli.terminal import MISTAKE, NOT_DONE, complain, console, text
from prefect_routines.errors import SettingsError

if TYPE_CHECKING:
    from prefect_routines.deploying.checks import Checked
    from prefect_routines.deploying.deployed import Deployed
    from prefect_routines.deploying.problems import Problem

PLACE = Path("deployments")
TIMES = 5


def deploy(
    context: typer.Context,
    files: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="Prefect files.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All prefect files in deployments/.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only check; deploy nothing.")] = False,
) -> int:
    """Put routines to work: check their prefect files, deploy them, show when they start next.

    All problems of all files are shown, and with one of them nothing is deployed (exit status 2).
    """
    import asyncio

    from prefect_routines.cli.run import prepare_prefect

    prepare_prefect(context.obj)
    if bool(files) == everything:
        raise SettingsError("name prefect files, or use --all for those in deployments/" if not files else "give files or --all, not both")

    from prefect_routines.cli.server import prefect_errors
    from prefect_routines.deploying.files import find_files

    chosen = files or find_files(PLACE)
    if not chosen:
        raise SettingsError(f"{PLACE}/ holds no prefect file; `routines init DIR` makes a project with some")
    with prefect_errors():
        return asyncio.run(_deploy(list(dict.fromkeys(chosen)), only_check=check))


async def _deploy(files: Sequence[Path], *, only_check: bool) -> int:
    from prefect import get_client

    from prefect_routines.cli.loading import load_flow
    from prefect_routines.deploying.checks import check_files
    from prefect_routines.deploying.deploy import deploy as deploy_checked
    from prefect_routines.deploying.deploy import make_alarms, schedule_runs
    from prefect_routines.deploying.surroundings import POOL, Surroundings

    out = console()
    async with get_client() as client:
        surroundings = await Surroundings.read(client)
        checked, problems = await check_files(files, load_flow, surroundings)
        _tell(problems)
        errors = sum(problem.weight == "error" for problem in problems)
        if errors:
            rest = "" if only_check else "; nothing was deployed"
            console(stderr=True).print(text(("✗", "red"), f" {errors} problem{'s' if errors != 1 else ''}{rest}"))
            return MISTAKE
        if only_check:
            out.print(text(("✓", "green"), f" {_count(checked)} in {len(files)} file{'s' if len(files) != 1 else ''} can be deployed"))
            return 0
        if POOL not in surroundings.pools and any(surroundings.pool_of(one) == POOL for one in checked):
            out.print(text(("✓", "green"), f" made the work pool {POOL!r} (type {await surroundings.make_pool()})"))
        deployed = await deploy_checked(client, checked)
        for one in deployed:
            _show(one)
        for line in await make_alarms(client, deployed):
            out.print(text((f"  {line}", "dim")))
        if trouble := await schedule_runs(client, deployed):
            complain(trouble)
            return NOT_DONE
    return 0


def _count(checked: Sequence[Checked]) -> str:
    return f"{len(checked)} deployment{'s' if len(checked) != 1 else ''}"


def _tell(problems: Sequence[Problem]) -> None:
    """Each on a line of its own, as compilers do: FILE:LINE: what."""
    from prefect_routines.visible import one_line

    out = console(stderr=True)
    styles = {"error": ("error", "red"), "warning": ("warning", "yellow"), "note": ("note", "dim")}
    for problem in problems:
        place, _, said = str(problem).partition(": ")
        out.print(text(f"{place}: ", styles[problem.weight], f": {one_line(said, 1000)}"), soft_wrap=True)


def _show(deployed: Deployed) -> None:
    from prefect_routines.cli.routine_lines import address_lines, time_lines

    out = console()
    out.print(text(("✓ ", "green"), (deployed.name, "bold"), (" (paused)", "yellow") if deployed.paused else ""), soft_wrap=True)
    for line in (*(text(f"    {said}") for said in deployed.triggers_in_words()), *address_lines(deployed), *time_lines(deployed, TIMES)):
        out.print(line, soft_wrap=True)
