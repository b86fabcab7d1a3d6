"""A session's journal as the items of its page: what was asked and said, each call with its result. A fold, like the transcript. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect_routines.gateway.markup import Element, Node, tag
from prefect_routines.session.page import result_text
from prefect_routines.session.transcript import JournalEntry, Transcript
from prefect_routines.steering.form import subject
from prefect_routines.visible import one_line

SHOWN = 6_000
"""Characters of one text on the page; all of it is one click away."""
FOLDED = 600
"""Characters of a result that stand there unfolded."""
_MARK = re.compile(r"\A\[Message from [^\]\n]*\]\n")  # for Claude; the page says it in its own way
MAIN = ("command", "path", "pattern", "repository", "url", "verdict")


@dataclass
class Item:
    """A piece of the page.

    Attributes:
        id: Its place; a later piece with the same id takes it over.
        seq: The newest entry that it shows.
    """

    id: str
    seq: int
    node: Element


@dataclass
class _Asked:
    """A call of Claude's, as far as it has come."""

    item: str
    block: dict[str, Any]
    seq: int
    started: bool = False
    result: dict[str, Any] | None = None


@dataclass
class TranscriptView:
    """The items of a page, and the state of the session, after some entries.

    Example:
        ```python
        view = TranscriptView("ses-1")
        for entry in await store.entries("ses-1"):
            view.apply(entry.seq, entry)
        ```
    """

    session_id: str
    items: dict[str, Item] = field(default_factory=dict)
    transcript: Transcript = field(default_factory=Transcript)
    seq: int = 0
    _asked: dict[str, _Asked] = field(default_factory=dict)

    def apply(self, seq: int, entry: JournalEntry) -> None:
        """Take one more entry in. One that cannot be shown is left out, never the page."""
        self.seq = seq
        try:
            self.transcript.apply(entry)
            self._show(seq, entry)
        except (KeyError, TypeError, AttributeError, ValueError):  # written by another version
            self._put(f"e{seq}", seq, _note(f"({entry.kind}: this version cannot show it)"))

    def since(self, seq: int) -> list[Item]:
        """The items that changed after an entry, in order."""
        return [item for item in self.items.values() if item.seq > seq]

    def _put(self, place: str, seq: int, node: Element) -> None:
        self.items[place] = Item(place, seq, node)

    def _show(self, seq: int, entry: JournalEntry) -> None:
        data, place = entry.data, f"e{seq}"
        match entry.kind:
            case "user.message":
                self._put(place, seq, self._said(seq, data))
            case "agent.message":
                self._put(place, seq, self._turn(seq, data))
                for number, block in enumerate(block for block in data["content"] if block["type"] == "tool_use"):
                    asked = self._asked[block["id"]] = _Asked(f"c{seq}-{number}", block, seq)
                    self._put(asked.item, seq, self._call(asked))
            case "tool.start" | "tool.result" if data["id"] in self._asked:
                asked = self._asked[data["id"]]
                asked.started, asked.seq = True, seq
                asked.result = data if entry.kind == "tool.result" else asked.result
                self._put(asked.item, seq, self._call(asked))
            case "form.opened":
                self._put(place, seq, _note(f"Asks a person: {_asked(data)}"))
            case "form.answered":
                self._put(place, seq, _note(_answered(data)))
            case "session.verdict":
                self._put(place, seq, _verdict(data))
            case _:
                if line := _line(entry.kind, data):
                    self._put(place, seq, _note(line))

    def _said(self, seq: int, data: Mapping[str, Any]) -> Element:
        text = "\n".join(block["text"] for block in data["content"] if block["type"] == "text")
        who = _by(data)
        if who:
            text = _MARK.sub("", text)
        head = "Task" if data.get("prompt") else f"Message from {who}" if who else "Note to Claude"
        kind = "said person" if who else "said task" if data.get("prompt") else "said note"
        return tag("article", tag("h3", head), self._text(text, seq, long=1500), class_=kind)

    def _turn(self, seq: int, data: Mapping[str, Any]) -> Element:
        parts: list[Node] = [tag("h3", f"Turn {data['turn']}", tag("small", f"${data.get('dollars', 0.0):.4f}"))]
        for block in data["content"]:
            if block["type"] == "text" and block["text"].strip():
                parts.append(self._text(block["text"], seq, long=SHOWN))
            elif block["type"] == "thinking" and block.get("thinking"):
                thought = tag("div", block["thinking"][:SHOWN], class_="text")
                parts.append(tag("details", tag("summary", "Thought"), thought, class_="thought"))
        if data.get("stop_reason") in ("refusal", "max_tokens"):
            parts.append(tag("p", f"Stopped: {data['stop_reason']}", class_="flaw"))
        return tag("article", parts, class_="turn")

    def _text(self, text: str, seq: int, *, long: int) -> Element:
        if len(text) <= long:
            return tag("div", text.strip("\n"), class_="text")
        whole = tag("p", tag("a", f"all {len(text):,} characters", href=self._whole(seq)), class_="more")
        return tag("details", tag("summary", one_line(text, 160)), tag("div", _middle_out(text), class_="text"), whole, class_="long")

    def _whole(self, seq: int) -> str:
        return f"/sessions/{self.session_id}/entries/{seq}"

    def _call(self, asked: _Asked) -> Element:
        block, result = asked.block, asked.result
        state, mark, spoken = "waiting", "·", "waiting"
        note = ""
        if result is not None:
            note = str(result.get("note") or "")
            failed = bool(result["is_error"]) or note.startswith("exit ")
            state, mark, spoken = ("failed", "✗", "failed") if failed else ("ok", "✓", "done")
        elif asked.started:
            state, mark, spoken = "running", "…", "running"
        seconds = tag("small", f"{result['seconds']:.1f} s" if result else spoken, class_="took")
        title = call_title(block["name"], block["input"])
        head = tag(
            "summary",
            tag("span", mark, class_="mark", role="img", aria_label=spoken),
            tag("span", title, tag("small", one_line(note, 100), class_="what") if note and note not in title else None, class_="title"),
            seconds,
        )
        body: list[Node] = [_arguments(block["input"])]
        if result is not None:
            text = result_text(result["content"])
            if text.strip():
                body.append(tag("pre", _middle_out(text, SHOWN), class_="result"))
            if len(text) > SHOWN:
                body.append(tag("p", tag("a", f"all {len(text):,} characters", href=self._whole(asked.seq)), class_="more"))
            body += [_check(check) for check in result.get("data", {}).get("checks", [])]
        return tag("details", head, body, class_=f"call {state}", open=state == "failed" and len(body) > 1)


def call_title(name: str, arguments: Any) -> str:
    """A call in one line, as on the run page: `bash: pytest -q`."""
    if not isinstance(arguments, Mapping) or not arguments:
        return one_line(name)
    chosen = next((arguments[key] for key in MAIN if key in arguments), next(iter(arguments.values())))
    return one_line(f"{name}: {chosen}", 110)


def shown(value: Any) -> str:
    """A value of a call as text for a person."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)


def _arguments(arguments: Any) -> Element:
    if not isinstance(arguments, Mapping):
        return tag("pre", _middle_out(shown(arguments)), class_="arguments")
    pairs = [[tag("dt", one_line(str(name), 60)), tag("dd", tag("pre", _middle_out(shown(value))))] for name, value in arguments.items()]
    return tag("dl", *pairs, class_="arguments")


def _check(check: Mapping[str, Any]) -> Element:
    mark = "✓" if check["passed"] else "✗"
    head = tag("summary", tag("span", mark, class_="mark"), tag("span", f"check {check['repository']}: {one_line(check['command'])}"))
    state = "ok" if check["passed"] else "failed"
    return tag("details", head, tag("pre", _middle_out(check["output"])), class_=f"check {state}", open=not check["passed"])


def _verdict(data: Mapping[str, Any]) -> Element:
    words = str(data["verdict"]).replace("_", " ")
    rehearsal = " (rehearsal: nothing was sent)" if data.get("rehearsal") else ""
    evidence = [tag("li", item) for item in data.get("evidence", [])]
    head = tag("h3", f"Verdict: {words}{rehearsal}")
    return tag("article", head, tag("div", data["summary"], class_="text"), tag("ul", evidence) if evidence else None, class_="end")


def _note(line: str) -> Element:
    return tag("p", line, class_="event")


def _by(data: Mapping[str, Any]) -> str:
    """Who did something, and from where, if a person did."""
    person, via = data.get("person") or data.get("by"), data.get("via")
    return one_line(f"{person} ({via})" if via else str(person), 80) if person else ""


def _line(kind: str, data: Mapping[str, Any]) -> str | None:
    """What became of the session, in one line; None for what nobody needs to see."""
    match kind:
        case "workspace.ready":
            cloned = [f"{each['name']} ({each['branch']} @ {each['base_sha'][:12]})" for each in data["repositories"]]
            return f"Cloned {', '.join(cloned)}" if cloned else None
        case "session.status_running":
            return "Goes on where it was" if data.get("again") else None
        case "turn.failed":
            return f"Turn {data['turn']}, attempt {data['attempt']}: {one_line(data['error'], 300)}"
        case "session.compacted":
            return "The conversation was summarised to make room"
        case "session.suspend_asked":
            return f"{_by(data) or 'Somebody'} suspended the session"
    return _did(kind, data)


def _did(kind: str, data: Mapping[str, Any]) -> str | None:
    """What a person did, in one line; None if it was nobody."""
    if not (who := _by(data)):
        return None
    what = kind.replace(".", " ").replace("_", " ")
    more = next((data[key] for key in ("text", "message", "decision", "action", "reason") if isinstance(data.get(key), str)), "")
    return f"{what[:1].upper()}{what[1:]} by {who}{f': {one_line(more, 300)}' if more else ''}"


def _asked(data: Mapping[str, Any]) -> str:
    """What a form is about."""
    content = data["content"]
    if data["kind"] == "budget":
        return one_line(f"used up: {content['reached']}", 300)
    if data["kind"] == "pause":
        return subject("pause", content)
    titles = [call["title"] for call in content.get("calls", [])] + [one["question"] for one in content.get("questions", [])]
    return one_line("; ".join(titles), 300) or "what now?"


def _answered(data: Mapping[str, Any]) -> str:
    """What was decided, by whom."""
    answer = data["answer"]
    said = []
    for one in answer.get("decisions", {}).values():
        reason = f" ({one['reason']})" if one.get("reason") else ""
        changed = ", with changed arguments" if one.get("arguments") is not None else ""
        said.append(f"{one['decision'].replace('_', ' ')}{changed}{reason}")
    said += list(answer.get("replies", {}).values())
    said += [answer["action"]] if answer.get("action") else []
    said += [f"{value:g} more {name}" for name, value in answer.get("raise", {}).items()]
    return one_line(f"{_by(data) or 'Nobody'}: {'; '.join(said) or 'no answer'}", 400)


def _middle_out(text: str, room: int = SHOWN) -> str:
    if len(text) <= room:
        return text
    return f"{text[: room // 2]}\n[… {len(text) - room:,} characters …]\n{text[-room // 2 :]}"
