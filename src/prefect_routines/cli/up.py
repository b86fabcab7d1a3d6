"""`routines up`: the whole machine with one command."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prefect_routines.cli.terminal import SIGNALLED
from prefect_routines.visible import visible

if TYPE_CHECKING:
    from prefect_routines.up import Wishes


def up(
    host: Annotated[str | None, typer.Option("--host", help="Address of Prefect's UI and API.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Their port.", show_default="4200")] = None,
    gateway_host: Annotated[
        str,
        typer.Option(
            "--gateway-host", help="Address that the gateway listens on, 0.0.0.0 for all; ROUTINES_GATEWAY_URL is what links say."
        ),
    ] = "127.0.0.1",
    gateway_port: Annotated[int, typer.Option("--gateway-port", min=1, max=65535, help="Its port.")] = 4280,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Runs that may go on at once.", show_default="no limit")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the logs of the parts, too.")] = False,
) -> int:
    """Run Prefect's server, a worker and the gateway on this machine, and keep them running until Ctrl-C.

    A Prefect server that answers at PREFECT_API_URL is used instead of one of its own. What dies is started again.
    """
    from prefect_routines.up import Wishes

    return asyncio.run(_up(Wishes(host, port, gateway_host, gateway_port, limit), verbose=verbose))


async def _up(wishes: Wishes, *, verbose: bool) -> int:
    from prefect_routines.config import config
    from prefect_routines.up import Machine, make_plan
    from prefect_routines.up.lock import locked
    from prefect_routines.up.prefect_settings import read

    began = time.monotonic()
    home: Path = config().home
    with locked(home):
        _print("Starting; the first time takes half a minute.")
        plan = await make_plan(wishes, config(), await asyncio.to_thread(read))
        for line in plan.notes:
            _print(line)

        def ready() -> None:
            _print(f"\nEverything answers after {time.monotonic() - began:.0f} s.")
            for name, address in plan.addresses.items():
                _print(f"  {name:<12} {address}")
            _print("Ctrl-C stops it.\n")

        number = await Machine(plan, home / "logs", _say, ready, _show if verbose else None).run()
    _print("Stopped.")
    return SIGNALLED + number


def _say(part: str, text: str) -> None:
    _print(f"{time.strftime('%H:%M:%S')} {part:<8} {text}")


def _show(part: str, line: bytes) -> None:
    _print(f"{part:<8} | {line.decode('utf-8', 'replace').rstrip()}")


def _print(line: str) -> None:
    """A terminal that has gone away is no reason to stop."""
    try:
        sys.stdout.write(visible(line) + "\n")
        sys.stdout.flush()
    except (BrokenPipeError, OSError):
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
