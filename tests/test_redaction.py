"""Secrets out of text."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_routines.redaction import Redactor
from prefect_routines.secret_shapes import DECIDED, KINDS
from prefect_routines.secret_shapes import SECRET as SHAPE

SECRET = 'ghp_"se/cret"+ü&token=='
ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "json": json.dumps,
    "json, not ascii": lambda text: json.dumps(text, ensure_ascii=False),
    "url": lambda text: quote(text, safe=""),
    "url path": quote,
    "form": quote_plus,
    "url, lower case": lambda text: quote(text, safe="").lower() if text.islower() else quote(text, safe=""),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "hex, upper case": lambda text: text.encode().hex().upper(),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_secret_goes_in_every_encoding(encoding: str) -> None:
    """What a shell, a log or a client makes of it on the way."""
    shown = Redactor([SECRET]).text(f"before {ENCODINGS[encoding](SECRET)} after")
    assert "[secret]" in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert "cret" not in shown.replace("[secret]", "")


@given(st.text("abcXYZ019_-", min_size=8, max_size=40), st.text(max_size=6), st.text(max_size=6))
def test_a_secret_inside_something_base64_goes(secret: str, before: str, after: str) -> None:
    """As in a Basic authorization header: the name before it shifts the letters."""
    encoded = base64.b64encode(f"{before}:{secret}{after}".encode()).decode()
    assert "[secret]" in Redactor([secret]).text(encoded)


@given(st.text(st.characters(exclude_characters="\r\n"), min_size=6, max_size=30), st.text(max_size=40))
def test_text_without_the_secret_stays(secret: str, text: str) -> None:
    """Nothing else is touched."""
    shown = Redactor([secret]).text(text)
    assert secret not in shown
    if "[secret]" not in shown and "█" not in shown:
        assert shown == text


def test_short_values_are_left_alone() -> None:
    """They would redact ordinary words."""
    assert Redactor(["main", ""]).text("main branch") == "main branch"
    assert Redactor([]).text("anything") == "anything"


def test_the_longer_secret_goes_first() -> None:
    """A secret that contains another leaves no rest."""
    assert Redactor(["token-abc", "token-abc-def"]).text("token-abc-def") == "[secret]"


def test_values_keep_their_shape() -> None:
    """Strings everywhere inside, keys too; nothing else changes."""
    given = {"a": ["x s3cret-token y", {"b": 1, "c": None}], "s3cret-token": True}
    assert Redactor(["s3cret-token"]).value(given) == {"a": ["x [secret] y", {"b": 1, "c": None}], "[secret]": True}


SHAPES = {
    "a private key": "-----BEGIN RSA PRIVATE KEY-----\n"
    "Proc-Type: 4,ENCRYPTED\n\n" + ("MIIEpAIBAAKCAQEA1b+/" * 3 + "\n") * 20 + "-----END RSA PRIVATE KEY-----",
    "an AWS access key": "AKIA" + "Q3EGRIPZ22ABCDEF",
    "a GitHub token": "ghp_" + "a1B2" * 9,
    "a GitLab token": "glpat-" + "a1B2_" * 4,
    "a Slack token": "xoxb-" + "12345678901-abcDEF",
    "a Slack webhook": "hooks.slack.com/services/T0123/B0123/" + "a1B2" * 6,
    "an Anthropic key": "sk-ant-api03-" + "a1_-" * 20,
    "an OpenAI key": "sk-proj-" + "a1_-" * 20,
    "a Stripe key": "sk_live_" + "a1B2" * 6,
    "a Google API key": "AIza" + "a1B2_" * 7,
    "an npm token": "npm_" + "a1B2" * 9,
    "a PyPI token": "pypi-AgE" + "a1B2_" * 12,
    "a Prefect key": "pnu_" + "a1B2" * 9,
    "a SendGrid key": "SG." + "a" * 22 + "." + "b" * 43,
    "a Hugging Face token": "hf_" + "a1" * 17,
    "a DigitalOcean token": "dop_v1_" + "a1" * 32,
    "an Azure storage key": "AccountKey=" + "aB" * 43 + "==",
    "a routine token": "rt_" + "aB3dE" * 8 + "xyZ",
}  # fmt: skip
MORE_SHAPES = [
    "github_pat_" + "a" * 82,
    "xapp-1-" + "A" * 24,
    "sk-" + "a" * 20 + "T3BlbkFJ" + "b" * 20,
    "-----BEGIN PGP PRIVATE KEY BLOCK-----",
]
TEXT = st.text(st.sampled_from("ab -_.\n\\\"'é=[]sk█") | st.characters(), max_size=60)
SECRETS = st.lists(st.text(st.sampled_from("ab[]s\n█") | st.characters(), min_size=6, max_size=90), max_size=4)
PIECES = st.lists(TEXT | st.sampled_from([*SHAPES.values(), *MORE_SHAPES, "[secret]", "-----BEGIN ", "ghp_", "AKIA"]), max_size=8)


def wrapped(text: str, columns: int, end: str = "\n") -> str:
    """As `base64` and mail programs break it."""
    return end.join(text[at : at + columns] for at in range(0, len(text), columns))


@pytest.mark.parametrize("kind", SHAPES)
def test_every_shape_goes_though_nobody_configured_it(kind: str) -> None:
    """And the reader learns what stood there."""
    shown = Redactor(()).text(f'env = "{SHAPES[kind]}"; next')
    assert shown == f'env = "[secret: {kind}]"; next'


def test_the_table_of_shapes_is_tested_whole() -> None:
    """A new row needs an example here."""
    assert set(SHAPES) == set(KINDS)


@pytest.mark.parametrize("token", [*SHAPES.values(), *MORE_SHAPES])
def test_the_longest_beginning_that_a_stream_waits_for_decides(token: str) -> None:
    """Within that many characters every shape is recognised."""
    assert SHAPE.match(token[:DECIDED])


def test_a_token_takes_along_what_hangs_on_it() -> None:
    """So that no rest of a longer one stays, and what follows cannot become a token by standing alone."""
    assert Redactor(()).text("AIza" + "x" * 35 + "ghp_" + "y" * 36 + "-z rest") == "[secret: a Google API key] rest"


@pytest.mark.parametrize(
    "text", ["AKIAIOSFODNN7EXAMPLE", "task-proj-aaaaaaaaaaaaaaaaaaaaaaaaaaa", "a" * 40, "-----BEGIN CERTIFICATE-----", "xox-games"]
)
def test_ordinary_text_is_no_token(text: str) -> None:
    """Nor is the documentation's example."""
    assert Redactor(()).text(text) == text


def test_a_token_is_found_behind_an_escape() -> None:
    """In a string within a string the letter before it belongs to the line break."""
    assert Redactor(()).text(json.dumps("\nghp_" + "a" * 36)) == '"\\n[secret: a GitHub token]"'


def test_a_private_key_within_a_string_goes_whole() -> None:
    """As in the JSON of a service account, also quoted twice."""
    key = json.dumps(json.dumps(SHAPES["a private key"].replace("Proc-Type: 4,ENCRYPTED\n\n", "")))
    assert Redactor(()).text(key) == '"\\"[secret: a private key]\\""'


def test_a_key_that_is_only_mentioned_leaves_the_code_around_it() -> None:
    """A program may look for the words."""
    code = 'if "-----BEGIN PRIVATE KEY-----" in text:\n    refuse(text)'
    assert Redactor(()).text(code) == 'if "[secret: a private key]" in text:\n    refuse(text)'


@pytest.mark.parametrize("columns", [60, 64, 76])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@given(before=st.binary(max_size=80))
def test_wrapped_base64_and_hex_hide_nothing(columns: int, end: str, before: bytes) -> None:
    """Wherever the break falls."""
    secret = b"correct-horse-battery-staple-and-more-of-it-to-be-long"
    for encoded in (base64.b64encode(before + secret), (before + secret).hex().encode()):
        assert "[secret]" in Redactor([secret.decode()]).text(wrapped(encoded.decode(), columns, end))


@pytest.mark.parametrize("shape", [lambda s: s[::-1], html.escape, lambda s: json.dumps(json.dumps(s))])
def test_a_secret_goes_reversed_escaped_and_quoted_twice(shape: Callable[[str], str]) -> None:
    """Cheap to look for, so looked for."""
    assert "cret" not in Redactor([SECRET]).text(shape(SECRET)).replace("[secret]", "")


def test_secrets_that_overlap_leave_no_rest() -> None:
    """Neither the end of the first nor the beginning of the second."""
    assert Redactor(["token-abc", "abc-defgh"]).text("x token-abc-defgh y") == "x [secret] y"
    assert Redactor(["aabaab"]).text("x aabaabaab y") == "x [secret] y"


@pytest.mark.parametrize("secret", ["secret", "[secret]", "]abcdef", "abcdef[", "token]", "a GitHub token"])
def test_the_mark_is_never_part_of_a_secret(secret: str) -> None:
    """Another one is taken then, so that nothing is left and nothing is redacted twice."""
    redactor = Redactor([secret, "another-one"])
    once = redactor.text(f"x {secret} another-oneabcdef {SHAPES['a GitHub token']}")
    assert secret not in once
    assert redactor.text(once) == once


@given(SECRETS, PIECES)
def test_no_secret_survives_in_any_encoding(secrets: list[str], pieces: list[str]) -> None:
    """In whatever it stands."""
    redactor = Redactor(secrets)
    for secret in secrets:
        if len(re.sub("[\r\n]", "", secret)) < 6:
            continue
        raw = secret.encode("utf-8", "surrogatepass")
        for encoded in (
            secret,
            quote(raw),
            quote_plus(raw),
            json.dumps(secret)[1:-1],
            raw.hex(),
            base64.b64encode(raw).decode().rstrip("=")[:-1],
        ):
            assert encoded not in redactor.text(encoded.join(pieces or ["", ""]))


@given(SECRETS, PIECES)
def test_redacting_twice_changes_nothing_more(secrets: list[str], pieces: list[str]) -> None:
    """Whatever was cut out, what is left does not become a secret."""
    redactor = Redactor(secrets)
    once = redactor.text("".join(pieces) + "".join(secrets))
    assert redactor.text(once) == once


@given(SECRETS, PIECES, st.data())
def test_a_stream_shows_what_the_whole_would(secrets: list[str], pieces: list[str], data: st.DataObject) -> None:
    """However it is cut into pieces."""
    redactor = Redactor(secrets)
    parts = [*pieces, *secrets, *(base64.b64encode(secret.encode("utf-8", "surrogatepass")).decode() for secret in secrets)]
    text = "".join(data.draw(st.permutations(parts)))
    stream, shown, at = redactor.stream(), "", 0
    while at < len(text):
        size = data.draw(st.integers(1, 200))
        shown += stream.feed(text[at : at + size])
        at += size
    assert shown + stream.close() == redactor.text(text)


@pytest.mark.parametrize("token", [*SHAPES.values(), SECRET, base64.b64encode(SECRET.encode()).decode()])
def test_a_stream_never_shows_a_beginning(token: str) -> None:
    """One character at a time; words around it come without delay."""
    redactor = Redactor([SECRET])
    stream = redactor.stream()
    shown = [stream.feed(char) for char in f"words and words {token} more"]
    assert "".join(shown).startswith("words and words ")
    assert "".join([*shown, stream.close()]) == redactor.text(f"words and words {token} more")
    assert len("".join(shown[: 16 + len(token)])) <= 16 + len("[secret: an Azure storage key]")


def test_a_token_without_end_is_not_kept_in_memory() -> None:
    """Nor shown: its mark comes when it ends."""
    stream = Redactor(()).stream()
    shown = stream.feed("x ghp_") + "".join(stream.feed("a1" * 500) for _ in range(200))
    assert shown == "x "
    assert len(stream._shapes) < 2000
    assert stream.feed(" and") + stream.close() == "[secret: a GitHub token] and"


def test_a_line_without_end_is_not_kept_in_memory() -> None:
    """What is too long for a beginning of a token leaves."""
    stream = Redactor(["s3cret-token"]).stream()
    shown = "".join(stream.feed("xyz" * 100) for _ in range(100))
    assert len(shown) > 29_000


def test_words_of_a_stream_come_at_once() -> None:
    """A person reads along."""
    stream = Redactor(["s3cret-token"]).stream()
    assert [stream.feed(word) for word in ("Now I ", "read the ", "file.\n")] == ["Now I ", "read the ", "file.\n"]
