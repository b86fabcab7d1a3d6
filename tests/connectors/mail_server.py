"""A real mail server on loopback (aiosmtpd) that keeps what it took, and misbehaves when it is told to."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword
from aiosmtpd.smtp import Session as Talk
from prefect_email import EmailServerCredentials

Context = ssl.SSLContext | None
USER, PASSWORD = "bot@acme.com", "correct-horse-battery"


@dataclass
class Taken:
    """One message that the server took."""

    sender: str
    recipients: list[str]
    content: bytes

    @property
    def message(self) -> EmailMessage:
        return cast(EmailMessage, message_from_bytes(self.content, policy=default))


@dataclass
class MailServer:
    """What it took, and how it misbehaves.

    Args:
        refused: Recipients that it does not know.
        after_data: What it does with the end of a message: 'take', 'take and hang up', 'hang up' or a reply such as '552 too large'.
        at_data: Whether it hangs up when a message is announced.
    """

    refused: tuple[str, ...] = ()
    after_data: str = "take"
    at_data: bool = False
    taken: list[Taken] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    port: int = 0

    async def handle_RCPT(self, server: SMTP, session: Talk, envelope: Envelope, address: str, options: list[str]) -> str:  # noqa: N802  # aiosmtpd's name
        if address in self.refused:
            return "550 5.1.1 no such mailbox \x1b[31mhere"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Talk, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's name
        if self.after_data.startswith("take"):
            assert isinstance(envelope.content, bytes)
            self.taken.append(Taken(envelope.mail_from or "", list(envelope.rcpt_tos), envelope.content))
        if self.after_data.endswith("hang up"):
            assert server.transport is not None
            server.transport.abort()
        return "250 taken as 4711" if self.after_data.startswith("take") else self.after_data

    def authenticate(self, server: SMTP, session: Talk, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        """Whether a login is right."""
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login.decode())
        return AuthResult(success=(data.login.decode(), data.password.decode()) == (USER, PASSWORD), handled=False)

    def credentials(self, **fields: Any) -> EmailServerCredentials:
        """The login block for it."""
        given = {"smtp_server": "127.0.0.1", "smtp_port": self.port, "smtp_type": "INSECURE"}
        return EmailServerCredentials(**given | fields)


class _Hasty(SMTP):
    """Hangs up when a message is announced, if its server is told to."""

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802  # aiosmtpd's name
        if cast(MailServer, self.event_handler).at_data:
            assert self.transport is not None
            self.transport.abort()
            return
        await super().smtp_DATA(arg)


class _Controller(Controller):
    def factory(self) -> SMTP:
        return _Hasty(self.handler, **self.SMTP_kwargs)

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]  # the free one that the system chose
        super()._trigger_server()


@contextlib.contextmanager
def serving(server: MailServer, *, login: bool = False, starttls: Context = None, tls: Context = None) -> Iterator[None]:
    """Run it for the length of a test.

    Args:
        login: Whether it wants one.
        starttls: The certificate with which a connection can be made safe.
        tls: The certificate with which each connection is.
    """
    controller = _Controller(
        server,
        hostname="127.0.0.1",
        port=0,
        ssl_context=tls,
        tls_context=starttls,
        authenticator=server.authenticate if login else None,
        auth_required=login,
        auth_require_tls=False,
    )
    controller.start()
    try:
        server.port = controller.port
        yield
    finally:
        controller.stop()


def certificate(place: Path) -> ssl.SSLContext:
    """A server's context with a certificate that it signed itself."""
    key, cert = place / "key.pem", place / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert), "-days", "2"]
    subprocess.run([*command, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context
