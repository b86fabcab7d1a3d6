"""Clicks on the buttons of our Slack messages: `POST /slack/interactions`.

Slack signs each with the app's signing secret; the app that signs must be the one that posted the message. The signed payload names the
person. What it says beyond that - the form, the calls, the decision - is checked against the store like any other answer.
https://docs.slack.dev/interactivity/handling-user-interaction
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from prefect_routines.blocks import load_block
from prefect_routines.errors import AnswerRefused, RoutinesError, SettingsError
from prefect_routines.gateway.answers import Refused
from prefect_routines.gateway.limits import reading
from prefect_routines.gateway.service import Service
from prefect_routines.notices.sender import Sender
from prefect_routines.notices.slack_message import ACTION, Click
from prefect_routines.notices.told import calls_digest, decidable
from prefect_routines.steering.acts import Person, answer
from prefect_routines.steering.form import uniform_answer
from prefect_routines.store import Form, Store
from prefect_routines.visible import one_line

_LARGEST = 262_144  # bytes; Slack's payload holds our own message again
_PATIENCE = 2.5  # seconds; Slack waits for 3
_log = logging.getLogger(__name__)


class _Id(BaseModel):
    id: str = Field(pattern=r"^[A-Z0-9]{1,30}$")


class _User(_Id):
    username: str = ""
    name: str = ""
    team_id: str = Field(default="", pattern=r"^[A-Z0-9]{0,30}$")


class _Action(BaseModel):
    action_id: str
    value: str = ""


class _Channel(BaseModel):
    channel_id: str = Field(default="", pattern=r"^[A-Z0-9]{0,30}$")


class _Interaction(BaseModel):
    """https://docs.slack.dev/reference/interaction-payloads/block_actions-payload"""

    type: str
    user: _User
    team: _Id | None = None
    container: _Channel = _Channel()
    actions: list[_Action] = Field(default=[], max_length=25)

    @property
    def person(self) -> Person:
        """Who clicked: the ids are Slack's, the name is what people call themselves."""
        team = self.team.id if self.team else self.user.team_id
        return Person(f"slack:{team}/{self.user.id} {one_line(self.user.username or self.user.name, 60)}".rstrip(), "slack")


async def interactions(request: Request) -> Response:
    """`POST /slack/interactions`. Whoever has no secret learns nothing."""
    service: Service = request.app.state.service
    until = time.monotonic() + _PATIENCE
    headers = request.scope["headers"]
    bounds = replace(service.limits, body=_LARGEST)
    async with reading(request.receive, headers, bounds, service.large, lambda: service.may_send_much(request)) as raw:
        signers = await service.slack_apps.signers(headers, raw)
        if not signers:
            service.failed(request)
            raise Refused(401, "the signature is missing or wrong, or its time is over")
        interaction = _parsed(raw)
    click = _click(interaction)
    if click is None:
        return Response(status_code=200)  # a link was opened, or the app has other buttons
    form, block = await _form(service.store, click, signers)
    task = service.background(_decide(service.store, form, click, interaction, block))
    await asyncio.wait([task], timeout=max(0.1, until - time.monotonic()))
    if task.done():
        task.result()
    return Response(status_code=200)


def _parsed(raw: bytes) -> _Interaction:
    try:
        [payload] = parse_qs(raw.decode(), strict_parsing=True, max_num_fields=20)["payload"]
        interaction = _Interaction.model_validate_json(payload)
    except (ValueError, KeyError, RecursionError):  # pydantic's errors are ValueErrors; their text would show the payload
        raise Refused(400, "this is no interaction as Slack sends it: a form with one field `payload` that holds JSON") from None
    if interaction.type != "block_actions":
        raise Refused(400, "interactions of this type are not taken")
    return interaction


def _click(interaction: _Interaction) -> Click | None:
    ours = [action for action in interaction.actions if action.action_id.startswith(ACTION)]
    if not ours:
        return None
    try:
        return Click.read(ours[0].value)
    except (ValueError, RecursionError):
        raise Refused(400, "the button's value is not one of ours") from None


async def _form(store: Store, click: Click, signers: list[str]) -> tuple[Form, str]:
    """The form that a click is about, and the block that asked; only the app that asked may answer.

    Raises:
        Refused: There is none, it is about other calls, or it cannot be answered so.
    """
    form = await store.form(click.form)
    asked = {notice.target.partition("#")[0] for notice in await store.notices(subject=click.form)} if form else set()
    block = next((name for name in signers if f"slack/{name}" in asked), None)
    if form is None or block is None:
        raise Refused(400, "there is no such form, or this app did not ask about it")
    if click.calls != calls_digest(form.content) or click.decision not in decidable(form):
        raise Refused(400, "the button is about something else than the form that waits")
    return form, block


async def _decide(store: Store, form: Form, click: Click, interaction: _Interaction, block: str) -> None:
    """Answer, and show it in Slack."""
    decision: Any = click.decision
    who, changed = one_line(interaction.person.name, 100), "counts"
    try:
        await answer(store, form, uniform_answer(form.content, decision), interaction.person)
    except (AnswerRefused, SettingsError) as refused:
        changed = "changed nothing"
        await _whisper(block, interaction, str(refused))
    _log.info("A click in Slack on form %s %s: %s by %s", form.id, changed, click.decision, who)
    await Sender(store).close_answered(form.id)


async def _whisper(block: str, interaction: _Interaction, text: str) -> None:
    """Tell the one who clicked why nothing was changed."""
    if not interaction.container.channel_id:
        return
    from prefect_routines.notices import slack

    try:
        loaded: Any = await load_block(f"slack/{block}")
        await slack.whisper(loaded, block, interaction.container.channel_id, interaction.user.id, text)
    except RoutinesError as error:
        _log.warning("Somebody in Slack could not be told that a click changed nothing: %s", one_line(str(error), 200))
