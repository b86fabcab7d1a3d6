"""`routines run-now`: start a routine that is at work, on its worker, and watch it if you like."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefect_routines.cli.terminal import DONE, INTERRUPTED, NOT_DONE, complain, console, note, text

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from prefect_routines.deploying.deployed import Deployed


def run_now(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ROUTINE", help="flow/deployment, or a part of it that only one has.")],
    said: Annotated[str | None, typer.Option("--text", help="What the run is told; Claude reads it with `read_event`.")] = None,
    param: Annotated[list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter of this run.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it to its end; exit status 0 if the work is done.")] = False,
) -> int:
    """Start a routine now, paused or not, on a worker of its pool. `routines run FILE` runs one here instead."""
    from prefect_routines.cli.naming import with_prefect

    async def start(client: PrefectClient) -> tuple[dict[str, Any], Deployed, bool]:
        from prefect_routines.cli.naming import named, typed_parameters
        from prefect_routines.deploying.starting import create_run, record_text

        deployed = await named(client, name)
        parameters = typed_parameters(deployed, param or [])
        delivery = await record_text(said) if said is not None else None
        run = await create_run(client, deployed, parameters, delivery=delivery)
        return run, deployed, await _has_worker(client, deployed)

    run, deployed, attended = with_prefect(context, start)
    _tell(run, deployed, attended)
    return watch_run(context, run) if follow else DONE


async def _has_worker(client: PrefectClient, deployed: Deployed) -> bool:
    from prefect.client.schemas.filters import WorkerFilter

    pool = deployed.data.get("work_pool_name")
    if not pool:
        return True  # `serve`d: Prefect does not tell whether that process is there
    return bool(await client.read_workers_for_work_pool(pool, worker_filter=WorkerFilter(status={"any_": ["ONLINE"]})))


def _tell(run: dict[str, Any], deployed: Deployed, attended: bool) -> None:
    from prefect.utilities.urls import url_for

    out = console()
    out.print(text(("✓ ", "green"), (deployed.name, "bold"), f" · {run['name']}"), soft_wrap=True)
    if address := url_for("flow-run", obj_id=run["id"]):
        out.print(text(f"    {address}"), soft_wrap=True)
    if not attended:
        pool = deployed.data.get("work_pool_name")
        note(f"No worker of the pool {pool!r} is there; the run waits for `prefect worker start --pool {pool}` (or `routines up`).")


def watch_run(context: typer.Context, run: dict[str, Any]) -> int:
    """Show its session as it goes, until the run has ended."""
    from prefect_routines.cli.attached import watching
    from prefect_routines.cli.server import prefect_api

    try:
        progress, watch = watching(run["id"], console())
        with progress, watch, prefect_api() as client:
            while True:
                state = client.read_flow_run(run["id"]).state
                if state is not None and state.is_final():
                    break
                time.sleep(0.5)  # between two looks at the run
    except KeyboardInterrupt:
        note("The run goes on; `routines sessions` lists it.")
        return INTERRUPTED
    if watch.error is not None:
        complain(f"the progress could not be followed: {watch.error}")
    if not progress.transcripts or any(transcript.verdict is None for transcript in progress.transcripts.values()):
        console().print(text(f"{state.name}: {state.message or 'no message'}"), soft_wrap=True)
    return DONE if state.is_completed() else NOT_DONE
