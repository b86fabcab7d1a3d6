"""A waiting form as a Slack message with buttons, and what a click on one of them carries. Pure.

What others wrote is only put where Slack reads no markup: plain text objects and preformatted rich text. A call of which not everything
can be shown gets no button to approve it: nobody is to approve what they have not seen.
https://docs.slack.dev/reference/block-kit/blocks
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from prefect_routines.notices.told import DECISIONS, Told, calls_digest, decidable, outcome, plain, shown_arguments
from prefect_routines.outgoing import Outgoing
from prefect_routines.outgoing.allowance import Allowance
from prefect_routines.outgoing.text import sanitise
from prefect_routines.visible import one_line

ACTION = "routines.decide."
"""What the id of a button that decides begins with."""
_MOST, _OF_ONE, _CALLS, _ELEMENTS = 8000, 2900, 12, 40  # characters in all, of one call; calls, parts of one; Slack takes 50 blocks
_STYLES = {"approve": {"style": "primary"}, "deny": {"style": "danger"}}
Block = dict[str, Any]


class Click(NamedTuple):
    """What a button carries: no more than says which form, with which calls, and what is decided."""

    form: str
    calls: str
    decision: str

    @classmethod
    def read(cls, value: str) -> Click:
        """From a button's value.

        Raises:
            ValueError: It is none of ours.
        """
        found = json.loads(value)
        if not isinstance(found, list) or len(found) != 3 or not all(isinstance(part, str) for part in found):
            raise ValueError("the button's value is not one of ours")
        return cls(*found)

    @property
    def value(self) -> str:
        """As the button carries it."""
        return json.dumps(list(self))


def message(told: Told) -> dict[str, Any]:
    """`text` (for notifications) and `blocks` of a message. Of a form that is no longer open it says what became of it, without buttons."""
    form = told.form
    blocks = [_section(told.headline)]
    if told.notice.kind == "finished" and told.summary:
        blocks.append(_section(told.summary))
    whole = True
    if form is not None:
        shown, whole = _shown(told)
        blocks += shown
        if closed := outcome(form):
            blocks.append(_section(closed))
    blocks.append(_buttons(told, whole))
    return {"text": slack_text(told.headline), "blocks": blocks}


def slack_text(text: str) -> str:
    """A text of ours or others in which nothing acts."""
    return sanitise(text, Outgoing("slack", 3000), Allowance(outside=True))


def _shown(told: Told) -> tuple[list[Block], bool]:
    """What the form asks, and whether that is all of it."""
    assert told.form is not None
    calls, questions = told.form.content.get("calls", []), told.form.content.get("questions", [])
    blocks: list[Block] = []
    left, whole = _MOST, len(calls) <= _CALLS
    for call in calls[:_CALLS]:
        target = f" → {one_line(plain(str(call['target'])), 200)}" if call["target"] else ""
        blocks.append(_section(f"{one_line(call['tool'], 100)}{target}\n{one_line(plain(str(call['reason'])), 300)}"))
        made, used, all_of_it = _arguments(call["arguments"], min(_OF_ONE, left))
        blocks.append(made)
        left, whole = left - used, whole and all_of_it
    if len(calls) > _CALLS:
        blocks.append(_section(f"and {len(calls) - _CALLS} more calls, on the session's page"))
    blocks += [_section(plain(str(question["question"]))) for question in questions[:_CALLS]]
    if reached := told.form.content.get("reached"):
        blocks.append(_section(plain(str(reached))))
    if not whole:
        blocks.append(_section("Too long to be shown here whole, so it can be approved on the session's page only."))
    return blocks, whole


def _arguments(arguments: Mapping[str, Any], room: int) -> tuple[Block, int, bool]:
    """Each argument's name and, set apart, its value; how many characters that took, and whether it is all of them."""
    elements: list[Block] = []
    used = 0
    for name, value in shown_arguments(arguments):
        fits = len(elements) < _ELEMENTS and used + len(name) + len(value) <= room
        text = value if fits else f"{value[: max(0, room - used - len(name))]}\n[cut, see the session's page]"
        elements.append({"type": "rich_text_section", "elements": [{"type": "text", "text": name, "style": {"bold": True}}]})
        elements.append({"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]})
        used += len(name) + len(text)
        if not fits:
            return {"type": "rich_text", "elements": elements}, used, False
    nothing = {"type": "rich_text_section", "elements": [{"type": "text", "text": "(no arguments)"}]}
    return {"type": "rich_text", "elements": elements or [nothing]}, used, True


def _buttons(told: Told, whole: bool) -> Block:
    form, made = told.form, []
    if form is not None and form.status == "open":
        digest = calls_digest(form.content)
        for decision in decidable(form):
            if whole or decision == "deny":
                button = {"type": "button", "text": _plain(DECISIONS[decision]), "action_id": f"{ACTION}{decision}"}
                made.append(button | {"value": Click(form.id, digest, decision).value} | _STYLES.get(decision, {}))
    made.append({"type": "button", "text": _plain("Open the session"), "action_id": "routines.open", "url": told.url})
    return {"type": "actions", "elements": made}


def _section(text: str) -> Block:
    return {"type": "section", "text": _plain(text)}


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text if len(text) <= _OF_ONE else f"{text[: _OF_ONE - 1]}…", "emoji": False}
