"""Slack's Web API: one call, its errors in one line, and the names of channels and people.

https://docs.slack.dev/apis/web-api/
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from prefect_routines.connectors.http import Answer, Api, ServiceError
from prefect_routines.errors import OutcomeUnknown, ToolError
from prefect_routines.visible import one_line

Json = dict[str, Any]

RENEW = "renew the token of its slack-credentials"
REMEDIES = {
    "invalid_auth": RENEW,
    "not_authed": RENEW,
    "account_inactive": RENEW,
    "token_revoked": RENEW,
    "token_expired": RENEW,
    "channel_not_found": "there is no such channel, or the bot cannot see it: see slack_channels; into a private one it must be invited",
    "not_in_channel": "invite the bot there: /invite and its name",
    "is_archived": "the channel is archived; use another",
    "message_not_found": "there is no such message in that channel; see slack_history",
    "thread_not_found": "there is no such thread in that channel; see slack_history",
    "cant_update_message": "only messages of our own can be changed",
    "edit_window_closed": "it is too old to be changed; reply to it",
    "user_not_found": "there is nobody of that name; see slack_users",
    "users_not_found": "there is nobody with that address; see slack_users",
    "direct_message": "that is a conversation with one person; use slack_direct_message and the person's '@name'",
    "cannot_dm_bot": "that is a bot; write to a person",
    "invalid_name": "there is no such emoji in this workspace",
    "invalid_cursor": "give the cursor of the last answer, or none",
    "not_allowed_token_type": "this needs a user token (xoxp-...), and its slack-credentials hold another one",
    "restricted_action": "an administrator has restricted that; the author has to ask for it",
    "ratelimited": "too many requests; do something else for a minute",
    "rate_limited": "too many messages; do something else for a minute",
}
# "It's possible some aspect of the operation succeeded before the error was raised": https://docs.slack.dev/reference/methods/chat.postMessage
DOUBTFUL = ("internal_error", "fatal_error")
PAGES = 50  # of a list that is searched for a name


class SlackError(ServiceError):
    """Slack answered that it will not.

    Args:
        message: One line.
        code: Slack's name of the error.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message, 200)
        self.code = code


class Web:
    """The Web API, for one session.

    Args:
        api: How it is reached and logged in to.
        files: The same without the login: files go to an address that is a secret itself.
    """

    def __init__(self, api: Api, files: Api) -> None:
        self.api, self._files = api, files
        self._channels: dict[str, str] = {}
        self._users: dict[str, str] = {}
        self._me: Json | None = None
        self._scopes: frozenset[str] = frozenset()

    async def close(self) -> None:
        """End the connections."""
        await self.api.close()
        await self._files.close()

    async def read(self, method: str, **arguments: Any) -> Json:
        """Call a method that changes nothing, or nothing that would count when done twice.

        Raises:
            SlackError: Slack refused.
            ServiceError: It cannot be had.
        """
        answer = await self.api.ask("POST", f"/{method}", data=_form(arguments))
        return self._body(answer, method)

    async def write(self, method: str, **arguments: Any) -> Json:
        """Call a method that changes something.

        Raises:
            SlackError: Slack refused; nothing was changed.
            OutcomeUnknown: It may have been done.
        """
        answer = await self.api.send("POST", f"/{method}", data=_form(arguments))
        try:
            return self._body(answer, method)
        except SlackError as error:
            if error.code not in DOUBTFUL:
                raise
            raise OutcomeUnknown(f"{error}; whether it was carried out is unknown") from error
        except ServiceError as error:
            raise OutcomeUnknown(f"Slack's answer to {method} cannot be read; whether it was carried out is unknown") from error

    async def upload(self, address: str, content: bytes) -> None:
        """Put a file's content where `files.getUploadURLExternal` said. Nobody sees it before the upload is completed."""
        ours, theirs = urlsplit(self.api.base_url), urlsplit(address)
        if theirs.scheme != ours.scheme or not f".{theirs.hostname}".endswith(f".{ours.hostname}"):
            raise ServiceError(f"Slack wants files at {one_line(address, 80)}, which is not its own address; nothing was sent")
        await self._files.ask("POST", address, content=content)

    async def pages(self, method: str, field: str, limit: int = 200, **arguments: Any) -> AsyncIterator[Json]:
        """The items of a list, page by page."""
        cursor = None
        for _ in range(PAGES):
            body = await self.read(method, limit=limit, cursor=cursor, **arguments)
            for item in body.get(field, []):
                yield item
            cursor = next_cursor(body)
            if not cursor:
                return

    async def me(self) -> Json:
        """Whose token it is: `user_id`, and `bot_id` of a bot."""
        if self._me is None:
            answer = await self.api.ask("POST", "/auth.test", data={})
            self._me = self._body(answer, "auth.test")
            self._scopes = frozenset(scope.strip() for scope in answer.headers.get("x-oauth-scopes", "").split(",") if scope.strip())
        return self._me

    async def scopes(self) -> frozenset[str]:
        """What the token may do; empty if Slack does not say so."""
        await self.me()
        return self._scopes

    async def is_mine(self, message: Mapping[str, Any]) -> bool:
        """Whether a message was written with this token."""
        me = await self.me()
        return message.get("user") == me["user_id"] or bool(me.get("bot_id") and message.get("bot_id") == me["bot_id"])

    async def channel(self, name: str) -> str:
        """The id of a channel, from '#name' or an id.

        Raises:
            ToolError: There is none.
        """
        if not name.startswith("#"):
            return name
        if name not in self._channels:
            for types in ("public_channel,private_channel", "public_channel"):
                try:
                    found = [item async for item in self.pages("conversations.list", "channels", 1000, types=types, exclude_archived=True)]
                except SlackError as error:
                    if error.code != "missing_scope" or types == "public_channel":
                        raise
                    continue  # without groups:read there are the public ones
                self._channels = {f"#{item['name']}": item["id"] for item in found if item.get("name")}
                break
        if name not in self._channels:
            raise ToolError(f"{name}: {REMEDIES['channel_not_found']}")
        return self._channels[name]

    async def channel_to_write(self, name: str) -> str:
        """The id of a channel that a rule knows by one name only: what has a '#name' is not taken by its id.

        Raises:
            ToolError: There is none, or it has another name; the text says which.
        """
        if name.startswith("#"):
            return await self.channel(name)
        if name.startswith("D"):
            raise ToolError(f"{name}: {REMEDIES['direct_message']}")
        # https://docs.slack.dev/reference/objects/conversation-object
        found = (await self.read("conversations.info", channel=name))["channel"]
        if found.get("is_im"):
            raise ToolError(f"{name}: {REMEDIES['direct_message']}")
        if found.get("name") and not found.get("is_mpim"):  # the name of a group's conversation leads nowhere
            raise ToolError(f"{name} is #{one_line(str(found['name']), 80)}: use that name, rules name channels so")
        return name

    async def person_to_write(self, name: str) -> str:
        """The id of a person that a rule knows by one name only: who has an '@name' is not taken by id or address.

        Raises:
            ToolError: There is nobody, or the person has another name; the text says which.
        """
        who = await self.user(name)
        if name.startswith("@"):
            return who
        found = (await self.read("users.info", user=who))["user"]
        if right := f"@{one_line(str(found['name']).lower(), 80)}" if found.get("name") else who if name != who else "":
            raise ToolError(f"{name} is {right}: use that name, rules name people so")
        return who

    async def user(self, name: str) -> str:
        """The id of a person, from '@name', an address or an id.

        Raises:
            ToolError: There is nobody.
        """
        if not name.startswith("@"):
            return str((await self.read("users.lookupByEmail", email=name))["user"]["id"]) if "@" in name else name
        async for item in self.pages("users.list", "members", 1000):
            if f"@{item.get('name', '').lower()}" == name and not item.get("deleted"):
                return str(item["id"])
        raise ToolError(f"{name}: {REMEDIES['user_not_found']}")

    async def handle(self, user: str) -> str:
        """'@jane' of an id; the id itself where names may not be read."""
        if user not in self._users:
            try:
                found = (await self.read("users.info", user=user))["user"]
                self._users[user] = f"@{found['name']}"
            except ToolError:
                self._users[user] = user
        return self._users[user]

    def _body(self, answer: Answer, method: str) -> Json:
        body = answer.json()
        if not isinstance(body, dict) or "ok" not in body:
            raise ServiceError(f"what answers at {self.api.base_url} is not Slack's API; set the base_url of {self.api.block} right")
        if body["ok"]:
            return body
        code = one_line(str(body.get("error")), 60)
        told = REMEDIES.get(code, "")
        if code == "missing_scope":
            has = f"; it has {body['provided']}" if body.get("provided") else ""
            told = f"the token lacks the scope {body.get('needed')}{has}: add it to the app (OAuth & Permissions) and install the app again"
        detail = (body.get("response_metadata") or {}).get("messages") or []
        if not told and detail:
            told = "; ".join(map(str, detail[:3]))
        raise SlackError(one_line(f"Slack refused {method} ({self.api.block}): {code}{': ' + told if told else ''}", 400), code)


def next_cursor(body: Mapping[str, Any]) -> str:
    """Where a list goes on; empty at its end."""
    return str((body.get("response_metadata") or {}).get("next_cursor") or "")


def _form(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Arguments as a form, which each method takes; some take no JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in arguments.items()
        if value is not None
    }
