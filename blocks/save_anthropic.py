"""Save the login for Claude as a block: ANTHROPIC_API_KEY=... python blocks/save_anthropic.py [NAME]"""

import os
import sys

from prefect_routines import AnthropicCredentials
from prefect_routines.cli.server import saving

key = os.environ.get("ANTHROPIC_API_KEY")
if not key:
    sys.exit("error: set ANTHROPIC_API_KEY to the key that the block is to hold")
name = sys.argv[1] if len(sys.argv) > 1 else "claude"
with saving():
    AnthropicCredentials(api_key=key, base_url=os.environ.get("ANTHROPIC_BASE_URL")).save(name, overwrite=True)
print(f"saved anthropic-credentials/{name}; a routine names it: claude='anthropic-credentials/{name}'")
