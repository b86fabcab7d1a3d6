"""A delivery's body, from hostile bytes to a value."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_routines.gateway.body import MOST_DEPTH, Body, BodyError, Incoming, loads, parse

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def refused(raw: bytes, content_type: str = JSON, **how: Any) -> tuple[int, str]:
    with pytest.raises(BodyError) as caught:
        parse(raw, content_type, **how)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    return caught.value.status, str(caught.value)


@given(values)
def test_json_comes_through_as_it_was(value: Any) -> None:
    """Text and value, however the strings are escaped."""
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        if not ascii_only and any("\ud800" <= letter <= "\udfff" for letter in text):
            continue
        assert parse(text.encode(), JSON) == Body(text, value, True)


@given(
    st.binary(max_size=200), st.sampled_from([JSON, FORM, "text/plain", "", "a/b; charset=latin-1", "; charset", "x/y+json"]), st.booleans()
)
def test_no_bytes_raise_anything_else(raw: bytes, content_type: str, text: bool) -> None:
    """There is a body, or one line and a status."""
    try:
        parse(raw, content_type, form_field="payload", text=text)
    except BodyError as error:
        assert error.status in (400, 413, 415)  # noqa: PT017  # both outcomes are right


@given(st.text(alphabet='[]{}":,\\1 ', max_size=80))
def test_almost_json_is_refused_as_json_itself_is(text: str) -> None:
    """What Python reads and we do not has a name twice; otherwise we agree."""
    try:
        expected = json.loads(text)
    except ValueError:
        assert refused(text.encode())[0] == 400
        return
    try:
        assert loads(text) == expected
    except BodyError as error:
        assert "twice in one object" in str(error)  # noqa: PT017  # both outcomes are right


def nested(depth: int, shape: str) -> str:
    start, end = {"lists": ("[", "]"), "objects": ('{"a":', "}"), "both": ('[{"[":', "}]"), "noise": ('["]\\"]", [], {"}": {}},', "]")}[
        shape
    ]
    inner = {"lists": "", "noise": "1"}.get(shape, "1")
    per_level = 2 if shape == "both" else 1
    return start * (depth // per_level) + inner + end * (depth // per_level)


@pytest.mark.parametrize("shape", ["lists", "objects", "both"])
def test_nesting_has_a_limit_that_is_exact(shape: str) -> None:
    """That many levels are read, two more are not; brackets in strings do not count."""
    loads(nested(MOST_DEPTH, shape))
    with pytest.raises(BodyError, match=f"more than {MOST_DEPTH} levels"):
        loads(nested(MOST_DEPTH + 2, shape))


def test_brackets_beside_the_deepest_place_change_nothing() -> None:
    """Nor do escaped quotes."""
    loads(nested(MOST_DEPTH - 2, "noise"))
    with pytest.raises(BodyError, match="levels"):
        loads(nested(MOST_DEPTH + 1, "noise"))
    loads(json.dumps({"text": "[{" * 100_000, "back\\": '\\"[' * 50_000}))


@pytest.mark.parametrize("depth", [1_000, 100_000, 1_900_000])
def test_any_depth_is_refused_at_once(depth: int) -> None:
    """No stack is used up, whether the brackets are closed or not."""
    for text in ("[" * depth, "[" * depth + "]" * depth, '{"a":' * depth, '[{"a":' * (depth // 2)):
        start = time.perf_counter()
        assert "levels deep" in refused(text.encode())[1]
        assert time.perf_counter() - start < 1.0


def test_a_megabyte_is_scanned_quickly() -> None:
    """A payload like GitHub's, the best of five."""
    text = json.dumps([{"id": number, "user": {"login": "octo"}, "labels": [{"name": 'a "b" [c]'}]} for number in range(15_000)])
    assert len(text) > 1_000_000

    def once() -> float:
        start = time.perf_counter()
        loads(text)
        return time.perf_counter() - start

    assert min(once() for _ in range(5)) < 0.25


def test_names_that_stand_twice_are_refused() -> None:
    """The signature's reader and the filter's must see the same; also when the names are written differently."""
    for text in ('{"a": 1, "a": 1}', '[{"b": {"a": 1, "c": 2, "a": 3}}]', r'{"a": 1, "\u0061": 2}'):
        status, said = refused(text.encode())
        assert status == 400
        assert '"a" twice' in said
    assert loads('{"a": {"a": 1}}') == {"a": {"a": 1}}


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999", "[-1e400]", "9" * 401, "-" + "9" * 5000, "9" * 1_000_000]
)
def test_numbers_without_a_value_are_refused(text: str) -> None:
    """JSON has none of them, or nobody could write them again."""
    assert refused(text.encode())[0] == 400


def test_long_numbers_are_read() -> None:
    """As they are."""
    assert loads("9" * 400) == int("9" * 400)
    assert loads("1e308") == 1e308


@pytest.mark.parametrize(
    "raw", [b"", b" ", b"{", b"'a'", b"{} {}", b'"\0"', b"\xff", b'"\xed\xa0\x80"', b'"\xc0\xaf"', '"a"'.encode("utf-16")]
)
def test_what_is_not_json_in_utf_8_is_refused(raw: bytes) -> None:
    """With the place where reading stopped."""
    assert refused(raw)[0] == 400


def test_a_byte_order_mark_is_passed_over() -> None:
    """Some senders write one; the text is kept as received."""
    assert parse("\ufeff{}".encode(), JSON) == Body("\ufeff{}", {}, True)


def test_nul_and_lone_surrogates_are_kept() -> None:
    """They were received so; what becomes a label is cleaned there."""
    assert loads(r'{"title": "\u0000 \ud83d"}') == {"title": "\0 \ud83d"}


def test_github_may_send_a_form() -> None:
    """Its JSON stands in the field `payload`."""
    text = json.dumps({"zen": "ä & ="})
    assert parse(urlencode({"payload": text}).encode(), FORM, form_field="payload", text=False) == Body(text, json.loads(text), True)
    assert refused(b"other=1", FORM, form_field="payload", text=False) == (400, "the form has no field payload")
    assert "more than once" in refused(b"payload={}&payload={}", FORM, form_field="payload")[1]
    assert refused(b"payload=%5B", FORM, form_field="payload")[0] == 400


def test_where_only_json_is_taken_a_form_is_another_type() -> None:
    """curl calls every body a form if it is told nothing."""
    status, said = refused(b'{"text": "x"}', FORM, text=False)
    assert (status, "application/json" in said) == (415, True)


def test_other_senders_forms_become_fields() -> None:
    """A field that comes twice becomes a list."""
    body = parse(b"a=1&b=x+y&a=2&c=", FORM)
    assert (body.value, body.json) == ({"a": ["1", "2"], "b": "x y", "c": ""}, False)
    assert refused(b"&".join(b"a=1" for _ in range(2000)), FORM)[0] == 413
    assert refused(b"a=%FF", FORM)[0] == 400


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json", "", "text/plain"]
)
def test_json_is_known_by_its_type_or_by_itself(content_type: str) -> None:
    """Some senders name no type, or the wrong one."""
    assert parse(b'{"a": 1}', content_type) == Body('{"a": 1}', {"a": 1}, True)


def test_text_is_kept_for_sources_that_may_send_it() -> None:
    """In the charset that it names; other sources must send JSON."""
    assert parse("Rückfall".encode("latin-1"), "text/plain; charset=ISO-8859-1") == Body("Rückfall", "Rückfall", False)
    assert parse(b"deploy of {x} done\n", "text/plain").text == "deploy of {x} done\n"
    assert refused(b"hello", "text/plain", text=False)[0] == 415
    assert refused(b"hello", "", text=False)[0] == 400
    assert refused(b"hello", "text/plain; charset=utf-7") == (415, "the text's charset is not taken; send UTF-8")


def test_a_body_is_counted_while_it_arrives() -> None:
    """Its announced length is no promise, and an endless stream ends at the limit."""
    incoming = Incoming({"Content-Length": "4"}, limit=8)
    incoming.feed(b"1234")
    incoming.feed(b"5678")
    assert incoming.raw() == b"12345678"
    with pytest.raises(BodyError, match="larger than 8 bytes") as caught:
        incoming.feed(b"9")
    assert caught.value.status == 413
    assert Incoming({}, limit=8).raw() == b""


@pytest.mark.parametrize("length", ["9", "1" * 30])
def test_an_announced_length_over_the_limit_is_refused_unread(length: str) -> None:
    """Nothing is read at all."""
    with pytest.raises(BodyError) as caught:
        Incoming([(b"content-length", length.encode())], limit=8)
    assert caught.value.status == 413


def test_compressed_bodies_are_not_taken() -> None:
    """A few kilobytes could become gigabytes."""
    Incoming({"Content-Encoding": "identity"}, limit=8)
    with pytest.raises(BodyError) as caught:
        Incoming({"content-encoding": "gzip"}, limit=8)
    assert caught.value.status == 415
