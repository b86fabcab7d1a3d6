"""What Prefect loads through the entry point `prefect.collections`: the blocks and the worker type of this package.

A connector whose official collection is not installed here is left out; naming it in a routine says what to install.
"""

import contextlib
import sys

from prefect_routines.blocks import CONNECTORS, import_type
from prefect_routines.credentials import AnthropicCredentials
from prefect_routines.errors import SettingsError
from prefect_routines.gateway.sources import WebhookSource
from prefect_routines.notices.webhook import NoticeWebhook
from prefect_routines.workers.worker import RoutinesWorker

__all__ = ["AnthropicCredentials", "NoticeWebhook", "RoutinesWorker", "WebhookSource"]

for _slug, _home in CONNECTORS.items():
    with contextlib.suppress(SettingsError):
        import_type(_slug)
        _module, _, _name = _home.partition(":")
        globals()[_name] = getattr(sys.modules[_module], _name)
