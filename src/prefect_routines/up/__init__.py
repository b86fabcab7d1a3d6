"""`routines up`: a Prefect server, a worker and the gateway on one machine, kept alive."""

from prefect_routines.up.machine import Machine
from prefect_routines.up.plan import Wishes, make_plan

__all__ = ["Machine", "Wishes", "make_plan"]
