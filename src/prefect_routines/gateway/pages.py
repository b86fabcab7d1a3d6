"""The pages for people: the list of sessions, a session with its transcript live, signing in. HTML made in `markup.py` alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from prefect_routines.errors import RoutinesError, SettingsError, StoreError
from prefect_routines.gateway import access, fire, session_view
from prefect_routines.gateway.access import Visitor
from prefect_routines.gateway.answers import Refused, answer, answer_to
from prefect_routines.gateway.form_view import answer_of, form_view
from prefect_routines.gateway.frame import HEADERS, document, fields_of, static
from prefect_routines.gateway.list_view import session_list
from prefect_routines.gateway.markup import Element, Node, data_of, tag
from prefect_routines.gateway.service import Service
from prefect_routines.gateway.session_api import answered, form_of, listed, refusals, resumed, up_to_date, waiting_forms
from prefect_routines.gateway.session_models import ResumeRequest
from prefect_routines.gateway.signing_in import sign_in, sign_in_page, sign_out
from prefect_routines.gateway.stream import LiveText, changes, event, streaming
from prefect_routines.gateway.transcript_view import TranscriptView
from prefect_routines.gateway.watching import Watched
from prefect_routines.session.page import result_text
from prefect_routines.settings import first_problem
from prefect_routines.steering import acts
from prefect_routines.store import Act, Form, SessionRecord
from prefect_routines.visible import visible

MOST_ITEMS = 800
"""Pieces of a transcript on a page at first; the ones before are one click away."""
_LISTED = 50


def routes() -> list[Route]:
    """The routes of the pages."""
    return [
        Route("/sign-in", _page(sign_in), methods=["POST"]),
        Route("/sign-in", _page(sign_in_page), methods=["GET"]),
        Route("/sign-out", _page(sign_out), methods=["POST"]),
        Route("/static/{name}", static, methods=["GET"]),
        Route("/", start, methods=["GET"]),
        Route("/sessions", _page(_for_signed_in(sessions)), methods=["GET"]),
        Route("/sessions/{session}", _page(_for_signed_in(session)), methods=["GET"]),
        Route("/sessions/{session}/stream", stream, methods=["GET"]),
        Route("/sessions/{session}/entries/{seq}", _page(_for_signed_in(entry)), methods=["GET"]),
        Route("/sessions/{session}/act", _page(act), methods=["POST"]),
        Route("/sessions/{session}/forms/{form}", _page(answer_form), methods=["POST"]),
    ]


# who, and what when it goes wrong

Endpoint = Callable[[Service, Request], Awaitable[Response]]
Work = Callable[[Service, Visitor, Request], Awaitable[Response]]


def _page(work: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint whose errors are pages, unless our own script asks."""

    async def endpoint(request: Request) -> Response:
        service: Service = request.app.state.service
        try:
            return await work(service, request)
        except RoutinesError as failure:
            said = answer_to(failure)
            if _wants_json(request):
                return said
            words = "It did not work just now. Try it again." if isinstance(failure, StoreError) else str(failure)
            back = tag("p", tag("a", "Back", href=_back(request)))
            page = document("Session", tag("h1", "That did not work"), tag("p", words), back, who=None, status=said.status_code)
            page.headers.update({name: value for name, value in said.headers.items() if name == "retry-after"})
            return page

    return endpoint


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _back(request: Request) -> str:
    session_id = request.path_params.get("session")
    return f"/sessions/{quote(session_id, safe='')}" if session_id and request.method == "POST" else "/sessions"


def _for_signed_in(work: Work) -> Endpoint:
    """An endpoint that others than those who have signed in see a login at."""

    async def endpoint(service: Service, request: Request) -> Response:
        who = await access.signed_in(service, request)
        return await work(service, who, request) if who is not None else await sign_in_page(service, request)

    return endpoint


async def _sender(service: Service, request: Request) -> Visitor:
    """Who sends something from one of our pages.

    Raises:
        Refused: 401 or 403.
    """
    if not access.own_origin(service, request.headers):
        raise Refused(403, "this was not sent from the session page; open the page and send it there")
    who = await access.signed_in(service, request)
    if who is None:
        raise Refused(401, "you are not signed in any more; reload the page and sign in")
    return who


# looking


async def start(request: Request) -> Response:
    """`GET /`: leads to the sessions."""
    return RedirectResponse("/sessions", 303, HEADERS)


async def sessions(service: Service, who: Visitor, request: Request) -> Response:
    """`GET /sessions`."""
    names = ("routine", "state", "verdict", "without", "cursor")
    filters = {name: value for name in names if (value := request.query_params.get(name))}
    found = await listed(service, who, filters, _LISTED + 1)
    shown = [await up_to_date(service, record) for record in found[:_LISTED]]
    waiting = await waiting_forms(service)
    first = []
    if not filters:  # what is needed from a person comes first, however old it is
        first = [await up_to_date(service, record) for record in await listed(service, who, {}, _LISTED, waiting=True)]
    content = session_list(
        shown,
        first=first,
        waiting=waiting,
        filters={name: value for name, value in filters.items() if name != "cursor"},
        routines=[] if who.token.deployment else await service.store.routine_names(),
        more=shown[-1].id if len(found) > _LISTED else None,
    )
    return document("Sessions", *content, who=who)


async def session(service: Service, who: Visitor, request: Request) -> Response:
    """`GET /sessions/{id}`."""
    record = await access.record_for(service, who, request.path_params["session"])
    view = TranscriptView(record.id)
    for one in await service.store.entries(record.id):
        view.apply(one.seq, one)
    forms = await service.store.forms(session_id=record.id, status="open")
    waiting = await service.store.acts(record.id)
    parts = await _parts(service, who, record, view, forms, waiting)
    items = list(view.items.values())
    earlier: Node | None = None
    if len(items) > MOST_ITEMS and "all" not in request.query_params:
        earlier = tag("p", tag("a", f"{len(items) - MOST_ITEMS} earlier items", href="?all=1"), class_="older")
        items = items[-MOST_ITEMS:]
    content: list[Node] = [
        parts["head"],
        parts["needs"],
        parts["results"],
        tag("h2", "Transcript"),
        *([earlier] if earlier is not None else []),
        tag("section", [_placed(item.id, item.node) for item in items], id="items"),
        tag("article", tag("h3", tag("span", "Claude writes"), class_="live-head"), tag("div", class_="text"), id="live", hidden=True),
        parts["pending"],
        parts["controls"],
    ]
    over = "yes" if record.status == "ended" else "no"
    return document(f"{record.routine}: session", *content, who=who, session=record.id, seq=str(view.seq), over=over)


def _placed(place: str, node: Element) -> Element:
    return Element(node.name, {**node.attributes, "id": place}, node.children)


async def _parts(
    service: Service, who: Visitor, record: SessionRecord, view: TranscriptView, forms: Sequence[Form], waiting: Sequence[Act]
) -> dict[str, Element]:
    """All of the page that may change beside the transcript, by id."""
    run_id, why = record.flow_run_id, ""
    if record.started_at is None:
        dispatches = await service.store.dispatches(session_id=record.id)
        if dispatches:
            run_id = run_id or next((one.flow_run_id for one in dispatches if one.flow_run_id), None)
            reason = next((f" ({one.reason})" for one in dispatches if one.reason), "")
            why = f"No run has taken it up: {fire.state_of(record, dispatches)}{reason}"
    open_forms = [form for form in forms if form.status == "open"]
    waits = bool(open_forms)
    may_steer = who.may("steer")
    return {
        "head": session_view.head(record, view.transcript, waits=waits, run_url=service.run_url(run_id), why=why),
        "needs": session_view.needs(form_view(form, refusal=refusal(who, form)) for form in open_forms),
        "results": session_view.results(view.transcript),
        "pending": session_view.pending(record, waiting),
        "controls": session_view.controls(record, may_steer=may_steer, waits=waits),
    }


def refusal(who: Visitor, form: Form) -> str | None:
    """Why this visitor may not answer a form, for him to read."""
    if not (who.may("approve") or (form.kind == "pause" and who.may("steer"))):
        return "Your token may not answer this; `routines token create --scope approve --name YOU` makes one that may."
    try:
        acts.may_answer(form, who.person)
    except SettingsError as error:
        return str(error)
    return None


async def entry(service: Service, who: Visitor, request: Request) -> Response:
    """`GET /sessions/{id}/entries/{seq}`: all of a long text, as text."""
    record = await access.record_for(service, who, request.path_params["session"])
    seq = request.path_params["seq"]
    number = int(seq) if seq.isascii() and seq.isdigit() and len(seq) < 17 else 0
    found = await service.store.entries(record.id, after=number - 1, limit=1) if number else []
    content = found[0].data.get("content") if found and found[0].seq == number else None
    if not isinstance(content, str | list):
        raise Refused(404, "this session has no such text")
    text = result_text([block for block in content if block.get("type") != "tool_use"] if isinstance(content, list) else content)
    return Response(visible(text), 200, {**HEADERS, "Content-Security-Policy": "default-src 'none'; sandbox"}, "text/plain")


async def stream(request: Request) -> Response:
    """`GET /sessions/{id}/stream`: what changes on the page."""
    service: Service = request.app.state.service
    who = await access.signed_in(service, request)
    if who is None:
        raise Refused(401, "you are not signed in any more; reload the page and sign in")
    record = await access.record_for(service, who, request.path_params["session"])
    return await streaming(service, request, who, record, lambda watched, after: _page_events(service, who, watched, after))


async def _page_events(service: Service, who: Visitor, watched: Watched, after: int) -> AsyncIterator[bytes]:
    """The events of the page: `items` of the transcript, `part`s around it, `live`; at last `end`."""
    told: dict[str, Any] = {}
    live = LiveText()
    async for changed in changes(watched):
        if not changed:
            yield b": nothing new\n\n"
            continue
        view = watched.view
        if items := view.since(after):
            yield event("items", [[item.id, data_of(_placed(item.id, item.node))] for item in items], view.seq)
        after = view.seq
        if (writes := live.news(*watched.live)) is not None:
            yield event("live", {**writes, "text": visible(writes["text"])})
        for name, part in (await _parts(service, who, watched.record, view, watched.forms, watched.waiting)).items():
            if part != told.get(name):
                told[name] = part
                yield event("part", [name, data_of(part)])
        if watched.over:
            yield event("end", {})


# acting


async def act(service: Service, request: Request) -> Response:
    """`POST /sessions/{id}/act`: the message box and its buttons."""
    who = await _sender(service, request)
    record = await access.record_for(service, who, request.path_params["session"])
    who.need("steer")
    access.count(service, who)
    fields = await fields_of(service, request)
    with refusals(record):
        told = await _do(service, who, record, fields.get("do", ""), fields.get("text", ""))
    return _went(request, record, told)


async def _do(service: Service, who: Visitor, record: SessionRecord, what: str, text: str) -> str:
    store, person = service.store, who.person
    match what:
        case "send":
            await service.in_time(acts.send(store, record, text, person))
            return "Sent. Claude gets it with the next turn."
        case "interrupt_send":
            await service.in_time(acts.send(store, record, text, person, interrupt=True))
            return "Sent. What is under way is stopped first."
        case "interrupt":
            await service.in_time(acts.interrupt(store, record, person))
            return "What is under way is being stopped."
        case "suspend":
            await service.in_time(acts.suspend(store, record, person))
            return "The session is going to wait for you."
        case "cancel":
            done = await service.in_time(acts.cancel(store, record, person))
            return "The session is being cancelled." if done == "asked" else "The session is cancelled."
        case "resume":
            try:
                wanted = ResumeRequest(text=text)
            except ValidationError as error:
                raise Refused(422, first_problem(error)) from None
            await resumed(service, who, record, wanted)
            return "The session goes on."
    raise Refused(422, "there is no such button")


async def answer_form(service: Service, request: Request) -> Response:
    """`POST /sessions/{id}/forms/{form}`: an answer."""
    who = await _sender(service, request)
    record = await access.record_for(service, who, request.path_params["session"])
    form = await form_of(service, record, request.path_params["form"])
    with refusals(record):
        given = answer_of(form, await fields_of(service, request))
    await answered(service, who, record, form.id, given)
    return _went(request, record, "Your answer counts.")


def _went(request: Request, record: SessionRecord, told: str) -> Response:
    """What was done, in a line for our script; else back to the page."""
    if _wants_json(request):
        return answer({"told": told}, headers={"Cache-Control": "no-store"})
    return RedirectResponse(f"/sessions/{quote(record.id, safe='')}", 303, HEADERS)
