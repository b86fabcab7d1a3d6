"""What all pages have: head, style, script, the headers that keep anything else out; and what forms send."""

from __future__ import annotations

import hashlib
import html
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from prefect_routines.gateway.access import Visitor
from prefect_routines.gateway.answers import Refused
from prefect_routines.gateway.markup import Element, Node, html_of, tag
from prefect_routines.gateway.service import Service
from prefect_routines.gateway.session_api import body_of
from prefect_routines.visible import visible

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_TYPES = {"session.css": "text/css", "session.js": "text/javascript"}


def document(title: str, *content: Node, who: Visitor | None, status: int = 200, **data: str) -> Response:
    """A whole page."""
    top: list[Node] = [tag("a", "Sessions", href="/sessions")]
    if who is not None:
        out = tag("form", tag("span", who.person.name), tag("button", "Sign out", type="submit"), method="post", action="/sign-out")
        top.append(out)
    attributes = {f"data_{name}": value for name, value in data.items()}
    body = html_of(tag("header", tag("nav", top))) + html_of(tag("main", content, id="main", **attributes)) + html_of(_told())
    page = _DOCUMENT % (html.escape(visible(title)), _address("session.css"), _address("session.js"), body)
    return Response(page, status, HEADERS, "text/html")


def _told() -> Element:
    return tag("p", id="told", role="status", hidden=True)


_DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>%s</title>
<link rel="stylesheet" href="%s">
<script src="%s" defer></script>
</head>
<body>%s</body>
</html>
"""


@cache
def _file(name: str) -> tuple[bytes, str]:
    content = files("prefect_routines.gateway").joinpath("static", name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:16]


def _address(name: str) -> str:
    return f"/static/{name}?v={_file(name)[1]}"


async def static(request: Request) -> Response:
    """`GET /static/{name}`: our style and our script; for ever, as their address changes with them."""
    name = request.path_params["name"]
    if name not in _TYPES:
        raise Refused(404, "there is no such file")
    content, version = _file(name)
    kept = "public, max-age=31536000, immutable" if request.query_params.get("v") == version else "no-cache"
    return Response(content, 200, {**HEADERS, "Cache-Control": kept}, _TYPES[name])


async def fields_of(service: Service, request: Request) -> dict[str, str]:
    """The fields of a form.

    Raises:
        Refused: 422, it is none.
    """
    value = await body_of(service, request, text=True)
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise Refused(422, "the form cannot be read")
    return value
