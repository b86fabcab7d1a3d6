"""Text on its way out, made harmless."""

from prefect_routines.outgoing.allowance import Allowance
from prefect_routines.outgoing.text import Outgoing, Service, sanitise

__all__ = ["Allowance", "Outgoing", "Service", "sanitise"]
