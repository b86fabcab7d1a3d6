"""What a session has before a token is spent: a login that works, a known model, a sandbox, its repositories."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from prefect_routines.doctor.check import Check, Finding
from prefect_routines.doctor.server import skew
from prefect_routines.session.claude import Claude, Model
from prefect_routines.session.prompt import system_prompt
from prefect_routines.session.transcript import Transcript
from prefect_routines.settings import Settings
from prefect_routines.tools.tool import Tool
from prefect_routines.workspace.workspace import Workspace


class Prepared(NamedTuple):
    """What was found and brought up."""

    claude: Claude
    model: Model
    workspace: Workspace


async def open_claude(settings: Settings, stack: AsyncExitStack) -> Claude:
    """A client with the login that the settings name; closed with the stack.

    Raises:
        ModelError: There is no login.
        SettingsError: There is no such block.
    """
    claude = await Claude.open(settings.claude, stall=settings.deadlines.stall)
    stack.push_async_callback(claude.close)
    return claude


def login_check(settings: Settings) -> Check:
    """For `routines doctor`: whether Claude's service takes the login and knows the model, and whether its clock and ours agree."""

    async def look() -> Finding:
        async with AsyncExitStack() as stack:
            claude = await open_claude(settings, stack)
            before = datetime.now(UTC)
            model = await claude.model(settings.model)
            found = skew(claude.heard_at, before, "Claude")
            said = f"{claude.address}: {model.name}, {model.window:,} tokens"
            return replace(found, saw=f"{said}; {found.saw}" if found.status != "ok" else said)

    login = f" ({settings.claude})" if settings.claude else ""
    return Check(f"Claude {settings.model}{login}", look, "check the network, ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY", 25)


async def prepare(session_id: str, routine: str, settings: Settings, transcript: Transcript, stack: AsyncExitStack) -> Prepared:
    """Preflight: login, model, sandbox, repositories and push rights, side by side.

    Args:
        stack: Closes it all.

    Raises:
        RoutinesError: Something is missing or wrong; one line with the remedy. Nothing was spent.
    """
    claude = await open_claude(settings, stack)
    model = asyncio.create_task(claude.model(settings.model))
    try:
        workspace = await stack.enter_async_context(Workspace.open(session_id, routine, settings, transcript))
        return Prepared(claude, await model, workspace)
    except BaseException:
        model.cancel()
        with contextlib.suppress(BaseException):
            await model
        raise


def constants(settings: Settings, tools: Mapping[str, Tool], ready: Prepared, *, event: bool) -> dict[str, Any]:
    """What stays the same for the whole session: it stands before every thinking block and every cache entry.

    Args:
        tools: All that there are, by name; those that this session has no use for, or that the policy removes, are left out.
        event: Whether an event started it.
    """
    names = sorted(tools)
    if not event:
        names.remove("read_event")
    if not ready.workspace.with_guidelines:
        names.remove("read_guidelines")
    if not settings.repositories:
        names.remove("push")
    return {
        "model": settings.model,
        "model_name": ready.model.name,
        "max_tokens": min(settings.max_tokens, ready.model.max_tokens or settings.max_tokens),
        "effort": settings.effort,
        "system": system_prompt(settings, guidelines=ready.workspace.with_guidelines, event=event),
        "tools": [tools[name].definition() for name in names if not settings.policy.removes(name)],
    }
