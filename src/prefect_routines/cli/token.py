"""`routines token`: tokens of the gateway are made, listed and revoked."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, cast

import typer

from prefect_routines.cli.terminal import console, note, text
from prefect_routines.errors import SettingsError
from prefect_routines.visible import one_line, visible

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
    context: typer.Context,
    deployment: Annotated[
        str | None, typer.Argument(metavar="[DEPLOYMENT]", help="flow/deployment, its id, or the routine's name where that is enough.")
    ] = None,
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
    identity, full_name = _find(context, deployment) if deployment else ("", routine or "")

    async def work() -> tuple[Token, str, list[str]]:
        async with await Store.open() as store:
            return *await store.create_token(identity, full_name, name, cast("tuple[Scope, ...]", scopes)), await store.routine_names()

    token, secret, known = asyncio.run(work())
    _tell(token)
    if routine and routine not in known:
        seen = f"there are some of {', '.join(known[:10])}" if known else "there are none at all"
        note(f"There is no session of {one_line(routine)!r} yet; {seen}. If the name is wrong: routines token revoke {token.prefix}")
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


def _find(context: typer.Context, deployment: str) -> tuple[str, str]:
    """Id and full name of the deployment that a name means.

    Raises:
        SettingsError: None, or several.
    """
    from prefect_routines.cli.naming import named, with_prefect

    found = with_prefect(context, lambda client: named(client, deployment))
    return found.id, found.name


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
            (" UTC" if token.last_used_at and not token.revoked_at else "", "dim"),
        )
    )
