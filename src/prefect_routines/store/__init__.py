"""The session store (SQL): journal, leases, inbox, outputs, spend."""

from prefect_routines.store.holder import Holder
from prefect_routines.store.leases import Lease
from prefect_routines.store.live import Pulse
from prefect_routines.store.records import (
    BUSY,
    Act,
    ActKind,
    Delivery,
    DeliveryChanges,
    DeliveryStatus,
    Dispatch,
    DispatchStatus,
    Entry,
    Form,
    FormKind,
    FormStatus,
    Notice,
    NoticeKind,
    NoticeStatus,
    Output,
    SessionChanges,
    SessionRecord,
    SessionState,
    Spend,
    Spent,
)
from prefect_routines.store.store import Store
from prefect_routines.store.tokens import Scope, Token

__all__ = [
    "BUSY",
    "Act",
    "ActKind",
    "Delivery",
    "DeliveryChanges",
    "DeliveryStatus",
    "Dispatch",
    "DispatchStatus",
    "Entry",
    "Form",
    "FormKind",
    "FormStatus",
    "Holder",
    "Lease",
    "Notice",
    "NoticeKind",
    "NoticeStatus",
    "Output",
    "Pulse",
    "Scope",
    "SessionChanges",
    "SessionRecord",
    "SessionState",
    "Spend",
    "Spent",
    "Store",
    "Token",
]
