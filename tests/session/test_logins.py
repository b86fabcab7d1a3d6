"""Logins and models: what is missing or wrong is said before a token is spent."""

from __future__ import annotations

import logging
import os
from uuid import uuid4

import pytest
from prefect.blocks.system import Secret

from prefect_routines import AnthropicCredentials
from prefect_routines.session import pricing
from prefect_routines.testing import ScriptedClaude, call, say
from prefect_routines.tools.tool import tool

from .world import NOTHING, run

pytestmark = pytest.mark.usefixtures("prefect")


async def save(**fields: str) -> str:
    name = f"test-{uuid4().hex[:8]}"
    await AnthropicCredentials(**fields).save(name)
    return f"anthropic-credentials/{name}"


async def test_a_wrong_key_fails_before_a_token_is_spent() -> None:
    """With what to check; no request for a reply was made."""
    with ScriptedClaude([NOTHING], strict=False) as claude:
        block = await save(api_key="sk-wrong", base_url=claude.url)
        ran = await run(claude, claude=block)
    assert ran.state.is_failed()
    assert "Claude refused the login (401: Invalid bearer token); check ANTHROPIC_API_KEY or the block" in ran.message
    assert [problem.split("?")[0].split(":")[0] for problem in claude.problems] == ["GET /v1/models/claude-opus-5-5"]


async def test_no_key_fails_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the variable and the block."""
    with ScriptedClaude([NOTHING]) as claude:
        monkeypatch.setattr(claude, "environment", lambda: {"ANTHROPIC_API_KEY": "", "ANTHROPIC_BASE_URL": claude.url})
        ran = await run(claude)
    assert ran.state.is_failed()
    assert "no login for Claude: set ANTHROPIC_API_KEY" in ran.message
    assert "anthropic-credentials/NAME" in ran.message
    assert claude.requests == []


async def test_an_unknown_model_fails_before_a_token_is_spent() -> None:
    """It names the setting."""
    with ScriptedClaude([NOTHING], strict=False) as claude:
        ran = await run(claude, model="claude-opus-99")
    assert ran.state.is_failed()
    assert "unknown model 'claude-opus-99'" in ran.message
    assert "Set `model`" in ran.message
    assert claude.requests == []


async def test_nobody_there_fails_with_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base URL is wrong, or the network down."""
    with ScriptedClaude([NOTHING]) as claude:
        monkeypatch.setattr(claude, "environment", lambda: {"ANTHROPIC_API_KEY": "sk-x", "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"})
        ran = await run(claude)
    assert ran.state.is_failed()
    assert "cannot reach Claude at http://127.0.0.1:9" in ran.message
    assert "ANTHROPIC_BASE_URL" in ran.message


async def test_a_model_without_a_price_is_charged_like_the_dearest(caplog: pytest.LogCaptureFixture) -> None:
    """And the run says so."""
    with ScriptedClaude([NOTHING], models=["claude-nova-9"]) as claude, caplog.at_level(logging.WARNING, "prefect.flow_runs"):
        ran = await run(claude, model="claude-nova-9")
    assert ran.state.is_completed()
    [reply] = ran.entries("agent.message")
    assert reply["dollars"] == pytest.approx(pricing.dollars(pricing.DEAREST, reply["tokens"]))
    [warning] = [record for record in caplog.records if "No price is known" in record.getMessage()]
    assert warning.levelno == logging.WARNING


async def test_a_block_logs_in() -> None:
    """Its key and its address; the environment's are not used."""
    with ScriptedClaude([NOTHING], api_key="sk-of-the-block") as claude, ScriptedClaude([NOTHING]) as other:
        block = await save(api_key="sk-of-the-block", base_url=claude.url)
        ran = await run(other, claude=block)
        assert ran.state.is_completed(), ran.message
        assert len(claude.requests) == 1
        assert other.requests == []


async def test_a_block_with_a_bearer_token_logs_in() -> None:
    """For gateways; the key of the environment does not travel along."""
    with ScriptedClaude([NOTHING], api_key="token-of-the-gateway") as claude, ScriptedClaude([NOTHING]) as other:
        block = await save(auth_token="token-of-the-gateway", base_url=claude.url)
        ran = await run(other, claude=block)
        assert ran.state.is_completed(), ran.message
    assert claude.requests[0].headers["authorization"] == "Bearer token-of-the-gateway"


async def test_the_environment_logs_in() -> None:
    """`ANTHROPIC_API_KEY` and `ANTHROPIC_BASE_URL` of the process that runs."""
    with ScriptedClaude([NOTHING], api_key="sk-of-the-environment") as claude:
        ran = await run(claude)
    assert ran.state.is_completed()
    assert len(claude.requests) == 1


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("anthropic-credentials/nobody", "anthropic-credentials/nobody"),
        ("nonsense", "write it as 'type/name'"),
        ("no-such-type/x", "no-such-type"),
    ],
)
async def test_an_unknown_block_fails_in_one_line(block: str, says: str) -> None:
    """Naming it."""
    with ScriptedClaude([NOTHING]) as claude:
        ran = await run(claude, claude=block)
    assert ran.state.is_failed()
    assert says in ran.message
    assert "\n" not in ran.message
    assert claude.requests == []


async def test_a_block_of_another_kind_is_refused() -> None:
    """A secret is no login."""
    name = f"test-{uuid4().hex[:8]}"
    await Secret(value="x").save(name)
    with ScriptedClaude([NOTHING]) as claude:
        ran = await run(claude, claude=f"secret/{name}")
    assert ran.state.is_failed()
    assert "is no login for Claude" in ran.message


async def test_an_empty_block_is_refused() -> None:
    """It says which fields to fill in."""
    with ScriptedClaude([NOTHING]) as claude:
        ran = await run(claude, claude=await save(base_url=claude.url))
    assert ran.state.is_failed()
    assert "holds neither api_key nor auth_token" in ran.message


async def test_the_key_shows_nowhere() -> None:
    """Not in the environment of the sandbox, nor in anything that is kept or sent: a tool that gives it away gives nothing away."""

    @tool
    def leak() -> str:
        """Tell everything."""
        return " ".join(os.environ.values())

    script = [say(call("bash", command="env; cat /proc/*/environ"), call("leak")), NOTHING]
    with ScriptedClaude(script, api_key="sk-ant-very-secret") as claude:
        ran = await run(claude, tools=[leak])
    assert ran.state.is_completed()
    assert "very-secret" not in str(ran.journal)
    assert "[secret]" in ran.requests[1].result("leak").text
    assert all(b"very-secret" not in request.raw for request in ran.requests)
