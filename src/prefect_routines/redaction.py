"""Secrets out of text, at one place: exact values in their usual encodings, and everything that has the shape of a token. Pure.

Two passes. The first finds exact values, in any of their forms and wrapped at any column, and replaces what they cover. The second
finds shapes in what is left. The marks are chosen so that no value can begin or end inside one; so a second redaction changes nothing.
"""

from __future__ import annotations

import base64
import html
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

from prefect_routines.secret_shapes import ALPHABET, DECIDED, KEY_TAIL, KINDS, SECRET, kind_of

T = TypeVar("T")
SHORTEST = 6  # shorter values would redact ordinary words
_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_BREAK = re.compile(r"[\r\n]")
_CONTEXT = 2  # characters before a shape that decide whether it begins there


def _lower(match: re.Match[str]) -> str:
    return match[0].lower()


def _unbroken(text: str) -> str:
    return text.replace("\n", "").replace("\r", "")


def _forms(secret: str) -> Iterator[str]:
    """The secret as shells, logs, clients and pages write it."""
    raw = secret.encode("utf-8", "surrogatepass")
    quoted = (quote(raw, safe=""), quote(raw), quote_plus(raw))
    yield from (secret, secret[::-1], html.escape(secret), raw.hex(), raw.hex().upper())
    yield from quoted
    yield from (_ESCAPE.sub(_lower, form) for form in quoted)
    for ascii_only in (True, False):
        once = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        yield from (once, json.dumps(once, ensure_ascii=ascii_only)[1:-1])
    for offset in range(3):  # base64 of a text that contains it somewhere: three alignments, without the ragged ends
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * offset + raw).decode()[4 if offset else 0 :].rstrip("=")[:-1]


_MARKS = ("[secret]", *(f"[secret: {kind}]" for kind in KINDS))
_HEADS = tuple({mark[:at] for mark in _MARKS for at in range(1, len(mark))})
_TAILS = tuple({mark[at:] for mark in _MARKS for at in range(1, len(mark))})


def _touches_marks(form: str) -> bool:
    """Whether the form could cover a part of a mark, together with the text around it."""
    return form.startswith(_TAILS) or form.endswith(_HEADS) or any(form in mark or mark in form for mark in _MARKS)


class Redactor:
    """Replaces known secrets by `[secret]`, and everything with the shape of a token by `[secret: a GitHub token]` or what it is.

    Args:
        secrets: Their exact values. Those of less than 6 characters, line breaks not counted, are left alone.

    Example:
        >>> Redactor(["s3cret-token"]).text("Authorization: s3cret-token")
        'Authorization: [secret]'
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: dict[str, int] = {}
        for secret in secrets:
            if len(_unbroken(secret)) < SHORTEST:
                continue
            for form in _forms(secret):
                if len(bare := _unbroken(form)) >= SHORTEST:
                    # Wrapped text has a break now and then. A few letters spread over a page are no secret, and would never end.
                    forms[bare] = max(forms.get(bare, 0), 2 * len(form))
        self._forms = forms
        self._longest = max(forms.values(), default=0)
        marks = list(_MARKS)
        if any(map(_touches_marks, forms)):
            used = set("".join(forms))
            unused = next(char for char in map(chr, range(0x2588, 0xD800)) if char not in used and not char.isalnum())
            marks = [unused * 8] * len(marks)
        self._mark, self._shape_marks = marks[0], dict(zip(KINDS, marks[1:], strict=True))

    def text(self, text: str) -> str:
        """The text without the secrets."""
        return SECRET.sub(self._shape_mark, self._without_values(text))

    def value(self, value: T) -> T:
        """The same for all strings in lists and dictionaries."""
        return self._walk(value)  # type: ignore[no-any-return]  # the shape stays

    def stream(self) -> RedactedStream:
        """The same for a text that comes in pieces."""
        return RedactedStream(self)

    def _walk(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self._walk(key): self._walk(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._walk(item) for item in value]
        return value

    def _shape_mark(self, match: re.Match[str]) -> str:
        return self._shape_marks[kind_of(match[0])]

    def _without_values(self, text: str) -> str:
        return self._replace(text, 0, len(text))[0]

    def _replace(self, text: str, at: int, safe: int) -> tuple[str, int]:
        """The text from `at` to `safe` with its values replaced, and how many characters after `safe` these cover.

        What stands before `at` is covered by a mark already; values that overlap it get no second one.
        """
        kept = []
        for start, end in self._spans(text):
            if start >= safe:
                break
            if start >= at:
                kept += [text[at:start], self._mark]
            at = max(at, end)
        return "".join([*kept, text[at:safe]]), max(0, at - safe)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where values stand, those that overlap taken together, in order."""
        bare = _unbroken(text)
        found: list[tuple[int, int]] = []
        place = None
        for form, widest in self._forms.items():
            at = bare.find(form)
            while at >= 0:
                place = place or _Places(text, bare)
                start, end = place[at], place[at + len(form) - 1] + 1
                if end - start > widest:
                    at = bare.find(form, at + 1)
                    continue
                found.append((start, end))
                # The last one that overlaps this one covers all between; `aaaa...` would take a step for each letter otherwise.
                last = bare.rfind(form, at + 1, at + 2 * len(form) - 1)
                fits = last > at and place[last + len(form) - 1] - place[last] < widest
                at = last if fits else bare.find(form, at + 1)
        return _merged(found)

    def _pending(self, text: str) -> int:
        """From where on a value may have begun that is not complete yet."""
        if not self._forms:
            return len(text)
        reach = text[-self._longest :]
        bare, before = _unbroken(reach), len(text) - len(reach)
        place, first = _Places(reach, bare), len(bare)
        for form, widest in self._forms.items():
            head = form[:4]
            at = bare.find(head, max(0, len(bare) - len(form) + 1))
            starts = [len(bare) - size for size in (3, 2, 1) if bare.endswith(form[:size])]
            while at >= 0 and at < first:
                if form.startswith(bare[at:]) and len(reach) - place[at] < widest:
                    starts.append(at)
                    break
                at = bare.find(head, at + 1)
            first = min([first, *starts])
        return before + place[first] if first < len(bare) else len(text)


class _Places:
    """Where the characters of a text without line breaks stand in the text with them."""

    def __init__(self, text: str, bare: str) -> None:
        breaks = [match.start() for match in _BREAK.finditer(text)] if len(text) != len(bare) else []
        self._before = [at - index for index, at in enumerate(breaks)]

    def __getitem__(self, index: int) -> int:
        return index + bisect_right(self._before, index)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


class RedactedStream:
    """Redacts a text that comes in pieces: all that `feed` and `close` return is, together, what `Redactor.text` makes of the whole.

    Held back are only beginnings: of a value, at most twice its longest form; of a token,
    at most 128 characters, since a longer one is a token by then and grows no more in memory; of a private key, at most 16 KiB.
    What is held leaves when it turns out to be none, or as its mark. A token of any length never leaves in part; of a private key
    beyond 16 KiB what follows these is text like any other.

    Example:
        >>> stream = Redactor(["s3cret-token"]).stream()
        >>> [stream.feed("it is s3cr"), stream.feed("et-token, really"), stream.close()]
        ['it is ', '[secret], ', 'really']
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._values = ""  # not yet searched for values to its end
        self._covered = 0  # so many characters of it a mark that left stands for
        self._shapes = ""  # nor for shapes; begins with the last characters that left, as context
        self._context = 0

    def feed(self, chunk: str) -> str:
        """What may be shown after this piece."""
        text = self._values + chunk
        return self._feed_shapes(self._feed_values(text, self._redactor._pending(text)))

    def close(self) -> str:
        """The rest."""
        rest = self._feed_shapes(self._feed_values(self._values, len(self._values)))
        shapes, at = self._shapes, self._context
        self._shapes, self._context = "", 0
        kept = []
        for match in SECRET.finditer(shapes, at):
            kept += [shapes[at : match.start()], self._redactor._shape_mark(match)]
            at = match.end()
        return "".join([rest, *kept, shapes[at:]])

    def _feed_values(self, text: str, safe: int) -> str:
        shown, self._covered = self._redactor._replace(text, self._covered, safe)
        self._values = text[safe:]
        return shown

    def _feed_shapes(self, chunk: str) -> str:
        text, at, kept = self._shapes + chunk, self._context, []
        safe = max(at, _undecided(text))
        for match in SECRET.finditer(text, at):
            if match.start() >= safe:
                break
            grows = KEY_TAIL if match[0].startswith("-----") else 1
            if match.end() > len(text) - grows:  # it may go on
                safe = match.start()
                if grows == 1 and len(match[0]) > DECIDED:  # whatever hangs on it goes with it: no need to remember
                    text = text[: match.start() + DECIDED] + text[match.end() :]
                break
            kept += [text[at : match.start()], self._redactor._shape_mark(match)]
            at = match.end()
        at, out = max(at, safe), [*kept, text[at:safe]]
        self._context = min(at, _CONTEXT)
        self._shapes = text[at - self._context :]
        return "".join(out)


def _undecided(text: str) -> int:
    """From where on a shape may have begun that is not long enough yet to be one."""
    tail = text[-DECIDED:]
    at = len(tail.rstrip(ALPHABET))
    key = tail.find("-----BEGIN")
    return len(text) - len(tail) + (at if key < 0 else min(at, key))
