"""People asked in Slack, and their clicks: an emulated workspace, interactions signed as Slack signs them."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from connectors.emulator import Emulator
from connectors.slack_world import Workspace, workspace
from gateway.gateway_process import Answer, Gateway, run
from prefect_routines.notices.notify import notify
from prefect_routines.store import Form, Store

from .world import waiting

_SIGNING = "8f742231b10e8888abcd99yyyzzz85a5"


@dataclass
class Asking:
    """A gateway whose Slack block posts into an emulated workspace."""

    gateway: Gateway
    slack: Workspace
    block: str

    def asks(self, *calls: dict[str, Any], **content: Any) -> tuple[Form, dict[str, Any]]:
        """A form that waits, and the message about it as soon as it is there."""

        async def work(store: Store) -> Form:
            record, form = await waiting(store, *calls, **content)
            await notify(store, record.id, "approval", form.id, [f"slack/{self.block}"])
            return form

        form: Form = self.gateway.in_store(work)
        self.gateway.until(lambda: bool(self.message(form)))
        return form, self.message(form)

    def message(self, form: Form) -> dict[str, Any]:
        """The one about a form."""
        session = f"/sessions/{form.session_id}"
        return next((one for one in self.slack.messages("docs") if session in json.dumps(one.get("blocks", []))), {})

    def form(self, form: Form) -> Form:
        """As the store has it now."""
        found: Form = self.gateway.in_store(lambda store: store.form(form.id))
        return found

    def click(self, message: dict[str, Any], button: str, user: str = "jane", **sending: Any) -> Answer:
        """Somebody clicks on a button of a message."""
        return self.send(self.payload(message, button, user), **sending)

    def payload(self, message: dict[str, Any], button: str, user: str = "jane") -> dict[str, Any]:
        """As Slack makes it."""
        found = next(one for one in buttons(message) if one["text"]["text"] == button)
        return {
            "type": "block_actions",
            "user": {"id": self.slack.user(user), "username": user, "name": user, "team_id": "T1"},
            "team": {"id": "T1", "domain": "acme"},
            "container": {"type": "message", "message_ts": message["ts"], "channel_id": self.slack.channels["docs"]},
            "response_url": "http://127.0.0.1:1/never-asked",
            "message": message,
            "actions": [{**found, "type": "button", "block_id": "b", "action_ts": "1"}],
        }

    def send(self, payload: Any, *, secret: str = _SIGNING, at: float | None = None, raw: bytes | None = None) -> Answer:
        """An interaction, signed."""
        body = urlencode({"payload": json.dumps(payload)}).encode() if raw is None else raw
        stamp = str(int(time.time() if at is None else at))
        signature = "v0=" + hmac.new(secret.encode(), f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
        headers = {"X-Slack-Signature": signature, "X-Slack-Request-Timestamp": stamp}
        return self.gateway.ask("POST", "/slack/interactions", body, {"Content-Type": "application/x-www-form-urlencoded", **headers})


def buttons(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for block in message["blocks"] if block["type"] == "actions" for one in block["elements"]]


@contextmanager
def slack_block(emulator: Emulator) -> Iterator[tuple[Workspace, str]]:
    """A workspace, and the name of the block that asks in its #docs; beside that an app that asks nothing."""
    with workspace(emulator) as slack:
        name = f"test-{uuid4().hex[:8]}"
        run(slack.block(default_channel="#docs", signing_secret=_SIGNING).asave(name))
        run(slack.block(signing_secret="of-another-app").asave(f"{name}-other"))
        yield slack, name
