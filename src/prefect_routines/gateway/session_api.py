"""The session API: sessions as JSON to read, and what a person may do to one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from prefect_routines.errors import AnswerRefused, RoutinesError, SettingsError, StoreError
from prefect_routines.gateway.access import Visitor, count, record_for, visitor
from prefect_routines.gateway.answers import Refused, answer
from prefect_routines.gateway.body import parse
from prefect_routines.gateway.limits import SMALL, Busy, reading
from prefect_routines.gateway.openapi import document
from prefect_routines.gateway.service import Service
from prefect_routines.gateway.session_models import Message, ResumeRequest, entry_out, form_out, session_out
from prefect_routines.gateway.signatures import find_header
from prefect_routines.gateway.stream import journal_events, streaming
from prefect_routines.settings import first_problem
from prefect_routines.steering import acts
from prefect_routines.store import Act, Form, Scope, SessionRecord, SessionState
from prefect_routines.verdict import VERDICTS

MOST_BODY = 2_000_000  # bytes: the longest message and answer, with room for escapes
_PAGE = 200
In = TypeVar("In", bound=BaseModel)


def routes() -> list[Route]:
    """The routes of the API."""
    base = "/v1/sessions/{session}"
    return [
        Route("/v1/sessions", sessions, methods=["GET"]),
        Route(base, session, methods=["GET"]),
        Route(f"{base}/entries", entries, methods=["GET"]),
        Route(f"{base}/stream", stream, methods=["GET"]),
        Route(f"{base}/messages", _steering(message), methods=["POST"]),
        Route(f"{base}/interrupt", _steering(interrupt), methods=["POST"]),
        Route(f"{base}/suspend", _steering(suspend), methods=["POST"]),
        Route(f"{base}/cancel", _steering(cancel), methods=["POST"]),
        Route(f"{base}/resume", _steering(resume), methods=["POST"]),
        Route(f"{base}/forms", forms, methods=["GET"]),
        Route(f"{base}/forms/{{form}}", form, methods=["GET"]),
        Route(f"{base}/forms/{{form}}", answer_form, methods=["POST"]),
        Route("/v1/openapi.json", described, methods=["GET"]),
    ]


async def described(request: Request) -> Response:
    """`GET /v1/openapi.json`."""
    return answer(document())


# reading


async def sessions(request: Request) -> Response:
    """`GET /v1/sessions`."""
    service, who = await _known(request)
    who.need("read")
    limit = _number(request, "limit", 50, most=_PAGE)
    found = await listed(service, who, _filters(request), limit + 1)
    waiting = await waiting_forms(service)
    data = [outline(service, record, waiting.get(record.id, [])) for record in found[:limit]]
    return answer({"data": data, "next": found[limit - 1].id if len(found) > limit else None})


def _filters(request: Request) -> dict[str, str]:
    given = {name: value for name, value in request.query_params.items() if name != "limit"}
    if unknown := set(given) - {"routine", "verdict", "state", "without", "cursor"}:
        raise Refused(422, f"{sorted(unknown)[0][:80]}: there is no such filter; there is routine, verdict, state, without")
    return given


async def listed(service: Service, who: Visitor, filters: dict[str, str], limit: int, *, waiting: bool = False) -> list[SessionRecord]:
    """The sessions that somebody may see.

    Args:
        filters: `routine`, `verdict`, `state`, `without` (a verdict) and `cursor` (the session before the first one).
        waiting: Only those that wait for a person.

    Raises:
        Refused: 422, a filter is none.
    """
    for name, known in (("verdict", VERDICTS), ("without", VERDICTS), ("state", get_args(SessionState))):
        if name in filters and filters[name] not in known:
            raise Refused(422, f"{name}: there is {', '.join(known)}")
    before = None
    if "cursor" in filters:
        before = await service.store.session(filters["cursor"])
        if before is None or not who.sees(before):
            raise Refused(422, "cursor: there is no such session; take `next` of the page before")
    token, routine = who.token, filters.get("routine")
    if not token.deployment_id and token.deployment:
        if routine not in (None, token.deployment):
            return []
        routine = token.deployment
    return await service.store.sessions(
        routine=routine,
        deployment_id=token.deployment_id or None,
        verdict=filters.get("verdict"),
        but_verdict=filters.get("without"),
        waiting=waiting,
        state=cast("SessionState | None", filters.get("state")),
        before=before,
        limit=limit,
    )


async def waiting_forms(service: Service) -> dict[str, list[str]]:
    """The open forms of all sessions, by session."""
    found: dict[str, list[str]] = {}
    for one in await service.store.forms(status="open"):
        found.setdefault(one.session_id, []).append(one.id)
    return found


def outline(service: Service, record: SessionRecord, waiting: list[str], last_entry: int | None = None) -> dict[str, Any]:
    """A session as JSON."""
    run = service.run_url(record.flow_run_id)
    return session_out(record, url=service.session_url(record.id), flow_run_url=run, waiting=waiting, last_entry=last_entry)


async def up_to_date(service: Service, record: SessionRecord) -> SessionRecord:
    """The record with the totals of now: the store's own are written at the end of a session."""
    if record.status == "ended":
        return record
    spent = await service.store.spent(session_id=record.id)
    return replace(record, turns=await service.store.turns(record.id), tokens=spent.tokens, dollars=spent.dollars)


async def session(request: Request) -> Response:
    """`GET /v1/sessions/{id}`."""
    service, _, record = await _seen(request)
    waiting = [one.id for one in await service.store.forms(session_id=record.id, status="open")]
    last = await service.store.last_entry(record.id)
    return answer(outline(service, await up_to_date(service, record), waiting, last))


async def entries(request: Request) -> Response:
    """`GET /v1/sessions/{id}/entries?after=N&limit=M`."""
    service, _, record = await _seen(request)
    after, limit = _number(request, "after", 0, least=0), _number(request, "limit", 100, most=1000)
    found = await service.store.entries(record.id, after=after, limit=limit + 1)
    return answer({"data": [entry_out(entry) for entry in found[:limit]], "has_more": len(found) > limit})


async def stream(request: Request) -> Response:
    """`GET /v1/sessions/{id}/stream`: server-sent events."""
    service, who, record = await _seen(request)
    return await streaming(service, request, who, record, lambda watched, after: journal_events(service, watched, after))


async def forms(request: Request) -> Response:
    """`GET /v1/sessions/{id}/forms`."""
    service, _, record = await _seen(request)
    return answer({"data": [form_out(one) for one in await service.store.forms(session_id=record.id)]})


async def form(request: Request) -> Response:
    """`GET /v1/sessions/{id}/forms/{form}`."""
    service, _, record = await _seen(request)
    return answer(form_out(await form_of(service, record, request.path_params["form"])))


async def form_of(service: Service, record: SessionRecord, form_id: str) -> Form:
    """A form of a session.

    Raises:
        Refused: 404.
    """
    found = await service.store.form(form_id)
    if found is None or found.session_id != record.id:
        raise Refused(404, "this session has no such form")
    return found


# steering


def _steering(
    work: Callable[[Service, Visitor, SessionRecord, Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for those who may steer."""

    async def endpoint(request: Request) -> Response:
        service, who, record = await _seen(request)
        who.need("steer")
        count(service, who)
        with refusals(record):
            return await work(service, who, record, request)

    return endpoint


class refusals:  # noqa: N801  # used like a function
    """What `steering` refuses, as answers: 409 when it is too late, 422 when it is wrong."""

    def __init__(self, record: SessionRecord) -> None:
        self._record = record

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        match error:
            case AnswerRefused():
                raise Refused(409, str(error)) from None
            case SettingsError():
                raise Refused(409 if self._record.status == "ended" else 422, str(error)) from None


async def message(service: Service, who: Visitor, record: SessionRecord, request: Request) -> Response:
    """`POST /v1/sessions/{id}/messages`."""
    given = await _read(service, request, Message)
    sent = await service.in_time(acts.send(service.store, record, given.text, who.person, interrupt=given.interrupt))
    return _taken(sent)


async def interrupt(service: Service, who: Visitor, record: SessionRecord, request: Request) -> Response:
    """`POST /v1/sessions/{id}/interrupt`."""
    return _taken(await service.in_time(acts.interrupt(service.store, record, who.person)))


async def suspend(service: Service, who: Visitor, record: SessionRecord, request: Request) -> Response:
    """`POST /v1/sessions/{id}/suspend`."""
    return _taken(await service.in_time(acts.suspend(service.store, record, who.person)))


def _taken(act: Act) -> Response:
    return answer({"type": "act", "id": act.id, "kind": act.kind, "person": act.person, "created_at": act.created_at.isoformat()}, 202)


async def cancel(service: Service, who: Visitor, record: SessionRecord, request: Request) -> Response:
    """`POST /v1/sessions/{id}/cancel`."""
    try:
        status = await service.in_time(acts.cancel(service.store, record, who.person))
    except Busy:  # it is Prefect that takes long; the session itself may have ended already
        now = await service.store.session(record.id)
        if now is None or now.status != "ended":
            raise
        status = "cancelled"
    return answer({"type": "cancellation", "status": status}, 202 if status == "asked" else 200)


async def resume(service: Service, who: Visitor, record: SessionRecord, request: Request) -> Response:
    """`POST /v1/sessions/{id}/resume`."""
    given = await _read(service, request, ResumeRequest)
    flow_run_id = await resumed(service, who, record, given)
    run = service.run_url(flow_run_id)
    return answer({"type": "resume", "session_id": record.id, "flow_run_id": flow_run_id, "flow_run_url": run}, 202)


async def resumed(service: Service, who: Visitor, record: SessionRecord, given: ResumeRequest) -> str:
    """Go on with a session; the flow run that does.

    Raises:
        Refused: 409, it is at work, or somebody was first; 503, Prefect is away.
    """
    from prefect_routines.deploying.resuming import resume as start

    asked = start(service.store, record.id, given.text, by=who.person.name, fork=given.fork, at=given.at)
    try:
        return await service.in_time(asked)
    except StoreError:
        raise
    except Busy:
        raise Refused(503, "Prefect takes long to answer; look whether the session goes on before you try it again") from None
    except RoutinesError as error:
        raise Refused(409, str(error)) from None
    except Exception as error:  # whatever keeps Prefect from answering
        raise Refused(503, f"Prefect cannot be asked for a run just now ({type(error).__name__}); try it again", retry_after=5) from None


async def answer_form(request: Request) -> Response:
    """`POST /v1/sessions/{id}/forms/{form}`."""
    service, who, record = await _seen(request)
    if not who.may("steer"):
        who.need("approve")
    given = await _json(service, request)
    return answer(form_out(await answered(service, who, record, request.path_params["form"], given)))


async def answered(service: Service, who: Visitor, record: SessionRecord, form_id: str, given: dict[str, Any]) -> Form:
    """Answer a form.

    Raises:
        Refused: 403, 404, 409 or 422.
    """
    one = await form_of(service, record, form_id)
    # what a person has to say is steering; to permit something, also more of the budget, is not
    needed: Scope = "steer" if one.kind == "pause" and not given.get("raise") and who.may("steer") else "approve"
    who.need(needed)
    count(service, who)
    try:
        acts.may_answer(one, who.person)
    except SettingsError as error:
        raise Refused(403, str(error)) from None
    with refusals(record):
        try:
            return await service.in_time(acts.answer(service.store, one, given, who.person))
        except Busy:  # it is Prefect that takes long; the answer counts already, and whoever looks after forms has the run go on
            now = await service.store.form(one.id)
            if now is None or (now.status, now.person, now.via) != ("answered", who.person.name, who.person.via):
                raise
            return now


# what comes in


async def _known(request: Request) -> tuple[Service, Visitor]:
    service: Service = request.app.state.service
    return service, await visitor(service, request)


async def _seen(request: Request) -> tuple[Service, Visitor, SessionRecord]:
    service, who = await _known(request)
    return service, who, await record_for(service, who, request.path_params["session"])


async def _read(service: Service, request: Request, model: type[In]) -> In:
    given = await _json(service, request)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise Refused(422, first_problem(error)) from None


async def _json(service: Service, request: Request) -> dict[str, Any]:
    value = await body_of(service, request, text=False)
    if not isinstance(value, dict):
        raise Refused(422, 'the body must be a JSON object, for example {"text": "..."}')
    return value


async def body_of(service: Service, request: Request, *, text: bool) -> Any:
    """The value of a body: JSON, or with `text` also a form's fields.

    Raises:
        BodyError: It is too large, too slow, or not what it says.
    """
    headers = request.scope["headers"]
    limits = replace(service.limits, body=min(service.limits.body, MOST_BODY))
    async with reading(request.receive, headers, limits, service.large, lambda: service.may_send_much(request)) as raw:
        kind = find_header(headers, "Content-Type")
        if len(raw) > SMALL:
            return (await asyncio.to_thread(parse, raw, kind, text=text)).value
        return parse(raw, kind, text=text).value


def _number(request: Request, name: str, default: int, *, least: int = 1, most: int = 2**53) -> int:
    given = request.query_params.get(name, str(default))
    if not (given.isascii() and given.isdigit() and len(given) < 17 and least <= int(given) <= most):
        raise Refused(422, f"{name}: a whole number from {least} to {most}")
    return int(given)
