"""`routines token`: made for a deployment on the real server, listed by its beginning, revoked."""

from __future__ import annotations

import json
import re
from uuid import uuid4

import pytest
from prefect import flow, get_client

from .terminal import Terminal


@flow
def nothing() -> None:
    """A flow that a deployment can be made of."""


@pytest.fixture
def deployment(online: Terminal) -> tuple[str, str]:
    """Id and full name."""
    name = f"test-{uuid4().hex[:8]}"
    with get_client(sync_client=True) as client:
        identity = client.create_deployment(flow_id=client.create_flow(nothing), name=name, entrypoint="x.py:nothing")
    return str(identity), f"nothing/{name}"


def test_a_token_is_made_listed_and_revoked(online: Terminal, deployment: tuple[str, str]) -> None:
    """The secret stands alone on stdout, once; nothing shows it again."""
    made = online.run("token", "create", deployment[1], "--name", "pipeline")
    assert made.status == 0, made.err
    secret = made.out.strip()
    assert re.fullmatch(r"rt_[0-9A-Za-z]{43}", secret)
    assert secret not in made.err
    assert f"/v1/claude_code/routines/{deployment[0]}/fire" in made.err
    for short in (deployment[0], deployment[1].partition("/")[2]):
        again = online.run("token", "create", short)
        assert again.status == 0
        assert f"Token for {deployment[1]};" in again.err
    listed = online.run("token", "list")
    assert secret not in listed.out
    assert f"{secret[:9]}…  {deployment[1]}  pipeline  never used" in listed.out
    revoked = online.run("token", "revoke", secret[:9])
    assert revoked.status == 0, revoked.err
    data = json.loads(online.run("token", "list", "--json").out)
    assert [one["prefix"] for one in data if one["revoked_at"]] == [secret[:9]]
    assert "revoked" in online.run("token", "list").out
    assert secret not in json.dumps(data)


def test_a_token_for_a_person_has_scopes(terminal: Terminal) -> None:
    """For the sessions of one routine or of all; it needs no Prefect. Its name is the person's, so it has to have one."""
    made = terminal.run("token", "create", "--scope", "read", "--scope", "steer", "--routine", "docs-sync", "--name", "ada")
    assert made.status == 0, made.err
    secret = made.out.strip()
    assert re.fullmatch(r"rt_[0-9A-Za-z]{43}", secret)
    assert "/sessions" in made.err
    assert "/fire" not in made.err
    assert "There is no session of 'docs-sync' yet" in made.err  # it may be a slip of the pen
    assert terminal.run("token", "create", "--scope", "approve", "--name", "grace").status == 0
    listed = terminal.run("token", "list").out
    assert f"{secret[:9]}…  docs-sync  ada  read, steer  never used" in listed
    assert "all routines  grace  approve  never used" in listed
    assert "docs-sync is revoked" in terminal.run("token", "revoke", secret[:9]).out
    data = json.loads(terminal.run("token", "list", "--json").out)
    assert {(one["name"], one["scopes"], one["deployment_id"]) for one in data} == {("ada", "read steer", ""), ("grace", "approve", "")}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["create"], "which deployment"),
        (["create", "--scope", "fire", "--name", "x"], "which deployment"),
        (["create", "--scope", "read"], "--name: whose token is it?"),
        (["create", "--scope", "read", "--name", "a\nb"], "one line"),
        (["create", "a/b", "--scope", "read", "--name", "x", "--routine", "c"], "leave one of the two out"),
    ],
)
def test_mistakes_in_scopes_are_one_line(terminal: Terminal, arguments: list[str], told: str) -> None:
    """With status 2; nothing is made."""
    done = terminal.run("token", *arguments)
    assert (done.status, done.out) == (2, "")
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["create", "nothing/at-all"], "there is no routine 'nothing/at-all' on this server"),
        (["create", "a6d8ac92-e9ad-4b29-8d9a-2b9a9b3b1c11"], "there is no routine"),
        (["revoke", "rt_nothing"], "there is no such token"),
    ],
)
def test_mistakes_are_one_line(online: Terminal, arguments: list[str], told: str) -> None:
    """With status 2."""
    done = online.run("token", *arguments)
    assert done.status == 2
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_no_tokens_yet(terminal: Terminal) -> None:
    """It says how to make one."""
    assert "routines token create" in terminal.run("token", "list").out
