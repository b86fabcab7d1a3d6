"""Save a receiver of signed webhooks as a block: NOTICE_URL=https://... NOTICE_SECRET=whsec_... python blocks/save_notice_webhook.py [NAME]

The receiver has the same secret; make one with: echo "whsec_$(openssl rand -base64 32)". NOTICE_KINDS says what it is told, with commas:
started, approval, finished (default: all). NOTICE_ARGUMENTS=1 sends the arguments of calls that wait for approval along.
"""

import os
import sys

from prefect_routines.cli.server import saving
from prefect_routines.notices.webhook import NoticeWebhook

wanted = ("NOTICE_URL", "NOTICE_SECRET")
if missing := [name for name in wanted if not os.environ.get(name)]:
    sys.exit(f"error: set {', '.join(missing)}; this file says what they are")
name = sys.argv[1] if len(sys.argv) > 1 else "ci"
fields = {"url": os.environ["NOTICE_URL"], "secret": os.environ["NOTICE_SECRET"], "arguments": bool(os.environ.get("NOTICE_ARGUMENTS"))}
if kinds := [kind.strip() for kind in os.environ.get("NOTICE_KINDS", "").split(",") if kind.strip()]:
    fields["kinds"] = kinds
with saving():
    NoticeWebhook.model_validate(fields).save(name, overwrite=True)
print(f"saved notice-webhook/{name}; a routine names it: notify=['notice-webhook/{name}']")
