"""Pictures that Claude's service does not take: they must not end a session, now and at each retry."""

from __future__ import annotations

import pytest

from prefect_routines.testing import ScriptedClaude, attempts, call, fail, say

from .world import NOTHING, run

pytestmark = pytest.mark.usefixtures("prefect")

MAKE = say(call("bash", command=r"printf '\x89PNG\r\n\x1a\nno picture' > x.png; head -c 4M /dev/zero | cat x.png - > large.png"))
LOOK = say("I look.", call("read", path="x.png"), call("bash", command="echo beside"))
REFUSED = fail(400, type="invalid_request_error", message="Could not process image")


@pytest.mark.parametrize("refusal", [REFUSED, fail(413, type="request_too_large", message="Request exceeds the maximum size")])
async def test_what_is_no_picture_is_left_out(refusal: object) -> None:
    """A stranger may put such a file into a repository. Claude learns why, the results beside it stay, the session goes on."""
    with ScriptedClaude([MAKE, LOOK, attempts(refusal, NOTHING)]) as claude:  # type: ignore[arg-type]
        ran = await run(claude)
    assert ran.state.is_completed(), ran.message
    assert "a picture was left out" in claude.requests[-1].result("read").text
    assert claude.requests[-1].result("bash").text == "beside"
    [kept] = [entry["content"] for entry in ran.entries("tool.result") if entry["name"] == "read"]
    assert kept[0]["type"] == "image"  # the journal keeps what was read


async def test_a_refusal_for_another_reason_still_fails() -> None:
    """Without pictures there is nothing to leave out; and they are left out once, not for ever."""
    with ScriptedClaude([MAKE, LOOK, attempts(REFUSED, REFUSED, NOTHING)]) as claude:
        ran = await run(claude)
    assert ran.state.is_failed()
    assert "Could not process image" in ran.message


async def test_a_picture_that_is_too_large_as_base64_is_not_shown() -> None:
    """The service's limit of 5 MB is one of the encoded picture."""
    with ScriptedClaude([MAKE, say(call("read", path="large.png")), NOTHING]) as claude:
        ran = await run(claude)
    assert ran.state.is_completed(), ran.message
    assert "at most 3,932,160 can be shown" in claude.requests[-1].result("read").text
