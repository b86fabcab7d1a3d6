"""Resuming a session through the gateway: a run of its deployment that goes on with it, asked for once."""

from __future__ import annotations

from uuid import UUID, uuid4

from prefect import get_client

from session.journals import agent, text, user

from .gateway_process import Gateway
from .session_world import World, ready


def test_a_session_that_has_ended_is_resumed(gateway: Gateway, deployment: tuple[str, str]) -> None:
    """The run knows the session, the words and who asked; the same words again are the same run, other words come too late."""
    world = World(gateway)
    token = world.token("steer", name="ada")
    with get_client(sync_client=True) as client:
        former = client.create_flow_run_from_deployment(UUID(deployment[0]), name=f"former-{uuid4().hex[:6]}")
    session = world.session("nothing", *ready(), user("Look.", prompt=1), agent(text("I look.")), deployment=deployment[0])
    session.change(flow_run_id=str(former.id))
    session.end()
    here = f"/v1/sessions/{session.id}/resume"
    answer = world.post(here, token, {"text": "Mention the new flag, too."})
    assert answer.status == 202, answer.raw
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(answer.json["flow_run_id"]))
    asked = run.parameters["settings"]["resume"]
    assert (asked["session"], asked["message"], asked["by"]) == (session.id, "Mention the new flag, too.", "ada")
    assert world.post(here, token, {"text": "Mention the new flag, too."}).json == answer.json
    late = world.post(here, token, {"text": "No, something else."})
    assert late.status == 409
    assert "is being resumed already" in late.why
    assert world.post(here, world.token("read"), {"text": "x"}).status == 403
