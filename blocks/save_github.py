"""Save a login at GitHub and the connector that uses it as blocks: GITHUB_TOKEN=... python blocks/save_github.py [NAME]

For pushing, a fine-grained token with "Contents: read and write" is enough; the tools need what they do (issues, pull requests ...).
As a GitHub App: GITHUB_APP_ID, GITHUB_INSTALLATION_ID and GITHUB_PRIVATE_KEY_FILE. Enterprise: GITHUB_API_URL=https://HOST/api/v3
"""

import os
import sys
from pathlib import Path

from prefect_github import GitHubCredentials

from prefect_routines.cli.server import saving
from prefect_routines.connectors.github import GitHub

name = sys.argv[1] if len(sys.argv) > 1 else "docs-bot"
where = os.environ.get("GITHUB_API_URL") or "https://api.github.com"
token, app = os.environ.get("GITHUB_TOKEN"), os.environ.get("GITHUB_APP_ID")
if app:
    missing = [variable for variable in ("GITHUB_INSTALLATION_ID", "GITHUB_PRIVATE_KEY_FILE") if not os.environ.get(variable)]
    if missing:
        sys.exit(f"error: GITHUB_APP_ID is set; set {' and '.join(missing)} too")
    key = Path(os.environ["GITHUB_PRIVATE_KEY_FILE"])
    if not key.is_file():
        sys.exit(f"error: GITHUB_PRIVATE_KEY_FILE names {key}, which is no file")
elif not token:
    sys.exit("error: set GITHUB_TOKEN to the token that the block is to hold, or GITHUB_APP_ID and what else an App needs")
with saving():
    if app:
        login = {"app_id": app, "installation_id": os.environ["GITHUB_INSTALLATION_ID"], "private_key": key.read_text()}
        saved = f"github/{name}"
    else:
        GitHubCredentials(token=token).save(name, overwrite=True)
        login = {"credentials": GitHubCredentials.load(name)}
        saved = f"github-credentials/{name}"
    GitHub.model_validate({**login, "base_url": where}).save(name, overwrite=True)
print(f"saved github/{name}; a routine names it: connectors=['github/{name}']")
print(f"a repository logs in with it: Repository(url=..., credentials='{saved}')")
