"""`routines doctor`: looks at all that the routines rest on, side by side, and says what to do where something is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefect_routines.cli.terminal import console, text
from prefect_routines.errors import RoutinesError, SettingsError

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from rich.console import Console

    from prefect_routines.deploying.deployed import Deployed
    from prefect_routines.doctor.check import Check, Finding, Result
    from prefect_routines.settings import Settings

MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "red": ("✗", "red")}
LOADING = 30.0
"""Seconds for the code of one deployment; importing Prefect takes a few of them."""


def doctor(
    routine: Annotated[str | None, typer.Option(metavar="NAME|FILE", help="Only what this routine needs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list for programs.")] = False,
) -> int:
    """Check everything that the routines rest on: a line for each matter, and for each trouble its remedy. Exit status 1 if one is red."""
    from prefect_routines.cli.data import print_json

    out = console()
    with _Waiting(console(stderr=True)) as waiting:
        results = asyncio.new_event_loop().run_until_complete(_Examination(routine, waiting).results())
    if as_json:
        print_json([result.data() for result in results])
    else:
        _print(out, results)
    status = 1 if any(result.finding.status == "red" for result in results) else 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # what did not answer in time may still sit in a thread, for which Python would wait


class _Waiting:
    """On a terminal: which checks are still under way."""

    def __init__(self, out: Console) -> None:
        self._status = out.status(text("looking")) if out.is_terminal else None
        self._names: list[str] = []

    def __enter__(self) -> _Waiting:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def begin(self, name: str) -> None:
        self._names.append(name)
        self._show()

    def end(self, result: Result) -> None:
        self._names.remove(result.name)
        self._show()

    def _show(self) -> None:
        if self._status is not None:
            more = f" and {len(self._names) - 4} more" if len(self._names) > 4 else ""
            self._status.update(text((f"looking: {', '.join(self._names[:4])}{more}", "dim")))


@dataclass
class _Subject:
    """A routine to be looked at, and what is known of it.

    Args:
        name: `flow/deployment`, or a file.
        deployed: As Prefect has it; None for a file.
        settings: What its runs would work with; None when its code cannot be loaded here.
        finding: What came of loading its code.
    """

    name: str
    deployed: Deployed | None = None
    settings: Settings | None = None
    finding: Finding | None = None
    code: str = field(default="")


class _Examination:
    """One run of the doctor."""

    def __init__(self, routine: str | None, waiting: _Waiting) -> None:
        self._routine, self._waiting = routine, waiting
        self._file = routine is not None and (Path(routine.partition(":")[0]).is_file() or routine.partition(":")[0].endswith(".py"))

    async def _examine(self, checks: Sequence[Check]) -> list[Result]:
        from prefect_routines.doctor.check import examine

        return await examine(checks, self._waiting.begin, self._waiting.end)

    async def results(self) -> list[Result]:
        """All of it. Without Prefect only what can be told without it: this machine, and a routine in a file."""
        from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

        from prefect_routines.doctor.check import Check, Result, red
        from prefect_routines.doctor.server import START, look_at_prefect

        async with AsyncExitStack() as stack:
            client: list[PrefectClient] = []

            async def reach() -> Finding:
                with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):  # one try tells whether it is there
                    client.append(await stack.enter_async_context(_prefect()))
                    return await look_at_prefect(client[0])

            prefect = await self._examine([Check("Prefect", reach, START, 10)])
            there = prefect[0].finding.status != "red"
            try:
                subjects = await asyncio.wait_for(self._subjects(client[0] if there else None), 20)
            except (TimeoutError, RoutinesError) as error:
                if isinstance(error, SettingsError) and there:
                    raise
                subjects = []
                prefect.append(Result("deployments", red(f"they cannot be read: {error or 'no answer within 20 s'}", START)))
            await asyncio.gather(*map(_load, subjects))
            of_server = _of_server(client[0], subjects) if there else ()
            found = await self._examine([*_of_machine(subjects), *of_server, *_of_routines(subjects)])
            if there:
                found += await self._examine(list(await _of_sources(client[0], subjects)))
            return [*prefect, *found]

    async def _subjects(self, client: PrefectClient | None) -> list[_Subject]:
        """The routines in question."""
        if self._file:
            return [_Subject(str(self._routine))]
        if client is None:
            return []
        from prefect_routines.deploying.deployed import find, read_deployed

        deployed = await read_deployed(client)
        chosen = [find(self._routine, deployed)] if self._routine else [one for one in deployed if one.is_routine]
        return [_Subject(one.name, one) for one in chosen]


def _prefect() -> Any:
    from prefect import get_client
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is None:
        raise SettingsError(
            "PREFECT_API_URL is not set: each command would start a server; run `routines up`, which prints the line that sets it"
        )
    return get_client()


async def _load(subject: _Subject) -> None:
    """Load a routine's code and work out its settings."""
    from prefect_routines.doctor.check import in_thread, red, trouble, warn
    from prefect_routines.settings import Settings

    place = _place(subject)
    if place is None:
        said = "its code is not on this machine, so its settings are not known here"
        subject.finding = warn(said, "run `routines doctor` on a machine with a worker")
        return
    try:
        async with asyncio.timeout(LOADING):
            subject.settings, subject.code = await in_thread(lambda: _settings(place, subject)), f"{place} loads"
    except TimeoutError:
        remedy = "let the module only define things; the work belongs into the routine"
        subject.finding = red(f"{place} did not load within {LOADING:g} s", remedy)
    except Exception as error:
        subject.finding = trouble(error, f"correct {place}")
    if subject.settings is None and subject.deployed is not None:  # what the deployment itself says can be looked at all the same
        with contextlib.suppress(RoutinesError, ValueError):
            subject.settings = _merged(Settings(), subject)


def _settings(place: str, subject: _Subject) -> Settings | None:
    from prefect_routines.cli.loading import load_flow
    from prefect_routines.routines import Routine

    flow = load_flow(place)
    return _merged(flow.settings, subject) if isinstance(flow, Routine) else None


def _merged(settings: Settings, subject: _Subject) -> Settings:
    from pydantic import ValidationError

    from prefect_routines.settings import SettingsOverride, first_problem, merge

    written = (subject.deployed.data.get("parameters") or {}).get("settings") if subject.deployed else None
    try:
        return merge(settings, SettingsOverride.model_validate(written) if written else None)
    except ValidationError as error:
        raise SettingsError(f"settings of {subject.name}: {first_problem(error)}; correct its file and deploy again") from None


def _place(subject: _Subject) -> str | None:
    """Where a routine's code is on this machine; None if it is not here."""
    if subject.deployed is None:
        return subject.name
    data = subject.deployed.data
    entrypoint = str(data.get("entrypoint") or "")
    file = entrypoint.partition(":")[0]
    if not file.endswith(".py"):
        return entrypoint or None
    steps = [step for one in data.get("pull_steps") or [] for name, step in one.items() if name.endswith("set_working_directory")]
    for directory in [*(str(step.get("directory")) for step in steps if isinstance(step, dict)), str(data.get("path") or "."), "."]:
        if (Path(directory) / file).is_file():
            return str(Path(directory) / entrypoint)
    return None


def _of_machine(subjects: Sequence[_Subject]) -> Iterator[Check]:
    from prefect_routines.doctor.machine import machine_checks

    deployed = [subject.deployed for subject in subjects if subject.deployed]
    zones = {str(one["timezone"]) for each in deployed for one in each.schedules if one.get("timezone")}
    sandboxes = {subject.settings.sandbox for subject in subjects if subject.settings} or {"bubblewrap"}
    yield from machine_checks(zones=zones, sandbox="bubblewrap" in sandboxes)


def _of_server(client: PrefectClient, subjects: Sequence[_Subject]) -> Iterator[Check]:
    from prefect_routines.doctor import server
    from prefect_routines.doctor.check import Check

    deployed = [subject.deployed for subject in subjects if subject.deployed]
    waits = any(one.webhooks for one in deployed)
    yield from server.server_checks(client, gateway_needed=waits)
    yield Check("runs", lambda: server.look_at_runs(client, [one.id for one in deployed]), server.START)
    for pool in server.pools_of(one.data for one in deployed):
        start = f"prefect worker start --pool {pool}"
        yield Check(f"work pool {pool}", lambda pool=pool: server.look_at_pool(client, pool), start)  # type: ignore[misc]


def _of_routines(subjects: Sequence[_Subject]) -> Iterator[Check]:
    """Deployments, logins, blocks and repositories, each once."""
    from prefect_routines.doctor.check import Check, ok, trouble
    from prefect_routines.doctor.reach import block_checks, repository_checks
    from prefect_routines.doctor.server import look_at_deployment
    from prefect_routines.session.preparation import login_check
    from prefect_routines.settings import Settings
    from prefect_routines.steering.telling import operators_targets

    async def told(subject: _Subject) -> Finding:
        if subject.finding is not None:
            return subject.finding
        if subject.deployed is None:
            return ok(subject.code)
        return look_at_deployment(subject.deployed.data, subject.deployed.automations, subject.code)

    async def refused(error: SettingsError) -> Finding:
        return trouble(error, "correct it")

    for subject in subjects:
        yield Check(subject.name, lambda subject=subject: told(subject), "routines deploy")  # type: ignore[misc]
    settings = [subject.settings for subject in subjects if subject.settings is not None]
    if not subjects:  # a new installation: the login of the environment is there or not
        yield login_check(Settings())
    logins = {(one.claude, one.model): login_check(one) for one in settings}
    yield from logins.values()
    try:
        yield from block_checks(settings, operators_targets())
    except SettingsError as error:
        yield Check("ROUTINES_NOTIFY", lambda error=error: refused(error), "correct it")  # type: ignore[misc]
        yield from block_checks(settings)
    yield from repository_checks(settings)


async def _of_sources(client: PrefectClient, subjects: Sequence[_Subject]) -> Iterator[Check]:
    """The webhook sources that these routines wait for; without routines, all that there are."""
    from prefect_routines.doctor.check import Check
    from prefect_routines.doctor.server import look_at_source, no_source, sources, waited_for
    from prefect_routines.store import Store

    try:
        async with asyncio.timeout(20), await Store.open() as store:
            received = await store.last_received()
    except (RoutinesError, TimeoutError):  # has a line of its own
        received = {}
    wanted = {name for subject in subjects if subject.deployed for name in subject.deployed.webhooks}
    names, lacking = waited_for(wanted, await sources(client))
    remedy = "make the block webhook-source/NAME; see blocks/"
    return iter(
        [
            *(Check(f"webhook {name}", lambda name=name: look_at_source(client, name, received), remedy) for name in names),  # type: ignore[misc]
            *(Check(f"webhook {name}", lambda name=name: no_source(name), remedy) for name in lacking),  # type: ignore[misc]
        ]
    )


def _print(out: Console, results: Sequence[Result]) -> None:
    width = max((len(result.name) for result in results), default=0)
    for result in results:
        found = result.finding
        out.print(text(MARKS[found.status], (f" {result.name:{width}}", "bold"), f"  {found.saw}"), soft_wrap=not out.is_terminal)
        if found.remedy:
            out.print(text(f"  {'':{width}}  ", (f"→ {found.remedy}", "cyan")), soft_wrap=not out.is_terminal)
    counts = {status: sum(result.finding.status == status for result in results) for status in MARKS}
    out.print(text((f"{counts['ok']} well, {counts['warn']} to look at, {counts['red']} red", "dim")))
