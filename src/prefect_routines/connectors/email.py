"""E-mail: plain text to recipients that the block declares, over prefect-email's login. It only sends."""

from __future__ import annotations

import asyncio
import re
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from email.utils import formatdate
from typing import Annotated, Any, NoReturn

from prefect_email import EmailServerCredentials
from prefect_email.credentials import SMTPServer, SMTPType
from pydantic import BeforeValidator, Field, HttpUrl, field_validator

from prefect_routines.connectors.connector import Connection, Connector, Toolset, revealed
from prefect_routines.connectors.http import ServiceError
from prefect_routines.errors import OutcomeUnknown, ToolError
from prefect_routines.outgoing import Outgoing
from prefect_routines.tools.tool import ToolContext, Write, tool
from prefect_routines.visible import one_line

TIMEOUT = 30.0  # seconds for the connection, and for each answer of the server
MOST = 50  # recipients of one message

# No quoted names, no '%' and '!' (old relays send those on to other hosts), no wildcard: https://www.rfc-editor.org/rfc/rfc5321#section-4.1.2
_NAME = r"[A-Za-z0-9#$&'+/=?^_`{|}~-]+(?:\.[A-Za-z0-9#$&'+/=?^_`{|}~-]+)*"
_DOMAIN = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"{_NAME}@{_DOMAIN}\Z")
_DECLARED = re.compile(rf"(?:{_NAME}|\*)@{_DOMAIN}\Z")


def _addresses(value: Any) -> list[str]:
    """Recipients as a rule of the policy sees them: each once, in lower case."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise ValueError("give a list of addresses")
    found = list(dict.fromkeys(one.strip().lower() for one in given if one.strip()))
    for one in found:
        if len(one) > 254 or not _ADDRESS.match(one):
            raise ValueError(f"{one_line(one, 80)!r} is no address; write it as name@host, without a display name")
    if not 1 <= len(found) <= MOST:
        raise ValueError(f"give 1 to {MOST} addresses")
    return found


Recipients = Annotated[list[str], BeforeValidator(_addresses, json_schema_input_type=list[str])]
"""Never one joined text: `email_send(to=*@acme.com) x1` would match whoever stands before the last one."""


class Email(Connector):
    """Sends plain-text mail to the recipients that are declared here, and to nobody else whatever a policy says.

    Example:
        ```python
        from prefect_email import EmailServerCredentials
        from prefect_routines.connectors.email import Email

        login = EmailServerCredentials(username="bot@acme.com", password="...", smtp_server="smtp.acme.com", smtp_type="STARTTLS")
        Email(credentials=login, sender="bot@acme.com", recipients=["ops@acme.com", "*@docs.acme.com"]).save("reports")
        ```

        A routine names it, and says what it may send: `@routine(connectors=["email/reports"],
        policy=Policy(allow=["email_send(to=ops@acme.com) x1"]))`.
    """

    _block_type_name = "Email"
    _block_type_slug = "email"
    _documentation_url = HttpUrl("https://docs.prefect.io/integrations/prefect-email")

    credentials: EmailServerCredentials = Field(description="Mail server and login, a block of prefect-email.")
    sender: str = Field(description="Address that mail comes from, e.g. bot@acme.com. The server must accept it for this login.")
    recipients: list[str] = Field(description="Who can be written to: addresses, or '*@acme.com' for all of a host. Nobody else can be.")
    prefix: str = Field(default="email", description="What the tools' names begin with; for a session that uses two.")

    @field_validator("sender")
    @classmethod
    def _sender(cls, value: str) -> str:
        if not _ADDRESS.match(value):
            raise ValueError(f"{one_line(value, 80)!r} is no address; write it as name@host")
        return value

    @field_validator("recipients")
    @classmethod
    def _recipients(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("declare at least one recipient; without one nothing can be sent")
        for one in value:
            if not _DECLARED.match(one):
                raise ValueError(f"{one_line(one, 80)!r} is neither an address nor of the form '*@host'")
        return [one.lower() for one in value]

    def open(self, name: str) -> Connection:
        """The tool; nothing is asked of the server yet."""
        server = MailServer(self.credentials, f"email/{name}")
        return Connection(
            tools=EmailTools(server, self.sender, self.recipients).tools(self.prefix), secrets=lambda: revealed(self.credentials.password)
        )

    def declares(self, address: str) -> bool:
        """Whether mail may go to an address, in lower case."""
        return bool(_ADDRESS.match(address)) and declared(address, self.recipients)

    async def check(self) -> str:
        """Log in, and say from whom and to whom mail can go."""
        server = MailServer(self.credentials, f"email/{self._block_document_name or '?'}")
        await asyncio.to_thread(server.check)
        who = f"logged in as {self.credentials.username}" if self.credentials.username else "without a login"
        return f"mail server {server.address} ({server.security}), {who}; sends as {self.sender} to {', '.join(self.recipients)}"


class EmailTools(Toolset):
    """What Claude may do with mail."""

    def __init__(self, server: MailServer, sender: str, recipients: list[str]) -> None:
        self._server, self._sender, self._recipients = server, sender, recipients

    @tool(target="to", writes=True)
    async def send(
        self,
        context: ToolContext,
        to: Recipients,
        subject: Annotated[str, Outgoing("mail", 200, one_line=True)],
        body: Annotated[str, Outgoing("mail", 50_000)],
    ) -> Write:
        """Send one plain-text e-mail to recipients that were declared. All of them see each other.

        Args:
            to: Addresses, without display names.
            subject: Subject, one line.
            body: Plain text; no HTML, no attachments.
        """
        if strangers := [one for one in to if not declared(one, self._recipients)]:
            raise ToolError(
                f"not sent: {', '.join(strangers)} is no declared recipient of {self._server.block}; "
                f"mail can go to {', '.join(self._recipients)}. Its author can add to that"
            )
        message = plain_message(self._sender, to, " ".join(subject.split()), body := body.rstrip("\n") + "\n", context.key)
        request = {name.lower(): message[name] for name in ("From", "To", "Subject", "Message-ID")} | {"body": body}

        async def send() -> str:
            told = await asyncio.to_thread(self._server.send, self._sender, to, message.as_bytes(policy=WIRE))
            return f"Sent to {', '.join(to)}: the mail server took it ({told}). Message-ID {message['Message-ID']}."

        return Write(request=request, send=send)  # SMTP has no way to look a message up


def declared(address: str, recipients: list[str]) -> bool:
    """Whether an address is among those that a block declares, by itself or by its host."""
    return address in recipients or f"*@{address.rpartition('@')[2]}" in recipients


def plain_message(sender: str, addresses: list[str], subject: str, body: str, key: str) -> EmailMessage:
    """A message in plain text.

    Args:
        key: Makes its Message-ID, so that a message sent twice can be told.
    """
    message = EmailMessage(policy=WIRE)  # refuses a line break in a header
    message["From"], message["To"], message["Subject"] = sender, ", ".join(addresses), subject
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{key}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # keeps out-of-office replies away: https://www.rfc-editor.org/rfc/rfc3834#section-5
    message.set_content(body, cte="quoted-printable")
    return message


class MailServer:
    """A mail server with a login: one connection for each message. Blocking; give it a thread.

    The connection is made here and not by `EmailServerCredentials.get_server`, which waits for ever.

    Args:
        credentials: Its address and login.
        block: The connector's block, as in 'email/reports': errors name it.
        timeout: Seconds for the connection, and for each answer.
    """

    def __init__(self, credentials: EmailServerCredentials, block: str, timeout: float = TIMEOUT) -> None:
        server, kind = credentials.smtp_server, credentials.smtp_type
        assert isinstance(kind, SMTPType)  # the block's own validator has seen to it
        self._host: str = server.value if isinstance(server, SMTPServer) else server
        self._port = credentials.smtp_port or kind.value
        self._kind, self._login, self._timeout, self.block = kind, credentials, timeout, block

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self._host}:{self._port}"

    @property
    def security(self) -> str:
        """How the connection is protected."""
        if self._kind is SMTPType.INSECURE:
            return "not encrypted"
        return f"{self._kind.name}{'' if self._login.verify else ', certificate not checked'}"

    def check(self) -> None:
        """Log in.

        Raises:
            ServiceError: It does not work; the text says what to set right.
        """
        with self._connected() as server:
            self._accepted(*server.noop(), "a first command")

    def send(self, sender: str, recipients: list[str], content: bytes) -> str:
        """Hand over one message, to all recipients or to none. Returns the server's words.

        Raises:
            ServiceError: It was not taken.
            OutcomeUnknown: It was sent whole, and the server did not say whether it took it.
        """
        with self._connected() as server:
            self._accepted(*server.mail(sender, [f"size={len(content)}"] if server.has_extn("size") else []), f"the sender {sender}")
            for one in recipients:
                self._accepted(*server.rcpt(one), f"the recipient {one}")
            self._accepted(*server.docmd("DATA"), "a message", wanted=354)
            server.send(re.sub(rb"(?m)^\.", b"..", content))  # a lone dot ends it: https://www.rfc-editor.org/rfc/rfc5321#section-4.5.2
            try:
                server.send(b".\r\n")  # from here on the server may have it
                code, told = server.getreply()
            except (OSError, smtplib.SMTPException) as error:
                raise OutcomeUnknown(
                    f"the mail server {self.address} got the whole message and then said nothing ({_reason(error)}); "
                    "whether it took it is unknown, and mail cannot be looked up"
                ) from error
            self._accepted(code, told, "the message")
        return one_line(told.decode("utf-8", "replace"), 80)

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        try:
            with self._opened() as server:
                yield server
        except (OSError, smtplib.SMTPException) as error:
            self._explain(error)

    @contextmanager
    def _opened(self) -> Iterator[smtplib.SMTP]:
        context = None
        if self._kind is not SMTPType.INSECURE:
            context = ssl.create_default_context()
            if not self._login.verify:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        server: smtplib.SMTP
        if self._kind is SMTPType.SSL:
            server = smtplib.SMTP_SSL(self._host, self._port, timeout=self._timeout, context=context)
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=self._timeout)
        try:
            server.ehlo_or_helo_if_needed()
            if self._kind is SMTPType.STARTTLS:
                server.starttls(context=context)
                server.ehlo_or_helo_if_needed()
            if self._login.username:
                server.login(self._login.username, self._login.password.get_secret_value())
            yield server
            _quit(server)
        finally:
            server.close()

    def _accepted(self, code: int, told: bytes, what: str, wanted: int = 250) -> None:
        if code != wanted and not (wanted == 250 and code == 251):
            said = one_line(told.decode("utf-8", "replace"), 200)
            again = "try again later" if 400 <= code < 500 else f"set the address or the rights of {self.block} right"
            raise ServiceError(f"the mail server {self.address} refused {what}: {code} {said}. Nothing was sent; {again}", code)

    def _explain(self, error: OSError | smtplib.SMTPException) -> NoReturn:
        """Raise what it means, in one line. All that comes here happened before the message was handed over."""
        block, reason = self.block, _reason(error)
        if isinstance(error, smtplib.SMTPAuthenticationError):
            said = f"refused the login of {block}: {reason}; renew its username and password (many providers want an app password)"
        elif isinstance(error, smtplib.SMTPNotSupportedError) and "STARTTLS" in str(error):
            said = f"offers no STARTTLS; set smtp_type of {block}'s credentials to SSL, or use another port"
        elif isinstance(error, smtplib.SMTPNotSupportedError):
            said = f"takes no login here ({reason}); use STARTTLS or SSL, or leave out the username of {block}"
        elif isinstance(error, ssl.SSLCertVerificationError):
            said = f"shows a certificate that is not trusted ({reason}); set the host name of {block} right, or install the server's CA"
        elif isinstance(error, ssl.SSLError):
            said = f"does not speak TLS as expected ({reason}); set smtp_type and smtp_port of {block}'s credentials right"
        elif isinstance(error, TimeoutError):
            said = f"did not answer within {self._timeout:g} s; set the address and smtp_type of {block}'s credentials right, or wait"
        elif isinstance(error, (smtplib.SMTPException, ConnectionResetError, BrokenPipeError)):
            said = f"broke off ({reason}); set smtp_type and smtp_port of {block}'s credentials right, or try again later"
        else:
            said = f"cannot be reached ({reason}); set the address of {block}'s credentials right, or see whether it is up"
        raise ServiceError(f"the mail server {self.address} {said}. Nothing was sent", getattr(error, "smtp_code", 0)) from error


def _quit(server: smtplib.SMTP) -> None:
    """Say goodbye; what a server answers to that changes nothing."""
    try:
        server.quit()
    except (OSError, smtplib.SMTPException):
        return


def _reason(error: BaseException) -> str:
    """What went wrong, in the server's words where there are any."""
    if isinstance(error, smtplib.SMTPResponseException):
        told = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        return one_line(f"{error.smtp_code} {told}", 200)
    return one_line(getattr(error, "verify_message", "") or getattr(error, "strerror", None) or str(error), 200) or type(error).__name__
