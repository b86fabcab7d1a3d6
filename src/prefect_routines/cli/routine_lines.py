"""What several commands say of a routine at work: its addresses, its next times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prefect_routines.cli.terminal import text
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from rich.text import Text

    from prefect_routines.deploying.deployed import Deployed


def address_lines(deployed: Deployed, *, fire: bool = False) -> Iterator[Text]:
    """Where senders reach it.

    Args:
        fire: Also the address of its fire call, which needs a token.
    """
    from prefect_routines.config import config

    gateway = config().gateway_url.rstrip("/")
    for source in sorted(deployed.webhooks):
        beginning = source.removesuffix("*")
        several = (f"  (NAME begins with {one_line(beginning)})" if beginning else "  (any NAME)") if source.endswith("*") else ""
        yield text(("    webhook  ", "dim"), f"{gateway}/hooks/{'NAME' if several else source}", (several, "dim"))
    if fire:
        yield text(("    fire     ", "dim"), f"{gateway}/v1/claude_code/routines/{deployed.id}/fire", ("  (routines token)", "dim"))


def time_lines(deployed: Deployed, count: int) -> Iterator[Text]:
    """The next times, each in its schedule's own zone."""
    from prefect_routines.deploying.moments import ahead, shown

    for number, moment in enumerate(deployed.next_times(count)):
        yield text(
            ("    next     " if number == 0 else " " * 13, "dim"), shown(moment), (f"  {ahead(moment)}" if number == 0 else "", "dim")
        )
