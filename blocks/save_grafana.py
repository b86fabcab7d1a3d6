"""Save the login for Grafana as a block: GRAFANA_URL=https://... GRAFANA_TOKEN=... python blocks/save_grafana.py [NAME]

The token is one of a service account (Administration, Users and access, Service accounts) with the role Viewer; to annotate it
needs the permission annotations:create as well.
"""

import os
import sys

from prefect_routines.cli.server import saving
from prefect_routines.connectors.grafana import Grafana

url, token = os.environ.get("GRAFANA_URL"), os.environ.get("GRAFANA_TOKEN")
if not url or not token:
    sys.exit("error: set GRAFANA_URL to the server's address and GRAFANA_TOKEN to the token that the block is to hold")
name = sys.argv[1] if len(sys.argv) > 1 else "production"
with saving():
    Grafana(url=url, token=token).save(name, overwrite=True)
print(f"saved grafana/{name}; a routine names it: connectors=['grafana/{name}']")
