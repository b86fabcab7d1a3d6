"""`routines show`: one session to read, or as data; or the page of a routine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefect_routines.cli.terminal import console, text

if TYPE_CHECKING:
    from rich.text import Text

    from prefect_routines.store import Entry, Output, SessionRecord, Spent, Store

LINES, CHARACTERS = 12, 1500
"""Of each piece of text, unless everything is wanted."""


def show(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="SESSION|ROUTINE", help="A session's id, the beginning of it, or its flow run's id; or a routine's name."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object; a session's: session, entries, outputs, spend.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Do not shorten results of tools.")] = False,
) -> None:
    """Show a session: what was asked and said, each call with its result, checks, pushes and cost. Or a routine that is at work."""
    import asyncio

    from prefect_routines.cli.data import print_json, whole_session
    from prefect_routines.store import Store

    async def load() -> tuple[SessionRecord, list[Entry], list[Output], Spent, dict[str, Any] | None] | None:
        async with await Store.open() as store:
            if (record := await _session(store, name)) is None:
                return None
            data = await whole_session(store, record) if as_json else None
            return record, await store.entries(record.id), await store.outputs(record.id), await store.spent(session_id=record.id), data

    found = asyncio.run(load())
    if found is None:
        _show_routine(context, name, as_json=as_json)
        return
    record, entries, outputs, spent, data = found
    if data is not None:
        print_json(data)
        return
    out = console()
    for line in (*_head(record), *_conversation(entries, full), *_tail(record, entries, outputs, spent)):
        out.print(line, soft_wrap=True)


async def _session(store: Store, name: str) -> SessionRecord | None:
    """The session of that name; None if it can only be a routine's. Ids begin with `ses-`, and a routine may be called `s`."""
    from prefect_routines.errors import SettingsError

    try:
        record = await store.find(name)
    except SettingsError:
        if name.startswith("ses-"):
            raise
        return None
    return record if name.startswith("ses-") or name in (record.id, record.flow_run_id) else None


def _show_routine(context: typer.Context, name: str, *, as_json: bool) -> None:
    from prefect_routines.cli.naming import named, with_prefect
    from prefect_routines.cli.routine_page import page
    from prefect_routines.cli.routines_list import sessions_by_deployment

    deployed = with_prefect(context, lambda client: named(client, name))
    page(deployed, sessions_by_deployment().get(deployed.id, []), as_json=as_json)


def _head(record: SessionRecord) -> Iterator[Text]:
    from prefect_routines.cli.data import shown_status
    from prefect_routines.cli.sessions import when

    yield text((f"Session {record.id}", "bold"))
    name = record.routine if record.name == "main" else f"{record.routine}, {record.name}"
    for word, value in (
        ("routine", name),
        ("status", shown_status(record)),
        ("started", when(record.started_at)),
        ("flow run", record.flow_run_id),
        ("event", record.event_id),
    ):
        if value:
            yield text((f"  {word:<9}", "dim"), value)


def _conversation(entries: list[Entry], full: bool) -> Iterator[Text]:
    from prefect_routines.cli.progress import entry_lines
    from prefect_routines.cli.steering_lines import steering_lines
    from prefect_routines.session.page import result_text
    from prefect_routines.session.transcript import Transcript

    transcript, forms = Transcript(), dict[str, Any]()
    for entry in entries:
        transcript.apply(entry)
        data = entry.data
        if entry.kind == "form.opened":
            forms[data["form"]] = data["content"]
        if entry.kind == "user.message" and not data.get("via"):
            yield text()
            heading = ("Task" if data["prompt"] == 1 else "Follow-up") if data.get("prompt") else "Note"
            yield text((heading, "bold"), f" by {data['by']}" if data.get("by") else "")
            yield from _body("\n".join(block["text"] for block in data["content"] if block["type"] == "text"), full, "")
        elif entry.kind == "agent.message":
            yield text()
            yield text((f"Turn {data['turn']}", "bold cyan"), (f"  ${transcript.dollars:.4f}", "dim"))
            for block in data["content"]:
                if block["type"] == "text":
                    yield from _body(block["text"], full, "")
                elif block["type"] == "tool_use":
                    asked = f"{block['name']} {json.dumps(block['input'], ensure_ascii=False)}"
                    yield text(("  → ", "cyan"), asked[: None if full else CHARACTERS])
        else:
            yield from entry_lines(entry, transcript)
            yield from steering_lines(entry, forms)
        if entry.kind == "tool.result":
            yield from _body(result_text(data["content"]), full, "dim")


def _body(said: str, full: bool, style: str) -> Iterator[Text]:
    """Text of somebody's, indented; its middle left out when it is long."""
    lines = said.rstrip().splitlines()
    if not full:
        if len(lines) > LINES:
            left_out = len(lines) - LINES
            lines = [*lines[: LINES // 2], f"[... {left_out} lines; --full shows them ...]", *lines[-LINES // 2 :]]
        lines = [line if len(line) <= CHARACTERS else f"{line[:CHARACTERS]}…" for line in lines]
    indent = "  " if not style else " " * 10
    yield from (text((f"{indent}{line}", style)) for line in lines)


def _tail(record: SessionRecord, entries: list[Entry], outputs: list[Output], spent: Spent) -> Iterator[Text]:
    from prefect_routines.cli.progress import totals, verdict_lines
    from prefect_routines.session.transcript import Transcript

    transcript = Transcript.of(entries)
    yield from verdict_lines(transcript, record.id)
    if pruned := record.data.get("pruned"):
        yield text()
        yield text((record.verdict or "no verdict", "bold"), f" · {record.summary or 'no summary'}")
        yield text((f"  the transcript was removed {pruned[:10]} by `routines prune` · ${spent.dollars:.4f}", "dim"))
    elif transcript.verdict is None:
        yield text()
        yield text(("no verdict yet", "bold"), (f" · ${spent.dollars:.4f} · {totals(transcript)}", "dim"))
    if outputs:
        yield text(("  written to the outside", "dim"))
        for output in outputs:
            by = f" · rule {output.rule}" if output.rule else ""
            yield text(f"    {output.tool}: {output.target}", (f" · {output.status}{by}", "dim"))
    if spent.reserved_dollars:
        yield text((f"  of the cost, ${spent.reserved_dollars:.4f} is a guess for requests whose bill never came", "dim"))
