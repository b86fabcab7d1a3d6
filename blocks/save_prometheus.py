"""Save a Prometheus server as a block: PROMETHEUS_URL=http://prometheus:9090 python blocks/save_prometheus.py [NAME]

PROMETHEUS_TOKEN is for a proxy before it that asks for a bearer token.
"""

import os
import sys

from prefect_routines.cli.server import saving
from prefect_routines.connectors.prometheus import Prometheus

url = os.environ.get("PROMETHEUS_URL")
if not url:
    sys.exit("error: set PROMETHEUS_URL to the address of the server")
name = sys.argv[1] if len(sys.argv) > 1 else "production"
with saving():
    Prometheus(url=url, token=os.environ.get("PROMETHEUS_TOKEN") or None).save(name, overwrite=True)
print(f"saved prometheus/{name}; a routine names it: connectors=['prometheus/{name}']")
