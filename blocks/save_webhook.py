"""Save a sender of webhooks as a block: WEBHOOK_SECRET=... python blocks/save_webhook.py [NAME]

The name is the source's: GitHub's deliveries come to /hooks/github of the gateway, those of `alerts` to /hooks/alerts.
WEBHOOK_SIGNATURE says how it signs (github, standard, pagerduty, sentry, slack, bearer, basic; default: github for `github`, else
bearer), WEBHOOK_PRESET which sender it is (alertmanager, grafana, pagerduty, datadog, sentry), WEBHOOK_KIND at which path of the payload
the kind of event stands, such as `type`: the event is webhook.NAME, or webhook.NAME.KIND where the preset or the path finds one.
WEBHOOK_IDENTITIES says under which logins our routines write there, with commas. WEBHOOK_OLD_SECRET holds beside the new one while a
secret is replaced.
"""

import os
import sys

from prefect_routines.blocks import saving
from prefect_routines.gateway.sources import WebhookSource

secrets = [secret for name in ("WEBHOOK_SECRET", "WEBHOOK_OLD_SECRET") if (secret := os.environ.get(name))]
if not os.environ.get("WEBHOOK_SECRET"):
    sys.exit("error: set WEBHOOK_SECRET to the secret that the sender has too")
name = sys.argv[1] if len(sys.argv) > 1 else "github"
fields = {
    "signature": os.environ.get("WEBHOOK_SIGNATURE") or ("github" if name == "github" else "bearer"),
    "secrets": secrets,
    "shape": {"preset": os.environ.get("WEBHOOK_PRESET") or None, "kind": os.environ.get("WEBHOOK_KIND", "")},
    "identities": [who.strip() for who in os.environ.get("WEBHOOK_IDENTITIES", "").split(",") if who.strip()],
}
with saving():
    WebhookSource.model_validate(fields).save(name, overwrite=True)
print(f"saved webhook-source/{name}; the gateway takes its deliveries at /hooks/{name}")
