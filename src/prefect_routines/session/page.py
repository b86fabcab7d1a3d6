"""What a person sees on the run page: summary, transcript, usage, checks and diff as markdown. Pure.

All text that somebody else wrote is escaped or fenced: it can neither make a link nor an image nor HTML.
"""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from prefect_routines.session.budget import raised
from prefect_routines.session.transcript import JournalEntry, Transcript
from prefect_routines.settings import Settings
from prefect_routines.steering.form import said, subject
from prefect_routines.verdict import Outcome
from prefect_routines.visible import one_line, visible

SIGNS = {"done": "✓", "nothing_to_do": "✓", "needs_attention": "!", "failed": "✗"}
WORDS = {
    "done": "sent",
    "reported": "**sent, and answered with an error**",
    "captured": "captured, not sent",
    "unknown": "**outcome unknown**",
}
LONGEST = 4_000  # characters of one tool result in the transcript
WHOLE = 400_000  # characters of an artifact


def plain(text: str) -> str:
    """Text as markdown that shows exactly it."""
    escaped = re.sub(r"([\\`*_{}\[\]()#+!|~>=-])", r"\\\1", html.escape(visible(text), quote=False))
    return re.sub(r"(?<=[a-zA-Z]):(?=//)|(?<=www)\.|@", lambda found: f"&#{ord(found[0])};", escaped)  # nor do addresses become links


def link(address: str) -> str:
    """An address that a person may open: shown in full, so that he sees where it leads. Anything else stays text."""
    return f"<{address}>" if re.fullmatch(r"https?://[!-;=?-~]{1,500}", address) else plain(address)


def code(text: str) -> str:
    """A short text as code within a line."""
    return f"`{one_line(text, 200).replace('`', 'ˋ')}`"


def fenced(text: str, language: str = "") -> str:
    """A text as a block of code, with a fence longer than any inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{visible(text)}\n{fence}"


def summary(
    transcript: Transcript, settings: Settings, *, session_id: str, routine: str, outcome: Outcome | None, address: str = ""
) -> str:
    """The first thing to read: verdict, what was done, what it rests on, and how much of the budget it took."""
    lines = [f"# {SIGNS[outcome.verdict]} {plain(outcome.verdict)}" if outcome else f"# … {plain(standing(transcript))}", ""]
    if outcome:
        lines += [plain(outcome.summary), ""]
        if outcome.evidence:
            lines += ["**Evidence**", "", *(f"- {plain(item)}" for item in outcome.evidence), ""]
        if outcome.links:
            lines += ["**Links**", "", *(f"- {link(address)}" for address in outcome.links), ""]
    if transcript.pushes:
        lines += ["**Pushed**" if not settings.rehearsal else "**Captured (rehearsal, nothing was sent)**", ""]
        lines += [f"- {plain(push['repository'])}: {code(push['branch'])} at {code(push['sha'][:12])}" for push in transcript.pushes] + [""]
    if written := [output for output in transcript.outputs if output["tool"] != "push"]:
        lines += ["**Written**", "", *(f"- {_output_line(output)}" for output in written), ""]
    if transcript.checks:
        lines += [
            "**Checks**",
            "",
            *(f"- {'✓' if c['passed'] else '✗'} {plain(c['repository'])}: {code(c['command'])}" for c in transcript.checks),
            "",
        ]
    budget = raised(settings.budget, transcript.raised)
    lines += ["| | used | budget |", "| --- | --- | --- |", f"| turns | {transcript.turns} | {budget.turns} |"]
    lines += [f"| cost | ${transcript.dollars:.4f} | {f'${budget.dollars:.2f}' if budget.dollars else '-'} |"]
    lines += [f"| tokens | {transcript.total_tokens:,} | {f'{budget.tokens:,}' if budget.tokens else '-'} |"]
    lines += [f"| minutes | {transcript.seconds / 60:.1f} | {budget.minutes:g} |", ""]
    model = transcript.config.get("model_name") or settings.model
    lines += [f"Routine {code(routine)}, session {code(session_id)}, model {plain(model)}."]
    if address:
        lines += ["", f"Live, with approvals and a message box: {link(address)}"]
    if settings.sandbox == "none":
        lines += ["", "**No sandbox**: commands ran unprotected on the worker."]
    return "\n".join(lines)


def standing(transcript: Transcript) -> str:
    """Where a session stands that has no verdict yet."""
    if transcript.cancelled:
        return f"cancelled by {transcript.cancelled['person'] or 'a person'}"
    if transcript.form:
        return f"waits for a person: {subject(transcript.form['kind'], transcript.form['content'])}"
    return "working"


def headlines(transcript: Transcript, outcome: Outcome | None) -> dict[str, str]:
    """One line for each artifact's card: what a person sees without opening it."""
    passed = sum(1 for check in transcript.checks if check["passed"])
    return {
        "summary": plain(one_line(outcome.line if outcome else standing(transcript), 200)),
        "transcript": f"{transcript.turns} turns, {len(transcript.all_calls)} tool calls",
        "usage": f"${transcript.dollars:.4f}, {transcript.total_tokens:,} tokens",
        "checks": f"{passed} passed, {len(transcript.checks) - passed} failed",
        "writes": ", ".join(f"{count} {WORDS[status].replace('*', '')}" for status, count in _statuses(transcript).items()),
        "diff": ", ".join(f"{plain(push['repository'])}: {len(push['files'])} files" for push in transcript.pushes),
    }


def transcript_page(journal: Sequence[JournalEntry]) -> str:
    """The whole conversation, oldest first; when it is too long, its end."""
    parts: list[str] = []
    names: dict[str, str] = {}
    for entry in journal:
        parts.extend(_entry(entry, names))
    kept, size = len(parts), 0
    while kept and size + len(parts[kept - 1]) + 2 <= WHOLE:
        kept -= 1
        size += len(parts[kept]) + 2
    # whole parts only: a cut inside a fence would let out what it holds
    return "\n\n".join([*(["*The beginning is left out here; `routines show` has all of it.*"] if kept else []), *parts[kept:]])


def _entry(entry: JournalEntry, names: dict[str, str]) -> list[str]:
    data = entry.data
    if entry.kind == "user.message":
        return [
            "### Task" if data.get("prompt") else f"### Message from {plain(data['by'] or 'a person')}" if "by" in data else "### Note",
            *(plain(block["text"]) for block in data["content"] if block["type"] == "text"),
        ]
    if entry.kind == "agent.message":
        spoken = [plain(block["text"]) for block in data["content"] if block["type"] == "text"]
        calls = [block for block in data["content"] if block["type"] == "tool_use"]
        names.update({block["id"]: block["name"] for block in calls})
        asked = [fenced(f"{block['name']} {json.dumps(block['input'], ensure_ascii=False)}"[:LONGEST]) for block in calls]
        return [f"### Turn {data['turn']}", *spoken, *asked]
    if entry.kind == "tool.result":
        text = result_text(data["content"])
        mark = " (failed)" if data["is_error"] else ""
        cut = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}\n[...]\n{text[-LONGEST // 2 :]}"
        return [f"**{plain(names.get(data['id'], data['name']))}**{mark}, {data['seconds']:.1f} s", fenced(cut)]
    return [f"*{aside}*"] if (aside := _aside(entry.kind, data)) else []


def _aside(kind: str, data: dict[str, Any]) -> str:
    """What happened beside the conversation, in a line."""
    who = plain(data.get("person") or "somebody")
    tell: dict[str, Callable[[], str]] = {
        "turn.failed": lambda: f"Turn {data['turn']}, attempt {data['attempt']}: {plain(data['error'])}",
        "turn.interrupted": lambda: f"{who} interrupted turn {data['turn']}",
        "session.compacted": lambda: "The conversation up to here was summarised to make room.",
        "form.opened": lambda: f"Waits for a person: {plain(subject(data['kind'], data['content']))}",
        "form.answered": lambda: f"{who} answered: {plain(said(data['answer']))}",
        "session.cancelled": lambda: f"Cancelled by {who}",
    }
    return tell[kind]() if kind in tell else ""


def result_text(content: Any) -> str:
    """The text of a tool result; pictures by name."""
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] if block["type"] == "text" else f"[{block['type']}]" for block in content)


def usage(journal: Sequence[JournalEntry]) -> str:
    """A table of what each turn took."""
    rows = ["| turn | input | cache read | cache write | output | cost |", "| --- | --- | --- | --- | --- | --- |"]
    for entry in journal:
        if entry.kind in ("agent.message", "session.compacted"):
            tokens = entry.data["tokens"]
            turn = entry.data.get("turn", "summary")
            rows.append(
                f"| {turn} | {tokens['input']:,} | {tokens['cache_read']:,} | {tokens['cache_write']:,} | {tokens['output']:,} "
                f"| ${entry.data['dollars']:.4f} |"
            )
    return "\n".join(rows)


def checks(transcript: Transcript) -> str:
    """Each check's command, outcome and output."""
    parts = []
    for check in transcript.checks:
        head = f"### {'✓' if check['passed'] else '✗'} {plain(check['repository'])} at {code(check['sha'][:12])}: {code(check['command'])}"
        parts += [head, f"{check['seconds']:.1f} s, exit status {check['exit_code']}", fenced(check["output"])]
    return "\n\n".join(parts)


def writes(transcript: Transcript) -> str:
    """Every write to the outside, exactly as it was sent, or would have been."""
    parts = []
    for output in transcript.outputs:
        parts += [f"### {_output_line(output)}", *_request(output["request"])]
    return "\n\n".join(parts)


def _request(request: dict[str, Any]) -> list[str]:
    """What was sent: short values in a table, texts of several lines as they are."""
    short, long = [], []
    for name, text in _leaves(request):
        if "\n" in text or len(text) > 80:
            long += [f"**{plain(name)}**", fenced(text)]
        else:
            short.append(f"| {plain(name)} | {code(text).replace('|', '&#124;') if text else ''} |")
    return [*(["\n".join(["| | |", "| --- | --- |", *short])] if short else []), *long]


def _leaves(value: Any, path: str = "") -> list[tuple[str, str]]:
    """The texts and numbers of a request, each with the way to it."""
    if isinstance(value, dict):
        return [leaf for name, item in value.items() for leaf in _leaves(item, f"{path}.{name}" if path else str(name))]
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return [leaf for number, item in enumerate(value, 1) for leaf in _leaves(item, f"{path} {number}")]
    if isinstance(value, list):
        return [(path, ", ".join(map(_shown, value)))]
    return [(path, _shown(value))]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _output_line(output: dict[str, Any]) -> str:
    target = f" to {code(output['target'])}" if output["target"] else ""
    address = f", {link(output['link'])}" if output.get("link") else ""
    return f"{plain(output['tool'])}{target}: {WORDS[output['status']]}{address}"


def _statuses(transcript: Transcript) -> dict[str, int]:
    return Counter(output["status"] for output in transcript.outputs)


def diff(transcript: Transcript) -> str:
    """What left the workspace, per push."""
    parts: list[str] = []
    room = WHOLE
    for push in reversed(transcript.pushes):
        text = push.get("diff", "")[: max(0, room)]
        room -= len(text)
        parts[:0] = [f"### {plain(push['repository'])}: {code(push['branch'])} at {code(push['sha'][:12])}", fenced(text, "diff")]
    return "\n\n".join(parts)
