"""`routines token`: tokens of the gateway are made, listed and revoked."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, cast
from urllib.parse import quote
from uuid import UUID

import typer

from prefect_routines.cli.terminal import console, note, text
from prefect_routines.errors import SettingsError
from prefect_routines.visible import visible

if TYPE_CHECKING:
    from prefect_routines.store import Scope, Token

app = typer.Typer(name="token", help="Make, list and revoke tokens of the gateway.", no_args_is_help=True)


class Right(StrEnum):
    """What a token may do."""

    read = "read"
    steer = "steer"
    approve = "approve"
    fire = "fire"


@app.command("create")
def create(
    deployment: Annotated[str | None, typer.Argument(metavar="[DEPLOYMENT]", help="flow/deployment, or its id.")] = None,
    name: Annotated[
        str, typer.Option(help="What it is for. With --scope the person who uses it: what is done with it is journaled under this name.")
    ] = "",
    scope: Annotated[
        list[Right] | None,
        typer.Option(
            help="What it may do; several times for several. read: look at sessions. steer: read, and send, interrupt, suspend, cancel, "
            "resume. approve: read, and answer what sessions ask, raise budgets. fire: start DEPLOYMENT. Default: fire."
        ),
    ] = None,
    routine: Annotated[str | None, typer.Option(help="Only the sessions of this routine. Default: DEPLOYMENT's, or else all.")] = None,
) -> None:
    """Make a token: one that starts a deployment, or with --scope one for a person who looks at sessions. It is shown once, on stdout."""
    from prefect_routines.store import Store

    scopes = tuple(dict.fromkeys(one.value for one in scope or [Right.fire]))
    _check(deployment, name, scopes, routine)
    identity, full_name = _find(deployment) if deployment else ("", routine or "")

    async def work() -> tuple[Token, str]:
        async with await Store.open() as store:
            return await store.create_token(identity, full_name, name, cast("tuple[Scope, ...]", scopes))

    token, secret = asyncio.run(work())
    _tell(token)
    sys.stdout.write(f"{secret}\n")


def _check(deployment: str | None, name: str, scopes: tuple[str, ...], routine: str | None) -> None:
    """Raises:
    SettingsError: These do not go together.
    """
    if "fire" in scopes and not deployment:
        raise SettingsError("which deployment may it start? `routines token create flow/deployment`; or give --scope read, steer, approve")
    if routine and deployment:
        raise SettingsError("--routine: a token of a deployment sees the sessions of that deployment; leave one of the two out")
    if scopes != ("fire",) and not name.strip():
        raise SettingsError("--name: whose token is it? What is done with it is journaled under this name")
    if visible(name) != name or len(name) > 100 or "\n" in name:
        raise SettingsError("--name: one line of at most 100 characters, without control characters")


def _tell(token: Token) -> None:
    """What the token is good for."""
    from prefect_routines.config import config

    gateway = config().gateway_url.rstrip("/")
    note(f"Token for {token.reach}; it cannot be shown again.")
    if token.may("fire"):
        url = f"{gateway}/v1/claude_code/routines/{token.deployment_id}/fire"
        note("Start the routine with:")
        note(f'  curl -X POST {url} -H "Authorization: Bearer $TOKEN" -H \'Content-Type: application/json\' -d \'{{"text": "..."}}\'')
    if token.may("read"):
        note(f"Sign in with it at {gateway}/sessions")
        note(f'  curl {gateway}/v1/sessions -H "Authorization: Bearer $TOKEN"')


@app.command("list")
def list_tokens(as_json: Annotated[bool, typer.Option("--json", help="A JSON list for programs.")] = False) -> None:
    """List the tokens: how they begin, what they may do, and when they were last used."""
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
        how = "routines token create --scope steer --scope approve --name YOU"
        console().print(text(f"No tokens yet; `{how}` makes one for the session page."), soft_wrap=True)
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
    console().print(text(("✓", "green"), f" {token.prefix}… of {token.reach} is revoked"))


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
            f"  {token.prefix}…  {token.reach}{named}  ",
            (f"{token.scopes.replace(' ', ', ')}  ", "cyan") if token.scopes != "fire" else "",
            state,
            ("  UTC" if token.last_used_at and not token.revoked_at else "", "dim"),
        )
    )
