"""`routines inbox`: what arrived from outside and what became of it; delivering it again; trying triggers on it."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer

from prefect_routines.cli.terminal import DONE, NOT_DONE, console, note, text
from prefect_routines.errors import RoutinesError, SettingsError
from prefect_routines.visible import one_line, visible

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from prefect_routines.cli.inbox_page import Account
    from prefect_routines.gateway.targets import Target
    from prefect_routines.gateway.trial import Trial
    from prefect_routines.store import Delivery, Store
    from prefect_routines.when import When

T = TypeVar("T")
app = typer.Typer(name="inbox", help="Deliveries from outside: list, show, replay, test.", invoke_without_command=True)

PICKED_UP = 10.0
"""Seconds for which a replay is watched."""
_WORDS = ("equals", "not_equals", "contains", "starts_with", "is_one_of", "is_not_one_of", "matches", "is_present", "is_absent")
_CONDITION = re.compile(
    rf"(?P<path>.+?)\s+(?P<operator>{'|'.join(word.replace('_', '[ _]') for word in _WORDS)})(?:\s+(?P<value>.+))?", re.S
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The delivery's id or the beginning of it, or its sender's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


@app.callback()
def inbox(
    context: typer.Context,
    source: Annotated[str | None, typer.Option("--source", "-s", help="Only from this sender: github, api, or a webhook's name.")] = None,
    status: Annotated[
        str | None,
        typer.Option("--status", help="Only those, or those at some routine: waiting, started, filtered, unmatched, duplicate, ..."),
    ] = None,
    deployment: Annotated[
        str | None, typer.Option("--deployment", "-d", help="Only what concerned routines with this in their name.")
    ] = None,
    problems: Annotated[
        bool,
        typer.Option(
            "--problems", help="Only the refused, what waits over a minute, endless chains, sessions failed or needing attention."
        ),
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many, the newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List deliveries, the newest first, with what became of each at each routine."""
    if context.invoked_subcommand is not None:
        return
    from prefect_routines.cli.data import print_json
    from prefect_routines.cli.inbox_page import accounts, data, listed, print_lines

    chosen = _chosen(source, status, deployment, problems=problems)

    async def load(store: Store) -> list[Account]:
        return await accounts(store, await store.deliveries(limit=limit, **chosen))

    found = _with_store(load)
    if as_json:
        print_json([data(account) for account in found])
    elif found:
        print_lines(listed(found))
    else:
        console().print(
            text("No such deliveries." if chosen else "Nothing has arrived yet; `routines show ROUTINE` tells the webhook's address.")
        )


def _chosen(source: str | None, status: str | None, deployment: str | None, *, problems: bool) -> dict[str, Any]:
    from prefect_routines.store import DeliveryStatus, DispatchStatus

    known = list(dict.fromkeys((*get_args(DeliveryStatus), *get_args(DispatchStatus), "duplicate")))
    if status is not None and status not in known:
        raise SettingsError(f"--status {one_line(status, 40)}: there is {', '.join(known)}")
    wanted = {"source": source, "deployment": deployment, "problems": problems or None}
    wanted |= {"repeated": True} if status == "duplicate" else {"status": status}
    return {name: value for name, value in wanted.items() if value is not None}


def _with_store(work: Callable[[Store], Awaitable[T]]) -> T:
    import asyncio

    from prefect_routines.store import Store

    async def opened() -> T:
        async with await Store.open() as store:
            return await work(store)

    return asyncio.run(opened())


@app.command("show")
def show(
    context: typer.Context,
    name: Id,
    body: Annotated[bool, typer.Option("--body", help="Print the body alone, to a file or pipe byte by byte as it came.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Do not shorten the body.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a delivery: where it came from, what became of it at each routine, labels, body."""
    from prefect_routines.cli.data import print_json
    from prefect_routines.cli.inbox_page import accounts, data, page, print_lines

    async def load(store: Store) -> Account:
        [account] = await accounts(store, [await store.find_delivery(name)])
        return account

    account = _with_store(load)
    one = account.delivery
    if body:
        _print_body(one)
    elif as_json:
        print_json(data(account) | {"labels": one.labels, "body": one.body})
    else:
        runs = _runs(context, [str(dispatch.flow_run_id) for dispatch in account.dispatches if dispatch.flow_run_id])
        print_lines(page(account, runs, full=full))


def _print_body(one: Delivery) -> None:
    if sys.stdout.isatty():  # whoever wrote it must not get to control the terminal
        sys.stdout.write(visible(one.body) + "\n")
        return
    try:
        raw = one.body.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raw = one.body.encode("utf-8", "surrogatepass")
    sys.stdout.buffer.write(raw)


def _runs(context: typer.Context, ids: Sequence[str]) -> Mapping[str, tuple[str, str]]:
    """Name and address of flow runs; none if Prefect is away: the inbox can be read all the same."""
    if not ids:
        return {}
    from prefect_routines.cli.naming import with_prefect

    async def read(client: PrefectClient) -> dict[str, tuple[str, str]]:
        from prefect.utilities.urls import url_for

        answer = await client.request("POST", "/flow_runs/filter", json={"flow_runs": {"id": {"any_": list(ids)}}})
        return {run["id"]: (run["name"], url_for("flow-run", obj_id=run["id"]) or "") for run in answer.json()}

    try:
        return with_prefect(context, read)
    except RoutinesError as error:
        note(f"The runs' names are missing: {error}")
        return {}


@app.command("replay")
def replay(
    context: typer.Context,
    name: Id,
    deployment: Annotated[
        str | None, typer.Option("--deployment", "-d", metavar="ROUTINE", help="Only for this routine, whatever its triggers say.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Deliver it again, as a new delivery. Triggers, filters and loop guard decide about it as about any other."""
    from prefect_routines.cli.data import print_json
    from prefect_routines.cli.inbox_page import accounts, data, lines_of, print_lines
    from prefect_routines.gateway.replay import replay as deliver_again

    original = _with_store(lambda store: store.find_delivery(name))
    to = _deployment(context, deployment) if deployment is not None else None
    attended = _gateway_answers()

    async def work(store: Store) -> Account:
        again, _ = await deliver_again(store, original, to)
        if not as_json:
            console().print(text(("✓", "green"), " delivered again as ", (again.id, "bold")), soft_wrap=True)
        [account] = await accounts(store, [await _settled(store, again) if attended else again])
        return account

    account = _with_store(work)
    if as_json:
        print_json(data(account))
    else:
        print_lines(lines_of(account, max((len(one.deployment) for one in account.dispatches), default=0)))
    _remark(account.delivery, attended=attended)
    return DONE


def _deployment(context: typer.Context, name: str) -> tuple[str, str]:
    from prefect_routines.cli.naming import named, with_prefect

    deployed = with_prefect(context, lambda client: named(client, name))
    if deployed.paused:
        raise SettingsError(f"the routine {deployed.name} is paused; `routines unpause {deployed.name}` lets it run again")
    return deployed.id, deployed.name


def _remark(again: Delivery, *, attended: bool) -> None:
    """Why nothing has become of a replay yet, where that can be told."""
    from prefect_routines.config import config

    url = config().gateway_url
    if not attended:
        note(f"No gateway answers at {url}: the delivery waits until one runs (`routines up` or `routines gateway`).")
    elif again.status == "received" and again.sent == 0:
        note(
            f"The gateway at {url} has not taken it up in {PICKED_UP:g} s: is Prefect up, and does it have the same ROUTINES_DATABASE_URL?"
        )


def _gateway_answers() -> bool:
    import httpx

    from prefect_routines.config import config

    try:
        return httpx.get(f"{config().gateway_url.rstrip('/')}/health", timeout=3).status_code == 200
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        return False


async def _settled(store: Store, delivery: Delivery) -> Delivery:
    """The delivery, once the gateway is done with it, or some seconds later."""
    import asyncio
    import time

    deadline = time.monotonic() + PICKED_UP
    while time.monotonic() < deadline:
        found = await store.delivery(delivery.id)
        if found is not None and found.status != "received":
            return found
        await asyncio.sleep(0.2)  # between two looks at it
    return await store.delivery(delivery.id) or delivery


@app.command("test")
def try_triggers(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ROUTINE", help="flow/deployment, or a part of it that only one has.")],
    last: Annotated[int, typer.Option("-n", "--last", min=1, max=10_000, help="Try the newest so many deliveries.")] = 50,
    conditions: Annotated[
        list[str] | None,
        typer.Option("--when", metavar="CONDITION", help='Instead of its settings.when, e.g. "issue.title contains docs"; all must hold.'),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Take the routine from this prefect file, deployed or not.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="List every delivery, also those whose event has another name.")] = False,
    as_json: AsJson = False,
) -> int:
    """Tell on which of the last deliveries a routine's triggers would fire, and which part said no on the others. Nothing is started.

    Exit status 1 if they would fire on none.
    """
    from prefect_routines.cli.inbox_trials import print_trials
    from prefect_routines.cli.naming import with_prefect

    wanted = [condition(said) for said in conditions or []]

    async def work(client: PrefectClient) -> tuple[list[Target], list[Trial]]:
        targets = await (_of_file(file, name) if file is not None else _of_server(client, name))
        if wanted:
            from prefect_routines.gateway.trial import with_conditions

            targets = with_conditions(targets, wanted)
        return targets, await _try(targets, last)

    targets, trials = with_prefect(context, work)
    print_trials(targets, trials, everything=everything, as_json=as_json)
    return DONE if any(one.part in ("fires", "paused") for one in trials) else NOT_DONE


def condition(said: str) -> When:
    """One condition as a person types it: PATH OPERATOR VALUE, or as a prefect file has it.

    Raises:
        SettingsError: It is none.

    Example:
        ```python
        condition("pull_request.base.ref is one of main, next")
        ```
    """
    import yaml
    from pydantic import ValidationError

    from prefect_routines.settings import first_problem
    from prefect_routines.when import When

    shown = one_line(said, 100)
    try:
        if said.lstrip().startswith("{"):
            return When.model_validate(yaml.safe_load(said))
        found = _CONDITION.fullmatch(said.strip())
        if found is None:
            raise SettingsError(f"--when {shown}: write it as PATH OPERATOR VALUE; operators are {', '.join(_WORDS).replace('_', ' ')}")
        operator, value = found["operator"].replace(" ", "_"), found["value"]
        if operator in ("is_present", "is_absent"):
            return When.model_validate({"path": found["path"], "present": operator == "is_present"})
        several = operator in ("is_one_of", "is_not_one_of") and value is not None
        return When.model_validate({"path": found["path"], operator: [each.strip() for each in value.split(",")] if several else value})
    except ValidationError as error:
        raise SettingsError(f"--when {shown}: {one_line(first_problem(error), 300)}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"--when {shown}: it is no valid YAML ({one_line(str(error), 100)})") from None


async def _of_server(client: PrefectClient, name: str) -> list[Target]:
    from prefect_routines.cli.naming import named
    from prefect_routines.gateway.prefect_server import PrefectServer

    deployed = await named(client, name)
    async with PrefectServer() as server:
        found = [target for target in await server.targets() if target.deployment_id == deployed.id]
    return _not_none(found, deployed.name)


async def _of_file(file: Path, name: str) -> list[Target]:
    from prefect_routines.cli.loading import load_flow
    from prefect_routines.deploying.files import read_file
    from prefect_routines.gateway.trial import targets_of_stanza

    stanzas, problems = read_file(file)
    errors = [problem for problem in problems if problem.weight == "error"]
    if errors:
        raise SettingsError(f"{errors[0]}; `routines deploy --check {file}` tells all")
    wanted = name.rpartition("/")[2]
    stanza = next((one for one in stanzas if one.name == wanted), None)
    if stanza is None:
        raise SettingsError(f"{file}: there is no deployment {one_line(wanted)!r}; there is {', '.join(one.name for one in stanzas)}")
    flow = load_flow(str(stanza.data.get("entrypoint") or ""))
    return _not_none(targets_of_stanza(stanza, flow), f"{flow.name}/{stanza.name}")


def _not_none(found: list[Target], name: str) -> list[Target]:
    if not found:
        raise SettingsError(
            f'{name} has no trigger that takes deliveries: one that passes `event: "{{{{ event.id | string }}}}"` on to the run'
        )
    return found


async def _try(targets: Sequence[Target], last: int) -> list[Trial]:
    from prefect_routines.gateway.sources import Sources
    from prefect_routines.gateway.trial import try_out
    from prefect_routines.store import Store

    async with await Store.open() as store, Sources() as sources:
        return await try_out(store, targets, sources.identities, last=last)
