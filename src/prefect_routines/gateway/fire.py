"""The fire endpoint: one call, one session. The hosted product's contract, and what it lacks: idempotency, a payload, reading the run.

Contract: https://platform.claude.com/docs/en/api/claude-code/routines-fire
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response

from prefect_routines.events import new_session_id
from prefect_routines.gateway.answers import Refused, answer
from prefect_routines.gateway.body import parse
from prefect_routines.gateway.dispatcher import FIRE
from prefect_routines.gateway.limits import SMALL, TooMany, reading
from prefect_routines.gateway.service import Service
from prefect_routines.gateway.signatures import find_header
from prefect_routines.store import Delivery, Dispatch, SessionRecord, Token

MOST_TEXT = 65_536  # characters
_FRESH, _PATIENCE, _RETRY = 1.0, 1.5, 5.0  # seconds

State = Literal["ready", "paused", "gone", "unknown"]


class Deployments:
    """Whether a deployment is there and paused, as Prefect said a second ago; while Prefect is away as it said last."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[State, float]] = {}
        self._away_until = 0.0

    async def state(self, deployment_id: str) -> State:
        """The state; 'unknown' if Prefect has never told. Then the delivery is taken, and settled when Prefect is back."""
        state, at = self._known.get(deployment_id, ("unknown", -_FRESH))
        moment = time.monotonic()
        if moment - at < _FRESH or moment < self._away_until:
            return state
        try:
            async with asyncio.timeout(_PATIENCE):
                state = await _ask(deployment_id)
        except Exception:  # whatever keeps Prefect from answering
            self._away_until = time.monotonic() + _RETRY
            return state
        self._known[deployment_id] = (state, time.monotonic())
        return state


async def _ask(deployment_id: str) -> State:
    from prefect import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    async with get_client() as client:
        try:
            found = (await client.request("GET", f"/deployments/{deployment_id}")).json()  # type: ignore[arg-type]
        except PrefectHTTPStatusError as error:
            if error.response.status_code == 404:
                return "gone"
            raise
    return "paused" if found["paused"] else "ready"


async def token_of(service: Service, request: Request) -> Token:
    """The token of a call, if it belongs to the routine that the path names.

    Whether there is such a routine is told to nobody without a token of it.

    Raises:
        Refused: 401.
        TooMany: This address has tried too many.
    """
    kind, _, secret = (find_header(request.scope["headers"], "Authorization") or "").partition(" ")
    token = await service.store.token_of(secret.strip()) if kind.lower() == "bearer" else None
    if token is None or not token.may("fire") or not names(request.path_params["routine"], token):
        service.failed(request)
        raise Refused(401, "there is no bearer token, or it is not one of this routine; `routines token create` makes one")
    return token


def names(routine: str, token: Token) -> bool:
    """Whether the id in a path means the token's deployment: its id, `trig_` and the id's digits, or `flow/deployment`."""
    digits = token.deployment_id.replace("-", "")
    return routine == token.deployment or routine.lower() in (token.deployment_id, f"trig_{digits}")


@dataclass(frozen=True)
class _Call:
    body: str
    key: str | None


async def fire(request: Request) -> Response:
    """`POST /v1/claude_code/routines/{id}/fire`."""
    service: Service = request.app.state.service
    token = await token_of(service, request)
    seconds = service.rates.take(f"fire {token.deployment_id}", service.limits.fires)
    if seconds:
        raise TooMany(f"this routine takes {service.limits.fires} calls in a minute", seconds)
    call = await _read(service, request)
    await service.in_time(service.store.note_use(token))
    match await service.deployments.state(token.deployment_id):
        case "paused":
            raise Refused(400, f"the routine {token.deployment} is paused; `routines unpause` lets it run again")
        case "gone":
            raise Refused(404, f"the routine {token.deployment} was deleted; deploy it again and make a token for it")
    session_id = await service.in_time(_record(service, token, call))
    service.wake()
    return answer(
        {"type": "routine_fire", "claude_code_session_id": session_id, "claude_code_session_url": service.session_url(session_id)}
    )


async def _read(service: Service, request: Request) -> _Call:
    headers = request.scope["headers"]
    async with reading(request.receive, headers, service.limits, service.large, lambda: None) as raw:
        kind = find_header(headers, "Content-Type")
        if not raw.strip():
            body = "{}"
        elif len(raw) > SMALL:
            body = await asyncio.to_thread(_check, raw, kind)
        else:
            body = _check(raw, kind)
    return _Call(body, _key(headers))


def _check(raw: bytes, content_type: str | None) -> str:
    body = parse(raw, content_type, text=False)
    if not isinstance(body.value, dict):
        raise Refused(400, 'the body must be a JSON object, for example {"text": "what happened"}')
    text = body.value.get("text")
    if text is not None and not isinstance(text, str):
        raise Refused(400, "text: must be a string; JSON belongs into payload")
    if text is not None and len(text) > MOST_TEXT:
        raise Refused(400, f"text: at most {MOST_TEXT:,} characters, and these are {len(text):,}; what is longer belongs into payload")
    return body.text


def _key(headers: list[tuple[bytes, bytes]]) -> str | None:
    """https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/"""
    if not any(name == b"idempotency-key" for name, _ in headers):
        return None
    key = find_header(headers, "Idempotency-Key")
    if key is None or len(key) > 255:
        raise Refused(400, "Idempotency-Key: once, with 1 to 255 characters")
    return key


async def _record(service: Service, token: Token, call: _Call) -> str:
    """Write down delivery, dispatch and session; the session's id, of an earlier call if it had the same key."""
    own = hashlib.sha256(f"{token.deployment_id} {call.key}".encode()).hexdigest() if call.key else uuid4().hex
    delivery = Delivery(
        id=str(uuid4()),
        source="api",
        delivery_id=f"fire:{own}",
        kind="fire",
        body=call.body,
        # the same text again is a new call, unless a key says otherwise
        body_sha256=hashlib.sha256(
            f"fire:{own} {hashlib.sha256(call.body.encode('utf-8', 'surrogatepass')).hexdigest()}".encode()
        ).hexdigest(),
        content_type="application/json",
        event=FIRE,
        labels={"resource": {"prefect.resource.id": f"prefect.deployment.{token.deployment_id}"}},
        status="received",
    )
    dispatch = Dispatch(delivery.id, token.deployment_id, token.deployment, "waiting", new_session_id())
    recorded, created = await service.recorder.record(delivery, dispatch)
    if not created:
        if recorded.body != call.body:
            raise Refused(422, "Idempotency-Key: was used before with another body; take a new key for a new call")
        [dispatch] = await service.store.dispatches(delivery_ids=[recorded.id])
    # also for a call that came again: its first try may have died between the two
    await service.store.create_session(
        session_id=dispatch.session_id,
        routine=token.deployment.partition("/")[0],
        flow_run_id=None,
        deployment_id=token.deployment_id,
        event_id=recorded.id,
    )
    return dispatch.session_id


async def run(request: Request) -> Response:
    """`GET /v1/claude_code/routines/{id}/runs/{session}`: what became of a call."""
    service: Service = request.app.state.service
    token = await token_of(service, request)
    record = await service.store.session(request.path_params["session"])
    if record is None or record.deployment_id != token.deployment_id:
        raise Refused(404, "this routine has no such session")
    dispatches = await service.store.dispatches(session_id=record.id)
    spent = await service.store.spent(session_id=record.id)
    flow_run_id = record.flow_run_id or next((one.flow_run_id for one in dispatches if one.flow_run_id), None)
    outputs = await service.store.outputs(record.id)
    return answer(
        {
            "type": "routine_run",
            "claude_code_session_id": record.id,
            "claude_code_session_url": service.session_url(record.id),
            "state": state_of(record, dispatches),
            "reason": next((one.reason for one in dispatches if one.reason), None),
            "verdict": record.verdict,
            "summary": record.summary,
            "tokens": spent.tokens,
            "cost_usd": spent.dollars,
            "links": list(dict.fromkeys(output.link for output in outputs if output.link)),
            "flow_run_id": flow_run_id,
            "flow_run_url": service.run_url(flow_run_id),
            "created_at": _moment(record.created_at),
            "started_at": _moment(record.started_at),
            "ended_at": _moment(record.ended_at),
        }
    )


def _moment(at: Any) -> str | None:
    return None if at is None else str(at.isoformat())


def state_of(record: SessionRecord, dispatches: list[Dispatch]) -> str:
    """`waiting` until a run has taken it up; then as the session says; what the dispatch says if there will be no run."""
    if record.started_at is None and dispatches:
        return dispatches[0].status
    return record.status
