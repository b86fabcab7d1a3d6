"""Asks and tells people by e-mail: one message to each, with links that are theirs alone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from email.policy import SMTP as WIRE
from urllib.parse import quote

from prefect_routines.config import config
from prefect_routines.connectors.email import Email, MailServer, plain_message
from prefect_routines.errors import SettingsError
from prefect_routines.notices.links import AnswerLink
from prefect_routines.notices.told import DECISIONS, Told, arguments_text, calls_digest, decidable, plain
from prefect_routines.outgoing import Outgoing
from prefect_routines.outgoing.allowance import Allowance
from prefect_routines.outgoing.text import sanitise
from prefect_routines.store import Form
from prefect_routines.visible import one_line

_LONGEST = 20_000  # characters of what a form asks; all of it is on the page that a link opens
_WEEK = 7 * 86_400
_TIMEOUT = 15.0  # seconds for each answer of the mail server


def recipients(block: Email, name: str) -> list[str]:
    """Who is told when a routine names a block and nobody.

    Raises:
        SettingsError: The block names hosts only.
    """
    found = [address for address in block.recipients if not address.startswith("*")]
    if not found:
        raise SettingsError(f"email/{name} declares no whole address; say who is told: notify=['email/{name}#ada@acme.com']")
    return found


async def send(block: Email, name: str, told: Told, whom: str, key: bytes) -> str:
    """Send a notice to one person. Returns what the mail server said.

    Args:
        name: Of the block.
        whom: Address.
        key: Signs the links.

    Raises:
        SettingsError: The block does not declare that person.
        ToolError: The mail server did not take it, or did not say so.
    """
    whom = whom.lower()
    if not block.declares(whom):
        raise SettingsError(f"{one_line(whom, 80)} is no declared recipient of email/{name}; add it to the block")
    message = plain_message(block.sender, [whom], one_line(told.headline, 150), body(told, whom, key), told.notice.id)
    server = MailServer(block.credentials, f"email/{name}", _TIMEOUT)
    said = await asyncio.to_thread(server.send, block.sender, [whom], message.as_bytes(policy=WIRE))
    return f"the mail server took it ({said})"


def body(told: Told, whom: str, key: bytes) -> str:
    """The text. What others wrote is defanged, so that no mail program makes a link of it; ours come last."""
    parts = [f"{told.headline}."]
    if told.notice.kind == "finished" and told.summary:
        parts.append(_harmless(told.summary))
    if told.form is not None:
        parts += _asked(told.form)
        if links := answer_links(told.form, whom, key):
            until = datetime.fromtimestamp(_until(told.form), UTC)
            parts.append("\n\n".join(f"{DECISIONS[decision]}:\n{link}" for decision, link in links.items()))
            parts.append(f"Each link shows what will be done and asks once more. They are for you alone, until {until:%Y-%m-%d %H:%M} UTC.")
    parts.append(f"The session:\n{told.url}")
    return "\n\n".join(parts) + "\n"


def answer_links(form: Form, whom: str, key: bytes) -> dict[str, str]:
    """One person's links, by decision."""
    base, digest = config().gateway_url.rstrip("/"), calls_digest(form.content)
    made = {one: AnswerLink(form.id, digest, one, whom, _until(form)).signed(key) for one in decidable(form)}
    return {decision: f"{base}/answer?t={quote(token)}" for decision, token in made.items()}


def _until(form: Form) -> int:
    week = form.created_at.timestamp() + _WEEK
    return int(min(week, form.expires_at) if form.expires_at is not None else week)


def _asked(form: Form) -> list[str]:
    parts = []
    for call in form.content.get("calls", []):
        target = f" -> {one_line(plain(str(call['target'])), 200)}" if call["target"] else ""
        lines = arguments_text(call["arguments"]).replace("\n", "\n    ")
        parts.append(f"{one_line(call['tool'], 100)}{target} ({one_line(plain(str(call['reason'])), 300)})\n\n    {lines}")
    parts += [plain(str(question["question"])) for question in form.content.get("questions", [])]
    if reached := form.content.get("reached"):
        parts.append(plain(str(reached)))
    return [_harmless("\n\n".join(parts))] if parts else []


def _harmless(text: str) -> str:
    return sanitise(text, Outgoing("mail", _LONGEST), Allowance(outside=True))
