"""A Slack workspace, as the emulator plays it: who and what is there, and what was written there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from prefect_slack import SlackCredentials

from prefect_routines.connectors.slack import Slack

from .emulator import Emulator

BOT, JANE, NARROW = "xoxb-of-the-bot", "xoxp-of-jane", "xoxb-that-only-reads"
SCOPES = [
    *("channels:read", "channels:history", "groups:read", "groups:history", "im:read", "im:history", "im:write"),
    *("users:read", "users:read.email", "chat:write", "reactions:read", "reactions:write", "files:read", "files:write"),
]
SEED: dict[str, Any] = {
    "slack": {
        "team": {"name": "Acme", "domain": "acme"},
        "users": [{"name": "docs-bot"}, {"name": "jane", "real_name": "Jane Doe", "email": "jane@acme.com"}, {"name": "max"}],
        "channels": [{"name": "docs", "topic": "Documentation"}, {"name": "ops"}, {"name": "board", "is_private": True}],
        "tokens": [
            {"token": BOT, "user": "docs-bot", "scopes": SCOPES},
            {"token": JANE, "user": "jane", "scopes": SCOPES},
            {"token": NARROW, "user": "docs-bot", "scopes": ["channels:read", "channels:history"]},
        ],
        "strict_scopes": True,
    }
}


@dataclass(frozen=True)
class Workspace:
    """The workspace, seen as a person sees it.

    Args:
        url: Address of the Web API.
    """

    url: str

    def call(self, method: str, token: str = JANE, **arguments: Any) -> dict[str, Any]:
        """What the API answers to somebody, without our own code in between."""
        answer = httpx.post(f"{self.url}/{method}", data=arguments, headers={"Authorization": f"Bearer {token}"})
        body: dict[str, Any] = answer.json()
        assert body["ok"], (method, body)
        return body

    @property
    def channels(self) -> dict[str, str]:
        """Ids by name."""
        found = self.call("conversations.list", types="public_channel,private_channel,im")["channels"]
        return {channel.get("name") or channel["id"]: channel["id"] for channel in found}

    def user(self, name: str) -> str:
        """Id of a person."""
        return str(next(user["id"] for user in self.call("users.list")["members"] if user["name"] == name))

    def says(self, channel: str, text: str, token: str = JANE, **more: Any) -> str:
        """Somebody writes something. Returns its ts."""
        return str(self.call("chat.postMessage", token, channel=self.channels[channel], text=text, **more)["ts"])

    def messages(self, channel: str = "docs") -> list[dict[str, Any]]:
        """What a channel and its threads hold, oldest first."""
        where = self.channels[channel]
        return [
            message
            for parent in reversed(self.call("conversations.history", channel=where)["messages"])
            for message in self.call("conversations.replies", channel=where, ts=parent["ts"])["messages"]
        ]

    def texts(self, channel: str = "docs") -> list[str]:
        """Their texts."""
        return [message["text"] for message in self.messages(channel)]

    @property
    def state(self) -> dict[str, Any]:
        """All that people can see: a rehearsal must not change it."""
        return {name: self.messages(name) for name in self.channels} | {"files": self.call("files.list")["files"]}

    def block(self, token: str = BOT, **fields: Any) -> Slack:
        """A connector to it."""
        return Slack(credentials=SlackCredentials(token=token), base_url=self.url, **fields)


@contextlib.contextmanager
def workspace(emulator: Emulator) -> Iterator[Workspace]:
    """A fresh one."""
    with emulator.start("slack", SEED) as service:
        yield Workspace(f"{service.url}/api")
