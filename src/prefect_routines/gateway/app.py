"""The gateway as an ASGI application: webhooks in, the fire endpoint, sessions, health. A delivery is committed before it is answered."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from prefect_routines.errors import StoreError
from prefect_routines.gateway import answer_page, fire, github, pages, session_api, webhooks
from prefect_routines.gateway.answers import Edge, Refused, answer, error
from prefect_routines.gateway.body import Body, BodyError, parse
from prefect_routines.gateway.interactions import interactions
from prefect_routines.gateway.limits import SMALL, TooMany, reading
from prefect_routines.gateway.occurrence import Occurrence
from prefect_routines.gateway.service import Service
from prefect_routines.gateway.signatures import SCHEMES, SignatureError, find_header, verify
from prefect_routines.gateway.sources import WebhookSource
from prefect_routines.notices.links import LinkKey
from prefect_routines.store import Delivery
from prefect_routines.visible import one_line, storable

UNKNOWN = "the source is unknown, or its signature is missing or wrong"
_NOBODY = [secrets.token_hex(32)]  # a source that is not there has a secret that nobody knows
_KEPT = 65_536  # characters of a refused body that are kept for the operator
_SLOWEST = 100_000_000  # bytes per second; a signature takes a fraction of that
_log = logging.getLogger(__name__)


def create_app(service: Service) -> ASGIApp:
    """The application.

    Example:
        ```python
        app = create_app(Service(store, sources, Deployments(), dispatcher.wake))
        ```
    """
    routes = [
        Route("/hooks/{source}", hook, methods=["POST"]),
        Route("/v1/claude_code/routines/{routine:path}/fire", fire.fire, methods=["POST"]),
        Route("/v1/claude_code/routines/{routine:path}/runs/{session}", fire.run, methods=["GET"]),
        Route("/slack/interactions", interactions, methods=["POST"]),
        Route("/answer", answer_page.show, methods=["GET"]),
        Route("/answer", answer_page.press, methods=["POST"]),
        Route("/health", health, methods=["GET"]),
        *session_api.routes(),
        *pages.routes(),
    ]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    app.state.service = service
    app.state.link_key = LinkKey()
    return Edge(_Bare(app), service.limits)


class _Bare:
    """Starlette without its own answers to errors: `Edge` gives them all."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["app"] = self._app
        await self._app.router(scope, receive, send)


async def health(request: Request) -> Response:
    """`GET /health`: 200 while deliveries can be taken, also with Prefect away."""
    service: Service = request.app.state.service
    try:
        await service.in_time(service.store.dispatches(limit=1))
    except StoreError:
        return error(503, "the inbox cannot be read", retry_after=5)
    away = service.sources.origin == "nowhere"
    return answer({"status": "ok", "prefect": "reached" if service.sources.reached else "away", "webhooks": "not yet" if away else "taken"})


async def hook(request: Request) -> Response:
    """`POST /hooks/{source}`."""
    service: Service = request.app.state.service
    name = request.path_params["source"]
    if service.sources.origin == "nowhere" and not (await service.sources.look_again() and service.sources.reached):
        raise Refused(503, "the gateway has not heard from Prefect yet who may send webhooks; send it again", retry_after=5)
    headers = request.scope["headers"]
    async with reading(request.receive, headers, service.limits, service.large, lambda: service.may_send_much(request)) as raw:
        source = await _verified(service, request, name, raw)
        seconds = service.rates.take(f"source {name}", source.rate_per_minute)
        if seconds:
            raise TooMany(f"this source may send {source.rate_per_minute} deliveries in a minute", seconds)
        try:
            if source.max_body is not None and len(raw) > source.max_body:
                raise BodyError(413, f"the body is larger than {source.max_body:,} bytes")
            taken = await _in_thread(len(raw), _take, name, source, headers, raw)
        except BodyError as refused:
            await service.in_time(service.recorder.record(_refusal(name, refused, raw)))
            raise
    recorded, created = await service.in_time(service.recorder.record(_delivery(name, source, headers, taken)))
    if not created:
        return answer({"id": recorded.id, "status": "duplicate"})
    if recorded.status == "ping":
        return answer({"id": recorded.id, "status": "ping"})
    service.wake()
    return answer({"id": recorded.id, "status": "accepted"}, 202)


async def _in_thread(size: int, work: Any, *arguments: Any) -> Any:
    """A large body takes long enough to make others wait."""
    return await asyncio.to_thread(work, *arguments) if size > SMALL else work(*arguments)


async def _verified(service: Service, request: Request, name: str, raw: bytes) -> WebhookSource:
    """The source, if the delivery is signed with its secret.

    Whoever has no secret learns nothing: an unknown source and a wrong signature get the same answer, after the same time.

    Raises:
        Refused: 401.
        TooMany: This address has failed too often.
    """
    began = time.monotonic()
    source = service.sources.get(name)
    problem = await _wrong(source, request, raw)
    if problem and service.rates.wait(service.address(request), service.limits.failures) == 0 and await service.sources.look_again():
        source = service.sources.get(name)
        problem = await _wrong(source, request, raw)
    if source is not None and not problem:
        return source
    _log.info("A delivery to %s was refused: %s", one_line(repr(name), 60), problem)
    await asyncio.sleep(max(0.0, began + 0.05 + len(raw) / _SLOWEST - time.monotonic()))
    service.failed(request)
    raise Refused(401, UNKNOWN)


async def _wrong(source: WebhookSource | None, request: Request, raw: bytes) -> str | None:
    """Why the delivery is not to be believed."""
    scheme, known = (source.how(), source.known_secrets()) if source is not None else (SCHEMES["github"], _NOBODY)

    def check() -> str | None:
        try:
            verify(scheme, request.scope["headers"], raw, known, now=time.time())
        except SignatureError as wrong:
            return str(wrong) if source is not None else "there is no such source"
        return None

    problem: str | None = await _in_thread(len(raw), check)
    return problem


@dataclass(frozen=True)
class _Taken:
    body: Body
    occurrence: Occurrence


def _take(name: str, source: WebhookSource, headers: Any, raw: bytes) -> _Taken:
    content_type = find_header(headers, "Content-Type")
    if source.signature == "github":
        kind, delivery_id = github.event_of(headers)
        body = parse(raw, content_type, form_field="payload", text=False)
        return _Taken(body, github.occurrence(kind, body.value, delivery_id))
    body = parse(raw, content_type)
    return _Taken(body, webhooks.occurrence(name, source.shape, headers, raw, body.value))


def _delivery(name: str, source: WebhookSource, headers: Any, taken: _Taken) -> Delivery:
    """The record. A field of it never holds what a database or Prefect could not; the body does, as it came."""
    one, ping = taken.occurrence, source.signature == "github" and taken.occurrence.kind == "ping"
    digest = hashlib.sha256(taken.body.text.encode("utf-8", "surrogatepass")).hexdigest()
    delivery_id = one.delivery_id
    if source.signature != "github":
        if delivery_id.startswith("sha256:") and source.repeats:
            delivery_id = f"one:{uuid4()}"
        if not delivery_id.startswith("sha256:") and source.how().kind != "hmac":
            # the id is signed, or the sender is known by a token: it may say the same twice and mean it
            digest = hashlib.sha256(f"{delivery_id}\n{digest}".encode("utf-8", "surrogatepass")).hexdigest()
    return Delivery(
        id=str(uuid4()),
        source=one.source,
        delivery_id=storable(delivery_id),
        kind=storable(one.kind),
        action=storable(one.action) or None,
        repository=storable(one.repository) or None,
        number=one.number,
        sha=one.sha or None,
        body=taken.body.text,
        body_sha256=digest,
        content_type=one_line(find_header(headers, "Content-Type") or "", 200),
        event="" if ping else one.event,
        labels={"resource": one.resource, "related": one.related},
        key=one.key,
        status="ping" if ping else "received",
    )


def _refusal(name: str, refused: BodyError, raw: bytes) -> Delivery:
    """What a known sender sent in vain: shown in the inbox with the reason, and in nobody's way when it comes again."""
    own = f"refused:{uuid4()}"
    return Delivery(
        id=str(uuid4()),
        source=name,
        delivery_id=own,
        kind="",
        body=raw[:_KEPT].decode("utf-8", "replace"),
        body_sha256=hashlib.sha256(own.encode()).hexdigest(),
        status="refused",
        note=str(refused),
    )
