"""`routines approve`, `deny` and `waiting`: the forms for which sessions wait."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefect_routines.cli.session_name import Who, person, with_store
from prefect_routines.cli.terminal import console, text
from prefect_routines.errors import SettingsError

if TYPE_CHECKING:
    from rich.text import Text

    from prefect_routines.store import Form, SessionRecord, Store

FormName = Annotated[
    str, typer.Argument(metavar="SESSION|FORM", help="Which: a session, or the id of a form (`routines waiting`).", show_default=False)
]


def approve(
    context: typer.Context,
    name: FormName,
    call: Annotated[list[int] | None, typer.Option("--call", metavar="N", help="Only this call; the others are denied.")] = None,
    like: Annotated[bool, typer.Option("--all-like-this", help="Also all further calls like these, in this session.")] = False,
    arguments: Annotated[
        Path | None, typer.Option("--arguments", metavar="FILE.json", help="Other arguments for the call: all of them.")
    ] = None,
    reply: Annotated[list[str] | None, typer.Option("--reply", metavar="TEXT", help="Answer to Claude's question.")] = None,
    more: Annotated[
        list[str] | None, typer.Option("--raise", metavar="turns=20", help="How much more may be used; also dollars=5.")
    ] = None,
    message: Annotated[str, typer.Option("--message", metavar="TEXT", help="Something for Claude.")] = "",
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
    call: Annotated[list[int] | None, typer.Option("--call", metavar="N", help="Which; all must be named.")] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Told to Claude.")] = "",
    stop: Annotated[bool, typer.Option("--stop", help="End the session, too.")] = False,
    who: Who = None,
) -> None:
    """Deny what a session waits for; Claude is told the reason."""
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
        _table(found)


def _table(found: list[tuple[Form, SessionRecord]]) -> None:
    from rich.table import Table

    from prefect_routines.cli.form_lines import subject
    from prefect_routines.cli.sessions import when

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("SESSION", "ROUTINE", "WAITS FOR", "SINCE", "UNTIL", "WHAT"):
        table.add_column(heading, no_wrap=heading != "WHAT", min_width=24 if heading == "SESSION" else None)
    for form, record in found:
        table.add_row(
            text(record.id),
            text(record.routine),
            text((_NOUN.get(form.kind, form.kind), "yellow")),
            text(when(form.created_at)),
            _until(form.expires_at),
            text(subject(form.kind, form.content)),
        )
    out = console()
    out.print(table)
    watch = f"routines watch {found[0][1].id}"
    out.print(
        text((f"\n{watch} shows all of it and takes your answer; so do `routines approve` and `routines deny`", "dim")), soft_wrap=True
    )


_NOUN = {"approval": "approval", "question": "an answer", "budget": "more budget", "pause": "go on"}


def _until(moment: float | None) -> Text:
    """Until when an answer is taken, and how long that is while it is not long."""
    import time
    from datetime import UTC, datetime

    if moment is None:
        return text("-")
    left = moment - time.time()
    if left <= 0:
        return text(("expired", "red"))
    if left < 3600:
        return text((f"{left / 60:.0f} min left" if left >= 60 else f"{left:.0f} s left", "red"))
    return text(f"{datetime.fromtimestamp(moment, UTC).astimezone():%Y-%m-%d %H:%M}")
