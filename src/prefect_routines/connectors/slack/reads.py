"""What Claude may read in Slack: channels, messages, people."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from prefect_routines.connectors.connector import Toolset
from prefect_routines.connectors.moment import moment
from prefect_routines.connectors.slack.names import Channel, Message, User
from prefect_routines.connectors.slack.web import REMEDIES, Json, Web, next_cursor
from prefect_routines.errors import ToolError
from prefect_routines.tools.paging import window
from prefect_routines.tools.tool import tool
from prefect_routines.visible import visible

PAGE = 50  # messages of one answer


class SlackReads(Toolset):
    """The tools that change nothing."""

    def __init__(self, web: Web) -> None:
        self._web = web

    @tool(idempotent=True, outside=True)
    async def channels(self, cursor: str | None = None) -> str:
        """List the channels that the bot can see, one JSON object a line.

        Args:
            cursor: Where to go on, from the last line of the answer before.
        """
        body = await self._web.read(
            "conversations.list", types="public_channel,private_channel", exclude_archived=True, limit=200, cursor=cursor
        )
        return _lines(map(_channel, body["channels"]), body)

    @tool(idempotent=True, outside=True)
    async def history(
        self, channel: Channel, oldest: str | None = None, latest: str | None = None, cursor: str | None = None, offset: int = 0
    ) -> str:
        """Read a channel's messages, newest first, one JSON object a line; replies are read with `thread`.

        Args:
            channel: '#name', or an id.
            oldest: Only messages after this time: 'now-1d', 2026-03-31T09:00:00+02:00, or a message's ts.
            latest: Only messages before this time.
            cursor: Where to go on, from the last line of the answer before.
            offset: Character to start from, when the answer was too long for one call.
        """
        between = {name: f"{moment(value, name):.6f}" for name, value in (("oldest", oldest), ("latest", latest)) if value}
        found = await self._web.channel(channel)
        body = await self._web.read("conversations.history", channel=found, **between, limit=PAGE, cursor=cursor)
        return await self._messages(body["messages"], body, offset)

    @tool(idempotent=True, outside=True)
    async def thread(self, channel: Channel, thread: Message, cursor: str | None = None, offset: int = 0) -> str:
        """Read a message and the replies to it, oldest first, one JSON object a line.

        Args:
            channel: '#name', or an id.
            thread: The message's ts, or the link to it.
            cursor: Where to go on, from the last line of the answer before.
            offset: Character to start from, when the answer was too long for one call.
        """
        found = await self._web.channel(channel)
        body = await self._web.read("conversations.replies", channel=found, ts=thread, limit=PAGE, cursor=cursor)
        if not body["messages"]:
            raise ToolError(f"{thread} in {channel}: {REMEDIES['thread_not_found']}")
        return await self._messages(body["messages"], body, offset)

    @tool(idempotent=True, outside=True)
    async def search(self, query: str, page: int = 1, offset: int = 0) -> str:
        """Search messages, newest first. Slack allows that to user tokens only; with a bot's, read channels with `history`.

        Args:
            query: What to look for, with Slack's modifiers: 'deploy failed in:#ops from:@jane after:2026-03-01'.
            page: Page of the results, from 1.
            offset: Character to start from, when the answer was too long for one call.
        """
        body = await self._web.read("search.messages", query=query, sort="timestamp", count=20, page=page)
        found = body["messages"]
        lines = [
            {**await self._message(match), "channel": f"#{match['channel']['name']}", "link": match.get("permalink")}
            for match in found["matches"]
        ]
        more = f"\n[more: page={page + 1}]" if page < found.get("paging", {}).get("pages", 0) else ""
        return window(_lines(lines, {}) + more, offset)

    @tool(idempotent=True, outside=True)
    async def users(self, cursor: str | None = None) -> str:
        """List the people and bots of the workspace, one JSON object a line.

        Args:
            cursor: Where to go on, from the last line of the answer before.
        """
        body = await self._web.read("users.list", limit=200, cursor=cursor)
        return _lines((_user(user) for user in body["members"] if not user.get("deleted")), body)

    @tool(idempotent=True, outside=True)
    async def user(self, user: User) -> str:
        """Look a person up.

        Args:
            user: '@name', e-mail address, or id as in a mention <@U012AB3CD>.
        """
        found = await self._web.read("users.info", user=await self._web.user(user))
        return _shown(_user(found["user"]))

    async def _messages(self, messages: list[Json], body: Json, offset: int) -> str:
        await asyncio.gather(*(self._web.handle(user) for user in {message["user"] for message in messages if message.get("user")}))
        return window(_lines([await self._message(message) for message in messages], body), offset)

    async def _message(self, message: Mapping[str, Any]) -> Json:
        """What matters of a message."""
        ts = str(message.get("ts") or "0")
        by = f"{await self._web.handle(message['user'])} {message['user']}" if message.get("user") else ""
        bot = message.get("username") or (message.get("bot_profile") or {}).get("name") or message.get("bot_id")
        shown: Json = {
            "ts": ts,
            "time": datetime.fromtimestamp(float(ts), UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            "by": by or (f"bot {bot}" if bot else "?"),
            "text": message.get("text", ""),
        }
        if message.get("thread_ts") not in (None, ts):
            shown["thread"] = message["thread_ts"]
        shown["replies"] = message.get("reply_count") or None
        shown["reactions"] = {reaction["name"]: reaction.get("count", 1) for reaction in message.get("reactions") or []}
        shown["files"] = [file.get("name") or file.get("id") for file in message.get("files") or []]
        shown["attachments"] = [item.get("fallback") or item.get("text") or item.get("title") for item in message.get("attachments") or []]
        return shown


def _channel(channel: Mapping[str, Any]) -> Json:
    return {
        "name": f"#{channel.get('name')}",  # and no id: rules know channels by their names
        "private": channel.get("is_private") or None,
        "bot_is_in_it": channel.get("is_member"),
        "people": channel.get("num_members"),
        "topic": (channel.get("topic") or {}).get("value"),
        "purpose": (channel.get("purpose") or {}).get("value"),
    }


def _user(user: Mapping[str, Any]) -> Json:
    profile = user.get("profile") or {}
    return {
        "id": user["id"],
        "name": f"@{user.get('name')}",
        "real_name": user.get("real_name") or profile.get("real_name"),
        "title": profile.get("title"),
        "email": profile.get("email"),
        "time_zone": user.get("tz"),
        "bot": user.get("is_bot") or None,
        "deleted": user.get("deleted") or None,
    }


def _lines(items: Iterable[Json], body: Mapping[str, Any]) -> str:
    """One JSON object a line: what people wrote cannot pass for a line of its own."""
    cursor = next_cursor(body)
    lines = [_shown(item) for item in items] or ["Nothing."]
    return "\n".join([*lines, *([f"[more: cursor={visible(cursor)}]"] if cursor else [])])


def _shown(item: Json) -> str:
    kept = {name: value for name, value in item.items() if value not in (None, "", [], {})}
    return visible(json.dumps(kept, ensure_ascii=False))
