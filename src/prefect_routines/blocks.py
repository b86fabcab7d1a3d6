"""Prefect blocks by reference: `type-slug/name`. Only the module that defines a block's type is imported for it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from prefect_routines.errors import SettingsError

if TYPE_CHECKING:
    from prefect.blocks.core import Block

CONNECTORS = {
    "datadog": "prefect_routines.connectors.datadog:Datadog",
    "email": "prefect_routines.connectors.email:Email",
    "github": "prefect_routines.connectors.github:GitHub",
    "google-drive": "prefect_routines.connectors.google_drive:GoogleDrive",
    "grafana": "prefect_routines.connectors.grafana:Grafana",
    "mcp": "prefect_routines.connectors.mcp:MCP",
    "prometheus": "prefect_routines.connectors.prometheus:Prometheus",
    "slack": "prefect_routines.connectors.slack:Slack",
    "twilio": "prefect_routines.connectors.twilio:Twilio",
}
"""Each connector's block, by its type. All collections together take a second to import; one module does not."""

_HOMES = {
    **{slug: home.partition(":")[0] for slug, home in CONNECTORS.items()},
    "anthropic-credentials": "prefect_routines.credentials",
    "email-server-credentials": "prefect_email",
    "gcp-credentials": "prefect_gcp",
    "github-credentials": "prefect_github",
    "notice-webhook": "prefect_routines.notices.webhook",
    "secret": "prefect.blocks.system",
    "slack-credentials": "prefect_slack",
    "webhook-source": "prefect_routines.gateway.sources",
}
_EXTRAS = {"prefect_slack": "slack", "prefect_email": "email", "prefect_gcp": "google"}  # what brings a package that is not installed


async def load_block(reference: str) -> Block:
    """Load a block document.

    Args:
        reference: 'type-slug/name', as `prefect block ls` shows it.

    Raises:
        SettingsError: There is no such block, this installation lacks its type, or a field of it is wrong: the UI's form checks little.
    """
    from prefect.blocks.core import Block
    from prefect.exceptions import PrefectException
    from prefect.utilities.dispatch import lookup_type
    from pydantic import ValidationError

    from prefect_routines.settings import first_problem

    slug, _, name = reference.partition("/")
    if not (slug and name) or "/" in name:
        raise SettingsError(f"{reference!r} does not name a block; write it as 'type/name', for example 'github-credentials/docs-bot'")
    import_type(slug)
    try:
        # Asked of `Block`, Prefect imports all collections that are installed, and that takes seconds; asked of the type, none.
        return await (lookup_type(Block, slug).aload(name) if slug in _HOMES else Block.aload(reference))
    except ValueError as error:
        made = f"Secret(value=...).save('{name}')" if slug == "secret" else f"a script as in blocks/, or in the UI (type {slug})"
        raise SettingsError(
            f"there is no block {reference!r} on this Prefect server (see `prefect block ls`); create it with {made}"
        ) from error
    except (KeyError, PrefectException, RuntimeError) as error:
        if isinstance(error.__cause__, ValidationError):  # its own text would show what the block holds, secrets too
            wrong = first_problem(error.__cause__)
            raise SettingsError(f"the block {reference!r} holds something wrong: {wrong}; edit it in the UI or save it anew") from None
        raise SettingsError(f"the block {reference!r} cannot be loaded: {error}") from error


def import_type(slug: str) -> None:
    """Make a type of block known: its own module if we know it, else all installed collections.

    Raises:
        SettingsError: A package that it needs is not installed.
    """
    from prefect.plugins import load_prefect_collections

    if slug not in _HOMES:
        load_prefect_collections()
        return
    try:
        importlib.import_module(_HOMES[slug])
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        raise SettingsError(
            f"blocks of type {slug} need the package {package.replace('_', '-')}, which is not installed here: "
            f"pip install 'prefect-routines[{_EXTRAS[package]}]'"
        ) from error
