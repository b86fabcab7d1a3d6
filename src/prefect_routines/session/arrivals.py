"""Events that arrive for a session while it is at work: they join the conversation before the next turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect_routines.errors import ToolError
from prefect_routines.session.inbound import load_event

if TYPE_CHECKING:
    from prefect_routines.session.session import Session


async def take_arrivals(session: Session) -> None:
    """Tell Claude of the events that the gateway has sent to this session since; each once, by reference."""
    if session.event is None or session.settings.coalesce != "message":
        return
    arrived = await session.store.dispatches(session_id=session.id, statuses=["messaged"])
    if not arrived:
        return
    told = {entry.data.get("event") for entry in session.journal if entry.kind == "user.message"}
    for one in arrived:
        if one.delivery_id in told:
            continue
        event, _ = await load_event(session.store, one.delivery_id)
        what = " ".join(part for part in (event.kind, event.action, f"#{event.number}" if event.number else "") if part)
        text = f"A further event about this has arrived: {what}. `read_event` with event='{event.id}' shows its text."
        await session.record(("user.message", {"event": event.id, "content": [{"type": "text", "text": text}]}))
        session.log(f"A further event arrived: {what}")


async def event_text(session: Session, event_id: str) -> str:
    """The text of the event that started the run, or of one that arrived since.

    Raises:
        ToolError: The session was told of no such event: what others were sent is not for it to read.
    """
    assert session.event is not None
    wanted = event_id or session.event.id
    if wanted != session.event.id:
        arrived = await session.store.dispatches(session_id=session.id, delivery_ids=[wanted], statuses=["messaged"])
        if not arrived:
            raise ToolError(f"no event {wanted!r} has come to this session; leave `event` out to read the one that started it")
    return (await load_event(session.store, wanted))[1]
