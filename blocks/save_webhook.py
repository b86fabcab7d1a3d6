"""Save a sender of webhooks as a block: WEBHOOK_SECRET=... python blocks/save_webhook.py [NAME]

The name is the source's: GitHub's deliveries come to /hooks/github of the gateway, those of `alerts` to /hooks/alerts.
WEBHOOK_SIGNATURE says how it signs (github, standard, pagerduty, sentry, slack, bearer, basic; default: github for `github`, else
bearer); `hmac` is a header with an HMAC-SHA256 of the body in hex, `header` one with the secret itself: WEBHOOK_HEADER names it, and
WEBHOOK_PREFIX what stands before the HMAC, such as sha256=. The form of the block in the UI has more.
WEBHOOK_PRESET says which sender it is (alertmanager, grafana, pagerduty, datadog, sentry), WEBHOOK_KIND at which path of the payload the
kind of event stands, such as `type`: the event is webhook.NAME, or webhook.NAME.KIND where the preset or the path finds one.
WEBHOOK_IDENTITIES says under which logins our routines write there, with commas. WEBHOOK_OLD_SECRET holds beside the new one while a
secret is replaced.
"""

import os
import sys

from prefect_routines.cli.server import saving
from prefect_routines.gateway.sources import WebhookSource

secrets = [secret for name in ("WEBHOOK_SECRET", "WEBHOOK_OLD_SECRET") if (secret := os.environ.get(name))]
if not os.environ.get("WEBHOOK_SECRET"):
    sys.exit("error: set WEBHOOK_SECRET to the secret that the sender has too")
name = sys.argv[1] if len(sys.argv) > 1 else "github"
signature = os.environ.get("WEBHOOK_SIGNATURE") or ("github" if name == "github" else "bearer")
fields = {
    "signature": signature,
    "secrets": secrets,
    "shape": {"preset": os.environ.get("WEBHOOK_PRESET") or None, "kind": os.environ.get("WEBHOOK_KIND", "")},
    "identities": [who.strip() for who in os.environ.get("WEBHOOK_IDENTITIES", "").split(",") if who.strip()],
}
if signature in ("hmac", "header"):
    if not os.environ.get("WEBHOOK_HEADER"):
        sys.exit(f"error: WEBHOOK_SIGNATURE is {signature}: set WEBHOOK_HEADER to the name of the header")
    scheme = {"kind": signature, "header": os.environ["WEBHOOK_HEADER"], "prefix": os.environ.get("WEBHOOK_PREFIX", "")}
    fields |= {"signature": "custom", "scheme": scheme}
with saving():
    WebhookSource.model_validate(fields).save(name, overwrite=True)
print(f"saved webhook-source/{name}; the gateway takes its deliveries at /hooks/{name}")
