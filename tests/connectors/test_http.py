"""Talking to a service: patient with reads and limits, careful with writes, bounded always. Against a real server on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from pydantic import SecretStr

from prefect_routines.connectors.http import Api, ServiceError, bearer
from prefect_routines.errors import OutcomeUnknown

Script = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: bytes = b"{}", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Service:
    """A server that answers each request as the test says, and remembers what it was asked."""

    answers: list[bytes | Script]
    asked: list[str] = field(default_factory=list)
    url: str = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Service]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            number = min(len(self.asked), len(self.answers)) - 1
            said = self.answers[number]
            if isinstance(said, bytes):
                writer.write(said)
                await writer.drain()
            else:
                await said(number, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has heard enough
        finally:
            writer.close()

    def api(self, **options: object) -> Api:
        return Api("Thing", self.url, block="thing/main", headers=bearer(SecretStr("t0ken-value")), **options)  # type: ignore[arg-type]


async def test_reads_are_tried_again() -> None:
    """A service that is busy for a moment is no failure."""
    async with Service([answer(503), answer(502), answer(200, b'{"a": 1}')]).running() as service:
        api = service.api()
        assert (await api.get("/x", {"q": "a b", "left": None})).json() == {"a": 1}
        await api.close()
    assert [asked.split()[1] for asked in service.asked] == ["/x?q=a+b"] * 3
    assert "authorization: bearer t0ken-value" in service.asked[0].lower()


async def test_a_service_that_stays_down_is_told_with_its_address() -> None:
    """After three tries."""
    async with Service([answer(503)]).running() as service:
        with pytest.raises(ServiceError, match=rf"Thing \({service.url}\): answered with status 503; tried 3 times"):
            await service.api().get("/x")
    assert len(service.asked) == 3


@pytest.mark.parametrize("status", [408, 500, 520, 529, 599])
async def test_what_a_service_or_a_proxy_before_it_says_of_its_own_trouble_is_tried_again(status: int) -> None:
    """Proxies have numbers of their own for it."""
    async with Service([answer(status), answer(200, b"7")]).running() as service:
        assert (await service.api().get("/x")).json() == 7
    assert len(service.asked) == 2


LOST = {
    **{str(status): answer(status) for status in (302, 304, 307, 408, 500, 501, 520, 524, 529, 599, 600)},
    "seen elsewhere": answer(303, b"", "Location: /made"),
    "redirected nowhere": answer(302, b"", "Location: http://[broken"),
    "cut": b"",
    "half": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf",
    "cannot be unpacked": answer(201, b"this is not packed", "Content-Encoding: gzip"),
    "too large": answer(201, b"x" * 10_000_001),
}


@pytest.mark.parametrize("said", LOST.values(), ids=LOST)
async def test_a_write_whose_answer_was_lost_is_not_repeated(said: bytes) -> None:
    """It may have been carried out: that is what the caller hears of all that is neither a success nor a refusal."""
    async with Service([said]).running() as service:
        with pytest.raises(OutcomeUnknown, match="whether it was carried out is unknown"):
            await service.api().send("POST", "/x", json={})
    assert len(service.asked) == 1


async def test_a_write_that_nobody_took_is_sent_again() -> None:
    """No connection came about, so nothing can have happened; in the end it has failed, not an unknown outcome."""
    async with Service([]).running() as service:
        pass
    with pytest.raises(ServiceError, match="cannot be reached"):
        await service.api().send("POST", "/x", json={})


UNREADABLE = {
    "half": b"HTTP/1.1 422 X\r\nContent-Length: 99\r\n\r\nhalf",
    "cannot be unpacked": answer(422, b"this is not packed", "Content-Encoding: gzip"),
    "too large": answer(422, b"x" * 10_000_001),
}


@pytest.mark.parametrize("said", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_refusal_whose_text_cannot_be_read_is_a_refusal(said: bytes) -> None:
    """Its status says enough: a write was not taken."""
    async with Service([said]).running() as service:
        with pytest.raises(ServiceError, match=r"Thing answered 422$"):
            await service.api().send("POST", "/x", json={})
    assert len(service.asked) == 1


async def test_a_pause_that_is_asked_for_is_kept() -> None:
    """By reads and writes alike: nothing was done yet."""
    limited = answer(429, b"{}", "Retry-After: 1")
    async with Service([limited, answer(201), limited, answer(200)]).running() as service:
        began = time.monotonic()
        await service.api().send("POST", "/x")
        assert time.monotonic() - began >= 1
        await service.api().get("/x")
        assert time.monotonic() - began >= 2


@pytest.mark.parametrize(
    "limited",
    [
        answer(429, b"{}", "Retry-After: 600"),
        answer(403, b"{}", "x-ratelimit-remaining: 0", f"x-ratelimit-reset: {time.time() + 600:.0f}"),
        answer(403, b"{}", "retry-after: 600"),
        answer(429, b"{}", "x-ratelimit-reset: 600"),
    ],
    ids=["standard", "github", "github secondary", "datadog"],
)
async def test_a_long_pause_is_told(limited: bytes) -> None:
    """With the time at which it ends."""
    async with Service([limited]).running() as service:
        with pytest.raises(ServiceError, match=r"limits the rate of requests until \d\d:\d\d:\d\d UTC") as caught:
            await service.api().get("/x")
    assert caught.value.status == 429


@pytest.mark.parametrize(
    "header",
    [
        f"Retry-After: {'9' * 30}",
        "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT",
        f"x-ratelimit-reset: {'9' * 400}",
        f"x-ratelimit-reset: {'9' * 13}",
    ],
    ids=["seconds", "date", "reset", "milliseconds"],
)
async def test_an_absurd_pause_counts_as_a_day(header: str) -> None:
    """It is told like any long one, with the date."""
    async with Service([answer(429, b"{}", header)]).running() as service:
        with pytest.raises(ServiceError, match=r"limits the rate of requests until \d\d:\d\d:\d\d UTC on \d{4}-\d\d-\d\d;") as caught:
            await service.api().send("POST", "/x")
    assert caught.value.status == 429


@pytest.mark.parametrize("header", ["Retry-After: 0", "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT", "x-ratelimit-reset: 0"])
async def test_a_limit_that_never_ends_is_not_asked_again_and_again(header: str) -> None:
    """The pauses grow, from a second on, whatever the service says; in the end it is told as a limit."""
    async with Service([answer(429, b"{}", header)]).running() as service:
        with pytest.raises(ServiceError, match="limits the rate of requests until"):
            await service.api(patience=3.5).get("/x")
    assert len(service.asked) == 3


async def _endless(_: int, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(50):
        writer.write(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
        await writer.drain()


async def test_a_huge_answer_is_not_read() -> None:
    """50 MB: it stops at the bound and says so."""
    async with Service([_endless]).running() as service:
        with pytest.raises(ServiceError, match="larger than 10 MB"):
            await service.api().get("/x")
    assert len(service.asked) == 1


async def test_a_packed_bomb_counts_unpacked() -> None:
    """What is small on the wire may be huge in memory."""
    import gzip

    body = gzip.compress(b"\0" * 50_000_000)
    async with Service([answer(200, body, "Content-Encoding: gzip")]).running() as service:
        with pytest.raises(ServiceError, match="larger than 10 MB"):
            await service.api().get("/x")


async def test_silence_ends() -> None:
    """A service that never answers costs the time-out, not the session."""
    over = asyncio.Event()

    async def silent(_: int, writer: asyncio.StreamWriter) -> None:
        await over.wait()

    async with Service([silent]).running() as service:
        with pytest.raises(ServiceError, match=r"did not answer within 0\.2 s; tried 3 times"):
            await service.api(timeout=0.2).get("/x")
        with pytest.raises(OutcomeUnknown):
            await service.api(timeout=0.2).send("POST", "/x")
        over.set()


async def test_what_is_no_json_is_said() -> None:
    """With a glimpse of what it is, harmless to look at."""
    async with Service([answer(200, b"<html>\x1b[2J")]).running() as service:
        with pytest.raises(ServiceError, match=r"no JSON: <html>\\x1b\[2J"):
            (await service.api().get("/x")).json()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b'{"message": "Bad credentials"}', r"Thing answered 401: Bad credentials\. The login of thing/main is wrong or has expired"),
        (403, b'{"errors": ["no scope"]}', r"Thing answered 403: no scope\. The login of thing/main may not do that: a scope"),
        (404, b'{"error": {"message": "no such thing"}}', "Thing answered 404: no such thing"),
        (422, b'{"message": "Invalid", "errors": [{"message": "head is missing"}]}', "Thing answered 422: Invalid: head is missing"),
        (400, b"plain \x1b[31mwords", r"Thing answered 400: plain \\x1b\[31mwords"),
        (409, b"", "Thing answered 409"),
    ],
)
async def test_a_refusal_is_told_in_one_line(status: int, body: bytes, said: str) -> None:
    """What the service says, and what to do about it. A refused write was not carried out."""
    async with Service([answer(status, body)]).running() as service:
        for ask in (service.api().get("/x"), service.api().send("POST", "/x")):
            with pytest.raises(ServiceError, match=said) as caught:
                await ask
            assert caught.value.status == status
            assert "t0ken-value" not in str(caught.value)


KEYS = {"Authorization": "Bearer t0ken-value", "DD-API-KEY": "api-key-value", "DD-APPLICATION-KEY": "app-key-value", "X-Org": "org-77"}


async def _keys() -> dict[str, str]:
    return KEYS


async def test_the_login_stays_with_its_origin() -> None:
    """A redirect to another host is followed without any of its headers, one that leads back as well."""
    async with Service([]).running() as service, Service([]).running() as other:
        service.answers += [answer(302, b"", f"Location: {other.url}/signed?a=1#b"), answer(200, b"log")]
        other.answers += [answer(302, b"", "Location: signed2"), answer(307, b"", f"Location: {service.url}/end")]
        api = Api("Thing", service.url, block="thing/main", headers=_keys)
        found = await api.get("/x", {"q": "1"}, headers={"Accept": "text/log", "X-Api-Token": "own-t0ken"})
        await api.close()
    assert found.text == "log"
    assert [asked.split()[1] for asked in (*service.asked, *other.asked)] == ["/x?q=1", "/end", "/signed?a=1", "/signed2"]
    assert all(value in service.asked[0] for value in (*KEYS.values(), "own-t0ken"))
    for asked in (service.asked[1], *other.asked):
        assert not [value for value in (*KEYS.values(), "own-t0ken") if value in asked]
        assert "accept: text/log" in asked.lower()


async def test_within_its_origin_a_redirect_takes_the_login_along() -> None:
    """A thing that has moved is still the service's; what is posted is posted there again where the status says so."""
    moved, seen = answer(307, b"", "Location: /new?b=2"), answer(303, b"", "Location: /got")
    async with Service([moved, answer(200, b"1"), moved, answer(200, b"2"), seen, answer(200, b"3")]).running() as service:
        api = service.api()
        assert (await api.get("/x", {"q": "1"})).json() == 1
        assert (await api.ask("POST", "/x", json={})).json() == 2
        assert (await api.ask("POST", "/x", json={})).json() == 3
        await api.close()
    paths = [" ".join(asked.split()[:2]) for asked in service.asked]
    assert paths == ["GET /x?q=1", "GET /new?b=2", "POST /x", "POST /new?b=2", "POST /x", "GET /got"]
    assert all("authorization: bearer t0ken-value" in asked.lower() for asked in service.asked)


async def test_a_host_that_wants_the_login_after_a_redirect_is_told() -> None:
    """That it refuses does not mean that the login is wrong."""
    async with Service([answer(401)]).running() as other, Service([answer(302, b"", f"Location: {other.url}/x")]).running() as service:
        with pytest.raises(ServiceError, match=f"redirects to {other.url}, which answered 401: another host does not get the login; set"):
            await service.api().get("/x")


@pytest.mark.parametrize(("method", "there"), [("GET", "file://localhost/etc/passwd"), ("POST", "https://localhost:1/x")])
async def test_a_redirect_to_where_nothing_may_go_is_told(method: str, there: str) -> None:
    """What is no encrypted service gets nothing, and what is posted stays with its origin."""
    async with Service([answer(307, b"", f"Location: {there}")]).running() as service:
        with pytest.raises(ServiceError, match=r"redirects .*; set the address of thing/main right"):
            await service.api().ask(method, "/x")
    assert len(service.asked) == 1


async def test_a_redirect_in_a_circle_ends() -> None:
    """After five."""
    async with Service([answer(302, b"", "Location: /x")]).running() as service:
        with pytest.raises(ServiceError, match="redirects more than 5 times; set the address of thing/main right"):
            await service.api().get("/x")
    assert len(service.asked) == 6


async def test_a_login_that_cannot_be_sent_is_not_shown() -> None:
    """A line break, or a letter that no header can hold, comes along easily when a token is copied."""
    async with Service([answer(200)]).running() as service:
        for token in ("t0ken-value\nx", "t0ken-v\u00e4lue"):
            api = Api("Thing", service.url, block="thing/main", headers=bearer(SecretStr(token)))
            with pytest.raises(ServiceError, match="Thing") as caught:
                await api.get("/x")
            assert "t0ken" not in str(caught.value)


async def test_a_wrong_address_names_the_block() -> None:
    """It is the author's to mend."""
    with pytest.raises(ServiceError, match="is no address; set the one of thing/main right"):
        await Api("Thing", "htp:/nowhere", block="thing/main").get("/x")
