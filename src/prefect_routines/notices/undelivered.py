"""Why a notice was not delivered: not now, or not at all."""

from __future__ import annotations

from prefect_routines.errors import RoutinesError


class NotDelivered(RoutinesError):
    """The other side did not take a notice; it is sent again later.

    Args:
        seconds: After which the other side wants it again; None: it did not say.
    """

    def __init__(self, message: str, *, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class NotWanted(RoutinesError):
    """A notice that is not to be sent at all; the text says why."""
