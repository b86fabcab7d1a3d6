"""Asks people in Slack: posts a message with buttons, and takes the buttons away when the form is closed, wherever that happened."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from prefect_routines.connectors.slack import Slack
from prefect_routines.connectors.slack.names import Channel
from prefect_routines.connectors.slack.web import Web
from prefect_routines.connectors.slack.writes import EVENT
from prefect_routines.errors import SettingsError
from prefect_routines.notices.slack_message import message, slack_text
from prefect_routines.notices.told import Told
from prefect_routines.store import Notice
from prefect_routines.visible import one_line

_QUIET = {"unfurl_links": False, "unfurl_media": False, "link_names": False}


async def post(block: Slack, name: str, told: Told, whom: str) -> str:
    """Post a notice. Returns its place, `CHANNEL TS`.

    Args:
        name: Of the block.
        whom: The channel that was named; empty: the block's own.

    Raises:
        SettingsError: No channel is named, or it is none.
        ToolError: Slack did not take it.
    """
    web = block.web(name)
    try:
        channel = await web.channel(_channel(name, whom or block.default_channel or ""))
        if told.notice.attempts > 1 and (known := await _posted(web, channel, told.notice)):
            return f"{channel} {known}"
        metadata = {"event_type": EVENT, "event_payload": {"key": told.notice.id}}
        answer = await web.write("chat.postMessage", channel=channel, metadata=metadata, **_QUIET, **message(told))
        return f"{channel} {answer['ts']}"
    finally:
        await web.close()


async def close(block: Slack, name: str, told: Told, place: str) -> None:
    """Show in a message what became of its form; there is nothing to click any more.

    Raises:
        ToolError: Slack did not take it.
    """
    channel, _, ts = place.partition(" ")
    web = block.web(name)
    try:
        await web.write("chat.update", channel=channel, ts=ts, **message(told))
    finally:
        await web.close()


async def whisper(block: Slack, name: str, channel: str, user: str, text: str) -> None:
    """Say something to one person in a channel that nobody else there sees.

    Raises:
        ToolError: Slack did not take it.
    """
    web = block.web(name)
    try:
        await web.write("chat.postEphemeral", channel=channel, user=user, text=slack_text(text))
    finally:
        await web.close()


def _channel(name: str, given: str) -> str:
    if not given:
        raise SettingsError(f"slack/{name} names no default channel; name one: notify=['slack/{name}#CHANNEL']")
    try:
        channel: str = TypeAdapter(Channel).validate_python(given)
    except ValidationError:
        raise SettingsError(f"{one_line(given, 60)!r} names no channel of slack/{name}") from None
    return channel


async def _posted(web: Web, channel: str, notice: Notice) -> str | None:
    """The message of an earlier attempt, by its key: that one may have been sent, and its sender died."""
    oldest = f"{notice.created_at.timestamp() - 60:.6f}"
    async for found in web.pages("conversations.history", "messages", channel=channel, oldest=oldest, include_all_metadata=True):
        payload = (found.get("metadata") or {}).get("event_payload") or {}
        if payload.get("key") == notice.id and await web.is_mine(found):
            return str(found["ts"])
    return None
