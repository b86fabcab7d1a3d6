"""`routines sandbox`: a command as a session's bash would run it - how a setup script is tried and the sandbox is probed.

Exit status: the command's own; 128 + N when signal N ended it; as timeout(1) and docker-run(1) have it, 124 when the time was up,
125 when the sandbox could not be built or the setup script failed, 126 or 127 when the command cannot be run or is not there; 2 for a
mistake in the command line (no such DIR, settings that do not fit).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefect_routines.cli.terminal import INTERRUPTED, SIGNALLED, complain
from prefect_routines.errors import RoutinesError, SettingsError

if TYPE_CHECKING:
    from prefect_routines.settings import Settings

TIMED_OUT, NO_SANDBOX = 124, 125
UNLIMITED = 1 << 50  # bytes: the output is passed on, not kept


def sandbox(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="It is /workspace inside.")],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="What to run, and its arguments.")],
    settings: Annotated[Path | None, typer.Option("--settings", "-s", metavar="FILE", help="Settings of a routine: YAML or JSON.")] = None,
    network: Annotated[list[str] | None, typer.Option(metavar="HOST", help="A host or preset to reach, such as @python.")] = None,
    setup: Annotated[Path | None, typer.Option(metavar="FILE", help="Setup script; its result is kept, as in a session.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds.")] = 3600.0,
) -> int:
    """Run a command in a sandbox with DIR as its workspace, and pass its output and exit status on."""
    import asyncio

    if not directory.is_dir():
        raise SettingsError(f"{directory}: there is no such directory; name the one that is to be /workspace")
    chosen = _settings(settings, network or [], setup)
    try:
        return asyncio.run(_until_stopped(lambda pass_on: _run(directory.resolve(), command, chosen, timeout, pass_on)))
    except SettingsError:
        raise
    except RoutinesError as error:
        complain(str(error))
        return NO_SANDBOX


def _settings(file: Path | None, network: list[str], setup: Path | None) -> Settings:
    from prefect_routines.cli.parameters import given_settings
    from prefect_routines.settings import Settings, SettingsOverride, merge

    override = given_settings(file, [], rehearsal=False) or {}
    if network:
        override["network"] = [*override.get("network", []), *network]
    if setup is not None:
        try:
            override["setup"] = setup.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"setup script {setup}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}") from None
    return merge(Settings(), SettingsOverride.model_validate(override))


async def _until_stopped(work: Callable[[Callable[[int, bytes], None]], Coroutine[Any, Any, int]]) -> int:
    """Do the work with a place for its output. A signal, or a reader that has gone, ends it in order: the directory is given back."""
    import asyncio

    ended_by: list[int] = []

    def stop(number: int) -> None:
        ended_by.append(number)
        task.cancel()

    def pass_on(stream: int, data: bytes) -> None:
        """Exact bytes, at once."""
        left = memoryview(data)
        try:
            while left and not ended_by:
                left = left[os.write(stream, left) :]
        except BrokenPipeError:
            stop(signal.SIGPIPE)

    task = asyncio.ensure_future(work(pass_on))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        return SIGNALLED + ended_by[0] if ended_by else INTERRUPTED


async def _run(directory: Path, command: list[str], settings: Settings, timeout: float, pass_on: Callable[[int, bytes], None]) -> int:
    from prefect_routines.workspace.limits import Limits
    from prefect_routines.workspace.sandbox import Sandbox, SandboxSpec, check_sandbox, lend_directory
    from prefect_routines.workspace.setup import prepared

    await check_sandbox(settings.sandbox)
    prepared_setup = await prepared(settings)
    with lend_directory(directory) as workspace:
        spec = SandboxSpec(
            workspace=workspace,
            environment=settings.environment,
            network=tuple(settings.network),
            setup=prepared_setup,
            limits=Limits(**settings.limits.model_dump(exclude={"snapshot_mb"})),
            mode=settings.sandbox,
        )
        async with await Sandbox.start(spec) as box:
            # by bash, as in a session: builtins, scripts without a first line, and its words for what is not there
            done = await box.run(["bash", "-c", '"$@"', "bash", *command], timeout=timeout, max_output=UNLIMITED, on_output=pass_on)
    if done.timed_out:
        complain(f"stopped after {timeout:g} s")
        return TIMED_OUT
    return done.exit_code if done.exit_code >= 0 else SIGNALLED - done.exit_code
