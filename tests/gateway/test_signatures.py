"""Whether a delivery comes from someone who knows the secret."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prefect_routines.gateway.signatures import SCHEMES, Scheme, SignatureError, find_header, verify

NOW = 1_674_087_231.0
BODY = b'{"action": "opened", "title": "\xff not even UTF-8"}'
GITHUB = SCHEMES["github"]
SLACK = SCHEMES["slack"]


def mac(secret: str, text: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.new(secret.encode(), text, algorithm).digest()


def github(secret: str = "new", body: bytes = BODY) -> dict[str, str]:
    return {"X-Hub-Signature-256": "sha256=" + mac(secret, body).hex()}


def standard(*keys: bytes, at: str = "1674087231", body: bytes = BODY) -> dict[str, str]:
    signed = [hmac.new(key, f"msg_1.{at}.".encode() + body, "sha256").digest() for key in keys]
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": at,
        "webhook-signature": " ".join("v1," + base64.b64encode(s).decode() for s in signed),
    }


def whsec(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


def refused(scheme: Scheme, headers: object, *secrets: str, body: bytes = BODY, now: float = NOW) -> str:
    with pytest.raises(SignatureError) as caught:
        verify(scheme, headers, body, secrets, now=now)  # type: ignore[arg-type]  # hostile headers are part of the test
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_githubs_own_example_holds() -> None:
    """https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation"""
    headers = {"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}
    verify(GITHUB, headers, b"Hello, World!", ["It's a Secret to Everybody"], now=NOW)


def test_slacks_own_example_holds() -> None:
    """https://docs.slack.dev/authentication/verifying-requests-from-slack"""
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA"
        b"&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554"
        b"%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        "X-Slack-Request-Timestamp": "1531420618",
    }
    verify(SLACK, headers, body, ["8f742231b10e8888abcd99yyyzzz85a5"], now=1531420618)
    assert "made with another secret" in refused(
        SLACK, {**headers, "X-Slack-Request-Timestamp": "1531420619"}, "8f74", body=body, now=1531420618
    )


@pytest.mark.parametrize("secrets", [["new"], ["new", "old"], ["old", "new"], ["", "old", "new"]])
def test_any_of_several_secrets_will_do(secrets: list[str]) -> None:
    """While a secret is replaced both hold, in any order."""
    verify(GITHUB, github("new"), BODY, secrets, now=NOW)


def test_without_a_secret_nothing_is_believed() -> None:
    """Not even what is signed with the empty one; the operator reads the remedy."""
    for secrets in ([], [""], ["  ", "\n"]):
        assert "no secret is set" in refused(GITHUB, github(""), *secrets)
    assert "no secret is set" in refused(SCHEMES["bearer"], {"Authorization": "Bearer "})


def test_a_changed_body_is_refused() -> None:
    """One byte is enough, and so is a body that was parsed and written again."""
    assert "another secret or body" in refused(GITHUB, github(), "new", body=BODY + b" ")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "sha256=",
        "sha1=" + "0" * 40,
        "sha256=" + "0" * 63,
        "sha256=zz",
        "sha256=\xe9",
        "sha256=" + "0" * 9000,
        "0" * 64,
        "sha256=" + "0" * 64,
        "sha256= " + mac("new", BODY).hex(),
        "sha256=" + mac("new", BODY).hex() + "\0",
        "SHA256=" + mac("new", BODY).hex(),
    ],
)
def test_a_malformed_signature_is_a_wrong_one(value: str) -> None:
    """Never an error of another kind, which would be answered as a fault of ours."""
    refused(GITHUB, {"X-Hub-Signature-256": value}, "new")
    refused(GITHUB, [(b"x-hub-signature-256", value.encode("latin-1", "replace"))], "new")


def test_a_header_that_comes_twice_is_refused() -> None:
    """Two readers could each believe another one."""
    pair = (b"X-Hub-Signature-256", github()["X-Hub-Signature-256"].encode())
    verify(GITHUB, [pair], BODY, ["new"], now=NOW)
    assert "is there 2 times" in refused(GITHUB, [pair, pair], "new")
    assert "is missing" in refused(GITHUB, [], "new")
    assert find_header([pair, pair], "x-hub-signature-256") is None
    assert find_header([pair], "x-hub-signature-256") == pair[1].decode()


def test_headers_may_come_as_a_stream() -> None:
    """They are read more than once for Standard Webhooks."""
    pairs = ((name.encode(), value.encode()) for name, value in standard(b"k" * 24).items())
    verify(SCHEMES["standard"], pairs, BODY, [whsec(b"k" * 24)], now=NOW)


def test_standard_webhooks_are_signed_over_id_time_and_body() -> None:
    """As the specification says; a secret is base64 behind `whsec_`, which may be left out."""
    scheme, key = SCHEMES["standard"], b"\x01" * 32
    verify(scheme, standard(key), BODY, [whsec(key)], now=NOW)
    verify(scheme, standard(key), BODY, [whsec(key).removeprefix("whsec_")], now=NOW)
    for name, value in {"webhook-id": "msg_2", "webhook-timestamp": "1674087232"}.items():
        assert "another secret, id, time or body" in refused(scheme, {**standard(key), name: value}, whsec(key))
    assert "another secret" in refused(scheme, standard(key, body=b"{}"), whsec(key))


def test_standard_webhooks_carry_several_signatures() -> None:
    """The sender signs with the old and the new secret; those of other versions are passed over."""
    scheme, old, new = SCHEMES["standard"], b"o" * 24, b"n" * 24
    headers = standard(old, new)
    headers["webhook-signature"] = "v1a,AAAA v2 " + headers["webhook-signature"]
    for key in (old, new):
        verify(scheme, headers, BODY, [whsec(key)], now=NOW)
    assert "no signature of version v1" in refused(scheme, {**headers, "webhook-signature": "v1a,AAAA"}, whsec(new))


@pytest.mark.parametrize("signature", ["v1", "v1,", "v1,\xe9", "v1,@@", ",", "v1,AAAA,BBBB", " ", "v2,AAAA"])
def test_a_malformed_standard_signature_is_a_wrong_one(signature: str) -> None:
    """The list may hold anything."""
    refused(SCHEMES["standard"], {**standard(b"k" * 24), "webhook-signature": signature}, whsec(b"k" * 24))


@pytest.mark.parametrize(("apart", "holds"), [(0, True), (-300, True), (300, True), (301, False), (-301, False), (10**9, False)])
def test_the_time_may_differ_by_five_minutes_either_way(apart: int, holds: bool) -> None:
    """An older one is a replay; a newer one would be valid for too long."""
    headers = standard(b"k" * 24)
    if holds:
        verify(SCHEMES["standard"], headers, BODY, [whsec(b"k" * 24)], now=NOW + apart)
    else:
        said = refused(SCHEMES["standard"], headers, whsec(b"k" * 24), now=NOW + apart)
        assert ("old" if apart > 0 else "in the future") in said


@pytest.mark.parametrize("at", ["", "nan", "inf", "1e9", "-1", "1674087231.5", "01674087231", "１６７４０８７２３１", "9" * 400])
def test_a_malformed_time_is_refused(at: str) -> None:
    """Even if it was signed."""
    refused(SCHEMES["standard"], standard(b"k" * 24, at=at), whsec(b"k" * 24))


def test_a_secret_that_is_none_of_standard_webhooks_is_named_to_the_operator() -> None:
    """It is his to mend; the sender learns nothing."""
    assert "is not one of Standard Webhooks" in refused(SCHEMES["standard"], standard(b"k" * 24), "whsec_!!")


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
@pytest.mark.parametrize("prefix", ["", "v1="])
def test_an_hmac_header_is_as_the_source_was_set_up(algorithm: str, encoding: str, prefix: str) -> None:
    """Any name, three hashes, two ways to write it, with and without a prefix."""
    scheme = Scheme(kind="hmac", header="X-Signature", algorithm=algorithm, encoding=encoding, prefix=prefix)  # type: ignore[arg-type]
    digest = mac("s", BODY, algorithm)
    text = prefix + (digest.hex() if encoding == "hex" else base64.b64encode(digest).decode())
    verify(scheme, {"x-signature": text}, BODY, ["s"], now=NOW)
    verify(scheme, {"x-signature": text.rstrip("=")}, BODY, ["s"], now=NOW)
    refused(scheme, {"x-signature": text}, "t")


def test_pagerduty_sends_several_signatures_with_commas() -> None:
    """One for each of its secrets."""
    header = ",".join("v1=" + mac(secret, BODY).hex() for secret in ("old", "new"))
    verify(SCHEMES["pagerduty"], {"X-PagerDuty-Signature": header}, BODY, ["new"], now=NOW)


def test_a_signed_time_is_written_as_the_source_writes_it() -> None:
    """Grafana puts `TIME:` before the body."""
    scheme = Scheme(kind="hmac", header="X-Grafana-Alerting-Signature", signed="{timestamp}:{body}", timestamp_header="X-Time")
    headers = {"X-Grafana-Alerting-Signature": mac("s", b"1674087231:" + BODY).hex(), "X-Time": "1674087231"}
    verify(scheme, headers, BODY, ["s"], now=NOW)
    assert "old" in refused(scheme, headers, "s", now=NOW + 400)


def test_a_bearer_token_is_compared_whole() -> None:
    """The scheme's name in any case."""
    for value in ("Bearer s3cret", "bearer s3cret", "BEARER  s3cret "):
        verify(SCHEMES["bearer"], {"authorization": value}, BODY, ["other", "s3cret"], now=NOW)
    for value in ("Bearer s3cre", "Bearer s3crets", "Bearer", "Bearer ", "s3cret", "Basic s3cret", "Bearer s3cret\xe9"):
        refused(SCHEMES["bearer"], {"authorization": value}, "s3cret")


def test_a_password_is_the_secret_of_basic_authentication() -> None:
    """With any user, or the one that is set; passwords may hold colons and letters beyond ASCII."""

    def basic(text: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}

    verify(SCHEMES["basic"], basic("anyone:pä:ss"), BODY, ["pä:ss"], now=NOW)
    named = Scheme(kind="basic", user="datadog")
    verify(named, basic("datadog:pass"), BODY, ["pass"], now=NOW)
    for text in ("grafana:pass", "datadog:", "datadog", ":pass", ""):
        refused(named, basic(text), "pass")
    refused(SCHEMES["basic"], {"Authorization": "Basic %%%"}, "pass")


def test_a_header_may_hold_the_secret_itself() -> None:
    """As PagerDuty's custom headers, or GitLab's token."""
    scheme = Scheme(kind="header", header="X-Gitlab-Token")
    verify(scheme, {"X-Gitlab-Token": "s3cret"}, BODY, ["s3cret"], now=NOW)
    assert "s3cret" not in refused(scheme, {"X-Gitlab-Token": "wrong"}, "s3cret")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "hmac"}, "needs the name of a `header`"),
        ({"kind": "header"}, "needs the name of a `header`"),
        ({"kind": "hmac", "header": "a b"}, "should match pattern"),
        ({"kind": "hmac", "header": "x", "signed": "{timestamp}"}, r"must contain \{body\} once"),
        ({"kind": "hmac", "header": "x", "signed": "{timestamp}.{body}"}, "belong together"),
        ({"kind": "hmac", "header": "x", "timestamp_header": "y"}, "an unsigned time proves nothing"),
        ({"kind": "none"}, "Input should be"),
    ],
)
def test_a_scheme_that_cannot_work_is_refused_when_it_is_made(fields: dict[str, str], says: str) -> None:
    """Not when the first delivery arrives."""
    with pytest.raises(ValidationError, match=says):
        Scheme(**fields)  # type: ignore[arg-type]  # that is what is tested


@given(
    st.sampled_from(sorted(SCHEMES)),
    st.lists(
        st.tuples(st.sampled_from([b"authorization", b"webhook-id", b"x-hub-signature-256", b"webhook-timestamp"]), st.binary(max_size=60))
    ),
    st.binary(max_size=60),
)
def test_no_headers_and_no_body_raise_anything_else(name: str, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Whatever arrives, there is one kind of refusal; and nobody guesses the secret."""
    with pytest.raises(SignatureError):
        verify(SCHEMES[name], headers, body, [hashlib.sha256(b"s").hexdigest()], now=NOW)


@given(st.text(max_size=80), st.sampled_from(["v1,{}", "v1,{} v1,{}", "{}"]))
def test_no_text_in_a_standard_signature_raises_anything_else(text: str, form: str) -> None:
    """Headers of a mapping may hold any text."""
    refused(SCHEMES["standard"], {**standard(b"k" * 24), "webhook-signature": form.replace("{}", text)}, whsec(b"k" * 24))
