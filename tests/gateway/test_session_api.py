"""The session API: who may see and do what, what is journaled, streams that can be resumed, and what is refused."""

from __future__ import annotations

import concurrent.futures
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import jsonschema
import pytest

from session.journals import agent, result, started, text, use, user, verdict

from .conftest import StartGateway
from .gateway_process import NOWHERE, Gateway
from .session_world import Stream, World, asked, ready


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A gateway whose Prefect is away: nothing here needs it."""
    gateway = Gateway(tmp_path_factory.mktemp("gateway"), PREFECT_API_URL=NOWHERE, ROUTINES_GATEWAY_FAILURES_PER_MINUTE="10000")
    yield World(gateway)
    assert gateway.stop() == 0
    assert "Unexpected" not in gateway.log, gateway.log


CONVERSATION = [
    user("Bring the docs up to date.", prompt=1),
    agent(text("I look."), use("t1", command="ls")),
    started("t1"),
    result("t1", "a b"),
]


def test_a_session_is_listed_and_read(world: World) -> None:
    """With its totals, its state, and where it can be looked at."""
    token = world.token("read", routine="listed")
    first = world.session("listed", *ready(), *CONVERSATION)
    second = world.session("listed")
    second.end("nothing_to_do", "Nothing was missing.")
    page = world.get("/v1/sessions?limit=1", token).json
    assert [one["id"] for one in page["data"]] == [second.id]
    rest = world.get(f"/v1/sessions?cursor={page['next']}", token).json
    assert ([one["id"] for one in rest["data"]], rest["next"]) == ([first.id], None)
    for filters, found in (
        ("verdict=nothing_to_do", [second.id]),
        ("without=nothing_to_do", [first.id]),
        ("state=running", [first.id]),
        ("state=stopped", []),
        ("routine=other", []),
    ):
        assert [one["id"] for one in world.get(f"/v1/sessions?{filters}", token).json["data"]] == found, filters
    read = world.get(f"/v1/sessions/{first.id}", token).json
    assert (read["state"], read["turns"], read["last_entry"], read["verdict"]) == ("running", 1, 7, None)
    assert read["url"].endswith(f"/sessions/{first.id}")
    for wrong in ("verdict=great", "state=x", "limit=0", "limit=x", "cursor=ses-none", "colour=red"):
        assert world.get(f"/v1/sessions?{wrong}", token).status == 422, wrong


def test_entries_are_read_in_pages(world: World) -> None:
    """After a number, with a limit; as they were written."""
    token, session = world.token("read"), world.session("paged", *ready(), *CONVERSATION)
    page = world.get(f"/v1/sessions/{session.id}/entries?after=2&limit=3", token).json
    assert ([one["seq"] for one in page["data"]], page["has_more"]) == ([3, 4, 5], True)
    assert page["data"][1]["data"] == CONVERSATION[0][1]
    assert world.get(f"/v1/sessions/{session.id}/entries?after=7", token).json == {"data": [], "has_more": False}
    assert world.get(f"/v1/sessions/{session.id}/entries?after=-1", token).status == 422


def test_a_token_may_what_its_scopes_say(world: World) -> None:
    """401 without one, 403 beyond its scopes; and a token of the fire endpoint sees no session."""
    session, asks = world.session(), world.session()
    form = asks.ask()
    read, steer, approve = world.token("read"), world.token("steer"), world.token("approve")
    fire = world.token("fire", deployment="d-1", routine="docs-sync/production")
    here = f"/v1/sessions/{session.id}"
    answer = {"decisions": {"toolu_9": {"decision": "approve"}}}
    for path, body, allowed in (
        (f"{here}/messages", {"text": "Hello"}, {steer}),
        (f"{here}/interrupt", None, {steer}),
        (f"{here}/suspend", None, {steer}),
        (f"{here}/cancel", None, {steer}),
        (f"/v1/sessions/{asks.id}/forms/{form.id}", answer, {approve}),
    ):
        assert world.post(path, None, body).status == 401
        for token in (read, steer, approve, fire):
            status = world.post(path, token, body).status
            assert (status in (200, 202)) == (token in allowed), (path, status)
            assert token in allowed or status == 403, (path, status)
    for token, status in ((read, 200), (steer, 200), (approve, 200), (fire, 403), ("rt_" + "x" * 43, 401), ("nonsense", 401)):
        assert world.get(here, token).status == status
        assert world.get("/v1/sessions", token).status == status
        assert world.get(f"{here}/forms", token).status == status


def test_a_session_token_starts_nothing(world: World) -> None:
    """Whatever it is called."""
    token = world.token("read", "steer", "approve", routine="triage/production")
    assert world.gateway.fire("triage%2Fproduction", token, {"text": "x"}).status == 401


def test_a_token_of_one_routine_sees_nothing_of_another(world: World) -> None:
    """404, as for a session that is not there: to read, to steer, to answer, to stream."""
    session = world.session("secret-work", *ready())
    form = session.ask()
    token = world.token("read", "steer", "approve", routine="docs-sync")
    paths = ["", "/entries", "/stream", "/forms", f"/forms/{form.id}"]
    there, nowhere = ([world.get(f"/v1/sessions/{one}{path}", token) for path in paths] for one in (session.id, "ses-none"))
    assert {one.status for one in [*there, *nowhere]} == {404}
    assert [one.json for one in there] == [one.json for one in nowhere]
    answer = {"decisions": {"toolu_9": {"decision": "approve"}}}
    for path, body in (("messages", {"text": "x"}), ("cancel", None), ("resume", {"text": "x"}), (f"forms/{form.id}", answer)):
        assert world.post(f"/v1/sessions/{session.id}/{path}", token, body).status == 404
    mine = world.session("docs-sync")
    assert world.post(f"/v1/sessions/{mine.id}/forms/{form.id}", token, answer).status == 404
    assert session.acts == []
    assert session.form(form.id).status == "open"
    assert session.id not in [one["id"] for one in world.get("/v1/sessions?limit=200", token).json["data"]]


def test_a_token_of_a_deployment_sees_its_sessions(world: World) -> None:
    """And may be one to fire it at the same time."""
    token = world.token("fire", "read", deployment="d-77", routine="docs-sync/weekly")
    mine, other = world.session(deployment="d-77"), world.session(deployment="d-78")
    assert [one["id"] for one in world.get("/v1/sessions", token).json["data"]] == [mine.id]
    assert world.get(f"/v1/sessions/{other.id}", token).status == 404


def test_what_is_sent_lands_with_the_session_under_the_persons_name(world: World) -> None:
    """In order; `via` says that it came through the API."""
    token, session = world.token("steer", name="ada"), world.session()
    here = f"/v1/sessions/{session.id}"
    assert world.post(f"{here}/messages", token, {"text": "There is a pull request already, stop. \u202e"}).status == 202
    assert world.post(f"{here}/messages", token, {"text": "Now!", "interrupt": True}).json["kind"] == "interrupt"
    assert world.post(f"{here}/interrupt", token).json["person"] == "ada"
    assert world.post(f"{here}/suspend", token, {}).status == 202
    assert [(act.kind, act.text) for act in session.acts] == [
        ("message", "There is a pull request already, stop. \u202e"),
        ("interrupt", "Now!"),
        ("interrupt", ""),
        ("suspend", ""),
    ]
    assert {(act.person, act.via) for act in session.acts} == {("ada", "api")}


def test_cancelling(world: World) -> None:
    """A session at work is told; one whose process is gone ends here."""
    token, session = world.token("steer"), world.session()
    asked_to = world.post(f"/v1/sessions/{session.id}/cancel", token)
    assert (asked_to.status, asked_to.json["status"]) == (202, "asked")
    assert [act.kind for act in session.acts] == ["cancel"]
    waiting = world.session()
    waiting.change(status="suspended")
    form = waiting.ask()
    world.gateway.in_store(lambda store: store.release(waiting.lease))
    done = world.post(f"/v1/sessions/{waiting.id}/cancel", token)
    assert (done.status, done.json["status"]) == (200, "cancelled")
    read = world.get(f"/v1/sessions/{waiting.id}", token).json
    assert (read["state"], read["cancelled"], read["summary"]) == ("ended", True, "Cancelled by ada")
    assert waiting.form(form.id).status == "withdrawn"
    assert world.post(f"/v1/sessions/{waiting.id}/cancel", token).status == 409


def test_messages_to_a_session_that_is_over_are_refused(world: World) -> None:
    """With what to do instead; who resumes while Prefect is away is told to come back."""
    token, session = world.token("steer"), world.session("docs-sync", *ready(), *CONVERSATION)
    session.end()
    for path, body in (("messages", {"text": "x"}), ("interrupt", None), ("suspend", None), ("cancel", None)):
        refused = world.post(f"/v1/sessions/{session.id}/{path}", token, body)
        assert refused.status == 409
        assert f"routines resume {session.id}" in refused.why
    refused = world.post(f"/v1/sessions/{session.id}/resume", token, {"text": "Go on"})
    assert refused.status == 409
    assert "was not started by a deployment" in refused.why
    deployed = world.session("docs-sync", *ready(), *CONVERSATION, deployment="d-1")
    deployed.end()
    refused = world.post(f"/v1/sessions/{deployed.id}/resume", token, {"text": "Go on"})
    assert refused.status == 503
    assert "Prefect" in refused.why
    at_work = world.session("docs-sync", *ready(), *CONVERSATION)
    refused = world.post(f"/v1/sessions/{at_work.id}/resume", token, {"text": "Go on"})
    assert refused.status == 409
    for wrong in ({}, {"text": " "}, {"text": "x" * 100_001}, {"text": "x", "at": 0}):
        assert world.post(f"/v1/sessions/{session.id}/resume", token, wrong).status == 422


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"text": "x" * 1_000_000}, 422, "1,000,000 characters; at most 100,000"),
        (b'{"text": "' + b"x" * 3_000_000 + b'"}', 413, "larger than 2,000,000 bytes"),
        ({"text": "   "}, 422, "empty"),
        ({"text": ""}, 422, "text"),
        ({}, 422, "text"),
        ({"text": 5}, 422, "text"),
        ({"text": "x", "loud": True}, 422, "loud"),
        ([], 422, "JSON object"),
        (b"{", 400, "not JSON"),
    ],
    ids=["1 MB", "3 MB", "blanks", "empty", "nothing", "number", "unknown field", "list", "no JSON"],
)
def test_messages_that_are_wrong_are_refused(world: World, body: Any, status: int, reason: str) -> None:
    """With the reason; nothing lands."""
    session = world.session()
    refused = world.post(f"/v1/sessions/{session.id}/messages", world.token("steer"), body)
    assert (refused.status, session.acts) == (status, [])
    assert reason in refused.why


def test_of_twenty_answers_one_wins(world: World) -> None:
    """The others are told that it is too late; the form says who it was."""
    session = world.session()
    form = session.ask()
    tokens = [world.token("approve", name=f"person-{number}") for number in range(4)]
    answer = {"decisions": {"toolu_9": {"decision": "approve", "hash": form.content["calls"][0]["hash"]}}}
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(
            pool.map(lambda number: world.post(f"/v1/sessions/{session.id}/forms/{form.id}", tokens[number % 4], answer), range(20))
        )
    assert sorted(one.status for one in answers) == [200, *[409] * 19]
    [won] = [one.json for one in answers if one.status == 200]
    kept = session.form(form.id)
    assert (kept.status, kept.via) == ("answered", "api")
    assert kept.person == won["person"]
    assert kept.answer is not None
    assert kept.answer["decisions"]["toolu_9"]["decision"] == "approve"
    late = next(one for one in answers if one.status == 409)
    assert "has answered it already" in late.why


def test_an_answer_counts_though_prefect_does_not_reply(start_gateway: StartGateway) -> None:
    """Whoever answered, or cancelled, is told so, and not that it should be tried again."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        world = World(start_gateway(PREFECT_API_URL=f"http://127.0.0.1:{silent.getsockname()[1]}/api"))
        token = world.token("steer", "approve")
        session = world.session()
        form = session.ask(flow_run_id=str(uuid4()))
        answer = {"decisions": {"toolu_9": {"decision": "approve", "hash": form.content["calls"][0]["hash"]}}}
        answered = world.post(f"/v1/sessions/{session.id}/forms/{form.id}", token, answer)
        assert (answered.status, answered.json["status"], answered.json["person"]) == (200, "answered", "ada")
        world.gateway.in_store(lambda store: store.release(session.lease))
        cancelled = world.post(f"/v1/sessions/{session.id}/cancel", token)
        assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")


def test_answers_that_come_too_late_or_do_not_fit(world: World) -> None:
    """409 for a form that expired or is not needed any more, 422 for what does not fit, 404 for none; the form stays as it was."""
    token, session = world.token("approve"), world.session()
    answer = {"decisions": {"toolu_9": {"decision": "approve"}}}
    expired = session.ask(seconds=0)
    assert world.post(f"/v1/sessions/{session.id}/forms/{expired.id}", token, answer).status == 409
    gone = session.ask()
    world.gateway.in_store(lambda store: store.close_form(gone.id, "withdrawn", None, person="the session"))
    assert world.post(f"/v1/sessions/{session.id}/forms/{gone.id}", token, answer).status == 409
    form = session.ask(content={"calls": [asked(editable=False)]})
    here = f"/v1/sessions/{session.id}/forms/{form.id}"
    for wrong in (
        {},
        {"decisions": {}},
        {"decisions": {"toolu_9": {"decision": "perhaps"}}},
        {"decisions": {"toolu_1": {"decision": "approve"}}},
        {"decisions": {"toolu_9": {"decision": "approve", "hash": "0" * 64}}},
        {"decisions": {"toolu_9": {"decision": "approve", "arguments": {"text": "other"}}}},
        {"decisions": 5},
        {**answer, "more": 1},
        [],
    ):
        assert world.post(here, token, wrong).status == 422, wrong
    assert session.form(form.id).status == "open"
    assert world.post(f"/v1/sessions/{session.id}/forms/frm-none", token, answer).status == 404
    listed = world.get(f"/v1/sessions/{session.id}/forms", token).json["data"]
    assert [one["status"] for one in listed] == ["open", "withdrawn", "open"]  # what expired stays open until somebody looks after it
    assert world.get(here, token).json["content"]["calls"][0]["arguments"]["channel"] == "#docs"


def test_only_named_people_may_answer_where_a_routine_says_so(world: World) -> None:
    """403 for others; the right one counts."""
    session = world.session()
    form = session.ask(content={"calls": [asked()], "people": ["grace"]})
    here, answer = f"/v1/sessions/{session.id}/forms/{form.id}", {"decisions": {"toolu_9": {"decision": "deny", "reason": "not now"}}}
    refused = world.post(here, world.token("approve", name="ada"), answer)
    assert refused.status == 403
    assert "only grace may answer" in refused.why
    assert world.post(here, world.token("approve", name="grace"), answer).status == 200
    assert session.form(form.id).person == "grace"


def test_a_pause_is_for_those_who_steer_and_more_budget_for_those_who_approve(world: World) -> None:
    """Saying something is one thing, permitting something another."""
    steer, approve = world.token("steer"), world.token("steer", "approve")
    session = world.session()
    form = session.ask("pause", {"person": "ada"})
    here = f"/v1/sessions/{session.id}/forms/{form.id}"
    assert world.post(here, steer, {"action": "continue", "raise": {"dollars": 5}}).status == 403
    assert world.post(here, steer, {"action": "continue", "message": "Look at the tests first."}).status == 200
    budget = session.ask("budget", {"reached": "200 of 200 turns", "used": {}})
    here = f"/v1/sessions/{session.id}/forms/{budget.id}"
    assert world.post(here, steer, {"action": "continue", "raise": {"turns": 20}}).status == 403
    assert world.post(here, approve, {"action": "continue"}).status == 422
    assert world.post(here, approve, {"action": "continue", "raise": {"turns": 20}}).status == 200
    kept = session.form(budget.id).answer
    assert kept is not None
    assert kept["raise"] == {"turns": 20}


def test_a_stream_tells_what_happens(world: World) -> None:
    """Entries with their numbers, live text in pieces, forms and how it stands; at its end it ends."""
    token, session = world.token("read"), world.session("streamed", *ready())
    with world.stream(f"/v1/sessions/{session.id}/stream", token) as stream:
        assert [stream.next("entry").id for _ in range(3)] == [1, 2, 3]
        assert stream.next("status").data["state"] == "running"
        session.write(*CONVERSATION)
        assert [stream.next("entry").data["kind"] for _ in range(2)] == ["user.message", "agent.message"]
        world.gateway.until(lambda: world.gateway.in_store(lambda store: store.pulse(session.id)).watched)
        session.show_live(2, "I am writ")
        assert stream.next("live").data == {"turn": 2, "at": 0, "text": "I am writ"}
        session.show_live(2, "I am writing \x1b[2J")
        assert stream.next("live").data == {"turn": 2, "at": 9, "text": "ing \x1b[2J"}
        form = session.ask()
        assert stream.next("form").data["id"] == form.id
        assert stream.next("status").data["waiting_forms"] == [form.id]
        world.post(
            f"/v1/sessions/{session.id}/forms/{form.id}", world.token("approve"), {"decisions": {"toolu_9": {"decision": "approve"}}}
        )
        assert stream.next("form").data["status"] == "answered"
        session.end()
        while stream.next("status").data["verdict"] != "done":
            pass  # one that tells of the answer, or of the last entry
        assert stream.next("end").data == {"verdict": "done"}
        assert stream.ended.wait(20)


def test_a_stream_goes_on_where_it_was_cut(world: World) -> None:
    """After the last id, whoever asks; of a session that is over the rest, and the end."""
    token, session = world.token("read"), world.session("cut", *ready(), *CONVERSATION)
    session.end()
    with world.stream(f"/v1/sessions/{session.id}/stream", token, **{"Last-Event-ID": "6"}) as stream:
        assert [stream.next("entry").id for _ in range(2)] == [7, 8]
        assert stream.next("end")
    with world.stream(f"/v1/sessions/{session.id}/stream?after=8", token) as stream:
        assert stream.next("end")
    assert world.get(f"/v1/sessions/{session.id}/stream?after=x", token).status == 422


def test_those_who_watch_share_a_reader_and_nobody_watching_costs_nothing(world: World) -> None:
    """Several see the same; when all are gone, the session is not asked for live text any more."""
    token, session = world.token("read"), world.session("shared", *ready())
    path = f"/v1/sessions/{session.id}/stream?after=3"
    with world.stream(path, token) as one, world.stream(path, token) as two:
        for stream in (one, two):
            stream.next("status")
        session.write(user("x", prompt=1))
        assert [stream.next("entry").id for stream in (one, two)] == [4, 4]
    assert session.acts == []


def test_too_many_watchers_are_told_so(start_gateway: StartGateway) -> None:
    """503, while everything else goes on; who goes away makes room; and the gateway ends at once although somebody watches."""
    gateway = start_gateway(PREFECT_API_URL=NOWHERE, ROUTINES_GATEWAY_STREAMS="1")
    world = World(gateway)
    token, session = world.token("read"), world.session()
    with world.stream(f"/v1/sessions/{session.id}/stream", token) as stream:
        stream.next("status")
        refused = world.get(f"/v1/sessions/{session.id}/stream", token)
        assert refused.status == 503
        assert "watch" in refused.why
        assert world.get(f"/v1/sessions/{session.id}", token).status == 200

    with ExitStack() as stack:
        found: list[Stream] = []

        def again() -> bool:
            found[:] = [stack.enter_context(world.stream(f"/v1/sessions/{session.id}/stream", token))]
            return found[0].status == 200

        gateway.until(again, 20)
        [stream] = found
        stream.next("status")
        assert gateway.stop() == 0
        assert stream.ended.wait(5)


def test_behind_https_the_cookie_is_for_https_alone(start_gateway: StartGateway) -> None:
    """And pages of the public address count as our own, whatever the proxy says; a sign-in lasts over a restart."""
    public = "https://routines.example.org"
    gateway = start_gateway(PREFECT_API_URL=NOWHERE, ROUTINES_GATEWAY_URL=public)
    secret = World(gateway).token("read")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = f"token={secret}&back=//evil.example".encode()
    assert gateway.ask("POST", "/sign-in", body, {**form, "Origin": "https://evil.example"}).status == 403
    answer = gateway.ask("POST", "/sign-in", body, {**form, "Origin": public})
    assert (answer.status, answer.headers["location"]) == (303, "/sessions")
    kept, _, attributes = answer.headers["set-cookie"].partition(";")
    assert {"Secure", "HttpOnly", "SameSite=strict"} <= {one.strip() for one in attributes.split(";")}
    assert (gateway.home / "page-key").stat().st_mode & 0o077 == 0
    gateway.stop()
    again = start_gateway(PREFECT_API_URL=NOWHERE, ROUTINES_GATEWAY_URL=public)
    assert again.ask("GET", "/sessions", None, {"Cookie": kept}).status == 200


def test_a_revoked_token_opens_nothing(world: World) -> None:
    """At once."""
    token, session = world.token("read", "steer"), world.session()
    assert world.get(f"/v1/sessions/{session.id}", token).status == 200
    world.gateway.in_store(lambda store: store.revoke_token(token))
    assert world.get(f"/v1/sessions/{session.id}", token).status == 401


def test_the_document_describes_what_there_is(world: World) -> None:
    """OpenAPI 3.1, for whoever asks: each path, and answers that fit their schemas."""
    from fastapi.openapi.models import OpenAPI

    document = world.gateway.ask("GET", "/v1/openapi.json").json
    OpenAPI.model_validate(document)
    assert document["openapi"].startswith("3.1.")
    from prefect_routines.gateway.session_api import routes

    served = {(route.path, method.lower())
              for route in routes() for method in route.methods or () if method != "HEAD" and route.path != "/v1/openapi.json"}  # fmt: skip
    assert {(path, method) for path, methods in document["paths"].items() for method in methods if method != "parameters"} == served
    for name, schema in document["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema.get("description"), name
    refs = {one.partition('"')[0] for one in json.dumps(document).split('"$ref": "')[1:]}
    assert refs <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}

    token, session = world.token("read", "steer"), world.session("described", *ready(), *CONVERSATION, verdict())
    session.ask()
    for path, name in (("", "SessionOut"), ("/entries", "EntryList"), ("/forms", "FormList")):
        given = world.get(f"/v1/sessions/{session.id}{path}", token).json
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(given)
