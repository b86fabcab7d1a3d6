"""Signing in to the pages with a token, and out again."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from prefect_routines.gateway import access
from prefect_routines.gateway.access import HOURS
from prefect_routines.gateway.answers import Refused
from prefect_routines.gateway.frame import HEADERS, document, fields_of
from prefect_routines.gateway.markup import Element, tag
from prefect_routines.gateway.service import Service

_COMMAND = ("routines token create", "--scope steer", "--scope approve", "--name YOU")


async def sign_in_page(service: Service, request: Request, told: str = "", back: str | None = None) -> Response:
    """Asks for a token. The same for every address: nobody learns here which sessions there are."""
    if back is None:
        back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    field = tag("input", type="password", name="token", id="token", autocomplete="current-password", required=True, autofocus=True)
    form = tag(
        "form",
        tag("h1", "Sign in"),
        tag("p", told, class_="flaw", role="alert") if told else None,
        tag("label", "Token", field),
        tag("input", type="hidden", name="back", value=_own(back)),
        tag("div", tag("button", "Sign in", type="submit", class_="main"), class_="buttons"),
        tag("p", "Make one with ", _command(), class_="quiet"),
        method="post",
        action="/sign-in",
        class_="sign-in",
    )
    return document("Sign in", form, who=None, status=401, signin="yes")


def _command() -> Element:
    """How to make a token; the line breaks between its options only."""
    parts = [tag("span", part, class_="whole") for part in _COMMAND]
    return tag("code", parts[0], *(node for part in parts[1:] for node in (" ", part)))


def _own(back: str) -> str:
    """Where to go after signing in: one of our pages, whatever the address says."""
    return back if back.startswith("/sessions") and "\\" not in back and len(back) < 2000 and back.isprintable() else "/sessions"


async def sign_in(service: Service, request: Request) -> Response:
    """`POST /sign-in`: the token goes over once; what stays in the browser is a signed cookie that scripts cannot read."""
    if not access.own_origin(service, request.headers):
        raise Refused(403, "this was not sent from the sign-in page; open it and try again")
    service.may_send_much(request)
    fields = await fields_of(service, request)
    back = _own(fields.get("back", ""))
    token = await service.store.token_of(fields.get("token", "").strip())
    if token is None or not token.may("read"):
        service.failed(request)
        wrong = "This token is not known, or was revoked." if token is None else "This token starts its routine; it may not see sessions."
        return await sign_in_page(service, request, wrong, back)
    await service.in_time(service.store.note_use(token))
    went = RedirectResponse(back, 303, HEADERS)
    secure = service.url.startswith("https://")
    kept = access.cookie(service.page_key, token, time.time())
    went.set_cookie(access.COOKIE, kept, max_age=HOURS * 3600, path="/", secure=secure, httponly=True, samesite="strict")
    return went


async def sign_out(service: Service, request: Request) -> Response:
    """`POST /sign-out`."""
    if not access.own_origin(service, request.headers):
        raise Refused(403, "this was not sent from one of our pages")
    went = RedirectResponse("/sessions", 303, HEADERS)
    went.delete_cookie(access.COOKIE, path="/", secure=service.url.startswith("https://"), httponly=True, samesite="strict")
    return went
