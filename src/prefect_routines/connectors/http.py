"""One service over HTTP: logged in, bounded in time and size, patient with limits; what failed is said in one line.

Reads are tried again. A write is sent again only when it surely was not taken: no connection came about, or the service said so with
a status 4xx. All that is neither that nor a success - a redirect, a lost or unreadable answer - is an unknown outcome, and told as one.
"""

from __future__ import annotations

import asyncio
import base64
import json as jsonlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from prefect_routines.errors import OutcomeUnknown, ToolError
from prefect_routines.redaction import Redactor
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    import httpx
    from pydantic import SecretStr

TIMEOUT = 30.0  # seconds for a connection, and between two pieces of an answer
PATIENCE = 60.0  # seconds that a call waits when the service is busy or asks for a pause
LARGEST = 10_000_000  # bytes of an answer, unpacked
TRIES = 3
REDIRECTS = 5
DAY = 86_400.0  # seconds

_LOGIN = re.compile("auth|key|token|secret|cookie", re.IGNORECASE)  # headers that hold one

Headers = Callable[[], Awaitable[Mapping[str, str]]]


class ServiceError(ToolError):
    """A service answered that it will not or cannot. Nothing was changed there.

    Args:
        message: One line.
        status: HTTP status of the answer; 0 if there was none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """An answer, read whole.

    Args:
        status: HTTP status, 200 to 299 once it has left `Api`.
        headers: Its headers; names in any letter case.
        body: Its body, unpacked, at most `LARGEST` bytes.
        service: Name of the service, for errors.
        redactor: Knows the login of the request, which a service may repeat.
    """

    status: int
    headers: httpx.Headers
    body: bytes
    service: str
    redactor: Redactor

    @cached_property
    def text(self) -> str:
        """The body as text; what is no UTF-8 is replaced. The login is gone before anybody cuts the text: half a secret is one, too."""
        return self.redactor.text(self.body.decode("utf-8", "replace"))

    def json(self) -> Any:
        """The body as JSON; None if it is empty.

        Raises:
            ServiceError: It is none.
        """
        if not self.body.strip():
            return None
        try:
            return jsonlib.loads(self.text)
        except (ValueError, RecursionError):
            said = f"{self.service} answered with something that is no JSON: {one_line(self.text[:200], 80)}"
            raise ServiceError(said, self.status) from None


class Api:
    """One service, for one session.

    Args:
        service: Its name, for people.
        base_url: Address that paths are put behind.
        headers: Gives the headers of each request, the login among them; awaited, so that it can fetch a token.
        block: The block that holds the login, as in 'github/docs-bot': errors name it.
        explain: What an error's body says in this service's form; by default the usual fields of a JSON object.
        timeout: Seconds for a connection, and between two pieces of an answer.
        largest: Bytes of an answer, unpacked; a larger one is not read.
        patience: Seconds that a call waits when the service is busy or asks for a pause.

    Example:
        ```python
        api = Api("Prometheus", "http://localhost:9090", block="prometheus/main")
        (await api.get("/api/v1/query", {"query": "up"})).json()
        ```
    """

    def __init__(
        self,
        service: str,
        base_url: str,
        *,
        block: str,
        headers: Headers | None = None,
        explain: Callable[[Any], str] | None = None,
        timeout: float = TIMEOUT,
        largest: int = LARGEST,
        patience: float = PATIENCE,
    ) -> None:
        self.service, self.base_url, self.block = service, base_url.rstrip("/"), block
        self._headers, self._explain, self._timeout, self._largest = headers, explain or explained, timeout, largest
        self._patience = patience
        self._client: httpx.AsyncClient | None = None
        self._redactor, self._held = Redactor(()), set[str]()

    @property
    def host(self) -> str:
        """Name of the host."""
        return urlsplit(self.base_url).hostname or ""

    async def get(self, path: str, params: Mapping[str, Any] | None = None, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Read something; tried again when the service fails or is busy. A redirect is followed, without the login when it leaves the
        origin, and never from https to http.

        Args:
            path: Path behind the base URL, or a whole address.
            params: Query; what is None is left out.
            headers: Further headers.

        Raises:
            ToolError: It cannot be had; the text says why, and what to do.
        """
        return await self._asked("GET", path, params=params, headers=headers, reads=True)

    async def ask(self, method: str, path: str, **content: Any) -> Answer:
        """Read something with another method than GET, such as a search that is posted. Tried again like a read."""
        return await self._asked(method, path, reads=True, **content)

    async def send(self, method: str, path: str, **content: Any) -> Answer:
        """Change something. Sent again only when it surely was not taken.

        Args:
            method: 'POST' or another.
            path: Path behind the base URL.
            content: `json=`, `data=`, `files=`, `content=`, `params=`, `headers=` as httpx takes them.

        Raises:
            ServiceError: The service refused: nothing was changed.
            OutcomeUnknown: The answer was lost, or is neither a success nor a refusal: it may have been taken.
        """
        return await self._asked(method, path, reads=False, **content)

    async def close(self) -> None:
        """End the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _asked(self, method: str, path: str, *, reads: bool, **content: Any) -> Answer:
        deadline = time.monotonic() + self._patience
        failures = pauses = 0
        while True:
            try:
                answer = await self._once(method, path, reads=reads, **content)
            except _Failed as failure:
                failures += 1
                said = f"{self.service} ({self.base_url}): {failure.said}"
                if not (reads or failure.not_taken):
                    raise OutcomeUnknown(f"{said}; whether it was carried out is unknown") from failure
                if failure.remedy:
                    raise ServiceError(f"{said}; {failure.remedy}", failure.status) from failure
                if failures >= TRIES or time.monotonic() > deadline:
                    raise ServiceError(f"{said}; tried {failures} times", failure.status) from failure
                await asyncio.sleep(0.5 * 2 ** (failures - 1))
                continue
            asked_for = _pause(answer)
            if asked_for is None:
                return self._checked(answer)
            pause = max(asked_for, 2.0**pauses)  # who asks for a second again and again is not asked each second
            pauses += 1
            if time.monotonic() + pause > deadline:
                form = "%H:%M:%S UTC" if pause < DAY / 2 else "%H:%M:%S UTC on %Y-%m-%d"
                until = datetime.fromtimestamp(time.time() + pause, UTC).strftime(form)
                raise ServiceError(f"{self.service} limits the rate of requests until {until}; do something else, or try again then", 429)
            await asyncio.sleep(pause)

    async def _once(
        self,
        method: str,
        path: str,
        *,
        reads: bool,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> Answer:
        """One request, with the redirects of a read: httpx would take along each login that is not called `Authorization`."""
        login = await self._headers() if self._headers else {}
        self._remember(login)
        address: httpx.URL | str = path if "://" in path else f"{self.base_url}{path}"
        sent, away = {**login, **(headers or {})}, ""
        content["params"] = {name: value for name, value in (params or {}).items() if value is not None} or None
        for _ in range(REDIRECTS + 1):
            answer, asked, onward = await self._exchange(method, address, sent, **content)
            if onward is None or not reads:
                break
            if onward.method != method:
                content = {}
            content["params"] = None
            method, address = onward.method, onward.url.copy_with(username=None, password=None)
            if _origin(asked) != _origin(address):
                away = _origin(address)
                if address.scheme != "https" and (address.scheme, asked.scheme) != ("http", "http"):
                    raise _Failed(f"redirects to {away}, which is not encrypted", remedy=self._mend)
                if method != "GET":
                    raise _Failed(f"redirects what is posted to {away}", remedy=self._mend)
                sent = {name: value for name, value in (headers or {}).items() if not _LOGIN.search(name)}
        else:
            raise _Failed(f"redirects more than {REDIRECTS} times", remedy=self._mend)
        if away and answer.status in (401, 403):
            said = f"redirects to {away}, which answered {answer.status}: another host does not get the login"
            raise _Failed(said, status=answer.status, remedy=self._mend)
        if answer.status == 408 or answer.status >= 500 or (not reads and not (answer.status in range(200, 300) or answer.status >= 400)):
            raise _Failed(f"answered with status {answer.status}{self._told(answer)}", status=answer.status)
        return answer

    async def _exchange(
        self, method: str, address: httpx.URL | str, headers: Mapping[str, str], **content: Any
    ) -> tuple[Answer, httpx.URL, httpx.Request | None]:
        """The answer, from where, and the request to which it redirects."""
        import httpx

        if self._client is None:
            self._client = httpx.AsyncClient(timeout=self._timeout)
        try:
            async with self._client.stream(method, address, headers=headers, follow_redirects=False, **content) as response:
                try:
                    body = await self._body(response)
                except (_Failed, httpx.TransportError, httpx.DecodingError):
                    if response.status_code < 400:
                        raise
                    body = b""  # the status of an error says enough
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ServiceError(f"{self.service}: {one_line(str(address), 100)} is no address; set the one of {self.block} right") from error
        except UnicodeEncodeError:  # holds what it cannot encode, which may be the login
            raise ServiceError(f"{self.service}: the request, or the login of {self.block}, has characters that cannot be sent") from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _Failed(f"cannot be reached ({self._cause(error)})", not_taken=True) from error
        except httpx.TimeoutException as error:
            raise _Failed(f"did not answer within {self._timeout:g} s") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _Failed(f"the connection failed ({self._cause(error)})") from error
        answer = Answer(response.status_code, response.headers, body, self.service, self._redactor)
        return answer, response.url, response.next_request

    @property
    def _mend(self) -> str:
        return f"set the address of {self.block} right"

    def _cause(self, error: BaseException) -> str:
        """The innermost reason, in a few words; it may quote a header."""
        while error.__cause__ or error.__context__:
            error = error.__cause__ or error.__context__ or error
        return one_line(self._redactor.text(str(error)), 120) or type(error).__name__

    def _remember(self, login: Mapping[str, str]) -> None:
        """Know the secrets of a login again when the service repeats them: tokens, and the password of a basic login."""
        values = [value for name, value in login.items() if _LOGIN.search(name)]
        held = {value.rpartition(" ")[2] for value in values}
        held |= {base64.b64decode(value[6:]).decode("utf-8", "replace").partition(":")[2] for value in values if value.startswith("Basic ")}
        if held != self._held:
            self._redactor, self._held = Redactor(held), held

    async def _body(self, response: httpx.Response) -> bytes:
        parts, size = [], 0
        async for part in response.aiter_bytes():
            size += len(part)
            if size > self._largest:
                said = f"its answer is larger than {self._largest // 1_000_000} MB and was not read"
                raise _Failed(said, status=413, remedy="ask for less")
            parts.append(part)
        return b"".join(parts)

    def _checked(self, answer: Answer) -> Answer:
        if 200 <= answer.status < 300:
            return answer
        said = f"{self.service} answered {answer.status}{self._told(answer)}"
        if answer.status == 401:
            raise ServiceError(f"{said}. The login of {self.block} is wrong or has expired; the author has to renew it", 401)
        if answer.status == 403:
            raise ServiceError(f"{said}. The login of {self.block} may not do that: a scope or permission is missing", 403)
        raise ServiceError(said, answer.status)

    def _told(self, answer: Answer) -> str:
        """What the body of an error says, to be put behind its status."""
        try:
            told = self._explain(answer.json())
        except ServiceError:
            told = answer.text
        told = one_line(told, 300)
        return f": {told}" if told else ""


def bearer(token: SecretStr | None) -> Headers:
    """Headers that log in with a token; none if there is none."""

    async def headers() -> Mapping[str, str]:
        return {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}

    return headers


class _Failed(Exception):
    """No answer, or one that says to try again; with a remedy, trying again does not help."""

    def __init__(self, said: str, *, status: int = 0, not_taken: bool = False, remedy: str = "") -> None:
        super().__init__(said)
        self.said, self.status, self.not_taken, self.remedy = said, status, not_taken, remedy


def explained(body: Any) -> str:
    """What the usual fields of an error say: `message`, `error`, `errors`, `detail`, in the order in which they are found."""
    if not isinstance(body, dict):
        return "" if body is None else str(body)
    parts = []
    for name in ("message", "error", "error_description", "errors", "detail"):
        value = body.get(name)
        if isinstance(value, dict):
            value = explained(value)
        if isinstance(value, list):
            value = "; ".join(explained(item) if isinstance(item, dict) else str(item) for item in value[:5])
        if value and str(value) not in parts:
            parts.append(str(value))
    return ": ".join(parts)


def _pause(answer: Answer) -> float | None:
    """Seconds to wait before the same request may be made again, 1 to a day; None if it need not be.

    429 is the standard's; GitHub also says it with 403.
    https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit
    """
    headers = answer.headers
    used_up = headers.get("x-ratelimit-remaining") == "0"
    if answer.status != 429 and not (answer.status == 403 and (used_up or "retry-after" in headers)):
        return None
    return min(max(1.0, _told_pause(headers.get("retry-after", "").strip(), headers.get("x-ratelimit-reset", "").strip())), DAY)


def _told_pause(after: str, reset: str) -> float:
    """Seconds that the headers tell, however absurd; 5 if they tell nothing."""
    if after.isdecimal():
        return float(after)
    if after:
        try:
            return parsedate_to_datetime(after).timestamp() - time.time()
        except (TypeError, ValueError, ArithmeticError, LookupError, OSError):
            pass
    if reset.isdecimal():
        # GitHub gives the time, Datadog the seconds that are left
        return float(reset) - time.time() if float(reset) > 1e9 else float(reset)
    return 5.0


def _origin(address: httpx.URL) -> str:
    """Scheme, host and port."""
    return f"{address.scheme}://{one_line(address.host, 80)}{f':{address.port}' if address.port else ''}"
