"""What Claude may write in Slack. Each message carries the key of its call, hidden in its metadata, by which it is found again."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from prefect_routines.connectors.beginning import beginning
from prefect_routines.connectors.http import ServiceError
from prefect_routines.connectors.slack.names import Channel, Emoji, FileName, Message, User
from prefect_routines.connectors.slack.reads import SlackReads
from prefect_routines.connectors.slack.web import REMEDIES, Json, SlackError
from prefect_routines.errors import OutcomeUnknown, ToolError
from prefect_routines.outgoing import Outgoing
from prefect_routines.tools.tool import ToolContext, Write, tool

LONGEST = 12_000  # characters; Slack cuts at 40,000
EVENT = "prefect_routine"  # the type of our messages' metadata: https://docs.slack.dev/messaging/message-metadata

Text = Annotated[str, Outgoing("slack", LONGEST)]
Find = Callable[[], Awaitable[str | None]]


class SlackTools(SlackReads):
    """All tools."""

    @tool(target="channel", writes=True, outside=True)
    async def post(self, context: ToolContext, channel: Channel, text: Text) -> Write:
        """Post a message to a channel.

        Args:
            channel: '#name'; an id only of a group's conversation, which has none.
            text: Slack's mrkdwn: *bold*, _italic_, `code`, lists with a dash. No tables, no headings.
        """
        return self._posted(context, await self._web.channel_to_write(channel), text)

    @tool(target=("channel", "thread"), writes=True, outside=True)
    async def reply(self, context: ToolContext, channel: Channel, thread: Message, text: Text) -> Write:
        """Reply to a message, in its thread.

        Args:
            channel: '#name'; an id only of a group's conversation, which has none.
            thread: The message's ts, or the link to it.
            text: Slack's mrkdwn.
        """
        found = await self._web.channel_to_write(channel)
        parent = await self._message_at(found, thread)
        if parent is None:
            raise ToolError(f"{thread} in {channel}: {REMEDIES['thread_not_found']}")
        return self._posted(context, found, text, parent.get("thread_ts") or thread)

    @tool(target="user", writes=True, outside=True)
    async def direct_message(self, context: ToolContext, user: User, text: Text) -> Write:
        """Write to one person.

        Args:
            user: '@name', as slack_users shows it.
            text: Slack's mrkdwn.
        """
        who = await self._web.person_to_write(user)
        payload = self._payload(context, text)

        async def send() -> str:
            opened = await self._web.read("conversations.open", users=who)  # says nothing to anybody, and may be done twice
            return await self._sent(opened["channel"]["id"], payload)

        async def look() -> str | None:
            try:
                opened = await self._web.read("conversations.open", users=who, prevent_creation=True)
            except SlackError as error:
                if error.code == "channel_not_found":
                    return None
                raise
            return await self._look(context, opened["channel"]["id"], payload)

        return Write(request={"method": "chat.postMessage", "user": who, **payload}, send=send, find=_doubting(look))

    @tool(target=("channel", "message"), writes=True, outside=True)
    async def update(self, context: ToolContext, channel: Channel, message: Message, text: Text) -> Write:
        """Change the text of a message that the bot itself wrote.

        Args:
            channel: '#name'; an id only of a group's conversation, which has none.
            message: The message's ts, or the link to it.
            text: The whole new text, Slack's mrkdwn.
        """
        found = await self._web.channel_to_write(channel)
        before = await self._message_at(found, message)
        if before is None:
            raise ToolError(f"{message} in {channel}: {REMEDIES['message_not_found']}")
        if not await self._web.is_mine(before):
            raise ToolError(f"{message} in {channel}: {REMEDIES['cant_update_message']}; reply to it instead")
        payload = {"channel": found, "ts": message, "text": _filled(text), "link_names": False, "metadata": _metadata(context)}

        async def send() -> str:
            await self._web.write("chat.update", **payload)
            return f"Changed. {await self._link(found, message)}".strip()

        async def look() -> str | None:
            now = await self._message_at(found, message)
            if now is not None and (_key(now) == context.key or ("metadata" not in now and _same(now, payload))):
                return f"Changed. {await self._link(found, message)}".strip()
            return None

        return Write(request={"method": "chat.update", **payload}, send=send, find=_doubting(look))

    @tool(target=("channel", "message"), writes=True, outside=True)
    async def react(self, channel: Channel, message: Message, emoji: Emoji) -> Write:
        """Put an emoji under a message.

        Args:
            channel: '#name'; an id only of a group's conversation, which has none.
            message: The message's ts, or the link to it.
            emoji: Its name, e.g. eyes or white_check_mark.
        """
        payload = {"channel": await self._web.channel_to_write(channel), "timestamp": message, "name": emoji}
        done = f":{emoji}: is under the message."

        async def send() -> str:
            try:
                await self._web.write("reactions.add", **payload)
            except SlackError as error:
                if error.code != "already_reacted":
                    raise
            return done

        async def look() -> str | None:
            me = await self._web.me()
            body = await self._web.read("reactions.get", channel=payload["channel"], timestamp=message, full=True)
            found = (body.get("message") or {}).get("reactions") or []
            return done if any(one["name"] == emoji and me["user_id"] in one.get("users", []) for one in found) else None

        return Write(request={"method": "reactions.add", **payload}, send=send, find=_doubting(look))

    @tool(target="channel", writes=True, outside=True)
    async def upload_file(
        self, context: ToolContext, channel: Channel, name: FileName, content: Annotated[str, Outgoing("plain", 500_000)]
    ) -> Write:
        """Upload a text file to a channel.

        Args:
            channel: '#name'; an id only of a group's conversation, which has none.
            name: File name with its ending, e.g. report.md.
            content: The text.
        """
        found = await self._web.channel_to_write(channel)
        data = _filled(content).encode()

        async def send() -> str:
            place = await self._web.read("files.getUploadURLExternal", filename=name, length=len(data))
            await self._web.upload(place["upload_url"], data)
            # only this shows it to anybody: https://docs.slack.dev/messaging/working-with-files#uploading_files
            body = await self._web.write("files.completeUploadExternal", files=[{"id": place["file_id"], "title": name}], channel_id=found)
            return f"Uploaded {name}. {next((file.get('permalink', '') for file in body.get('files') or []), '')}".strip()

        async def look() -> str | None:
            # a file takes no metadata: one of ours of that name and size, shared here since the session began, is taken for it
            async for message in self._since(context, found):
                for file in message.get("files") or []:
                    if await self._web.is_mine(message) and (file.get("name"), file.get("size")) == (name, len(data)):
                        return f"Uploaded {name}. {file.get('permalink', '')}".strip()
            return None

        request = {"method": "files.completeUploadExternal", "channel_id": found, "filename": name, "content": content}
        return Write(request=request, send=send, find=_doubting(look))

    # messages

    def _posted(self, context: ToolContext, channel: str, text: str, thread: str | None = None) -> Write:
        payload = self._payload(context, text) | ({"thread_ts": thread} if thread else {})

        async def send() -> str:
            return await self._sent(channel, payload)

        async def look() -> str | None:
            return await self._look(context, channel, payload)

        return Write(request={"method": "chat.postMessage", "channel": channel, **payload}, send=send, find=_doubting(look))

    def _payload(self, context: ToolContext, text: str) -> Json:
        quiet = {"unfurl_links": False, "unfurl_media": False, "link_names": False}  # an unfurled link is fetched: a way out
        return {"text": _filled(text), **quiet, "metadata": _metadata(context)}

    async def _sent(self, channel: str, payload: Json) -> str:
        body = await self._web.write("chat.postMessage", channel=channel, **payload)
        return await self._told(channel, str(body.get("ts")))

    async def _told(self, channel: str, ts: str) -> str:
        return f"Sent as {ts} in {channel}. {await self._link(channel, ts)}".strip()

    async def _look(self, context: ToolContext, channel: str, payload: Json) -> str | None:
        """The message of this call, by its key.

        Where Slack does not show metadata (that may take the scope metadata.message:read), one of ours with the same text in the same
        place is taken for it.
        """
        async for message in self._since(context, channel, payload.get("thread_ts")):
            if not await self._web.is_mine(message):
                continue
            if _key(message) == context.key or ("metadata" not in message and _same(message, payload)):
                return await self._told(channel, message["ts"])
        return None

    async def _since(self, context: ToolContext, channel: str, thread: str | None = None) -> Any:
        """The messages of a channel or thread that were written since the session began."""
        where: Json = {"channel": channel, "oldest": f"{beginning(context.session_id):.6f}"} | ({"ts": thread} if thread else {})
        method = "conversations.replies" if thread else "conversations.history"
        try:
            async for message in self._web.pages(method, "messages", include_all_metadata=True, **where):
                yield message
        except SlackError as error:
            if error.code != "missing_scope" or "metadata" not in str(error):
                raise
            async for message in self._web.pages(method, "messages", **where):
                yield message

    async def _message_at(self, channel: str, ts: str) -> Json | None:
        """One message, a reply or not."""
        where = {"channel": channel, "ts": ts, "oldest": ts, "latest": ts, "inclusive": True, "limit": 10}
        try:
            body = await self._web.read("conversations.replies", include_all_metadata=True, **where)
        except SlackError as error:
            if error.code in ("thread_not_found", "message_not_found"):
                return None
            if error.code != "missing_scope" or "metadata" not in str(error):
                raise
            body = await self._web.read("conversations.replies", **where)
        found: list[Json] = body["messages"]
        return next((message for message in found if message.get("ts") == ts), None)

    async def _link(self, channel: str, ts: str) -> str:
        """Where a message can be seen. It was sent, whether its link can be had or not."""
        try:
            return str((await self._web.read("chat.getPermalink", channel=channel, message_ts=ts))["permalink"])
        except (ToolError, LookupError):
            return ""


def _filled(text: str) -> str:
    if not text.strip():
        raise ToolError("not sent: the text is empty")
    return text


def _metadata(context: ToolContext) -> Json:
    return {"event_type": EVENT, "event_payload": {"key": context.key}}


def _key(message: Json) -> str | None:
    metadata = message.get("metadata") or {}
    return (metadata.get("event_payload") or {}).get("key") if metadata.get("event_type") == EVENT else None


def _same(message: Json, payload: Json) -> bool:
    """Whether it has this text; Slack puts addresses into angle brackets."""
    plain = re.sub(r"<((?:https?|mailto):[^|>]+)(?:\|[^>]*)?>", r"\1", message.get("text", ""))
    ours = re.sub(r"<((?:https?|mailto):[^|>]+)(?:\|[^>]*)?>", r"\1", payload["text"])
    return bool(plain.strip() == ours.strip())


def _doubting(look: Find) -> Find:
    """A look-up that fails says nothing about what was looked for."""

    async def find() -> str | None:
        try:
            return await look()
        except ServiceError as error:
            raise OutcomeUnknown(f"{error}; whether it was sent is unknown") from error

    return find
