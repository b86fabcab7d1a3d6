"""The block: which workspace, with which login."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from prefect_slack import SlackCredentials
from pydantic import Field, HttpUrl, SecretStr, TypeAdapter, field_validator

from prefect_routines.connectors.address import Address
from prefect_routines.connectors.connector import Connection, Connector, revealed
from prefect_routines.connectors.http import Api, bearer
from prefect_routines.connectors.slack.names import Channel
from prefect_routines.connectors.slack.web import Web
from prefect_routines.connectors.slack.writes import SlackTools
from prefect_routines.visible import one_line

# https://docs.slack.dev/reference/scopes
SCOPES = {
    "channels:read": "find channels by name",
    "channels:history": "read messages",
    "users:read": "name people",
    "chat:write": "post",
    "reactions:write": "react",
    "files:write": "upload",
    "im:write": "write to a person",
}


class Slack(Connector):
    """A Slack workspace, as one of its apps sees it.

    Example:
        ```python
        from prefect_slack import SlackCredentials
        from prefect_routines.connectors.slack import Slack

        Slack(credentials=SlackCredentials(token="xoxb-..."), default_channel="#docs").save("acme")
        ```

        A routine names it, and says what it may write: `@routine(connectors=["slack/acme"],
        policy=Policy(allow=["slack_post(channel=#docs) x2"]))`. The bot must be a member of the channels that it writes to.
    """

    _block_type_name = "Slack"
    _block_type_slug = "slack"
    _documentation_url = HttpUrl("https://docs.slack.dev/authentication/tokens")

    credentials: SlackCredentials = Field(
        description="Token of the app, a block of prefect-slack: a bot's (xoxb-...); searching takes a user's."
    )
    base_url: Address = Field(default="https://slack.com/api", description="Address of the Web API; another one for GovSlack or a test.")
    default_channel: str | None = Field(default=None, description="Channel that Claude is told to use when nothing else was said: '#docs'.")
    signing_secret: SecretStr | None = Field(
        default=None,
        description="The app's signing secret, for messages with buttons: clicks on them come to /slack/interactions of the gateway.",
    )
    prefix: str = Field(default="slack", description="What the tools' names begin with; for a session that uses two.")

    @field_validator("default_channel")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        return TypeAdapter(Channel).validate_python(value) if value else None

    def open(self, name: str) -> Connection:
        """The tools; nothing is asked of Slack yet."""
        web = self.web(name)
        tools = SlackTools(web).tools(self.prefix)
        if self.default_channel:
            # said and not filled in: a rule matches what Claude names
            said = f"\n\nThe channel, unless you were told another: {self.default_channel}"
            tools = [replace(tool, description=tool.description + said) if "channel" in tool.arguments else tool for tool in tools]
        hosts = (web.api.host, *(("*.slack.com",) if web.api.host == "slack.com" else ()))
        return Connection(tools=tools, hosts=hosts, secrets=lambda: revealed(self.credentials.token, self.signing_secret), close=web.close)

    async def check(self) -> str:
        """Log in, and say as whom and what the token may not do."""
        web = self.web(self._block_document_name or "?")
        try:
            me = await web.me()
            scopes = await web.scopes()
        finally:
            await web.close()
        team, url, name = (one_line(str(me.get(field)), 80) for field in ("team", "url", "user"))
        kind = f"bot {me['bot_id']}" if me.get("bot_id") else "user"
        return f"Slack workspace {team} ({url}) as {name}, {kind} {me['user_id']}{_lacking(scopes)}"

    def web(self, name: str) -> Web:
        """The Web API with this login; nothing is asked of Slack yet."""
        block = f"slack/{name}"
        api = Api("Slack", self.base_url, block=block, headers=bearer(self.credentials.token))
        return Web(api, Api("Slack", self.base_url, block=block))


def _lacking(scopes: Collection[str]) -> str:
    """What a token with these scopes cannot do; nothing if they are not known."""
    missing = [f"{what} ({scope})" for scope, what in SCOPES.items() if scope not in scopes]
    if not scopes:
        return ""
    return f"; it cannot {', '.join(missing)}" if missing else f"; it may {', '.join(SCOPES.values())}"
