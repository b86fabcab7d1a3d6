"""What the inbox tells of deliveries, for a person and for programs.

The JSON of a delivery has stable keys: new ones may come, none goes or changes its meaning. Times are ISO 8601 in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect_routines.cli.sessions import STYLES as VERDICTS
from prefect_routines.cli.sessions import when
from prefect_routines.cli.terminal import console, text
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from prefect_routines.store import Delivery, Dispatch, SessionRecord, Store

STYLES = {
    "waiting": "yellow", "started": "cyan", "ended": "green", "queued": "yellow", "superseded": "dim", "messaged": "cyan",
    "skipped": "dim", "filtered": "dim", "own": "dim", "too-deep": "red", "paused": "yellow", "refused": "red",
    "received": "yellow", "unmatched": "dim", "ping": "dim", "settled": "dim",
}  # fmt: skip
SHORT = 8
"""Characters of an id that lists show; its beginning is enough to name it."""
LINES, WIDE, PRETTY = 20, 400, 262_144
"""Of a body: lines shown, characters of a line, and up to how many characters its JSON is laid out."""


@dataclass(frozen=True)
class Account:
    """A delivery with what became of it.

    Args:
        sessions: Those of its dispatches that have begun, by id.
    """

    delivery: Delivery
    dispatches: list[Dispatch]
    sessions: Mapping[str, SessionRecord]


async def accounts(store: Store, deliveries: Sequence[Delivery]) -> list[Account]:
    """The deliveries with what became of them."""
    found: dict[str, list[Dispatch]] = {delivery.id: [] for delivery in deliveries}
    sessions: dict[str, SessionRecord] = {}
    for one in await store.dispatches(delivery_ids=list(found), limit=100_000):
        found[one.delivery_id].append(one)
        if one.status in ("started", "ended", "messaged") and one.session_id not in sessions:
            record = await store.session(one.session_id)
            if record is not None:
                sessions[record.id] = record
    return [Account(delivery, found[delivery.id], sessions) for delivery in deliveries]


def data(account: Account) -> dict[str, Any]:
    """A delivery as data, without its body."""
    from prefect_routines.gateway.replay import replayed

    one = account.delivery
    names = (
        "id", "source", "delivery_id", "event", "kind", "action", "repository", "number", "sha", "key", "received_at", "status", "note",
        "repeats", "sent", "settled_at", "content_type", "body_sha256",
    )  # fmt: skip
    return {name: getattr(one, name) for name in names} | {
        "replay_of": replayed(one),
        "became": [_became(account, d) for d in account.dispatches],
    }


def _became(account: Account, one: Dispatch) -> dict[str, Any]:
    record = account.sessions.get(one.session_id)
    return {
        "deployment": one.deployment,
        "deployment_id": one.deployment_id,
        "status": one.status,
        "reason": one.reason,
        "session": one.session_id if _has_session(one) else None,
        "session_url": session_url(one) if record is not None else None,
        "verdict": record.verdict if record is not None else None,
        "flow_run_id": one.flow_run_id,
        "depth": one.depth,
        "created_at": one.created_at,
        "ended_at": one.ended_at,
    }


def _has_session(one: Dispatch) -> bool:
    return one.status in ("waiting", "started", "ended", "queued", "messaged")


def session_url(one: Dispatch) -> str:
    """Where the gateway sends a browser on to the run of a session."""
    from prefect_routines.config import config

    return f"{config().gateway_url.rstrip('/')}/sessions/{one.session_id}"


def print_lines(lines: Iterable[RenderableType]) -> None:
    """Print them; plain lines are left to the terminal to break, so that an address in one can be copied."""
    from rich.text import Text

    out = console()
    for line in lines:
        out.print(line, soft_wrap=isinstance(line, Text))


# the list


def listed(found: Sequence[Account]) -> Iterator[RenderableType]:
    """A line for each delivery, and one for each deployment below it."""
    if not found:
        return
    width = id_width([account.delivery.id for account in found])
    names = max((len(one.deployment) for account in found for one in account.dispatches), default=0)
    for account in found:
        yield row((width, text((account.delivery.id[:width], "bold"))), (16, text(when(account.delivery.received_at))), (0, _what(account)))
        yield from lines_of(account, min(names, 28))


def id_width(ids: Sequence[str]) -> int:
    """So many characters that no two ids in the list look the same."""
    return next((width for width in range(SHORT, 40) if len({one[:width] for one in ids}) == len(ids)), 40)


def row(*cells: tuple[int, Text]) -> RenderableType:
    """Cells side by side; what does not fit into its width goes on below, in its own column."""
    from rich.table import Table

    row = Table.grid(padding=(0, 2, 0, 0))
    for width, _ in cells:
        row.add_column(width=width or None, overflow="fold", ratio=None)
    row.add_row(*(said for _, said in cells))
    return row


def _what(account: Account) -> Text:
    from prefect_routines.gateway.replay import replayed

    one = account.delivery
    name = one_line(one.event or one.kind or one.source, 60)
    parts: list[str | tuple[str, str]] = [name]
    if not one.event.startswith(("github.", f"webhook.{one.source}")) and one.source != name:
        parts.append((f" from {one_line(one.source, 40)}", "dim"))
    if about := _about(one):
        parts.append((f"  {about}", "cyan"))
    if one.repeats:
        parts.append((f"  {one.repeats + 1}x", "yellow"))
    if original := replayed(one):
        parts.append((f"  replay of {original[:SHORT]}", "magenta"))
    return text(*parts)


def _about(one: Delivery) -> str:
    if one.repository:
        return one_line(f"{one.repository}{f'#{one.number}' if one.number else ''}", 80)
    return one_line(one.key or "", 80)


def lines_of(account: Account, names: int) -> Iterator[RenderableType]:
    """What became of a delivery, a line for each deployment.

    Args:
        names: Width of their names.
    """
    indent = (2, text(""))
    if not account.dispatches:
        status, said = _alone(account.delivery)
        yield row(indent, (10, text((status, STYLES.get(status, "")))), (0, text(said)))
    for one in account.dispatches:
        status, style = one.status, STYLES.get(one.status, "")
        record = account.sessions.get(one.session_id)
        if status == "ended" and record is not None:
            style = VERDICTS.get(_came_to(record), style)
        yield row(
            indent,
            (10, text((status, style))),
            (max(names, 4), text(one_line(one.deployment, 200))),
            (0, told(one, record, account.delivery)),
        )


def _alone(one: Delivery) -> tuple[str, str]:
    """Of a delivery that no deployment has a part in."""
    match one.status:
        case "received":
            return "waiting", f"for a gateway, since {when(one.received_at)}{f' ({one_line(one.note, 200)})' if one.note else ''}"
        case "unmatched":
            return "unmatched", "no routine's trigger fits; `routines inbox test ROUTINE` tells why"
        case "refused":
            return "refused", one_line(one.note or "no reason was kept", 300)
        case "ping":
            return "ping", "the webhook works"
        case _:
            return "settled", "handed to a run by a person" if one.source == "person" else "nothing was to be started"


def told(one: Dispatch, record: SessionRecord | None, delivery: Delivery) -> Text:
    """The rest of the line: the session and its verdict, or the reason."""
    if one.status == "waiting":
        times = f", the event was sent {delivery.sent}x" if delivery.sent > 1 else ""
        return text(one_line(one.reason, 300) if one.reason else f"for its run, since {when(one.created_at)}{times}")
    if one.status in ("started", "ended"):
        verdict = _came_to(record) if record is not None else ""
        none = "its run has begun no session yet" if one.status == "started" else "its run has ended, without a session"
        parts: list[str | tuple[str, str]] = [one.session_id if record is not None else none]
        if verdict:
            parts.append((f"  {verdict}", VERDICTS.get(verdict, "")))
        return text(*parts)
    return text(one_line(one.reason or "", 300))


def _came_to(record: SessionRecord) -> str:
    """The verdict; without one what became of the session, if it is over."""
    return record.verdict or (record.shown if record.shown in ("failed", "cancelled", "stopped", "not run") else "")


# one delivery


def page(account: Account, runs: Mapping[str, tuple[str, str]], *, full: bool) -> Iterator[RenderableType]:
    """All of one delivery.

    Args:
        account: Its delivery with the body.
        runs: Name and address of its flow runs, by id, as far as Prefect tells.
        full: Do not shorten the body.
    """
    one = account.delivery
    yield text((f"Delivery {one.id}", "bold"))
    for word, value in _head(one):
        yield row((2, text("")), (9, text((word, "dim"))), (0, text(value)))
    yield text()
    yield text(("What became of it", "bold"))
    yield from _dispatches(account, runs) if account.dispatches else lines_of(account, 0)
    yield from _labels(one)
    yield from _body(one, full)


def _head(one: Delivery) -> Iterator[tuple[str, str]]:
    from prefect_routines.gateway.replay import replayed

    yield "from", f"{one_line(one.source)}, its id {one_line(one.delivery_id, 200)}"
    yield "event", one_line(one.event or "none: it starts nothing by itself", 200)
    about = [_about(one), f"commit {one.sha[:12]}" if one.sha else "", f"key {one_line(one.key, 200)}" if one.key else ""]
    if any(about):
        yield "about", " · ".join(part for part in about if part)
    yield "received", f"{one.received_at:%Y-%m-%d %H:%M:%S} UTC{f', {when(one.received_at)}' if _recent(one.received_at) else ''}"
    yield "status", _status(one)
    if one.repeats:
        yield "repeats", f"came {one.repeats + 1} times; nothing more was started"
    if original := replayed(one):
        yield "replay", f"of {original}"
    if one.note and not replayed(one):
        yield "note", one_line(one.note, 500)


def _recent(moment: datetime) -> bool:
    return (datetime.now(UTC) - moment).total_seconds() < 3600


def _status(one: Delivery) -> str:
    said = str(one.status)
    if one.settled_at is not None:
        said += f" after {(one.settled_at - one.received_at).total_seconds():.1f} s"
    if not one.sent or not one.event:
        return said
    return f"{said}; its event was sent to Prefect {'once' if one.sent == 1 else f'{one.sent} times'}"


def _dispatches(account: Account, runs: Mapping[str, tuple[str, str]]) -> Iterator[RenderableType]:
    for one in account.dispatches:
        record = account.sessions.get(one.session_id)
        yield row((2, text("")), (10, text((one.status, STYLES.get(one.status, "")))), (0, text((one_line(one.deployment, 300), "bold"))))
        if one.status in ("waiting", "started", "ended") or one.reason:
            yield row((14, text("")), (0, told(one, record, account.delivery)))
        if one.flow_run_id:
            name, address = runs.get(one.flow_run_id, ("", ""))
            yield _whole(("run   ", "dim"), one_line(name) or one.flow_run_id)
            if address:
                yield _whole(address)
        if record is not None:
            yield _whole(("open  ", "dim"), session_url(one))
            yield _whole(("read  ", "dim"), f"routines show {one.session_id}")
        if one.depth:
            yield _whole((f"{one.depth} run{'s' if one.depth > 1 else ''} of ours caused it, one the other", "dim"))


def _whole(*parts: str | tuple[str, str]) -> Text:
    return text(" " * 16, *parts)


def _labels(one: Delivery) -> Iterator[RenderableType]:
    resource = {str(name): str(value) for name, value in (one.labels.get("resource") or {}).items()}
    related = [each for each in one.labels.get("related") or [] if isinstance(each, dict)]
    if resource:
        yield text()
        yield text(("Labels", "bold"), ("  for `match`", "dim"))
        width = min(max(len(name) for name in resource), 32)
        for name, value in resource.items():
            yield row((2, text("")), (width, text((one_line(name, 200), "dim"))), (0, text(one_line(value, 1100))))
    if related:
        yield text()
        yield text(("Related", "bold"), ("  for `match_related`", "dim"))
        for each in related:
            role = str(each.get("prefect.resource.role", ""))
            others = [f"{name}={value}" for name, value in each.items() if name != "prefect.resource.role"]
            yield row((2, text("")), (10, text((one_line(role, 40), "dim"))), (0, text(one_line("  ".join(others), 1100))))


def _body(one: Delivery, full: bool) -> Iterator[RenderableType]:
    size = len(one.body.encode("utf-8", "surrogatepass"))
    yield text()
    kind = one_line(one.content_type, 200) or "no content type"
    yield text(("Body", "bold"), (f"  {kind}, {size:,} bytes, sha256 {one.body_sha256[:12]}…", "dim"))
    said = one.body if len(one.body) > PRETTY else _laid_out(one)
    lines = said.splitlines() or [""]
    shown = lines if full else [line if len(line) <= WIDE else f"{line[:WIDE]}…" for line in lines[:LINES]]
    for line in shown:
        yield text(f"  {line}")
    if shown != lines:
        more = f"{len(lines) - LINES} more lines" if len(lines) > LINES else "lines were cut"
        yield text((f"  [... {more}; --full shows all, --body prints it as it came ...]", "dim"))


def _laid_out(one: Delivery) -> str:
    payload = one.payload()
    if not isinstance(payload, dict | list):
        return one.body
    try:
        return json.dumps(payload, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return one.body
