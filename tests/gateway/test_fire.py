"""The fire endpoint: the hosted product's contract, idempotency, payloads, and what a token may see."""

from __future__ import annotations

import concurrent.futures
import json
import re
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from prefect import get_client

from prefect_routines.store import Store, Token

from .conftest import StartGateway
from .gateway_process import NOWHERE, Gateway

Routine = tuple[str, str]


def token_for(gateway: Gateway, deployment: Routine) -> str:
    async def create(store: Store) -> tuple[Token, str]:
        return await store.create_token(*deployment)

    secret: str = gateway.in_store(create)[1]
    return secret


def signed_in(gateway: Gateway, path: str) -> dict[str, str]:
    """The cookie of somebody who may look at all sessions."""
    secret = gateway.in_store(lambda store: store.create_token("", "", "ada", ["read"]))[1]
    headers = {"Origin": f"http://127.0.0.1:{gateway.port}", "Content-Type": "application/x-www-form-urlencoded"}
    answer = gateway.ask("POST", "/sign-in", f"token={secret}&back={path}".encode(), headers)
    assert (answer.status, answer.headers["location"]) == (303, path)
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


@pytest.fixture
def token(gateway: Gateway, deployment: Routine) -> str:
    return token_for(gateway, deployment)


def test_a_call_makes_a_session(gateway: Gateway, deployment: Routine, token: str) -> None:
    """Known to the store before the answer arrives; the answer is that of the hosted product."""
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "experimental-cc-routine-2026-04-01"}
    answer = gateway.fire(deployment[0], token, {"text": "The build broke.", "unknown": [1]}, **headers)
    assert answer.status == 200
    assert set(answer.json) == {"type", "claude_code_session_id", "claude_code_session_url"}
    assert answer.json["type"] == "routine_fire"
    assert answer.headers["request-id"].startswith("req_")
    session = gateway.in_store(lambda store: store.session(answer.json["claude_code_session_id"]))
    assert (session.routine, session.deployment_id) == ("nothing", deployment[0])
    delivery = gateway.in_store(lambda store: store.delivery(session.event_id))
    assert (delivery.source, delivery.event, delivery.payload()["text"]) == ("api", "routines.fire", "The build broke.")


def test_the_routine_can_be_named_in_three_ways(gateway: Gateway, deployment: Routine, token: str) -> None:
    """Its id, the hosted product's form of it, and its name; each call is a session of its own."""
    ways = (deployment[0], f"trig_{UUID(deployment[0]).hex}", quote(deployment[1], safe=""), deployment[1])
    answers = [gateway.fire(way, token) for way in ways]
    assert [answer.status for answer in answers] == [200] * 4
    assert len({answer.json["claude_code_session_id"] for answer in answers}) == 4


def test_the_address_of_a_session_leads_to_its_page(gateway: Gateway, deployment: Routine, token: str) -> None:
    """For those who may look: with its run, as soon as there is one."""
    answer = gateway.fire(deployment[0], token, {"text": "x"})
    identity = answer.json["claude_code_session_id"]
    assert answer.json["claude_code_session_url"].endswith(f"/sessions/{identity}")
    assert gateway.ask("GET", f"/sessions/{identity}").status == gateway.ask("GET", "/sessions/ses-none").status == 401
    cookie = signed_in(gateway, f"/sessions/{identity}")

    def run_id() -> str | None:
        page = gateway.ask("GET", f"/sessions/{identity}", headers=cookie)
        assert page.status == 200
        found = re.search(rb"/runs/flow-run/([0-9a-f-]{36})", page.raw)
        return found[1].decode() if found else None

    gateway.until(lambda: run_id() is not None)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(run_id()))
    assert str(run.deployment_id) == deployment[0]
    assert gateway.ask("GET", "/sessions/ses-none", headers=cookie).status == 404


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b'{"text": 5}', 400, "text: must be a string"),
        (b'{"text": {"a": 1}}', 400, "payload"),
        (json.dumps({"text": "x" * 65_537}).encode(), 400, "65,536 characters"),
        (b'{"text": "a", "text": "b"}', 400, "twice"),
        (b'{"payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "levels deep"),
        (b'{"text": "\xff"}', 400, "UTF-8"),
        (b'"' + b"x" * 26_000_000 + b'"', 413, "larger"),
    ],
    ids=["no JSON", "a list", "a number", "an object", "long", "twice", "deep", "no UTF-8", "large"],
)
def test_bodies_that_are_wrong_are_refused(
    gateway: Gateway, deployment: Routine, token: str, body: bytes, status: int, reason: str
) -> None:
    """With the reason."""
    answer = gateway.fire(deployment[0], token, body)
    assert answer.status == status
    assert reason in answer.why
    assert answer.json["error"]["type"] == ("invalid_request_error" if status == 400 else "request_too_large")


def test_the_content_type_must_be_json(gateway: Gateway, deployment: Routine, token: str) -> None:
    """If there is a body."""
    assert gateway.fire(deployment[0], token, b"text=x", **{"Content-Type": "application/x-www-form-urlencoded"}).status == 415
    assert gateway.fire(deployment[0], token, b"text", **{"Content-Type": "text/plain"}).status == 415
    assert gateway.fire(deployment[0], token, b"", **{"Content-Type": "text/plain"}).status == 200


@pytest.mark.parametrize(
    "body",
    [
        {"text": "x" * 65_536},
        {"text": "\x00 \ud800 \u202e"},
        {"payload": {"__prefect_kind": "jinja", "template": "{{ 1 }}"}},
        {"payload": [None, 1.5, {"a": []}]},
        {"text": None},
        {"payload": "p" * 10_000_000},
        None,
    ],
    ids=["longest text", "strange text", "prefect kinds", "any JSON", "null", "large", "no body"],
)
def test_bodies_are_kept_as_they_came(gateway: Gateway, deployment: Routine, token: str, body: Any) -> None:
    """Text that is odd, and payloads up to the gateway's limit."""
    answer = gateway.fire(deployment[0], token, body)
    assert answer.status == 200, answer.raw[:300]
    session = gateway.in_store(lambda store: store.session(answer.json["claude_code_session_id"]))
    kept = gateway.in_store(lambda store: store.delivery(session.event_id))
    assert json.loads(kept.body) == (body or {})


def test_without_the_routines_own_token_nobody_learns_anything(gateway: Gateway, deployment: Routine, token: str) -> None:
    """401, whether the routine exists or not."""
    other = token_for(gateway, (str(uuid4()), "other/one"))
    answers = [
        gateway.fire(routine, wrong)
        for routine in (deployment[0], str(uuid4()), "nothing/at-all", "trig_" + uuid4().hex, "trig_x", "%00", "a" * 5000)
        for wrong in (None, other, "rt_" + "0" * 43, "sk-ant-oat01-x", token[:-1], token.lower())
    ]
    assert {(answer.status, answer.raw) for answer in answers} == {(401, answers[0].raw)}
    assert answers[0].json["error"]["type"] == "authentication_error"
    basic = gateway.fire(deployment[0], None, None, Authorization=f"Basic {token}")
    assert basic.status == 401


def test_a_revoked_token_is_refused_at_once(gateway: Gateway, deployment: Routine, token: str) -> None:
    """With the next call."""
    assert gateway.fire(deployment[0], token).status == 200
    gateway.in_store(lambda store: store.revoke_token(token))
    assert gateway.fire(deployment[0], token).status == 401


def test_a_paused_routine_takes_no_call(gateway: Gateway, deployment: Routine, token: str) -> None:
    """400, as the hosted product says; nothing is written down."""
    with get_client(sync_client=True) as client:
        client.pause_deployment(UUID(deployment[0]))
        answer = gateway.fire(deployment[0], token, {"text": "x"})
        assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")
        assert "is paused" in answer.why
        client.resume_deployment(UUID(deployment[0]))
    gateway.until(lambda: gateway.fire(deployment[0], token).status == 200)  # what Prefect says is believed for a second


def test_a_deleted_routine_is_not_found(gateway: Gateway, deployment: Routine, token: str) -> None:
    """Told to whoever has its token, and to nobody else."""
    with get_client(sync_client=True) as client:
        client.delete_deployment(UUID(deployment[0]))
    answer = gateway.fire(deployment[0], token)
    assert (answer.status, answer.json["error"]["type"]) == (404, "not_found_error")


def test_the_same_key_makes_one_session(gateway: Gateway, deployment: Routine, token: str) -> None:
    """Also when ten ask at once; another body under it is a mistake, another routine's key is another key."""
    key = {"Idempotency-Key": f'"{uuid4()}"'}
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: gateway.fire(deployment[0], token, {"text": "x"}, **key), range(10)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.raw for answer in answers}) == 1
    other = gateway.fire(deployment[0], token, {"text": "y"}, **key)
    assert other.status == 422
    assert "Idempotency-Key" in other.why
    elsewhere = (str(uuid4()), "nothing/elsewhere")
    assert gateway.fire(elsewhere[0], token_for(gateway, elsewhere), **key).status in (200, 404)
    again = [gateway.fire(deployment[0], token, {"text": "x"}).json["claude_code_session_id"] for _ in range(2)]
    assert len({*again, answers[0].json["claude_code_session_id"]}) == 3


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb\x7f"])
def test_keys_that_are_none_are_refused(gateway: Gateway, deployment: Routine, token: str, key: str) -> None:
    """A sender that relies on it must know."""
    assert gateway.fire(deployment[0], token, **{"Idempotency-Key": key}).status == 400


def test_more_calls_than_a_routine_takes_have_to_wait(
    sources: str, start_gateway: StartGateway, deployment: Routine, prefect_server: str
) -> None:
    """429 with Retry-After; another routine is not touched."""
    gateway = start_gateway(ROUTINES_GATEWAY_FIRES_PER_MINUTE="2")
    token = token_for(gateway, deployment)
    answers = [gateway.fire(deployment[0], token) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].json["error"]["type"] == "rate_limit_error"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30


def test_a_run_can_be_read_with_its_token(gateway: Gateway, deployment: Routine, token: str) -> None:
    """State, verdict, cost, links; another routine's token, or another session, sees nothing."""
    identity = gateway.fire(deployment[0], token, {"text": "x"}).json["claude_code_session_id"]
    path = f"/v1/claude_code/routines/{deployment[0]}/runs"
    answer = gateway.ask("GET", f"{path}/{identity}", headers={"Authorization": f"Bearer {token}"})
    assert answer.status == 200
    assert answer.json["type"] == "routine_run"
    assert answer.json["state"] in ("waiting", "started")
    assert (answer.json["verdict"], answer.json["cost_usd"], answer.json["links"]) == (None, 0.0, [])
    assert gateway.ask("GET", f"{path}/{identity}").status == 401
    assert gateway.ask("GET", f"{path}/ses-none", headers={"Authorization": f"Bearer {token}"}).status == 404
    foreign = gateway.in_store(
        lambda store: store.create_session(session_id=f"ses-{uuid4().hex}", routine="x", flow_run_id=None, deployment_id=str(uuid4()))
    )
    assert gateway.ask("GET", f"{path}/{foreign.id}", headers={"Authorization": f"Bearer {token}"}).status == 404


def test_calls_are_taken_while_prefect_is_away(start_gateway: StartGateway) -> None:
    """The token vouches for the routine; the run is made when Prefect is back."""
    gateway = start_gateway(PREFECT_API_URL=NOWHERE)
    routine = (str(uuid4()), "triage/production")
    answer = gateway.fire(routine[0], token_for(gateway, routine), {"text": "x"})
    assert answer.status == 200
    identity = answer.json["claude_code_session_id"]
    [waiting] = gateway.in_store(lambda store: store.dispatches(session_id=identity))
    assert waiting.status == "waiting"
    path = f"/sessions/{identity}"
    assert b"No run has taken it up: waiting" in gateway.ask("GET", path, headers=signed_in(gateway, path)).raw
