"""A delivery's body: read with a limit, decoded, and parsed as JSON that nobody can misread or choke us with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from prefect_routines.errors import RoutinesError
from prefect_routines.gateway.signatures import Headers, find_header

MOST_DEPTH = 200
"""Levels of nesting. GitHub's payloads have under 15; Python's own reader gives up at about a thousand, deep in its stack."""
MOST_CONTAINERS = 2_000_000
"""Lists and objects in one body: each costs about 64 bytes of memory and as few as two of the body."""
MOST_DIGITS = 400
"""Digits of a whole number. Reading one takes time that grows with the square of its length."""
MOST_FIELDS = 1000

_BRACKETS = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))
_CHARSETS = {"": "utf-8", "utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "ascii", "iso-8859-1": "latin-1", "windows-1252": "cp1252"}


class BodyError(RoutinesError):
    """A body that cannot be taken. The text is one line for the sender; `status` is the HTTP status to answer with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Body:
    """What a delivery says.

    Args:
        text: As it was received; of GitHub's form encoding the JSON in it.
        value: The parsed JSON, the fields of a form, or the text itself.
        json: Whether it was JSON.
    """

    text: str
    value: Any
    json: bool


class Incoming:
    """A body while it arrives. It is counted, so that neither a false length nor an endless stream fills the memory.

    Example:
        ```python
        incoming = Incoming(headers, limit=25_000_000)
        async for chunk in request.stream():
            incoming.feed(chunk)
        verify(scheme, headers, incoming.raw(), secrets, now=time.time())
        body = parse(incoming.raw(), content_type)
        ```

    Args:
        headers: Headers of the request.
        limit: Most bytes.

    Raises:
        BodyError: 413 if the announced length is over the limit; 415 for a compressed body, whose size nobody can know.
    """

    def __init__(self, headers: Headers, limit: int) -> None:
        headers = headers if isinstance(headers, Mapping) else list(headers)
        encoding = find_header(headers, "Content-Encoding")
        if encoding and encoding.lower() != "identity":
            raise BodyError(415, "compressed bodies are not taken; send it without Content-Encoding")
        self._limit, self._chunks, self._size = limit, list[bytes](), 0
        length = find_header(headers, "Content-Length") or ""
        if length.isdigit() and (len(length) > 18 or int(length) > limit):
            self._too_large()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            BodyError: 413 as soon as there are too many. Nothing further needs to be read.
        """
        self._size += len(chunk)
        if self._size > self._limit:
            self._chunks.clear()
            self._too_large()
        self._chunks.append(chunk)

    def raw(self) -> bytes:
        """All bytes so far, as they were signed."""
        if len(self._chunks) > 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0] if self._chunks else b""

    def _too_large(self) -> None:
        raise BodyError(413, f"the body is larger than {self._limit:,} bytes")


def parse(raw: bytes, content_type: str | None, *, form_field: str | None = None, text: bool = True) -> Body:
    """The body, by its content type: JSON, a form, or text.

    A large body takes a while (20 MB about a second), so an event loop calls this in a thread.

    Args:
        raw: The bytes.
        content_type: Value of the header; None or '' counts as JSON if it can be read as such.
        form_field: Field of a form that holds JSON: GitHub sends `payload` with `application/x-www-form-urlencoded`.
        text: Whether anything else is taken, as text. If not, only JSON is (and a form with `form_field`).

    Raises:
        BodyError: 400 if it is not what it says, 413 if it holds too much, 415 if the type is not taken.
    """
    kind, charset = _type_of(content_type or "")
    if kind == "application/json" or kind.endswith("+json"):
        decoded = _decode(raw, "utf-8")
        return Body(decoded, loads(decoded), True)
    if kind == "application/x-www-form-urlencoded":
        return _form(_decode(raw, "utf-8"), form_field, text)
    if not text and kind:
        raise BodyError(415, f"the content type must be application/json{' or a form' if form_field else ''}")
    decoded = _decode(raw, charset)
    try:
        return Body(decoded, loads(decoded), True)
    except BodyError:
        if not text:
            raise
        return Body(decoded, decoded, False)


def loads(text: str) -> Any:
    r"""The value of a JSON text.

    NUL and lone surrogates written as escapes (`\u0000`, `\ud83d`) are kept: this is what was received. What becomes a label
    or goes to a database is cleaned there.

    Raises:
        BodyError: 400 for what is not JSON (RFC 8259), for duplicate names, NaN, Infinity, numbers that are too long or too large, and
            nesting deeper than `MOST_DEPTH`; 413 for more than `MOST_CONTAINERS` lists and objects.
    """
    text = text.removeprefix("\ufeff")
    _check_nesting(text.encode("utf-8", "surrogatepass"))
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        said = error.msg.removesuffix(" at")
        raise BodyError(400, f"the body is not JSON: {said} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:  # Python gives up before MOST_DEPTH only if its own stack was nearly full
        raise BodyError(400, "the body is nested too deeply") from None


def _check_nesting(raw: bytes) -> None:
    """Count brackets outside strings without visiting each byte in Python.

    Anything wrong with the JSON is left to the reader: it stops there, and up to there the count is right.
    """
    if raw.count(b"[") + raw.count(b"{") <= MOST_DEPTH:
        return
    # what remains: brackets, and the quotes around strings; strings without brackets fall away
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw
    plain = plain.translate(_BRACKETS, _ALL_BUT_BRACKETS).replace(b'""', b"")
    brackets = b"".join(plain.split(b'"')[::2])
    if brackets.count(b"[") > MOST_CONTAINERS:
        raise BodyError(413, f"the body holds more than {MOST_CONTAINERS:,} lists and objects")
    # each round takes away the innermost level of everything; most bodies are gone after a few
    level, size = 0, 2 * len(brackets)
    while brackets and len(brackets) < size * 0.9 and level < MOST_DEPTH:
        level, size = level + 1, len(brackets)
        brackets = brackets.replace(b"[]", b"")
    depth = level
    for bracket in brackets:
        depth += 1 if bracket == 0x5B else -1
        if depth > MOST_DEPTH:
            raise BodyError(400, f"the body is nested more than {MOST_DEPTH} levels deep")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1) if len(names) < 1000 else "a name"
        raise BodyError(400, f"the body names {json.dumps(twice[:80])} twice in one object; two readers would see two different things")
    return found


def _constant(text: str) -> Any:
    raise BodyError(400, f"the body is not JSON: {text} is not a number there")


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise BodyError(400, f"the body holds a number of more than {MOST_DIGITS} digits")
    return int(text)


def _fraction(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BodyError(400, "the body holds a number that is too large")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_constant, parse_int=_whole, parse_float=_fraction)


def _type_of(content_type: str) -> tuple[str, str]:
    kind, *parameters = [part.strip() for part in content_type.split(";")]
    named = [
        value.strip().strip('"').lower() for name, _, value in (each.partition("=") for each in parameters) if name.lower() == "charset"
    ]
    return kind.lower(), named[0] if named else ""


def _decode(raw: bytes, charset: str) -> str:
    codec = _CHARSETS.get(charset)
    if codec is None:
        raise BodyError(415, "the text's charset is not taken; send UTF-8")
    try:
        return raw.decode(codec)
    except UnicodeDecodeError as error:
        raise BodyError(400, f"the body is not {codec.upper()}: byte {error.start} cannot be read") from None


def _form(text: str, field: str | None, free: bool) -> Body:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except UnicodeDecodeError:
        raise BodyError(400, "the form is not UTF-8") from None
    except ValueError:
        raise BodyError(413, f"the form has more than {MOST_FIELDS} fields") from None
    names = [name for name, _ in pairs]
    if field and field in names:
        if names.count(field) > 1:
            raise BodyError(400, f"the form has the field {field} more than once")
        inner = dict(pairs)[field]
        return Body(inner, loads(inner), True)
    if not free and field is None:  # what curl says of any body when it is told nothing
        raise BodyError(415, "the content type must be application/json, not that of a form")
    if not free:
        raise BodyError(400, f"the form has no field {field}")
    fields: dict[str, Any] = {}
    for name, value in pairs:
        fields[name] = value if names.count(name) == 1 else [*fields.get(name, []), value]
    return Body(text, fields, False)
