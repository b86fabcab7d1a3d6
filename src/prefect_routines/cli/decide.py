"""`routines approve`, `deny` and `waiting`: the forms for which sessions wait."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefect_routines.cli.session_name import Who, person, with_store
from prefect_routines.cli.terminal import console, text
from prefect_routines.errors import SettingsError

if TYPE_CHECKING:
    from prefect_routines.store import Form, SessionRecord, Store

FormName = Annotated[
    str,
    typer.Argument(
        metavar="SESSION|FORM",
        help="A session that waits, or the form itself by its id (`routines waiting` shows both).",
        show_default=False,
    ),
]


def approve(
    context: typer.Context,
    name: FormName,
    call: Annotated[
        list[int] | None,
        typer.Option(
            "--call", metavar="N", help="Only this call, by its number in `routines watch`; repeat it for more. The others are denied."
        ),
    ] = None,
    like: Annotated[bool, typer.Option("--all-like-this", help="Also all further calls like these, in this session.")] = False,
    arguments: Annotated[
        Path | None,
        typer.Option("--arguments", metavar="FILE.json", help="A JSON object: the arguments to make the call with instead, all of them."),
    ] = None,
    reply: Annotated[
        list[str] | None,
        typer.Option("--reply", metavar="TEXT", help="Answer to Claude's question; with several, one each, in their order."),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--raise", metavar="NAME=NUMBER", help="How much more it may use: turns=20, tokens=100000, dollars=5, minutes=30."),
    ] = None,
    message: Annotated[str, typer.Option("--message", metavar="TEXT", help="A message to Claude as well.")] = "",
    who: Who = None,
) -> None:
    """Approve what a session waits for, answer its question, raise its budget or let it go on."""
    from prefect_routines.cli.deciding import approval, raises

    changed = _arguments(arguments) if arguments is not None else None
    raised = raises(more or [])

    def answer(form: Form) -> dict[str, Any]:
        given = {"calls": call or [], "like": like, "arguments": changed, "replies": reply or [], "more": raised, "message": message}
        return approval(form.kind, form.content, **given)  # type: ignore[arg-type]  # checked where they were read

    _answer(context, name, answer, who)


def deny(
    context: typer.Context,
    name: FormName,
    call: Annotated[
        list[int] | None,
        typer.Option("--call", metavar="N", help="All of the form's calls; to deny some, approve the others: `routines approve --call N`."),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Told to Claude.")] = "",
    stop: Annotated[bool, typer.Option("--stop", help="Cancel the session, too.")] = False,
    who: Who = None,
) -> None:
    """Deny what a session waits for; Claude is told the reason. One that is suspended or out of budget ends."""
    from prefect_routines.cli.deciding import denial

    _answer(context, name, lambda form: denial(form.kind, form.content, calls=call or [], reason=reason, stop=stop), who)


def _answer(context: typer.Context, name: str, answer: Any, who: str | None) -> None:
    async def work(store: Store) -> None:
        from prefect_routines.cli.form_lines import answer_lines, subject
        from prefect_routines.cli.session_name import find_form
        from prefect_routines.steering import acts

        record, form = await find_form(store, name)
        out = console()
        out.print(text((record.routine, "bold"), f" · {record.id} · {subject(form.kind, form.content)}"), soft_wrap=True)
        answered = await acts.answer(store, form, answer(form), person(who))
        told = {"answer": answered.answer, "person": answered.person, "via": answered.via, "status": answered.status}
        for line in answer_lines(told, form.content):
            out.print(line, soft_wrap=True)

    with_store(context, work)


def _arguments(file: Path) -> dict[str, Any]:
    import json

    try:
        found = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"--arguments {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"--arguments {file}: it is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise SettingsError(f'--arguments {file}: it must be a JSON object with all arguments of the call, such as {{"text": "..."}}')
    return found


def waiting(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list for programs.")] = False,
) -> None:
    """List what waits for a person: which session, for what, since when, until when."""

    async def load(store: Store) -> list[tuple[Form, SessionRecord]]:
        found = []
        for form in await store.forms(status="open"):
            record = await store.session(form.session_id)
            if record is not None:
                found.append((form, record))
        return found

    found = with_store(context, load)
    if as_json:
        from dataclasses import asdict

        from prefect_routines.cli.data import print_json

        print_json([{**asdict(form), "routine": record.routine} for form, record in found])
    elif not found:
        console().print(text("Nothing waits for a person."))
    else:
        _list(found)


def _list(found: list[tuple[Form, SessionRecord]]) -> None:
    """Two lines each: who waits for what and how long; what it is about, which may be long."""
    from prefect_routines.cli.form_lines import subject, waits_for
    from prefect_routines.cli.sessions import when

    out = console()
    for form, record in found:
        since = f" since {when(form.created_at)}" if not when(form.created_at).endswith("ago") else f", {when(form.created_at)}"
        what = (f" {waits_for(form.kind)}", "yellow")
        out.print(text((record.id, "bold"), f" · {record.routine}", what, (since, "dim"), _until(form.expires_at)))
        out.print(text((f"    {form.id[:12]}  ", "dim"), subject(form.kind, form.content)))
    watch = f"routines watch {found[0][1].id}"
    out.print(text((f"{watch} shows all and takes your answer; so do approve and deny", "dim")))


def _until(moment: float | None) -> tuple[str, str]:
    """Until when an answer is taken, and how long that is while it is not long."""
    import time
    from datetime import UTC, datetime

    if moment is None:
        return "", ""
    left = moment - time.time()
    if left <= 0:
        return " · its time is over", "red"
    if left < 3600:
        return f" · {left / 60:.0f} min left" if left >= 60 else f" · {left:.0f} s left", "red"
    return f" · until {datetime.fromtimestamp(moment, UTC).astimezone():%Y-%m-%d %H:%M}", "dim"
