"""Google Drive: search, and documents, sheets, slides and files as text. Read only."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import quote

from prefect.types import SecretDict
from pydantic import ConfigDict, Field, HttpUrl, field_validator, model_validator

from prefect_routines.connectors.address import Address
from prefect_routines.connectors.connector import Connection, Connector, Toolset
from prefect_routines.connectors.drive_text import as_csv, file_id, is_text, kind_of, listed, query_of, readable
from prefect_routines.connectors.google_login import KEY_FIELDS, GoogleLogin
from prefect_routines.connectors.http import LARGEST, PATIENCE, Answer, Api, ServiceError, explained
from prefect_routines.errors import ToolError
from prefect_routines.tools.paging import window
from prefect_routines.tools.tool import tool

SCOPES = ["https://www.googleapis.com/auth/drive.readonly"]  # for Google Sheets' values, too
GOOGLE = "application/vnd.google-apps."
EXPORTS = {"document": "text/markdown", "presentation": "text/plain", "spreadsheet": "text/csv"}
FIELDS = "id,name,mimeType,size,modifiedTime,parents,webViewLink,owners(displayName),shortcutDetails(targetId)"
EMPTY_PAGES = 5  # pages without a file of the allowed folders, after which a search stops to ask
DEPTH = 50  # folders above a file


class GoogleDrive(Connector):
    """Google Drive through a service account, which sees the files and folders that are shared with its address. Read only.

    Example:
        ```python
        import json
        from pathlib import Path
        from prefect_routines.connectors.google_drive import GoogleDrive

        key = json.loads(Path("service-account.json").read_text())
        GoogleDrive(service_account_info=key, folders=["https://drive.google.com/drive/folders/1AbC"]).save("handbook")
        ```

        A routine names it: `@routine(connectors=["google-drive/handbook"])`. With a block of prefect-gcp:
        `GoogleDrive(gcp_credentials="gcp-credentials/main")`.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # the input is a private key

    _block_type_name = "Google Drive"
    _block_type_slug = "google-drive"
    _documentation_url = HttpUrl("https://developers.google.com/workspace/drive/api/guides/about-sdk")

    gcp_credentials: str | None = Field(default=None, description="Block of prefect-gcp that holds the login, e.g. gcp-credentials/main.")
    service_account_info: SecretDict | None = Field(
        default=None, description="Instead of such a block: the service account's key, the content of its JSON file."
    )
    folders: list[str] = Field(
        default_factory=list, description="Ids or links of folders; nothing outside them is read. Default: no limit."
    )
    base_url: Address = Field(default="https://www.googleapis.com", description="Address of the Drive API.")
    sheets_url: Address = Field(default="https://sheets.googleapis.com", description="Address of the Sheets API.")
    prefix: str = Field(default="google_drive", description="What the tools' names begin with; for a session that uses two.")

    # The block of prefect-gcp is named and not nested: its package takes half a second to import, and more when it is not cached.

    @field_validator("service_account_info", mode="before")
    @classmethod
    def _is_key(cls, value: Any) -> Any:
        found = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        if isinstance(found, str):
            try:
                found = value = json.loads(found)
            except ValueError:
                raise ValueError("this is not the content of a service account's JSON file") from None
        if found is not None and not (isinstance(found, dict) and all(isinstance(found.get(name), str) for name in KEY_FIELDS)):
            raise ValueError(f"a service account's key has the fields {', '.join(KEY_FIELDS)}")
        return value

    @field_validator("folders")
    @classmethod
    def _are_folders(cls, value: list[str]) -> list[str]:
        try:
            return [file_id(folder, "folders") for folder in value]
        except ToolError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _has_one_login(self) -> Self:
        if (self.gcp_credentials is None) == (self.service_account_info is None):
            raise ValueError("give either gcp_credentials or service_account_info")
        return self

    def open(self, name: str) -> Connection:
        """The tools; nothing is asked of Google yet."""
        api, login = self._api(name)
        return Connection(
            tools=DriveTools(api, login, self.folders, self.sheets_url).tools(self.prefix),
            hosts=("docs.google.com", "drive.google.com"),
            secrets=lambda: login.secrets,
            close=api.close,
        )

    async def check(self) -> str:
        """Which service account it is, and which folders it may read."""
        api, login = self._api(self._block_document_name or "?")
        tools = DriveTools(api, login, self.folders, self.sheets_url)
        try:
            user = (await tools.found("/drive/v3/about", {"fields": "user(emailAddress)"}))["user"]["emailAddress"]
            names = [(await tools.file(folder))["name"] for folder in self.folders]
        finally:
            await api.close()
        return f"Google Drive as {user}: reads {', '.join(names) or 'all that is shared with it'}"

    def _api(self, name: str) -> tuple[Api, GoogleLogin]:
        block = f"google-drive/{name}"
        key = self.service_account_info.get_secret_value() if self.service_account_info else None
        login = GoogleLogin(block, SCOPES, key=key, credentials=self.gcp_credentials)
        return Api("Google Drive", self.base_url, block=block, headers=login.headers, explain=_explained), login


class DriveTools(Toolset):
    """What Claude may read of Google Drive."""

    def __init__(self, api: Api, login: GoogleLogin, folders: list[str], sheets_url: str) -> None:
        self._api, self._login, self._folders, self._sheets = api, login, frozenset(folders), sheets_url.rstrip("/")
        self._inside: dict[str, bool] = dict.fromkeys(folders, True)

    @tool(idempotent=True, outside=True)
    async def search(self, query: str = "", folder: str | None = None, page: str | None = None) -> str:
        """Search files by name and content; without a query, the last changed come first.

        Args:
            query: Words. Default: all files.
            folder: Id or link of a folder, to list what lies directly in it.
            page: Where to go on, from the last line of the call before.
        """
        parent = file_id(folder, "folder") if folder else None
        if parent and not await self._allowed(parent):
            raise self._outside(f"the folder {parent}")
        params = {
            "q": query_of(query, parent),
            "fields": f"nextPageToken,incompleteSearch,files({FIELDS})",
            "pageSize": 50,
            "orderBy": None if query else "modifiedTime desc",  # refused beside words
            "corpora": "allDrives",
            "includeItemsFromAllDrives": "true",
            "supportsAllDrives": "true",
        }
        lines: list[str] = []
        for _ in range(EMPTY_PAGES):
            found = await self.found("/drive/v3/files", {**params, "pageToken": page})
            lines = [listed(file) for file in found.get("files") or [] if await self._lies_inside(file)]
            page = found.get("nextPageToken")
            if lines or not page:
                break
        if found.get("incompleteSearch"):
            lines.append("[Google did not search everything]")
        return "\n".join([*lines, *([f"[more: page={page}]"] if page else [])]) or "No file matches."

    @tool(idempotent=True, outside=True)
    async def read(self, file: str, sheet: str | None = None, offset: int = 0) -> str:
        """Read a file: documents as Markdown, sheets as CSV, slides and text files as text.

        Args:
            file: Its id or its link.
            sheet: Of a spreadsheet, the name of the sheet. Default: the first one.
            offset: Character to start from, when the text was too long for one call.
        """
        found = await self.file(file_id(file, "file"))
        if target := (found.get("shortcutDetails") or {}).get("targetId"):
            found = await self.file(target)
        if not await self._lies_inside(found):
            raise self._outside(f"the file {found['id']}")
        kind = kind_of(found)
        if kind == "folder":
            raise ToolError(f"{found['name']!r} is a folder; `search` with folder={found['id']!r} lists what is in it")
        if sheet is not None and kind != "spreadsheet":
            raise ToolError(f"sheet: {found['name']!r} is no spreadsheet")
        return window(f"{listed(found)}\n\n{await self._text(found, kind, sheet)}", offset)

    async def _text(self, file: Mapping[str, Any], kind: str, sheet: str | None) -> str:
        path = f"/drive/v3/files/{quote(file['id'], safe='')}"
        if sheet is not None:
            return await self._sheet(file["id"], sheet)
        if kind in EXPORTS:
            exported = (await self.asked(f"{path}/export", {"mimeType": EXPORTS[kind]})).text
            note = "[the first sheet; name another one with `sheet`]\n" if kind == "spreadsheet" else ""
            return note + readable(exported)
        size = int(file.get("size") or 0)
        if file["mimeType"].startswith(GOOGLE) or not is_text(file["mimeType"], file["name"]):
            return "[it is no text and cannot be shown]"
        if size > LARGEST:
            return f"[it is larger than {LARGEST // 1_000_000} MB and cannot be shown]"
        answer = await self.asked(path, {"alt": "media", "supportsAllDrives": "true"})
        return "[it is no text and cannot be shown]" if b"\0" in answer.body[:8000] else answer.text

    async def _sheet(self, spreadsheet: str, sheet: str) -> str:
        """https://developers.google.com/workspace/sheets/api/reference/rest/v4/spreadsheets.values/get"""
        path = f"{self._sheets}/v4/spreadsheets/{quote(spreadsheet, safe='')}"
        found = await self.found(path, {"fields": "sheets.properties.title"})
        titles = [item["properties"]["title"] for item in found.get("sheets") or []]
        if sheet not in titles:
            raise ToolError(f"sheet: there is no {sheet!r}; there is {', '.join(map(repr, titles))}")
        cells = quote("'" + sheet.replace("'", "''") + "'", safe="")
        return as_csv((await self.found(f"{path}/values/{cells}")).get("values") or [])

    async def file(self, id: str) -> dict[str, Any]:
        """What Drive knows of a file."""
        try:
            return await self.found(f"/drive/v3/files/{quote(id, safe='')}", {"fields": FIELDS, "supportsAllDrives": "true"})
        except ServiceError as error:
            if error.status != 404:
                raise
            raise ServiceError(f"there is no file {id}, or it is not shared with {self._login.who}", 404) from None

    async def found(self, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """An answer that is an object."""
        found = (await self.asked(path, params)).json()
        if not isinstance(found, dict):
            raise ServiceError(f"what answers is not Google Drive; the author has to set the address in {self._api.block} right")
        return found

    async def asked(self, path: str, params: Mapping[str, Any] | None = None) -> Answer:
        """An answer; Google says some things in ways of its own.

        https://developers.google.com/workspace/drive/api/guides/handle-errors
        """
        deadline, pause, renewed = time.monotonic() + PATIENCE, 1.0, False
        while True:
            try:
                return await self._api.get(path, params)
            except ServiceError as error:
                if error.status == 401 and not renewed and "Google refused" not in str(error):
                    renewed = True
                    self._login.forget()
                elif error.status != 403:
                    raise
                elif "ateLimitExceeded)" in str(error):  # userRateLimitExceeded too
                    if time.monotonic() + pause > deadline:
                        raise ServiceError("Google Drive limits the rate of requests; do something else, or try again later", 429) from None
                    await asyncio.sleep(pause)
                    pause *= 2
                elif "(exportSizeLimitExceeded)" in str(error):
                    raise ServiceError("it is too large for Google to export (more than 10 MB); it cannot be read", 403) from None
                else:
                    raise

    async def _lies_inside(self, file: Mapping[str, Any]) -> bool:
        if not self._folders or file["id"] in self._folders:
            return True
        return any([await self._allowed(parent) for parent in file.get("parents") or []])

    async def _allowed(self, id: str) -> bool:
        """Whether it is one of the block's folders, or lies in one."""
        if not self._folders:
            return True
        passed: list[str] = []
        at = id
        while at not in self._inside and len(passed) < DEPTH:
            passed.append(at)
            try:
                parents = (await self.file(at)).get("parents") or []
            except ServiceError as error:
                if error.status != 404:
                    raise
                parents = []
            if not parents:
                break
            at = parents[0]  # there is one at most: https://developers.google.com/workspace/drive/api/guides/single-parenting
        inside = self._inside.get(at, False)
        self._inside.update(dict.fromkeys(passed, inside))
        return inside

    def _outside(self, what: str) -> ToolError:
        return ToolError(f"{what} lies outside the folders that {self._api.block} may read")


def _explained(body: Any) -> str:
    """The message, and the reason by which Google's errors are told apart."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return explained(body)
    reasons = [str(item.get("reason")) for item in error.get("errors") or [] if isinstance(item, dict) and item.get("reason")]
    return f"{error.get('message', '')}{f' ({reasons[0]})' if reasons else ''}"
