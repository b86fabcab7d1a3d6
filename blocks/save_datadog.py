"""Save the login for Datadog as a block: DD_API_KEY=... DD_APP_KEY=... DD_SITE=datadoghq.eu python blocks/save_datadog.py [NAME]

The application key wants the scopes logs_read_data, timeseries_query, monitors_read, events_read and incident_read.
"""

import os
import sys

from prefect_routines.cli.server import saving
from prefect_routines.connectors.datadog import Datadog

api_key, app_key = os.environ.get("DD_API_KEY"), os.environ.get("DD_APP_KEY")
if not api_key or not app_key:
    sys.exit("error: set DD_API_KEY and DD_APP_KEY to the keys that the block is to hold")
name = sys.argv[1] if len(sys.argv) > 1 else "production"
with saving():
    Datadog(api_key=api_key, app_key=app_key, site=os.environ.get("DD_SITE") or "datadoghq.com").save(name, overwrite=True)
print(f"saved datadog/{name}; a routine names it: connectors=['datadog/{name}']")
