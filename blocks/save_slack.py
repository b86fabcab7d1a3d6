"""Save a Slack app's token and the connector around it as blocks: SLACK_TOKEN=xoxb-... python blocks/save_slack.py [NAME]

The app wants these bot scopes: channels:read, channels:history, users:read, chat:write; as you need them reactions:write, files:write,
im:write, groups:read and groups:history. SLACK_CHANNEL is the channel that Claude uses when nothing else was said. SLACK_SIGNING_SECRET
is for messages with buttons; the app's Interactivity Request URL is then https://GATEWAY/slack/interactions. Invite the app into each
channel that it writes to.
"""

import os
import sys

from pydantic import SecretStr

from prefect_routines.blocks import import_type
from prefect_routines.cli.server import saving

token = os.environ.get("SLACK_TOKEN")
if not token:
    sys.exit("error: set SLACK_TOKEN to the token that the block is to hold")
name = sys.argv[1] if len(sys.argv) > 1 else "acme"
base_url = os.environ.get("SLACK_BASE_URL") or "https://slack.com/api"
secret = SecretStr(given) if (given := os.environ.get("SLACK_SIGNING_SECRET")) else None
with saving():
    import_type("slack")
    from prefect_slack import SlackCredentials

    from prefect_routines.connectors.slack import Slack

    login = SlackCredentials(token=token)
    block = Slack(credentials=login, default_channel=os.environ.get("SLACK_CHANNEL"), base_url=base_url, signing_secret=secret)
    login.save(name, overwrite=True)
    block.save(name, overwrite=True)
names = f"connectors=['slack/{name}'], notify=['slack/{name}#CHANNEL']"
print(f"saved slack-credentials/{name} and slack/{name}; a routine names the latter: {names}")
