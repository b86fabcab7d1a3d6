"""Asked by e-mail, answered with a link: a real mail server, a gateway of its own, pages read as a browser gets them."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import pytest

from connectors.mail_server import MailServer, serving
from gateway.conftest import StartGateway
from gateway.gateway_process import Answer, Gateway
from prefect_routines.connectors.email import Email
from prefect_routines.notices.links import AnswerLink, LinkKey
from prefect_routines.notices.notify import notify
from prefect_routines.notices.told import calls_digest
from prefect_routines.store import Form, Store

from .world import asked, waiting

EVIL = '<script>alert(1)</script> & "quoted" \u202etxt https://evil.example/x\nsubject: #safe'


@dataclass
class Mailing:
    """A gateway whose e-mail block sends to a real server."""

    gateway: Gateway
    server: MailServer
    block: str

    def asks(self, *calls: dict[str, Any], to: str = "#ada@acme.com", **content: Any) -> Form:
        """A form that waits, with the mails about it on their way."""

        async def work(store: Store) -> Form:
            record, form = await waiting(store, *calls, **content)
            await notify(store, record.id, "approval", form.id, [f"email/{self.block}{to}"])
            return form

        form: Form = self.gateway.in_store(work)
        return form

    def mail(self, form: Form, to: str = "ada@acme.com") -> str:
        """The text of the one to somebody, as soon as it is there."""

        def found() -> list[str]:
            texts = [one.message.get_content() for one in self.server.taken if one.recipients == [to]]
            return [text for text in texts if form.session_id in text]

        self.gateway.until(lambda: bool(found()))
        [text] = found()
        return text

    def link(self, form: Form, decision: str, to: str = "ada@acme.com") -> str:
        """Path and query of a link in that mail."""
        found = re.search(rf"^{decision}:\s+(http\S+)", self.mail(form, to), re.MULTILINE)
        assert found
        parts = urlsplit(found[1])
        assert parts.netloc == "127.0.0.1:4280"
        return f"{parts.path}?{parts.query}"

    def press(self, page: Answer, **more: str) -> Answer:
        """The button of a page."""
        token = re.search(rb'name=t value="([^"]+)"', page.raw)
        assert token
        body = urlencode({"t": html.unescape(token[1].decode()), **more}).encode()
        return self.gateway.ask("POST", "/answer", body, {"Content-Type": "application/x-www-form-urlencoded"})

    def form(self, form: Form) -> Form:
        """As the store has it now."""
        found: Form = self.gateway.in_store(lambda store: store.form(form.id))
        return found


@pytest.fixture
def mailing(prefect_server: str, start_gateway: StartGateway) -> Iterator[Mailing]:
    """With two people and a host that may be written to."""
    server, name = MailServer(), f"test-{uuid4().hex[:8]}"
    with serving(server):
        recipients = ["ada@acme.com", "max@acme.com", "*@ops.acme.com"]
        Email(credentials=server.credentials(), sender="bot@acme.com", recipients=recipients).save(name)
        yield Mailing(start_gateway(), server, name)


def test_a_link_shows_a_page_and_its_button_answers(mailing: Mailing) -> None:
    """Looking at it, as often as programs like, changes nothing. It works once, and the answer is the recipient's."""
    form = mailing.asks(asked(arguments={"text": EVIL}))
    mail = mailing.mail(form)
    assert "<https" not in mail
    assert "https://evil" not in mail  # no mail program makes a link of it
    link = mailing.link(form, "Approve")
    for method in ("GET", "HEAD", "GET"):
        assert mailing.gateway.ask(method, link).status == 200
    assert mailing.form(form).status == "open"
    page = mailing.gateway.ask("GET", link)
    said = page.raw.decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;quoted&quot; \\u202etxt https://evil.example/x\nsubject: #safe</pre>" in said
    assert "<script" not in said
    assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert page.headers["referrer-policy"] == "no-referrer"
    done = mailing.press(page)
    assert done.status == 200
    assert b"Approved by ada@acme.com via e-mail." in done.raw
    answered = mailing.form(form)
    assert (answered.status, answered.person, answered.via) == ("answered", "ada@acme.com", "e-mail")
    assert mailing.press(page).status == 409
    assert b"Approved by ada@acme.com" in mailing.gateway.ask("GET", mailing.link(form, "Deny")).raw
    assert mailing.form(form) == answered


def test_all_declared_people_get_links_of_their_own(mailing: Mailing) -> None:
    """The first answer counts, however many come at once; a reason goes along."""
    form = mailing.asks(to="")
    links = [mailing.link(form, "Deny", who) for who in ("ada@acme.com", "max@acme.com")]
    assert len(set(links)) == 2
    pages = [mailing.gateway.ask("GET", link) for link in links] * 10
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda page: mailing.press(page, reason="not this week"), pages))
    assert sorted(one.status for one in answers) == [200, *[409] * 19]
    answered = mailing.form(form)
    assert answered.answer is not None
    assert answered.answer["decisions"]["toolu_1"] | {"hash": ""} == {"decision": "deny", "reason": "not this week", "hash": ""}
    assert len([one for one in mailing.server.taken if form.session_id in one.message.get_content()]) == 2


def test_forged_expired_and_foreign_links_change_nothing(mailing: Mailing) -> None:
    """Each says why, and to whom it may concern no more."""
    form = mailing.asks()
    link = mailing.link(form, "Approve")
    token = link.partition("t=")[2]
    for wrong in ("", "x", token[:-2], f"{token}A", "a" * 10_000):
        assert mailing.gateway.ask("GET", f"/answer?t={wrong}").status == 400
        assert mailing.gateway.ask("POST", "/answer", urlencode({"t": wrong}).encode()).status == 400
    for raw in (b"", b"\xff\xfe", b"t", b"&".join([b"t=1"] * 50)):
        assert mailing.gateway.ask("POST", "/answer", raw).status == 400
    assert mailing.gateway.ask("POST", "/answer", b"t=" + b"a" * 100_000).status == 413
    assert mailing.gateway.ask("POST", link).status == 400  # the token is in the page's form, not in the address
    assert mailing.form(form).status == "open"
    short = mailing.asks(seconds=8)
    page = mailing.gateway.ask("GET", late := mailing.link(short, "Approve"))
    assert page.status == 200
    mailing.gateway.until(lambda: mailing.gateway.ask("GET", late).status == 410)
    refused = mailing.press(page)
    assert refused.status == 410
    assert f"/sessions/{short.session_id}".encode() in refused.raw
    assert mailing.form(short).answer is None
    named = mailing.asks(people=["max@acme.com"])
    refused = mailing.gateway.ask("GET", mailing.link(named, "Approve"))
    assert refused.status == 403
    assert b"only max@acme.com may answer" in refused.raw
    assert "Unexpected" not in mailing.gateway.log


def test_a_link_that_a_run_signed_is_taken_by_a_gateway_with_a_key_of_its_own(prefect_server: str, start_gateway: StartGateway) -> None:
    """Workers and plain runs send mails, too, and know nothing of that key."""
    gateway = start_gateway(ROUTINES_GATEWAY_KEY="k" * 64)

    async def work(store: Store) -> tuple[Form, str]:
        _, form = await waiting(store)
        link = AnswerLink(form.id, calls_digest(form.content), "approve", "ada@acme.com", int(time.time()) + 60)
        return form, link.signed(await LinkKey().get())

    form, token = gateway.in_store(work)
    page = gateway.ask("GET", f"/answer?t={token}")
    assert page.status == 200
    assert b"Approve" in page.raw
    assert form.session_id.encode() in page.raw
    assert gateway.ask("GET", "/").status == 303


def test_mail_goes_to_declared_people_only(mailing: Mailing) -> None:
    """Whatever a routine says; what cannot be sent says why, and is tried again."""
    form = mailing.asks(to="#eve@evil.example")

    async def notes(store: Store) -> list[str | None]:
        return [notice.note for notice in await store.notices(subject=form.id)]

    mailing.gateway.until(lambda: mailing.gateway.in_store(notes) != [None])
    assert "eve@evil.example is no declared recipient" in str(mailing.gateway.in_store(notes))
    assert mailing.server.taken == []
    allowed = mailing.asks(to="#Night@ops.acme.com")
    assert "Approve:" in mailing.mail(allowed, "night@ops.acme.com")
