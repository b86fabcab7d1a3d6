"""`routines list`: the routines at work, what starts them, when next, and what they last came to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefect_routines.cli.terminal import console, text

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from prefect_routines.deploying.deployed import Deployed
    from prefect_routines.store import SessionRecord

DAYS, MOST = 7, 5000
"""Days over which costs are summed, and how many sessions are looked at for it."""


def list_routines(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Also deployments of flows that are no routines.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list for programs.")] = False,
) -> None:
    """List the routines that are at work on this Prefect server."""
    from prefect_routines.cli.naming import with_prefect

    async def read(client: PrefectClient) -> list[Deployed]:
        from prefect_routines.deploying.deployed import read_deployed

        return [one for one in await read_deployed(client) if everything or one.is_routine]

    deployed = with_prefect(context, read)
    sessions = sessions_by_deployment()
    rows = [row(one, sessions.get(one.id, [])) for one in deployed]
    if as_json:
        from prefect_routines.cli.data import print_json

        print_json(rows)
    elif rows:
        _table(list(zip(deployed, rows, strict=True)))
    else:
        from prefect.settings import get_current_settings

        unset = "" if get_current_settings().api.url else " PREFECT_API_URL is not set here: `routines up` prints the line that sets it."
        console().print(text(f"No routines are at work yet; `routines deploy --all` deploys those in deployments/.{unset}"))


def sessions_by_deployment() -> dict[str, list[SessionRecord]]:
    """The newest sessions of each deployment, newest first; those at work with the totals of now."""
    import asyncio

    from prefect_routines.cli.data import up_to_date
    from prefect_routines.store import Store

    async def load() -> dict[str, list[SessionRecord]]:
        found: dict[str, list[SessionRecord]] = {}
        async with await Store.open() as store:
            for record in await store.sessions(limit=MOST):
                if record.deployment_id is not None:
                    found.setdefault(record.deployment_id, []).append(await up_to_date(store, record))
        return found

    return asyncio.run(load())


def row(deployed: Deployed, sessions: list[SessionRecord]) -> dict[str, Any]:
    """One routine as data. Keys are stable; times are ISO 8601, money is US dollars."""

    last = sessions[0] if sessions else None
    since = datetime.now(UTC) - timedelta(days=DAYS)
    return {
        "name": deployed.name,
        "deployment_id": deployed.id,
        "paused": deployed.paused,
        "triggers": deployed.triggers_in_words(),
        "next": next((moment.isoformat() for moment in deployed.next_times(1)), None),
        "last": last
        and {
            "session": last.id,
            "status": last.shown,
            "verdict": last.verdict,
            "at": (last.ended_at or last.started_at or last.created_at).isoformat(),
        },
        "dollars_7_days": round(sum(one.dollars for one in sessions if one.created_at >= since), 6),
        "sessions_7_days": sum(one.created_at >= since for one in sessions),
    }


def _table(rows: list[tuple[Deployed, dict[str, Any]]]) -> None:
    from rich.table import Table

    from prefect_routines.cli.sessions import STYLES
    from prefect_routines.deploying.moments import ahead, shown

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("ROUTINE", "STARTS", "NEXT", "LAST", "7 DAYS"):
        table.add_column(heading, justify="right" if heading == "7 DAYS" else "left", overflow="fold", no_wrap=heading == "7 DAYS")
    for deployed, one in rows:
        last, upcoming = one["last"], next(iter(deployed.next_times(1)), None)
        came_to = (last["verdict"] or last["status"]) if last else "never ran"
        told = ahead(datetime.fromisoformat(last["at"])) if last else ""
        runs = one["sessions_7_days"]
        if one["paused"]:
            following = text(("paused", "yellow"))
        else:
            following = text(f"{shown(upcoming)}\n", (ahead(upcoming), "dim")) if upcoming else text("-")
        table.add_row(
            text((one["name"], "bold")),
            text("\n".join(one["triggers"]) or "by hand"),
            following,
            text((came_to, STYLES.get(came_to, "dim")), f"\n{told}" if told else ""),
            text(f"${one['dollars_7_days']:.2f}", (f"\n{runs} run{'' if runs == 1 else 's'}", "dim")),
        )
    console().print(table)
