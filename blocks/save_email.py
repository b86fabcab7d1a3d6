"""Save a mail server's login and what may be sent with it as blocks: SMTP_SERVER=... EMAIL_SENDER=... python blocks/save_email.py [NAME]

SMTP_USERNAME and SMTP_PASSWORD are for a server that wants a login, SMTP_TYPE is SSL (default), STARTTLS or INSECURE, SMTP_PORT its port
where that is not the usual one. EMAIL_RECIPIENTS declares who can be written to, separated by commas: ops@acme.com,*@docs.acme.com
"""

import os
import sys

from prefect_routines.blocks import import_type
from prefect_routines.cli.server import saving

wanted = ("SMTP_SERVER", "EMAIL_SENDER", "EMAIL_RECIPIENTS")
if missing := [name for name in wanted if not os.environ.get(name)]:
    sys.exit(f"error: set {', '.join(missing)}; this file says what they are")
name = sys.argv[1] if len(sys.argv) > 1 else "reports"
with saving():
    import_type("email")
    from prefect_email import EmailServerCredentials

    from prefect_routines.connectors.email import Email

    login = EmailServerCredentials(
        smtp_server=os.environ["SMTP_SERVER"],
        smtp_type=os.environ.get("SMTP_TYPE", "SSL"),
        smtp_port=os.environ.get("SMTP_PORT"),
        username=os.environ.get("SMTP_USERNAME"),
        password=os.environ.get("SMTP_PASSWORD", ""),
    )
    recipients = [one.strip() for one in os.environ["EMAIL_RECIPIENTS"].split(",")]
    block = Email(credentials=login, sender=os.environ["EMAIL_SENDER"], recipients=recipients)
    login.save(name, overwrite=True)
    block.save(name, overwrite=True)
names = f"connectors=['email/{name}'], notify=['email/{name}#ADDRESS']"
print(f"saved email-server-credentials/{name} and email/{name}; a routine names the latter: {names}")
