"""Tokens of the fire endpoint: kept as hashes, found by them, gone when revoked."""

from __future__ import annotations

import hashlib
import re

import pytest
from sqlalchemy import text

from prefect_routines.errors import SettingsError
from prefect_routines.redaction import Redactor
from prefect_routines.store import Store
from prefect_routines.store.tokens import new_secret


async def test_a_token_is_found_by_its_secret(store: Store) -> None:
    """And by nothing else; lists show how it begins."""
    token, secret = await store.create_token("d-1", "triage/production", "pipeline")
    assert await store.token_of(secret) == token
    assert (token.deployment_id, token.deployment, token.name) == ("d-1", "triage/production", "pipeline")
    assert secret.startswith(token.prefix)
    assert len(token.prefix) < 12
    digest = hashlib.sha256(secret.encode()).hexdigest()
    for wrong in ("", secret[:-1], secret + "x", token.prefix, token.id, digest, new_secret(), "\ud800"):
        assert await store.token_of(wrong) is None


async def test_the_secret_is_nowhere_in_the_database(store: Store) -> None:
    """Only its hash."""
    _, secret = await store.create_token("d-1", "triage/production")
    [row] = await store._db.read(text("SELECT * FROM routines_tokens"))
    assert secret not in str(row)
    assert hashlib.sha256(secret.encode()).hexdigest() in str(row)


def test_a_secret_is_long_and_of_a_known_shape() -> None:
    """256 random bits in letters and digits; redaction takes it away wherever it stands."""
    secrets = {new_secret() for _ in range(200)}
    assert len(secrets) == 200
    for secret in secrets:
        assert re.fullmatch(r"rt_[0-9A-Za-z]{43}", secret)
        assert Redactor([]).text(f"curl -H 'Authorization: Bearer {secret}'") == "curl -H 'Authorization: Bearer [secret: a routine token]'"


async def test_a_revoked_token_opens_nothing(store: Store) -> None:
    """At once; the list still has it, and revoking it again keeps the time."""
    token, secret = await store.create_token("d-1", "triage/production")
    other, other_secret = await store.create_token("d-1", "triage/production")
    first = await store.revoke_token(token.prefix)
    again = await store.revoke_token(token.id)
    assert await store.token_of(secret) is None
    assert await store.token_of(other_secret) == other
    assert first.revoked_at is None
    assert again.revoked_at is not None
    assert {one.id: one.revoked_at for one in await store.tokens()} == {token.id: again.revoked_at, other.id: None}
    assert (await store.revoke_token(other_secret)).id == other.id
    with pytest.raises(SettingsError, match="no such token"):
        await store.revoke_token("rt_nothing")


async def test_a_token_may_what_its_scopes_say(store: Store) -> None:
    """Who may steer or approve may read; a token without scopes of its own starts its deployment and nothing else."""
    plain, _ = await store.create_token("d-1", "triage/production")
    assert [plain.may(one) for one in ("fire", "read", "steer", "approve")] == [True, False, False, False]
    person, secret = await store.create_token("", "docs-sync", "ada", ["steer", "approve"])
    assert [person.may(one) for one in ("fire", "read", "steer", "approve")] == [False, True, True, True]
    assert await store.token_of(secret) == await store.token(person.id) == person
    assert (person.reach, (await store.create_token("", "", "x", ["read"]))[0].reach) == ("docs-sync", "all routines")
    await store.revoke_token(person.id)
    assert await store.token(person.id) is None


async def test_its_use_is_noted(store: Store) -> None:
    """To the minute: calls in a row write once."""
    token, secret = await store.create_token("d-1", "triage/production")
    assert token.last_used_at is None
    await store.note_use(token)
    used = await store.token_of(secret)
    assert used is not None
    assert used.last_used_at is not None
    await store.note_use(used)
    assert await store.token_of(secret) == used


async def test_a_session_named_before_its_run_becomes_the_runs(store: Store) -> None:
    """A fire call answers with it; the run then takes it up, and a restarted run finds it."""
    named = await store.create_session(session_id="ses-1", routine="triage", flow_run_id=None, deployment_id="d-1", event_id="e-1")
    for wanted in ("ses-1", "ses-2"):
        record = await store.create_session(session_id=wanted, routine="triage", flow_run_id="run-1")
        assert (record.id, record.flow_run_id, record.event_id) == (named.id, "run-1", "e-1")
    assert [one.id for one in await store.sessions()] == ["ses-1"]
    other = await store.create_session(session_id="ses-1", routine="another", flow_run_id="run-2")
    assert other.flow_run_id == "run-1"
