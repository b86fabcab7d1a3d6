"""The page behind a signed link in an e-mail: `GET /answer` shows what will be done, `POST /answer` does it.

Programs that follow every link of a mail only ever see the page. Nothing on it acts but one button, and all that others wrote is escaped.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from prefect_routines.errors import AnswerRefused, SettingsError
from prefect_routines.gateway.limits import reading
from prefect_routines.gateway.service import Service
from prefect_routines.notices.links import AnswerLink, LinkKey, LinkRefused
from prefect_routines.notices.sender import Sender
from prefect_routines.notices.told import DECISIONS, calls_digest, decidable, outcome, plain, shown_arguments
from prefect_routines.steering.acts import Person, answer, may_answer
from prefect_routines.steering.form import uniform_answer
from prefect_routines.store import Form
from prefect_routines.visible import one_line

_MOST = 65_536  # bytes of what the button sends
_PATIENCE = 8.0  # seconds
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #1d2430; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1rem; margin-bottom: .3rem; overflow-wrap: anywhere }
pre { background: #f2f4f7; border: 1px solid #d5dae2; border-radius: 6px; padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere }
.name { margin: .6rem 0 .2rem; font-weight: 600; overflow-wrap: anywhere } pre { margin: 0 }
textarea { width: 100%; box-sizing: border-box; font: inherit; min-height: 4rem }
button { font: inherit; font-weight: 600; padding: .6rem 1.4rem; border: 0; border-radius: 6px; color: #fff; background: #1f7a4d }
button.deny { background: #b3261e } .small { color: #5a6473; font-size: .9rem }
"""
_REASON = "<p><label>Reason, told to Claude<textarea name=reason maxlength=2000></textarea></label></p>"
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_DIGEST}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


async def show(request: Request) -> Response:
    """`GET /answer?t=...`: what will be done, and a button. It changes nothing."""
    service: Service = request.app.state.service
    token = request.query_params.get("t", "")
    try:
        link, form = await _followed(request, token)
        may_answer(form, _person(link))
    except (LinkRefused, SettingsError) as refused:
        return await _refusal(service, refused)
    if form.status != "open":
        return _closed(service, form)
    record = await service.store.session(form.session_id)
    title = f"{DECISIONS[link.decision]}?"
    parts = [f"<p>The routine <b>{_h(record.routine if record else '?')}</b> asks {_h(link.person)}.</p>"]
    for call in form.content.get("calls", []):
        target = f" → {_h(one_line(plain(str(call['target'])), 300))}" if call["target"] else ""
        parts.append(f"<h2>{_h(call['tool'])}{target}</h2><p class=small>{_h(one_line(plain(str(call['reason'])), 300))}</p>")
        parts += [f"<p class=name>{_h(name)}</p><pre>{_h(value)}</pre>" for name, value in shown_arguments(call["arguments"])]
    if link.decision == "approve_all":
        rules = "\n".join(str(call["like"]) for call in form.content.get("calls", []))
        parts.append(f"<p>And, for the rest of this session, all that these rules allow:</p><pre>{_h(plain(rules))}</pre>")
    reason = _REASON if link.decision == "deny" else ""
    kind = " class=deny" if link.decision == "deny" else ""
    button = f"<button{kind}>{_h(DECISIONS[link.decision])}</button>"
    parts.append(f'<form method=post action=answer><input type=hidden name=t value="{_h(token)}">{reason}<p>{button}</p></form>')
    return _page(title, "".join(parts), session=service.session_url(form.session_id))


async def press(request: Request) -> Response:
    """`POST /answer`: the button was pressed."""
    service: Service = request.app.state.service
    bounds = replace(service.limits, body=_MOST)
    async with reading(request.receive, request.scope["headers"], bounds, service.large, lambda: service.may_send_much(request)) as raw:
        token, reason = _fields(raw)
    try:
        link, form = await _followed(request, token)
        task = service.background(_answer(service, form, link, reason))
        done, _ = await asyncio.wait([task], timeout=_PATIENCE)  # longer only while Prefect is away: the answer is kept by then
        now = task.result() if done else await service.store.form(form.id)
    except (LinkRefused, SettingsError) as refused:
        return await _refusal(service, refused)
    except AnswerRefused:
        now = await service.store.form(form.id)
        return _closed(service, now or form, status=409)
    return _closed(service, now or form)


async def _answer(service: Service, form: Form, link: AnswerLink, reason: str) -> Form:
    decision: Any = link.decision
    answered = await answer(service.store, form, uniform_answer(form.content, decision, reason), _person(link))
    await Sender(service.store).close_answered(form.id)
    return answered


async def _followed(request: Request, token: str) -> tuple[AnswerLink, Form]:
    """What a link says, and the form that it is about.

    Raises:
        LinkRefused: It is not ours, its time is over, or it is about something else than what waits.
        TooMany: This address has tried too many.
    """
    service: Service = request.app.state.service
    keys: LinkKey = request.app.state.link_key
    service.may_send_much(request)
    try:
        key = await keys.get()
    except SettingsError as error:
        raise LinkRefused(f"{error}. Try again in a minute", 503) from error
    try:
        link = AnswerLink.read(token, key, now=time.time())
    except LinkRefused as refused:
        if refused.status == 400:
            service.failed(request)
        raise
    form = await service.store.form(link.form)
    if form is None:
        raise LinkRefused("what this link asked about is gone", 410)
    if link.calls != calls_digest(form.content) or link.decision not in decidable(form):
        raise LinkRefused("this link is about something else than what waits now; open the session instead", 410, form.id)
    return link, form


def _person(link: AnswerLink) -> Person:
    return Person(link.person, "e-mail")


def _fields(raw: bytes) -> tuple[str, str]:
    try:
        fields = parse_qs(raw.decode(), max_num_fields=10)
    except ValueError:
        return "", ""
    return (fields.get("t") or [""])[0], (fields.get("reason") or [""])[0][:2000]


async def _refusal(service: Service, refused: LinkRefused | SettingsError) -> Response:
    status, about = (refused.status, refused.form) if isinstance(refused, LinkRefused) else (403, "")
    form = await service.store.form(about) if about else None
    session = service.session_url(form.session_id) if form else ""
    return _page("Nothing was changed", f"<p>{_h(str(refused))}</p>", status=status, session=session)


def _closed(service: Service, form: Form, status: int = 200) -> Response:
    said = outcome(form) or "The answer is being taken; open the session to see it."
    also = "" if status == 200 else "<p>It was decided before; nothing was changed.</p>"
    return _page(said, also, status=status, session=service.session_url(form.session_id))


def _page(title: str, inner: str, *, status: int = 200, session: str = "") -> Response:
    more = f'<p class=small><a href="{html.escape(session)}" rel=noreferrer>Open the session</a></p>' if session else ""
    head = f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{_h(title)}</title>"
    return Response(f"{head}<style>{_STYLE}</style><h1>{_h(title)}</h1>{inner}{more}", status, _HEADERS, "text/html")


def _h(text: str) -> str:
    return html.escape(plain(text))
