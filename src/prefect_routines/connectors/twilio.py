"""Twilio: SMS to numbers that the block declares. It only sends."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, HttpUrl, SecretStr, field_validator, model_validator

from prefect_routines.connectors.address import Address
from prefect_routines.connectors.beginning import beginning
from prefect_routines.connectors.connector import Connection, Connector, Toolset, revealed
from prefect_routines.connectors.http import Api, Headers, ServiceError, explained
from prefect_routines.errors import OutcomeUnknown, ToolError
from prefect_routines.outgoing import Outgoing
from prefect_routines.tools.tool import ToolContext, Write, tool
from prefect_routines.visible import one_line

LONGEST = 1600  # characters of a message: https://www.twilio.com/docs/api/errors/21617

_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}\Z")  # E.164

# https://www.twilio.com/docs/api/errors
REMEDIES = {
    20008: "these are test credentials, which may not do that: use the live ones",
    20404: "there is no such account: set account_sid right",
    21211: "that is no number that can be written to",
    21212: "set from_number right",
    21408: "the account may not write to that country: allow it in the console (Messaging, Geo permissions)",
    21606: "from_number is not one of the account's, or cannot send SMS: set it right",
    21608: "a trial account writes only to verified numbers: verify it in the console, or upgrade",
    21610: "that person has answered STOP and gets nothing any more; write to somebody else",
    21612: "there is no way from this sender to that number: choose another sender",
    21614: "that is no mobile number",
    21617: "the text is too long: shorten it",
    21701: "there is no such messaging service: set messaging_service_sid right",
    21703: "the messaging service has no sender: add one in the console",
    30034: "the sender is not registered for business messages in the US: register it in the console",
    63038: "the account's messages for today are used up; try again tomorrow",
}


def _number(value: str) -> str:
    number = re.sub(r"[ ().\-]", "", value)
    if not _NUMBER.match(number):
        raise ValueError(f"{one_line(value, 40)!r} is no number; write it with its country as in +4915112345678")
    return number


Number = Annotated[str, AfterValidator(_number)]
"""A number as E.164 writes it; that is how a rule of the policy sees it."""


class Twilio(Connector):
    """Sends SMS to the numbers that are declared here, and to no other whatever a policy says.

    Example:
        ```python
        from prefect_routines.connectors.twilio import Twilio

        Twilio(
            account_sid="AC...", api_key="SK...", api_secret="...", from_number="+15017122661", recipients=["+4915112345678"]
        ).save("on-call")
        ```

        A routine names it, and says what it may send: `@routine(connectors=["twilio/on-call"],
        policy=Policy(allow=["twilio_send_sms(to=+4915112345678) x1"]))`.
    """

    _block_type_name = "Twilio"
    _block_type_slug = "twilio"
    _documentation_url = HttpUrl("https://www.twilio.com/docs/messaging/api/message-resource")

    account_sid: str = Field(description="Account, 'AC' and 32 characters.", pattern=r"^AC[0-9a-fA-F]{32}$")
    auth_token: SecretStr | None = Field(default=None, description="Auth token of the account. An API key is better: it can be revoked.")
    api_key: str | None = Field(default=None, description="SID of an API key, 'SK...', instead of the auth token.")
    api_secret: SecretStr | None = Field(default=None, description="Secret of the API key.")
    from_number: str | None = Field(default=None, description="Number of the account that sends, e.g. +15017122661.")
    messaging_service_sid: str | None = Field(default=None, description="Messaging service that sends, 'MG...', instead of a number.")
    recipients: list[str] = Field(description="Numbers that can be written to, e.g. +4915112345678. No other can be.")
    base_url: Address = Field(default="https://api.twilio.com", description="Address of the API; another one for a region or a test.")
    prefix: str = Field(default="twilio", description="What the tools' names begin with; for a session that uses two.")

    @field_validator("recipients")
    @classmethod
    def _recipients(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("declare at least one number; without one nothing can be sent")
        return [_number(one) for one in value]

    @field_validator("from_number")
    @classmethod
    def _from_number(cls, value: str | None) -> str | None:
        return value and _number(value)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.auth_token) == bool(self.api_key and self.api_secret):
            raise ValueError("log in with auth_token, or with api_key and api_secret")
        if bool(self.from_number) == bool(self.messaging_service_sid):
            raise ValueError("set from_number or messaging_service_sid: one of them sends")
        return self

    def open(self, name: str) -> Connection:
        """The tool; nothing is asked of Twilio yet."""
        api = self._api(name)
        return Connection(
            tools=TwilioTools(api, self).tools(self.prefix),
            secrets=lambda: [*revealed(self.auth_token, self.api_secret), self._basic()],
            close=api.close,
        )

    async def check(self) -> str:
        """Log in, and say from what and to whom SMS can go."""
        api = self._api(self._block_document_name or "?")
        try:
            account = (await api.get(f"/2010-04-01/Accounts/{self.account_sid}.json")).json()
        finally:
            await api.close()
        who = f"Twilio account {one_line(str(account['friendly_name']), 60)} ({account['status']}, {account['type']})"
        return f"{who}; sends SMS from {self.from_number or self.messaging_service_sid} to {', '.join(self.recipients)}"

    def _api(self, name: str) -> Api:
        return Api("Twilio", self.base_url, block=f"twilio/{name}", headers=self._headers(), explain=_explain)

    def _basic(self) -> str:
        secret = self.api_secret if self.api_key else self.auth_token
        login = f"{self.api_key or self.account_sid}:{secret.get_secret_value() if secret else ''}"
        return base64.b64encode(login.encode()).decode()

    def _headers(self) -> Headers:
        async def headers() -> Mapping[str, str]:
            return {"Authorization": f"Basic {self._basic()}"}

        return headers


class TwilioTools(Toolset):
    """What Claude may do with Twilio."""

    def __init__(self, api: Api, block: Twilio) -> None:
        self._api, self._block = api, block
        self._path = f"/2010-04-01/Accounts/{block.account_sid}/Messages.json"

    @tool(target="to", writes=True)
    async def send_sms(self, context: ToolContext, to: Number, text: Annotated[str, Outgoing("plain", LONGEST)]) -> Write:
        """Send one SMS to a number that was declared. Be brief: each 70 to 160 characters are charged as a message.

        Args:
            to: Number with its country, e.g. +4915112345678.
            text: At most 1,600 characters.
        """
        block = self._block
        if to not in block.recipients:
            raise ToolError(
                f"not sent: {to} is no declared number of {self._api.block}; SMS can go to {', '.join(block.recipients)}. "
                "Its author can add to that"
            )
        if not text.strip() or len(text) > LONGEST:
            raise ToolError(f"not sent: give a text of 1 to {LONGEST} characters; this one has {len(text)}")
        sender = {"From": block.from_number} if block.from_number else {"MessagingServiceSid": block.messaging_service_sid}
        request = {"To": to, **sender, "Body": text}

        async def send() -> str:
            answer = await self._api.send("POST", self._path, data=request)
            try:
                message = answer.json()
                return f"Twilio took the SMS to {to} ({message['sid']}, {message['status']})."
            except (ServiceError, LookupError, TypeError) as error:
                raise OutcomeUnknown(f"Twilio's answer to the SMS to {to} cannot be read; whether it took it is unknown") from error

        async def find() -> str | None:
            try:
                return await self._found(request, beginning(context.session_id))
            except ServiceError as error:  # that the list cannot be had says nothing about the message
                raise OutcomeUnknown(f"{error}; whether the SMS to {to} was sent is unknown") from error

        return Write(request=request, send=send, find=find)

    async def _found(self, request: Mapping[str, Any], since: float) -> str | None:
        """The SMS of a call whose answer was lost.

        Twilio keeps nothing of ours with a message, so this is not certain: one with the same sender, number and text that was made
        since the session began is taken for it. Two equal texts of one session cannot be told apart: then the second is not sent.
        https://www.twilio.com/docs/messaging/api/message-resource#read-multiple-message-resources
        """
        # not narrowed by DateSent: what still waits to be sent has none
        listed = (await self._api.get(self._path, {"To": request["To"], "PageSize": 100})).json()
        ours = {name.lower(): value for name, value in request.items()} | {"direction": "outbound-api"}
        if service := ours.pop("messagingservicesid", None):
            ours["messaging_service_sid"] = service
        for message in listed["messages"]:
            made = parsedate_to_datetime(message["date_created"])
            if all(message.get(name) == value for name, value in ours.items()) and made.timestamp() >= since:
                told = f"{message['sid']}, {message['status']}, made at {made.astimezone(UTC):%H:%M:%S} UTC"
                return f"Twilio has an SMS with this text to {request['To']} ({told}): it was sent."
        return None


def _explain(body: Any) -> str:
    """Twilio's errors are numbered: https://www.twilio.com/docs/usage/twilios-response#response-formats-exceptions"""
    if not isinstance(body, dict) or not isinstance(body.get("code"), int):
        return explained(body)
    remedy = REMEDIES.get(body["code"])
    return f"{body.get('message', '')} (Twilio error {body['code']}){': ' + remedy if remedy else ''}"
