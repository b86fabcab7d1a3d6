"""`routines token`: tokens of the fire endpoint are made, listed and revoked."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote
from uuid import UUID

import typer

from prefect_routines.cli.terminal import console, note, text
from prefect_routines.errors import SettingsError

if TYPE_CHECKING:
    from prefect_routines.store import Token

app = typer.Typer(name="token", help="Make, list and revoke tokens for the fire endpoint.", no_args_is_help=True)


@app.command("create")
def create(
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="flow/deployment, or its id.")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Make a token that starts this deployment and reads its runs, and can do nothing else. It is shown once, alone on stdout."""
    from prefect_routines.config import config
    from prefect_routines.store import Store

    identity, full_name = _find(deployment)

    async def work() -> str:
        async with await Store.open() as store:
            return (await store.create_token(identity, full_name, name))[1]

    secret = asyncio.run(work())
    note(f"Token for {full_name}; it cannot be shown again. Start the routine with:")
    url = f"{config().gateway_url.rstrip('/')}/v1/claude_code/routines/{identity}/fire"
    note(f'  curl -X POST {url} -H "Authorization: Bearer $TOKEN" -H \'Content-Type: application/json\' -d \'{{"text": "..."}}\'')
    sys.stdout.write(f"{secret}\n")


@app.command("list")
def list_tokens(as_json: Annotated[bool, typer.Option("--json", help="A JSON list for programs.")] = False) -> None:
    """List the tokens: how they begin, and when they were last used."""
    from prefect_routines.cli.data import print_json
    from prefect_routines.store import Store

    async def work() -> list[Token]:
        async with await Store.open() as store:
            return await store.tokens()

    tokens = asyncio.run(work())
    if as_json:
        from dataclasses import asdict

        print_json([asdict(token) for token in tokens])
        return
    if not tokens:
        console().print(text("No tokens yet; `routines token create flow/deployment` makes one."))
    for token in tokens:
        _print(token)


@app.command("revoke")
def revoke(which: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id, or how it begins.")]) -> None:
    """Revoke a token: from the next request on it opens nothing."""
    from prefect_routines.store import Store

    async def work() -> Token:
        async with await Store.open() as store:
            return await store.revoke_token(which)

    token = asyncio.run(work())
    console().print(text(("✓", "green"), f" {token.prefix}… of {token.deployment} is revoked"))


def _find(deployment: str) -> tuple[str, str]:
    """Id and full name of a deployment.

    Raises:
        SettingsError: There is none.
    """
    import httpx
    from prefect.exceptions import PrefectHTTPStatusError

    from prefect_routines.cli.server import prefect_api

    flow, _, name = deployment.partition("/")
    try:
        path = f"/deployments/{UUID(deployment)}"
    except ValueError:
        if not (flow and name):
            raise SettingsError(f"{deployment!r}: name it as flow/deployment; `prefect deployment ls` lists them") from None
        path = f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}"
    with prefect_api() as client:
        try:
            found: dict[str, Any] = client.request("GET", path).json()
            owner = client.request("GET", f"/flows/{found['flow_id']}").json()
        except (PrefectHTTPStatusError, httpx.HTTPStatusError) as error:
            if error.response.status_code != 404:
                raise
            raise SettingsError(f"there is no deployment {deployment!r}; `prefect deployment ls` lists them") from None
    return str(found["id"]), f"{owner['name']}/{found['name']}"


def _print(token: Token) -> None:
    used = f"last used {token.last_used_at:%Y-%m-%d %H:%M}" if token.last_used_at else "never used"
    state = ("revoked", "red") if token.revoked_at else (used, "dim")
    named = f"  {token.name}" if token.name else ""
    console().print(
        text(
            (token.id, "bold"),
            f"  {token.prefix}…  {token.deployment}{named}  ",
            state,
            ("  UTC" if token.last_used_at and not token.revoked_at else "", "dim"),
        )
    )
