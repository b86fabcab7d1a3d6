"""Save the login for Google Drive as a block: GOOGLE_KEY_FILE=service-account.json python blocks/save_google_drive.py [NAME]

The file is the JSON key of a service account whose project has the Google Drive API enabled (and the Google Sheets API, to read sheets
by name). Share the folders that it is to read with the account's address. GOOGLE_DRIVE_FOLDERS limits it to some: links, by commas.
"""

import json
import os
import sys
from pathlib import Path

from prefect_routines.blocks import import_type
from prefect_routines.cli.server import saving

file = os.environ.get("GOOGLE_KEY_FILE")
if not file or not Path(file).is_file():
    sys.exit("error: set GOOGLE_KEY_FILE to the file with the key that the block is to hold")
name = sys.argv[1] if len(sys.argv) > 1 else "handbook"
folders = [folder for folder in os.environ.get("GOOGLE_DRIVE_FOLDERS", "").split(",") if folder]
try:
    key = json.loads(Path(file).read_text())
except ValueError:
    sys.exit(f"error: {file} is not JSON; the key of a service account is downloaded as JSON")
with saving():
    import_type("google-drive")
    from prefect_routines.connectors.google_drive import GoogleDrive

    GoogleDrive(service_account_info=key, folders=folders).save(name, overwrite=True)
print(f"saved google-drive/{name}; a routine names it: connectors=['google-drive/{name}']")
