"""The session store (SQL): journal, leases, inbox, outputs, spend."""

from prefect_routines.store.holder import Holder
from prefect_routines.store.leases import Lease
from prefect_routines.store.records import (
    BUSY,
    Delivery,
    DeliveryChanges,
    DeliveryStatus,
    Dispatch,
    DispatchStatus,
    Entry,
    Output,
    SessionChanges,
    SessionRecord,
    Spend,
    Spent,
)
from prefect_routines.store.store import Store
from prefect_routines.store.tokens import Token

__all__ = [
    "BUSY",
    "Delivery",
    "DeliveryChanges",
    "DeliveryStatus",
    "Dispatch",
    "DispatchStatus",
    "Entry",
    "Holder",
    "Lease",
    "Output",
    "SessionChanges",
    "SessionRecord",
    "Spend",
    "Spent",
    "Store",
    "Token",
]
