"""An account at Twilio: a small server's answers, as Twilio documents them, and the connector to it."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs

from prefect_routines.connectors.twilio import Twilio

from .http_service import Asked, HttpService, Said

ACCOUNT, TOKEN = "AC" + "0" * 32, "t0ken-of-the-account"
FROM, TO, OTHER = "+15017122661", "+4915112345678", "+33612345678"
PATH = f"/2010-04-01/Accounts/{ACCOUNT}"


@dataclass
class Account:
    """An account at Twilio: the messages that it took, and how it fails."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    fails: Said | None = None
    loses: bool = False
    """Whether the answer to a message gets lost on its way, after the message was taken."""

    def __call__(self, asked: Asked) -> Said:
        login = base64.b64decode(asked.headers.get("authorization", "").removeprefix("Basic ")).decode()
        if login not in (f"{ACCOUNT}:{TOKEN}", "SK1:s3cret"):
            return error(401, 20003, "Authenticate")
        if asked.path == f"{PATH}.json":
            return Said({"sid": ACCOUNT, "friendly_name": "Acme", "status": "active", "type": "Full"})
        assert asked.path == f"{PATH}/Messages.json"
        if asked.method == "GET":
            return Said({"messages": [message for message in self.messages if message["to"] == asked.query["To"]]})
        if self.fails:
            return self.fails
        given = {name: values[0] for name, values in parse_qs(asked.body.decode(), strict_parsing=True).items()}
        self.take(**{{"MessagingServiceSid": "messaging_service_sid"}.get(name, name.lower()): value for name, value in given.items()})
        return Said({}, 502) if self.loses else Said(self.messages[0], 201)

    def take(self, *, ago: float = 0.0, **given: Any) -> None:
        """A message, newest first. From a messaging service it has no sender before it is sent."""
        made = formatdate(time.time() - ago)
        kept = {"sid": f"SM{len(self.messages)}", "from": None, "messaging_service_sid": None, "direction": "outbound-api"}
        self.messages.insert(0, {**kept, "status": "queued", "date_created": made, "date_sent": None, **given})

    @property
    def texts(self) -> list[str]:
        """What was taken, in that order."""
        return [message["body"] for message in reversed(self.messages)]


def error(status: int, code: int, message: str) -> Said:
    more = f"https://www.twilio.com/docs/errors/{code}"
    return Said({"code": code, "message": message, "more_info": more, "status": status}, status)


def made(service: HttpService, **fields: Any) -> Twilio:
    given = {"account_sid": ACCOUNT, "auth_token": TOKEN, "from_number": FROM, "recipients": [TO, OTHER], "base_url": service.url}
    return Twilio.model_validate(given | fields)
