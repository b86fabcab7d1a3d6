"""`routines gateway`: the web service that takes webhooks and fire calls in, and shows sessions."""

from __future__ import annotations

from typing import Annotated

import typer

from prefect_routines.cli.terminal import console, text


def gateway(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 4280,
) -> None:
    """Take in webhooks, fire calls and answers from Slack and e-mail, start the routines that they trigger, and show sessions at
    /sessions, until Ctrl-C.

    Any number may run beside each other on one store. Deliveries are taken also while Prefect is away.
    """
    import asyncio

    from prefect_routines.gateway.serve import serve

    asyncio.run(serve(host, port, started=_say))


def _say(address: str) -> None:
    out = console()
    out.print(text(("✓", "green"), f" The gateway listens at {address}"))
    out.file.flush()
