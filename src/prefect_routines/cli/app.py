"""The command line as a whole: its commands, and how an error ends it.

Exit status: 0 the work is done (or the question answered), 1 the work is not done or the run failed, 2 something to set right
first - nothing was asked of Claude -, 130 stopped with Ctrl-C, 143 with SIGTERM. `routines sandbox` passes on that of its command.

Prefect, anthropic and SQLAlchemy are imported by the commands that need them, when they run: `routines --help` must be quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from prefect_routines.cli import (
    connectors,
    decide,
    deploy,
    doctor,
    gateway,
    inbox,
    init,
    mcp,
    pause,
    prune,
    resume,
    routines_list,
    run,
    run_now,
    sandbox,
    schedule,
    sessions,
    show,
    steer,
    teleport,
    token,
    up,
    watch,
)
from prefect_routines.cli.terminal import DONE, INTERRUPTED, MISTAKE, NOT_DONE, Invocation, complain
from prefect_routines.errors import RoutinesError

_UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # click's, which typer carries along or depends on, as its version is

app = typer.Typer(
    name="routines",
    help="Proactive Claude agents on your own Prefect.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("sessions")(sessions.sessions)
app.command("show")(show.show)
app.command("watch")(watch.watch)
app.command("send")(steer.send)
app.command("interrupt")(steer.interrupt)
app.command("suspend")(steer.suspend)
app.command("cancel")(steer.cancel)
app.command("waiting")(decide.waiting)
app.command("approve")(decide.approve)
app.command("deny")(decide.deny)
app.command("connectors")(connectors.connectors)
app.add_typer(mcp.app)
app.add_typer(token.app)
app.add_typer(inbox.app)
app.command("init")(init.init)
app.command("up")(up.up)
app.command("gateway")(gateway.gateway)
app.command("deploy")(deploy.deploy)
app.command("list")(routines_list.list_routines)
app.command("run-now")(run_now.run_now)
app.command("resume")(resume.resume)
app.command("teleport")(teleport.teleport)
app.command("schedule")(schedule.schedule)
app.command("pause")(pause.pause)
app.command("unpause")(pause.unpause)
app.command("sandbox")(sandbox.sandbox)
app.command("prune")(prune.prune)
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"routines {version('prefect-routines')}")
        raise typer.Exit


@app.callback()
def _routines(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error, and Prefect's own log.")] = False,
) -> None:
    context.obj.debug = debug


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit.

    Args:
        arguments: Default: those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no ✓ shows something all the same
    sys.exit(_status(list(sys.argv[1:] if arguments is None else arguments)))


def _status(arguments: list[str]) -> int:
    """Run the command; its exit status. A user never sees a traceback for his own mistake."""
    invocation = Invocation()
    try:
        status = typer.main.get_command(app).main(arguments, prog_name="routines", standalone_mode=False, obj=invocation)
        sys.stdout.flush()
        return status if isinstance(status, int) else DONE
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except RoutinesError as error:
        if invocation.debug:
            raise
        complain(str(error))
        return MISTAKE
    except _UsageError as error:
        return _usage(error)
    except BrokenPipeError:  # `routines show ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_DONE
    except Exception as error:
        if invocation.debug:
            raise
        complain(f"{type(error).__name__}: {error} (unexpected; `routines --debug ...` shows where)")
        return NOT_DONE


def _usage(error: Exception) -> int:
    """A command line that does not fit: one line, and where to read on."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return MISTAKE
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "routines"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    complain(f"{message.rstrip('.')}. See `{command} --help`.")
    return MISTAKE
