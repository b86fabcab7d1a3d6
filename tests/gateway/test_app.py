"""Webhooks over real sockets: taken once, committed before they are answered, refused with a reason and never with a 500."""

from __future__ import annotations

import http.client
import json
from typing import Any
from uuid import uuid4

import pytest

from .gateway_process import SECRET, Gateway, issue, signature, signed

UNKNOWN = "the source is unknown, or its signature is missing or wrong"


def test_a_delivery_is_taken_and_kept_as_it_came(gateway: Gateway) -> None:
    """With its labels; and the answer names its id."""
    body = json.dumps(issue(text="half \ud83d and \x00")).encode()
    answer = gateway.github(body)
    assert (answer.status, answer.json["status"]) == (202, "accepted")
    kept = gateway.in_store(lambda store: store.delivery(answer.json["id"]))
    assert kept.body == body.decode()
    assert (kept.source, kept.kind, kept.action, kept.repository, kept.number) == ("github", "issues", "opened", "acme/docs", 7)
    assert kept.event == "github.issues.opened"
    assert kept.labels["resource"]["github.actor"] == "mona"
    assert answer.headers["request-id"].startswith("req_")


def test_a_delivery_that_comes_again_is_told_so(gateway: Gateway) -> None:
    """With the first id: same delivery id, or same body under another id."""
    body, guid = json.dumps(issue()).encode(), str(uuid4())
    first = gateway.github(body, guid=guid).json["id"]
    for again in (gateway.github(body, guid=guid), gateway.github(body), gateway.github(issue(8), guid=guid)):
        assert (again.status, again.json) == (200, {"id": first, "status": "duplicate"})


def test_a_ping_is_answered_and_kept(gateway: Gateway) -> None:
    """It starts nothing, but the inbox shows that the hook works."""
    answer = gateway.github({"zen": str(uuid4()), "hook_id": 1}, kind="ping")
    assert (answer.status, answer.json["status"]) == (200, "ping")
    kept = gateway.in_store(lambda store: store.delivery(answer.json["id"]))
    assert (kept.status, kept.kind, kept.event) == ("ping", "ping", "")


def test_github_may_send_a_form(gateway: Gateway) -> None:
    """The other content type that its settings offer."""
    body = b"payload=%7B%22action%22%3A%22" + uuid4().hex.encode() + b"%22%7D"
    answer = gateway.github(body, **{"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status == 202
    assert gateway.in_store(lambda store: store.delivery(answer.json["id"])).payload()["action"]


def test_a_source_with_a_token_may_say_the_same_twice(gateway: Gateway) -> None:
    """Under two ids: a pipeline that deploys the same again means it."""
    login = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}

    def send(identity: str) -> str:
        answer = gateway.ask("POST", "/hooks/pipeline", b'{"deployed": "api"}', {**login, "X-Request-Id": identity})
        return str(answer.json["status"])

    assert [send("one"), send("two"), send("one")] == ["accepted", "accepted", "duplicate"]


def wrong_signatures(body: bytes) -> list[dict[str, str]]:
    good = signed(body)
    missing = {name: value for name, value in good.items() if name != "X-Hub-Signature-256"}
    values = ["", "sha256=", "sha256=zz", "sha1=" + "0" * 40, "sha256=" + "0" * 64, "x" * 9000, "sha256=\xff\xff\xff"]
    values += [signature(body, "another"), signature(body)[:-2]]
    return [missing, *({**good, "X-Hub-Signature-256": value} for value in values)]


def test_unknown_sources_and_wrong_signatures_get_the_same_answer(gateway: Gateway) -> None:
    """Byte for byte, but for the number of the request: nobody learns which sources there are."""
    body = json.dumps(issue()).encode()
    seen = set()
    for path in ("/hooks/github", "/hooks/no-such-source", "/hooks/pipeline", "/hooks/person"):
        for headers in wrong_signatures(body):
            answer = gateway.ask("POST", path, body, headers)
            assert answer.why == UNKNOWN
            varying = ("request-id", "date")
            seen.add((answer.status, answer.raw, *(item for item in sorted(answer.headers.items()) if item[0] not in varying)))
    assert len(seen) == 1
    assert next(iter(seen))[0] == 401
    assert gateway.github(body).status == 202  # and the body was not the reason


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "PATCH"])
def test_hooks_are_for_posting(gateway: Gateway, method: str) -> None:
    """Any other method is told so."""
    answer = gateway.ask(method, "/hooks/github")
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/nothing", "/hooks", "/hooks/", "/hooks/a/b", "/v1/claude_code/routines//fire", "/%00", "/hooks/github/"]
)
def test_other_paths_lead_nowhere(gateway: Gateway, path: str) -> None:
    """In the envelope of errors, also for what only looks like one of ours."""
    answer = gateway.ask("POST", path, b"{}", {"Content-Type": "application/json"})
    assert answer.status in (401, 404)
    assert answer.why


BAD: list[tuple[str, bytes, dict[str, str], int, str]] = [
    ("not JSON", b"{", {}, 400, "not JSON"),
    ("empty", b"", {}, 400, "not JSON"),
    ("too deep", b"[" * 100_000 + b"]" * 100_000, {}, 400, "levels deep"),
    ("too deep and unfinished", b'{"a":' * 100_000, {}, 400, "deep"),
    ("a name twice", b'{"action": "opened", "action": "closed"}', {}, 400, "twice"),
    ("a raw NUL", b'{"a": "\x00"}', {}, 400, "not JSON"),
    ("not UTF-8", b'{"a": "\xff"}', {}, 400, "UTF-8"),
    ("NaN", b'{"a": NaN}', {}, 400, "NaN"),
    ("a huge number", b'{"a": ' + b"9" * 5000 + b"}", {}, 400, "digits"),
    ("another type", b"<xml/>", {"Content-Type": "application/xml"}, 415, "content type"),
    ("a form without the field", b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 400, "payload"),
    ("no event", b"{}", {"X-GitHub-Event": ""}, 400, "X-GitHub-Event"),
    ("no delivery id", b"{}", {"X-GitHub-Delivery": "a b"}, 400, "X-GitHub-Delivery"),
    ("an event's name that is none", b"{}", {"X-GitHub-Event": "../../etc"}, 400, "X-GitHub-Event"),
]


@pytest.mark.parametrize(("body", "headers", "status", "reason"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_a_known_sender_sends_in_vain_is_told_and_shown(
    gateway: Gateway, body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    """A 4xx with the reason to the sender; the inbox has it too."""
    answer = gateway.github(body, **headers)
    assert answer.status == status
    assert reason in answer.why
    newest = gateway.in_store(lambda store: store.deliveries(limit=1))[0]
    assert (newest.status, newest.note) == ("refused", answer.why)


@pytest.mark.parametrize(
    "payload",
    [
        {"action": "opened\ud800\x00", "sender": {"login": "\udfff" * 50}, "repository": {"full_name": "a\x00/b"}},
        {"__prefect_kind": "jinja", "template": "{{ 7 * 7 }}", "issue": {"__prefect_kind": "workspace_variable"}},
        {"action": ["x"], "issue": 5, "repository": None, "sender": "me", "pull_request": {"number": 10**300}},
        {"action": "o" * 100_000, "label": {"name": "\n" * 3000}, "issue": {"labels": [{"name": str(n)} for n in range(2000)]}},
        [],
        "text",
        None,
    ],
    ids=["surrogates", "prefect kinds", "wrong types", "long", "list", "string", "null"],
)
def test_strange_payloads_are_taken(gateway: Gateway, payload: Any) -> None:
    """They are JSON, so they are kept; what cannot be a label is none."""
    body = json.dumps({"nonce": str(uuid4()), **payload} if isinstance(payload, dict) else payload).encode()
    answer = gateway.github(body)
    assert answer.status == 202, answer.raw
    kept = gateway.in_store(lambda store: store.delivery(answer.json["id"]))
    assert kept.body == body.decode()
    assert "\x00" not in str(kept.labels)
    str(kept.labels).encode()  # no lone surrogate


def test_twenty_valid_megabytes_are_taken_whole(gateway: Gateway) -> None:
    """And the service answers others meanwhile and afterwards."""
    body = json.dumps(issue(files=[{"name": f"file {n}", "patch": "+ line\n" * 100} for n in range(22_000)])).encode()
    assert len(body) > 18_000_000
    answer = gateway.github(body)
    assert answer.status == 202, answer.raw[:300]
    kept = gateway.in_store(lambda store: store.delivery(answer.json["id"]))
    assert kept.body.encode() == body


def test_keep_alive_connections_carry_several_deliveries(gateway: Gateway) -> None:
    """One after the other, also after a refusal."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    statuses = []
    for number in range(3):
        body = json.dumps(issue(number)).encode()
        connection.request("POST", "/hooks/github", body, signed(body, secret=SECRET if number != 1 else "wrong"))
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    connection.close()
    assert statuses == [202, 401, 202]


def test_the_log_tells_each_request_and_nothing_secret(gateway: Gateway) -> None:
    """No query, no token, no signature, nothing that acts on a terminal."""
    token = "rt_" + "aB3dE" * 8 + "xyZ"
    marker = uuid4().hex
    gateway.ask("POST", f"/hooks/{token}?token={marker}", b"{}")
    gateway.ask("POST", f"/hooks/%1b%5b2J%0d%0aGET-{marker[:8]}?secret={marker}", b"{}")
    gateway.wait_for_log(f"GET-{marker[:8]}")
    assert marker not in gateway.log
    assert token not in gateway.log
    assert SECRET not in gateway.log
    assert "\x1b" not in gateway.log
    assert "POST /hooks/[secret] 401" in gateway.log


def test_health_tells_how_it_is(gateway: Gateway) -> None:
    """For `routines up`, and for load balancers."""
    answer = gateway.ask("GET", "/health")
    assert (answer.status, answer.json) == (200, {"status": "ok", "prefect": "reached", "webhooks": "taken"})
