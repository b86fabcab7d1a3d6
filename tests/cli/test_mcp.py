"""`routines mcp`: looking at a server's tools and approving them, with a real Prefect server that keeps the block."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from connectors.mcp_servers.over_http import bad_server, good_server, serving
from connectors.mcp_sessions import SERVERS
from prefect_routines.connectors.mcp import MCP

from .terminal import Terminal

Save = Callable[..., str]


@pytest.fixture
def save(online: Terminal, request: pytest.FixtureRequest) -> Save:
    """Saves a block under a name of the test's own, and gives that."""
    assert online
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower())[:60].strip("-")

    def save(**fields: Any) -> str:
        MCP(**fields).save(name, overwrite=True, _sync=True)  # type: ignore[call-arg]  # Prefect's own switch
        return name

    return save


@pytest.fixture
def good() -> Iterator[str]:
    with serving(good_server()) as address:
        yield f"{address}/mcp"


def test_approve_asks_and_keeps_the_answer(online: Terminal, save: Save, good: str) -> None:
    """No answer is no; yes keeps description, schema and whether it writes; the token stays in the block."""
    name = save(url=good, token="the-token")
    shown = online.run("mcp", "approve", name)
    assert shown.status != 0
    done = online.run("mcp", "approve", name, "--yes", "--writes", "slow", "--target", "note=text")
    assert done.status == 0, done.err
    assert f"note  mcp__{name}__note  writes to text, the server does not call it read-only  new" in done.out
    assert "Say the text again." in done.out
    assert "text (string)" in done.out
    assert f"Approved: 5 tools of mcp/{name}, 2 of them write." in done.out
    assert "the-token" not in done.out + done.err
    listed = online.run("mcp", "show", name)
    assert f"echo  mcp__{name}__echo  reads" in listed.out
    again = online.run("mcp", "approve", name, "--writes", "slow", "--target", "note=text")
    assert (again.status, again.out.splitlines()[-1]) == (0, f"Nothing to do: 5 tools of mcp/{name} are approved as they are.")


def test_what_changed_is_shown_as_a_diff(online: Terminal, save: Save) -> None:
    """Line by line, with what hides made visible, and what is gone."""
    state: dict[str, Any] = {}
    schema = {"type": "object", "properties": {}}
    state["list"] = {"tools": [{"name": "a", "description": "One.\nTwo.", "inputSchema": schema}, {"name": "b", "inputSchema": schema}]}
    with serving(bad_server(state)) as address:
        name = save(url=f"{address}/mcp")
        assert online.run("mcp", "approve", name, "--yes").status == 0
        state["list"] = {"tools": [{"name": "a", "description": "One.\nThree\u202e \x1b[2J[red].", "inputSchema": schema}]}
        done = online.run("mcp", "approve", name, "--yes")
    lines = [line.strip() for line in done.out.splitlines()]
    assert lines[lines.index("-Two.") + 1] == "+Three\\u202e \\x1b[2J[red]."
    assert "b  gone: the server has it no more" in lines
    assert "\x1b" not in done.out
    assert "b  " not in online.run("mcp", "show", name).out


def test_a_server_over_stdio_is_asked_in_a_sandbox(online: Terminal, save: Save, tmp_path: Path) -> None:
    """With the directory that is named as its workspace, which is the person's again afterwards."""
    place = tmp_path / "server"
    place.mkdir()
    shutil.copy(SERVERS / "hostile.py", place)
    name = save(command=["python3", "hostile.py"])
    done = online.run("mcp", "approve", name, "--yes", "--only", "echo", "--workspace", str(place))
    assert done.status == 0, done.err
    assert f"Approved: 1 tools of mcp/{name}, 0 of them write." in done.out
    assert place.stat().st_uid == tmp_path.stat().st_uid
    elsewhere = online.run("mcp", "approve", name, "--yes")
    assert elsewhere.status == 2
    assert f"mcp/{name} cannot be used: it ended with exit status 2" in elsewhere.err


def test_a_server_that_a_setup_installs(online: Terminal, save: Save) -> None:
    """It is installed first, and found there by who uses it next; a setup that fails is told in one line."""
    program = (SERVERS / "hostile.py").read_text()
    script = f"mkdir -p /opt/setup/bin; cat > /opt/setup/bin/there <<'END'\n#!/usr/bin/python3\n{program}\nEND\n"
    name = save(command=["there"], setup=f"{script}chmod 755 /opt/setup/bin/there # {uuid4()}")
    done = online.run("mcp", "approve", name, "--yes", "--only", "echo")
    assert done.status == 0, done.err
    assert "If its setup script has not run on this machine yet, it runs now" in done.out
    assert f"Approved: 1 tools of mcp/{name}, 0 of them write." in done.out
    checked = online.run("connectors", f"mcp/{name}")
    assert "hostile 1.0: 1 of " in checked.out
    save(command=["there"], setup="echo no such package; false")
    failed = online.run("mcp", "approve", name, "--yes")
    assert failed.status == 2
    assert f"mcp/{name} cannot be used: the setup script ended with exit status 1: no such package" in failed.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["approve", "no-such-block"], "there is no block 'mcp/no-such-block'"),
        (["show", "no-such-block"], "there is no block 'mcp/no-such-block'"),
        (["approve", "x", "--target", "note"], "write it as GLOB=ARGUMENT"),
    ],
)
def test_mistakes_are_one_line(online: Terminal, arguments: list[str], told: str) -> None:
    """With status 2."""
    done = online.run("mcp", *arguments)
    assert done.status == 2
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_glob_that_fits_nothing(online: Terminal, save: Save, good: str) -> None:
    """The mistake names what there is."""
    done = online.run("mcp", "approve", save(url=good), "--yes", "--reads", "creat*")
    assert done.status == 2
    assert "--reads 'creat*': the server has no such tool; it has echo" in done.err
    assert "Approved" not in done.out
