"""Whether a delivery comes from someone who knows the secret. Headers and body in; nothing, or an error, out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from prefect_routines.errors import RoutinesError

Headers = Mapping[str, str] | Iterable[tuple[bytes, bytes]]
"""Headers of a request: as ASGI gives them, or any mapping. Pairs are better: only they show that a header came twice."""

_LONGEST_HEADER = 8192
_MOST_SIGNATURES = 16


class SignatureError(RoutinesError):
    """A delivery is not signed as its source must sign. The text is for the operator's log; every sender gets the same answer."""


class Scheme(BaseModel):
    """How a source proves that it knows the secret.

    Example:
        Slack, which signs `v0:TIMESTAMP:BODY`:

        ```python
        Scheme(kind="hmac", header="X-Slack-Signature", prefix="v0=", signed="v0:{timestamp}:{body}",
               timestamp_header="X-Slack-Request-Timestamp")
        ```
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["hmac", "standard", "bearer", "basic", "header"] = Field(
        description="'hmac': a header with an HMAC of the body. 'standard': Standard Webhooks. 'bearer': Authorization: Bearer SECRET. "
        "'basic': Authorization: Basic with the secret as password. 'header': a header that holds the secret itself."
    )
    header: str = Field(default="", description="Name of the header, for 'hmac' and 'header'.", pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]*$")
    algorithm: Literal["sha256", "sha1", "sha512"] = Field(default="sha256", description="Hash of the HMAC.")
    encoding: Literal["hex", "base64"] = Field(default="hex", description="How the HMAC is written.")
    prefix: str = Field(default="", description="What stands before each signature, for example 'sha256='.", max_length=100)
    signed: str = Field(default="{body}", description="What is signed: '{body}', or for example '{timestamp}:{body}'.", max_length=200)
    timestamp_header: str = Field(default="", description="Header with the time of sending in seconds since 1970, if it is signed.")
    tolerance: int = Field(default=300, ge=1, description="Seconds by which that time may differ from ours, either way.")
    user: str = Field(default="", description="User name that 'basic' demands. Default: any.")

    @model_validator(mode="after")
    def _complete(self) -> Scheme:
        if self.kind in ("hmac", "header") and not self.header:
            raise ValueError(f"the scheme {self.kind!r} needs the name of a `header`")
        if self.signed.count("{body}") != 1 or self.signed.count("{timestamp}") > 1:
            raise ValueError("`signed` must contain {body} once, and {timestamp} at most once")
        if ("{timestamp}" in self.signed) != bool(self.timestamp_header):
            raise ValueError("`timestamp_header` and {timestamp} in `signed` belong together: an unsigned time proves nothing")
        return self


# Each from the sender's own documentation.
SCHEMES: dict[str, Scheme] = {
    # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    "github": Scheme(kind="hmac", header="X-Hub-Signature-256", prefix="sha256="),
    # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    "standard": Scheme(kind="standard"),
    # https://developer.pagerduty.com/docs/verifying-webhook-signatures (several, with commas, while a secret is rotated)
    "pagerduty": Scheme(kind="hmac", header="X-PagerDuty-Signature", prefix="v1="),
    # https://docs.sentry.io/integrations/integration-platform/webhooks/#sentry-hook-signature
    "sentry": Scheme(kind="hmac", header="Sentry-Hook-Signature"),
    # https://docs.slack.dev/authentication/verifying-requests-from-slack
    "slack": Scheme(
        kind="hmac",
        header="X-Slack-Signature",
        prefix="v0=",
        signed="v0:{timestamp}:{body}",
        timestamp_header="X-Slack-Request-Timestamp",
    ),
    "bearer": Scheme(kind="bearer"),
    "basic": Scheme(kind="basic"),
}


def verify(scheme: Scheme, headers: Headers, body: bytes, secrets: Sequence[str], *, now: float) -> None:
    """Return if the delivery is signed with one of the secrets; all are tried, in constant time.

    Args:
        scheme: How the source signs; `SCHEMES` has the known ones.
        headers: Headers of the request.
        body: The raw bytes, before anything parsed them.
        secrets: The secrets that hold now; two while one is being replaced.
        now: Seconds since 1970.

    Raises:
        SignatureError: It is not, or cannot be checked. Nothing else is raised, whatever the headers hold.
    """
    headers = headers if isinstance(headers, Mapping) else list(headers)
    known = [secret.encode("utf-8", "surrogatepass") for secret in secrets if secret.strip()]
    if not known:
        raise SignatureError("no secret is set for this source, so nothing it sends can be believed; put one into its block")
    if scheme.kind == "hmac":
        _hmac(scheme, headers, body, known, now)
    elif scheme.kind == "standard":
        _standard(scheme, headers, body, known, now)
    elif scheme.kind == "header":
        _same(_only(headers, scheme.header).encode(), known, f"the header {scheme.header} holds another secret")
    elif scheme.kind == "bearer":
        _same(_credentials(headers, "bearer"), known, "the bearer token is another one")
    else:
        _basic(scheme, headers, known)


def find_header(headers: Headers, name: str) -> str | None:
    """The value of a header, or None if it is missing, empty, there twice, overlong or not ASCII."""
    try:
        return _only(headers, name)
    except SignatureError:
        return None


def _only(headers: Headers, name: str) -> str:
    wanted = name.lower()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    texts = [(_text(key), _text(value)) for key, value in pairs]
    values = [value for key, value in texts if key.lower() == wanted]
    if len(values) != 1:
        raise SignatureError(f"the header {name} is there {len(values)} times" if values else f"the header {name} is missing")
    value = values[0].strip(" \t")
    if not value or not value.isascii() or not value.isprintable() or len(value) > _LONGEST_HEADER:
        raise SignatureError(f"the header {name} is empty, overlong or not plain text")
    return value


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _same(given: bytes, known: Iterable[bytes], otherwise: str) -> None:
    """Compare without telling by the time it takes how much of a secret was right, or how long it is."""
    digest = hashlib.sha256(given).digest()
    matches = [hmac.compare_digest(digest, hashlib.sha256(secret).digest()) for secret in known]
    if not any(matches):
        raise SignatureError(otherwise)


def _credentials(headers: Headers, scheme: str) -> bytes:
    kind, _, rest = _only(headers, "Authorization").partition(" ")
    if kind.lower() != scheme or not rest.strip():
        raise SignatureError(f"the header Authorization does not say {scheme.capitalize()} and a value")
    return rest.strip().encode()


def _basic(scheme: Scheme, headers: Headers, known: list[bytes]) -> None:
    try:
        decoded = base64.b64decode(_credentials(headers, "basic"), validate=True)
    except ValueError:
        raise SignatureError("the header Authorization: Basic is not base64") from None
    user, _, password = decoded.partition(b":")
    wrong = "the user name or password is another one"
    expected = scheme.user.encode("utf-8", "surrogatepass")
    # one comparison of both: neither alone can be guessed
    if scheme.user:
        _same(user + b":" + password, [expected + b":" + secret for secret in known], wrong)
    else:
        _same(password, known, wrong)


def _hmac(scheme: Scheme, headers: Headers, body: bytes, known: list[bytes], now: float) -> None:
    given = []
    for part in _only(headers, scheme.header).split(",")[:_MOST_SIGNATURES]:
        text = part.strip()
        if text.startswith(scheme.prefix) and (decoded := _decoded(text.removeprefix(scheme.prefix), scheme.encoding)):
            given.append(decoded)
    if not given:
        raise SignatureError(f"the header {scheme.header} holds no {scheme.encoding} signature{_after(scheme.prefix)}")
    time = str(_timestamp(headers, scheme.timestamp_header, scheme.tolerance, now)) if scheme.timestamp_header else ""
    before, after = (part.replace("{timestamp}", time).encode() for part in scheme.signed.split("{body}"))
    _signed(given, (before, body, after), known, scheme.algorithm, f"the signature in {scheme.header} was made with another secret or body")


def _standard(scheme: Scheme, headers: Headers, body: bytes, known: list[bytes], now: float) -> None:
    message = _only(headers, "webhook-id")
    time = _timestamp(headers, "webhook-timestamp", scheme.tolerance, now)
    parts = _only(headers, "webhook-signature").split(" ")[:_MOST_SIGNATURES]
    given = [decoded for part in parts if part.startswith("v1,") and (decoded := _decoded(part[3:], "base64"))]
    if not given:
        raise SignatureError("the header webhook-signature holds no signature of version v1")
    keys = [key for secret in known if (key := _decoded(secret.removeprefix(b"whsec_").decode("latin-1"), "base64"))]
    if not keys:
        raise SignatureError("the secret of this source is not one of Standard Webhooks (whsec_ and base64); copy it again from the sender")
    before = f"{message}.{time}.".encode()
    _signed(given, (before, body), keys, "sha256", "the signature in webhook-signature was made with another secret, id, time or body")


def _signed(given: list[bytes], parts: Iterable[bytes], keys: list[bytes], algorithm: str, otherwise: str) -> None:
    parts, matches = list(parts), []
    for key in keys:
        digest = hmac.new(key, digestmod=algorithm)
        for part in parts:  # a body of many megabytes is not copied
            digest.update(part)
        expected = digest.digest()
        matches += [hmac.compare_digest(expected, signature) for signature in given]
    if not any(matches):
        raise SignatureError(otherwise)


def _decoded(text: str, encoding: str) -> bytes | None:
    """The bytes, or None if the text is not of that encoding. Senders leave out the padding of base64, or write its URL form."""
    try:
        if encoding == "hex":
            return binascii.unhexlify(text) or None
        plain = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True) or None
    except ValueError:
        return None


def _timestamp(headers: Headers, name: str, tolerance: int, now: float) -> int:
    text = _only(headers, name)
    if not text.isdigit() or len(text) > 12 or (len(text) > 1 and text.startswith("0")):
        raise SignatureError(f"the header {name} is not a time in whole seconds since 1970")
    apart = int(now) - int(text)
    if abs(apart) > tolerance:
        where = "old" if apart > 0 else "in the future"
        raise SignatureError(
            f"the time in {name} is {abs(apart)} s {where}, more than {tolerance} s: an old delivery sent again, or a clock that is wrong"
        )
    return int(text)


def _after(prefix: str) -> str:
    return f" after {prefix!r}" if prefix else ""
