"""Save a Twilio login and what may be sent with it as a block: TWILIO_ACCOUNT_SID=AC... python blocks/save_twilio.py [NAME]

Log in with TWILIO_AUTH_TOKEN, or better with TWILIO_API_KEY and TWILIO_API_SECRET. TWILIO_FROM is the number that
sends, or TWILIO_MESSAGING_SERVICE_SID the messaging service.
TWILIO_RECIPIENTS declares who can be written to, separated by commas: +4915112345678,+33612345678
"""

import os
import sys

from prefect_routines.cli.server import saving
from prefect_routines.connectors.twilio import Twilio

wanted = ("TWILIO_ACCOUNT_SID", "TWILIO_RECIPIENTS")
if missing := [name for name in wanted if not os.environ.get(name)]:
    sys.exit(f"error: set {', '.join(missing)}; this file says what they are")
name = sys.argv[1] if len(sys.argv) > 1 else "on-call"
given = {
    "auth_token": os.environ.get("TWILIO_AUTH_TOKEN"),
    "api_key": os.environ.get("TWILIO_API_KEY"),
    "api_secret": os.environ.get("TWILIO_API_SECRET"),
    "from_number": os.environ.get("TWILIO_FROM"),
    "messaging_service_sid": os.environ.get("TWILIO_MESSAGING_SERVICE_SID"),
    "base_url": os.environ.get("TWILIO_BASE_URL"),
}
with saving():
    block = Twilio.model_validate(
        {
            "account_sid": os.environ["TWILIO_ACCOUNT_SID"],
            "recipients": [one.strip() for one in os.environ["TWILIO_RECIPIENTS"].split(",")],
            **{field: value for field, value in given.items() if value},
        }
    )
    block.save(name, overwrite=True)
print(f"saved twilio/{name}; a routine names it: connectors=['twilio/{name}']")
