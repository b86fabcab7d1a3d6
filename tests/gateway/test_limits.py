"""What a sender may take: bytes, seconds, requests. Over raw sockets, with bodies that lie, drip, or never end."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_routines.gateway.limits import Rates

from .conftest import StartGateway
from .gateway_process import SECRET, Gateway, issue, signature, signed

HEAD = b"POST /hooks/github HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-GitHub-Event: issues\r\n"


def head_of(body: bytes, *more: bytes) -> bytes:
    """A signed request's head, without a length."""
    own = f"X-GitHub-Delivery: {uuid4()}\r\nX-Hub-Signature-256: {signature(body)}\r\n".encode()
    return HEAD + own + b"".join(line + b"\r\n" for line in more)


def status_of(said: bytes) -> int:
    assert said.startswith(b"HTTP/1.1 "), said[:200]
    return int(said[9:12])


def test_a_body_of_thirty_megabytes_is_refused_by_its_announced_length(gateway: Gateway) -> None:
    """And the sender gets to read that, though it is still sending."""
    answer = gateway.github(b'"' + b"x" * 30_000_000 + b'"')
    assert answer.status == 413
    assert "larger than 25,000,000 bytes" in answer.why
    assert answer.headers["connection"] == "close"


def test_an_endless_chunked_body_is_cut(gateway: Gateway) -> None:
    """At the limit of its size; what it sends further ends with the connection."""
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    sent = 0
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(head_of(b"", b"Transfer-Encoding: chunked") + b"\r\n")
        said: list[bytes] = []
        listener = threading.Thread(target=lambda: said.append(connection.recv(65536)))
        listener.start()
        with pytest.raises(OSError):  # noqa: PT011, PT012 - the other side closes: reset or broken pipe
            while True:
                connection.sendall(chunk)
                sent += len(chunk)
        listener.join(10)
    assert status_of(said[0]) == 413
    assert sent > 25_000_000
    assert time.monotonic() - began < 30
    assert gateway.github(issue()).status == 202


def test_a_chunked_body_is_taken(gateway: Gateway) -> None:
    """As long as it ends."""
    body = json.dumps(issue()).encode()
    chunks = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in (body[:10], body[10:])) + b"0\r\n\r\n"
    said = gateway.raw(head_of(body, b"Transfer-Encoding: chunked", b"Connection: close"), b"\r\n" + chunks)
    assert status_of(said) == 202


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, gzip", "zstd"])
def test_compressed_bodies_are_not_taken(gateway: Gateway, encoding: str) -> None:
    """Nobody can know how large they are."""
    answer = gateway.github(issue(), **{"Content-Encoding": encoding})
    assert answer.status == 415
    assert "compressed" in answer.why


def test_a_length_that_promises_more_than_comes(gateway: Gateway) -> None:
    """The sender goes away in the middle: nothing is taken, and the service goes on."""
    body = json.dumps(issue()).encode()
    head = head_of(body, f"Content-Length: {len(body) + 100}".encode()) + b"\r\n"
    before = gateway.in_store(lambda store: store.deliveries(limit=1000))
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(head + body)
    gateway.wait_for_log(" 499 ")
    assert len(gateway.in_store(lambda store: store.deliveries(limit=1000))) == len(before)


def test_a_length_that_promises_less_than_comes(gateway: Gateway) -> None:
    """What is beyond it is not part of the body, so the signature does not hold; the rest is no request."""
    body = json.dumps(issue()).encode()
    said = gateway.raw(head_of(body, f"Content-Length: {len(body) - 5}".encode()) + b"\r\n" + body)
    assert status_of(said) == 401
    assert b"HTTP/1.1 202" not in said


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 2", b"Content-Length: 3"],
        [b"Content-Length: -1"],
        [b"Content-Length: 1e3"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Bad Header: x", b"Content-Length: 2"],
        [b"X: a\x00b", b"Content-Length: 2"],
        [b"X-Much: " + b"x" * 100_000, b"Content-Length: 2"],
        [b"X-%d: y" % number for number in range(5000)],
    ],
    ids=["two lengths", "negative", "no number", "gzip and chunked", "a space", "NUL", "a long header", "many headers"],
)
def test_requests_that_are_no_http_are_refused(gateway: Gateway, lines: list[bytes]) -> None:
    """By the parser, before anything is done."""
    assert 400 <= status_of(gateway.raw(head_of(b"{}", *lines) + b"\r\n{}")) < 502


def test_a_sender_that_says_it_will_not_wait_is_refused_before_it_sends(gateway: Gateway) -> None:
    """`Expect: 100-continue`, as curl sends with large bodies: it is not asked for what would be thrown away."""
    head = head_of(b"", b"Content-Length: 30000000", b"Expect: 100-continue") + b"\r\n"
    said = gateway.raw(head)
    assert status_of(said) == 413
    assert b"100 Continue" not in said


def test_slow_bodies_and_slow_headers_are_cut(start_gateway: StartGateway) -> None:
    """A byte now and then does not hold a place for ever."""
    gateway = start_gateway(ROUTINES_GATEWAY_BODY_SECONDS="1")
    began = time.monotonic()
    said = gateway.raw(head_of(b"", b"Content-Length: 1000") + b"\r\n{")
    assert status_of(said) == 408
    assert gateway.raw(HEAD[:50]) == b""  # never became a request
    assert gateway.raw(b"") == b""
    assert time.monotonic() - began < 20


def flood(gateway: Gateway, count: int, send: Callable[[int], int]) -> list[int]:
    found: list[int] = []
    threads = [threading.Thread(target=lambda number=number: found.append(send(number))) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_failures_from_one_address_are_slowed_down(start_gateway: StartGateway) -> None:
    """After some, with Retry-After; no large body is read from there then. Signed small deliveries get through all the same."""
    gateway = start_gateway(ROUTINES_GATEWAY_FAILURES_PER_MINUTE="5")
    answers = [gateway.github(issue(), secret="wrong") for _ in range(8)]
    assert [answer.status for answer in answers] == [401] * 5 + [429] * 3
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert gateway.ask("POST", "/hooks/nobody", b"{}").raw == answers[-1].raw  # and that tells no more than before
    large = gateway.github(issue(text="x" * 1_000_000))
    assert (large.status, int(large.headers["retry-after"]) > 0) == (429, True)
    assert gateway.fire("x/y", "rt_" + "a" * 43).status == 429
    assert gateway.github(issue()).status == 202


def test_a_place_is_kept_for_everybody(start_gateway: StartGateway) -> None:
    """More requests at once than are worked on: some are told to come again, at once, and health still answers."""
    gateway = start_gateway(ROUTINES_GATEWAY_CONCURRENCY="4", ROUTINES_GATEWAY_BODY_SECONDS="5")
    held = []
    for _ in range(4):
        connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
        connection.sendall(head_of(b"", b"Content-Length: 1000") + b"\r\n{")
        held.append(connection)
    statuses = flood(gateway, 5, lambda number: gateway.github(issue(number)).status)
    assert statuses == [503] * 5
    answer = gateway.github(issue())
    assert int(answer.headers["retry-after"]) > 0
    assert gateway.ask("GET", "/health").status == 200
    for connection in held:
        connection.close()
    gateway.until(lambda: gateway.github(issue()).status == 202)  # the four have been noticed to be gone


def test_a_source_has_its_rate_and_its_size(sources: str, start_gateway: StartGateway) -> None:
    """As its block says; only for whoever knows the secret, so others learn nothing about it."""
    from prefect_routines.gateway.sources import WebhookSource

    name = f"test-{uuid4().hex[:8]}"
    WebhookSource(signature="bearer", secrets=[SECRET], rate_per_minute=3, max_body=1000).save(name)
    gateway = start_gateway()

    def send(body: bytes, secret: str = SECRET) -> int:
        return gateway.ask("POST", f"/hooks/{name}", body, {"Authorization": f"Bearer {secret}"}).status

    assert send(b"x" * 2000, "wrong") == 401
    assert [send(body) for body in (b"x" * 2000, b"a", b"b", b"c")] == [413, 202, 202, 429]


def test_rates_are_buckets_that_fill_again() -> None:
    """Full at first, then as many in a minute as were said."""
    now = [0.0]
    rates = Rates(clock=lambda: now[0])
    assert [rates.take("a", 60) for _ in range(60)] == [0.0] * 60
    assert rates.take("a", 60) == 1.0
    assert rates.take("b", 60) == 0.0
    now[0] = 2.0
    assert [rates.take("a", 60) for _ in range(3)] == [0.0, 0.0, 1.0]


@given(st.lists(st.floats(0, 30), max_size=200), st.integers(1, 50))
def test_no_minute_has_more_than_twice_the_rate(pauses: list[float], per_minute: int) -> None:
    """Whatever the times: what was saved up, and what came in that minute."""
    now, taken = [0.0], []
    rates = Rates(clock=lambda: now[0])
    for pause in pauses:
        now[0] += pause
        if rates.take("x", per_minute) == 0:
            taken.append(now[0])
    for at in taken:
        assert sum(at <= one < at + 60 for one in taken) <= 2 * per_minute + 1
    assert all(one <= other for one, other in pairwise(taken))


def test_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    """Two in one packet."""
    bodies = [json.dumps(issue(number)).encode() for number in range(2)]
    heads = [head_of(body, f"Content-Length: {len(body)}".encode()) + b"\r\n" + body for body in bodies]
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(b"".join(heads))
        for _ in heads:
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 202
            answer.read()


def test_signed_headers_may_not_come_twice(gateway: Gateway) -> None:
    """Two signatures, one of them right: which one counts is not guessed."""
    body = json.dumps(issue()).encode()
    twice = head_of(body, b"X-Hub-Signature-256: sha256=" + b"0" * 64, f"Content-Length: {len(body)}".encode(), b"Connection: close")
    assert status_of(gateway.raw(twice + b"\r\n" + body)) == 401
    assert signed(body)["X-Hub-Signature-256"] == signature(body)
