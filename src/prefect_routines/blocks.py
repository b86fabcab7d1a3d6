"""Prefect blocks by reference: `type-slug/name`. Only the module that defines a block's type is imported for it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prefect_routines.errors import RoutinesError, SettingsError

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
        SettingsError: There is no such block, or this installation lacks its type.
    """
    from prefect.blocks.core import Block
    from prefect.exceptions import PrefectException
    from prefect.utilities.dispatch import lookup_type

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


@contextmanager
def saving() -> Iterator[None]:
    """Around what a script does to save blocks: what goes wrong ends it with one line on standard error, and status 1.

    The line shows nothing of what was given: that may be a secret.

    Example:
        ```python
        with saving():
            Grafana(url=url, token=token).save("production", overwrite=True)
        ```
    """
    import httpx
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import get_current_settings
    from pydantic import ValidationError

    from prefect_routines.visible import one_line

    try:
        yield
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        said = [(".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in found]
        sys.exit("error: " + one_line("; ".join(f"{where}: {what}" if where else what for where, what in said), 1000))
    except RoutinesError as error:
        sys.exit(f"error: {error}")
    except PrefectHTTPStatusError as error:
        server, said_by = get_current_settings().api.url, one_line(error.response.text, 300)
        sys.exit(f"error: Prefect at {server} answered {error.response.status_code}: {said_by}; check PREFECT_API_URL and PREFECT_API_KEY")
    except (httpx.TransportError, httpx.InvalidURL, RuntimeError) as error:
        server = get_current_settings().api.url or "PREFECT_API_URL, which is not set"
        cause = one_line(str(error)) or type(error).__name__
        sys.exit(f"error: Prefect cannot be reached at {server} ({cause}): start it with `routines up`, or correct PREFECT_API_URL")
