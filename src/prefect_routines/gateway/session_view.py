"""The parts of a session's page around the transcript: how it stands, what left the workspace, what a person can do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from prefect_routines.gateway.form_view import diff_lines
from prefect_routines.gateway.markup import Element, Node, tag
from prefect_routines.gateway.transcript_view import call_title, shown
from prefect_routines.session.transcript import Transcript
from prefect_routines.store import Act, SessionRecord
from prefect_routines.store.journal import PRUNED
from prefect_routines.visible import one_line

STATES = {
    "running": "running",
    "idle": "between runs",
    "suspended": "waits for a person",
    "stopped": "process gone",
    "ended": "ended",
}
VERDICTS = {"done": "✓ done", "nothing_to_do": "✓ nothing to do", "needs_attention": "! needs attention", "failed": "✗ failed"}
SENT = {"done": "sent", "reported": "sent, answered with an error", "captured": "captured, not sent", "unknown": "outcome unknown"}
_DIFF = 60_000  # characters of one push's diff on the page


def badge(record: SessionRecord, *, waits: bool = False) -> Element:
    """How a session stands, in a word."""
    if record.status == "ended":
        if record.shown in ("cancelled", "not run"):
            return tag("span", record.shown, class_="badge quietly")
        word = VERDICTS.get(record.verdict or "", record.verdict or "ended without a verdict")
        return tag("span", word, class_=f"badge {record.verdict if record.verdict in VERDICTS else 'failed'}")
    if waits:
        return tag("span", "waits for a person", class_="badge person")
    if record.shown == "failed":
        return tag("span", "its run failed", class_="badge failed")
    return tag("span", STATES[record.state], class_=f"badge {record.state}")


def head(record: SessionRecord, transcript: Transcript, *, waits: bool, run_url: str | None, why: str = "") -> Element:
    """The first thing to read.

    Args:
        waits: Whether a form is open.
        why: What became of the delivery that asked for the session, while there is no run.
    """
    name = record.routine if record.name == "main" else f"{record.routine}, {record.name}"
    parts: list[Node] = [tag("h1", name, badge(record, waits=waits))]
    if record.status == "ended":
        parts.append(tag("p", record.summary or "", class_="summary text"))
    elif doing := why or _doing(record, transcript, waits):
        parts.append(tag("p", doing, class_="doing"))
    if pruned := record.data.get(PRUNED):
        parts.append(tag("p", f"What was said and done was deleted on {str(pruned)[:10]}; its record is kept.", class_="quiet"))
    parts.append(tag("ul", _facts(record, transcript, run_url), class_="facts"))
    return tag("section", parts, id="head")


def _doing(record: SessionRecord, transcript: Transcript, waits: bool) -> str:
    if record.state == "stopped":
        return "Its process is gone. Retry its run in Prefect, and it goes on where it was."
    if record.state != "running" or waits:
        return ""
    under_way = [call_title(call.name, call.input) for call in transcript.open_calls if call.started]
    if under_way:
        return f"Runs {one_line(', '.join(under_way), 200)}"
    if not transcript.config:
        return "Prepares: login, repositories, sandbox"
    return f"Claude is at turn {transcript.turns + 1}"


def _facts(record: SessionRecord, transcript: Transcript, run_url: str | None) -> list[Node]:
    ended = record.status == "ended"
    dollars = record.dollars if ended else transcript.dollars + transcript.reserved
    given: Mapping[str, Any] = record.data.get("budget") or {}
    budget = {name: limit + transcript.raised.get(name, 0) for name, limit in given.items() if isinstance(limit, int | float)}
    facts: list[Node] = [
        _fact("cost", f"${dollars:.2f}", f"${budget['dollars']:.2f}" if budget.get("dollars") else None),
        _fact("turns", str(record.turns if ended else transcript.turns), f"{budget['turns']:g}" if budget.get("turns") else None),
        _fact("time", _minutes(transcript.seconds), f"{budget['minutes']:g} min" if budget.get("minutes") else None),
    ]
    if model := transcript.config.get("model_name") or transcript.config.get("model"):
        facts.append(_fact("model", str(model)))
    if began := record.started_at:
        facts.append(tag("li", tag("span", "began "), when(began)))
    if run_url:
        facts.append(tag("li", tag("a", "run in Prefect", href=run_url)))
    facts.append(tag("li", tag("code", record.id)))
    return facts


def _fact(name: str, value: str, limit: str | None = None) -> Element:
    return tag("li", tag("span", f"{name} "), tag("b", value), f" of {limit}" if limit else None)


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def when(moment: datetime) -> Element:
    """A time; the browser shows it in the reader's own zone."""
    return tag("time", f"{moment:%Y-%m-%d %H:%M} UTC", datetime=moment.isoformat())


def results(transcript: Transcript) -> Element:
    """What left the workspace: links, pushes with their diffs, writes as they were sent."""
    parts: list[Node] = []
    links = [str(link) for link in (transcript.verdict or {}).get("links", [])]
    if links:
        parts.append(tag("ul", [tag("li", link_to(link)) for link in links], class_="links"))
    parts += [_push(push) for push in transcript.pushes]
    parts += [_written(output) for output in transcript.outputs if output["tool"] != "push"]
    return tag("section", tag("h2", "Results") if parts else None, parts, id="results")


def link_to(address: str) -> Element:
    """An address, shown in full so that one sees where it leads; what is no web address stays text."""
    link = tag("a", address, href=address, rel="noreferrer noopener")
    return link if "href" in link.attributes and not address.startswith(("/", "?", "#")) else tag("code", address)


def _push(push: Mapping[str, Any]) -> Element:
    what = "captured, not sent" if push.get("captured") else "pushed"
    files = len(push.get("files", []))
    count = f"{files} file{'s' if files != 1 else ''}"
    head = tag("summary", f"{what} ", tag("code", f"{push['repository']}: {push['branch']}"), f" at {push['sha'][:12]}, {count}")
    diff = str(push.get("diff", ""))
    body: list[Node] = [tag("pre", diff_lines(diff[:_DIFF]), class_="diff")]
    if len(diff) > _DIFF:
        body.append(tag("p", f"{len(diff) - _DIFF:,} more characters; the branch has all of it", class_="more"))
    return tag("details", head, body, class_="push")


def _written(output: Mapping[str, Any]) -> Element:
    target = tag("code", one_line(str(output["target"]), 200)) if output["target"] else None
    head = tag("summary", f"{output['tool']} ", target, f" {SENT.get(output['status'], output['status'])}")
    link = tag("p", link_to(output["link"])) if output.get("link") else None
    pairs = [[tag("dt", one_line(str(name), 60)), tag("dd", tag("pre", shown(value)))] for name, value in output["request"].items()]
    return tag("details", head, link, tag("dl", *pairs, class_="arguments"), class_=f"written {output['status']}")


def needs(forms: Iterable[Element]) -> Element:
    """What is needed from a person; before everything else."""
    return tag("section", forms, id="needs", aria_live="polite")


def pending(record: SessionRecord, waiting: Sequence[Act]) -> Element:
    """What was sent and not taken yet."""
    waiting = waiting if record.status != "ended" else []
    lines = [tag("li", tag("b", f"{act.person or 'somebody'}: "), _sent(act)) for act in waiting]
    told = [tag("h2", "On its way"), tag("ul", lines)] if lines else []
    return tag("section", told, id="pending")


def _sent(act: Act) -> str:
    text = one_line(act.text, 300)
    match act.kind:
        case "message":
            return text
        case "interrupt":
            return f"interrupt{f': {text}' if text else ''}"
        case _:
            return act.kind


def controls(record: SessionRecord, *, may_steer: bool, waits: bool) -> Element:
    """The box for messages, and the buttons.

    Args:
        waits: Whether a form is open. Then there is nothing to interrupt: it would hit what the answer is about to start.
    """
    over = record.status == "ended"
    if not may_steer or (over and record.deployment_id is None):  # nobody but a deployment could run it
        return tag("footer", id="controls", hidden=True)
    words = "What shall Claude do now?" if over else "Message to Claude"
    area = tag("textarea", name="text", id="text", rows="2", maxlength="100000", placeholder=words, aria_label=words)
    if over:
        row: list[Node] = [_do("resume", "Resume", "main")]
    else:
        sure = tag("div", _do("cancel", "Yes, cancel the session", "danger"))
        cancel = tag("details", tag("summary", "Cancel the session…"), sure, class_="stop")
        send, gap = _do("send", "Send", "main"), tag("span", class_="gap")
        at_work = [_do("interrupt_send", "Interrupt and send"), gap, _do("interrupt", "Interrupt"), _do("suspend", "Suspend")]
        row = [send, *([gap] if waits else at_work), cancel]
    action = f"/sessions/{record.id}/act"
    return tag("footer", tag("form", area, tag("div", row, class_="buttons"), method="post", action=action, data_act=True), id="controls")


def _do(value: str, words: str, kind: str | None = None) -> Element:
    return tag("button", words, type="submit", name="do", value=value, class_=kind)
