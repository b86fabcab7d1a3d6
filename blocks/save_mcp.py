"""Save how an MCP server is reached as a block: MCP_NAME=tickets MCP_URL=https://mcp.example.com/mcp python blocks/save_mcp.py

A server over HTTP logs in with MCP_TOKEN, or with OAuth client credentials: MCP_OAUTH_CLIENT_ID, MCP_OAUTH_CLIENT_SECRET,
MCP_OAUTH_TOKEN_URL, and MCP_OAUTH_SCOPE if scopes are to be asked for.

A server over stdio has MCP_COMMAND instead of MCP_URL, written as for a shell: "mcp-server-memory --verbose". MCP_SETUP is the shell
script that installs it, MCP_NETWORK the hosts that both may reach, separated by commas: "@node,api.example.com". It gets no secrets.

What is approved of the server stays approved, unless it is another server now.
"""

import os
import shlex
import sys

from prefect_routines.cli.server import saving
from prefect_routines.connectors.mcp import MCP

name = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MCP_NAME")
if not name:
    sys.exit("error: set MCP_NAME to the name that the block is to have, and MCP_URL or MCP_COMMAND; this file says what they are")
plain = ("url", "token", "oauth_client_id", "oauth_client_secret", "oauth_token_url", "oauth_scope", "setup")
given = {field: os.environ.get(f"MCP_{field.upper()}") for field in plain}
network = [host.strip() for host in os.environ.get("MCP_NETWORK", "").split(",") if host.strip()]
try:
    command = shlex.split(os.environ.get("MCP_COMMAND", ""))
except ValueError as error:
    sys.exit(f"error: MCP_COMMAND cannot be read as for a shell: {error}")
with saving():
    fields = {**given, "command": command, "network": network}
    block = MCP.model_validate({field: value for field, value in fields.items() if value})
    try:
        before = MCP.load(name)
    except ValueError:  # there is none
        before = None
    if isinstance(before, MCP) and (before.url, before.command, before.setup) == (block.url, block.command, block.setup):
        block.approved = before.approved
    block.save(name, overwrite=True)
if block.approved:
    print(f"saved mcp/{name}; {len(block.approved)} of its tools are approved as before")
else:
    print(f"saved mcp/{name}; look at its tools and approve some with `routines mcp approve {name}`")
print(f"a routine then names it: connectors=['mcp/{name}']")
