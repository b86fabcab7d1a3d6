"""Google Drive's ids, queries and contents as text. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from prefect_routines.connectors.rows import row
from prefect_routines.errors import ToolError

_ID = re.compile(r"[A-Za-z0-9_-]{1,200}\Z")
# https://docs.google.com/document/d/ID/edit, https://drive.google.com/drive/folders/ID, https://drive.google.com/open?id=ID
_LINK = re.compile(r"https://(?:docs|drive)\.google\.com/(?:[^?#\s]*/(?:d|folders)/|[^\s]*[?&]id=)([A-Za-z0-9_-]{1,200})(?=[/?#&]|\Z)")
_TEXTS = {
    "json",
    "xml",
    "yaml",
    "x-yaml",
    "toml",
    "javascript",
    "x-javascript",
    "typescript",
    "sql",
    "x-sh",
    "x-httpd-php",
    "x-ndjson",
    "rtf",
}
_ENDINGS = (".md", ".txt", ".csv", ".json", ".yaml", ".yml", ".toml", ".log", ".sql", ".py", ".sh", ".ini", ".cfg", ".rst")
_EMBEDDED = re.compile(r"data:[a-z]{1,20}/[a-z0-9.+-]{1,60};base64,[A-Za-z0-9+/=]{40,}")


def file_id(text: str, argument: str) -> str:
    """The id in a link, or the id itself.

    Args:
        text: As Claude or the author wrote it.
        argument: Where it comes from, for the error.

    Raises:
        ToolError: It is neither.

    Example:
        >>> file_id("https://docs.google.com/document/d/1AbC/edit#heading=h.1", "file")
        '1AbC'
    """
    link = _LINK.match(text.strip())
    found = link[1] if link else text.strip()
    if not _ID.match(found):
        raise ToolError(f"{argument}: write the id or the link of a file or folder of Google Drive")
    return found


def query_of(words: str, folder: str | None) -> str:
    """A search as Drive takes it. https://developers.google.com/workspace/drive/api/guides/ref-search-terms"""
    parts = ["trashed = false"]
    if words.strip():
        escaped = words.strip().replace("\\", "\\\\").replace("'", "\\'")
        parts.append(f"(name contains '{escaped}' or fullText contains '{escaped}')")
    if folder:
        parts.append(f"'{folder}' in parents")
    return " and ".join(parts)


def kind_of(file: Mapping[str, Any]) -> str:
    """'document', 'spreadsheet', 'folder', ... for Google's own types, else the media type."""
    return str(file.get("mimeType", "")).removeprefix("application/vnd.google-apps.")


def listed(file: Mapping[str, Any]) -> str:
    """A file on one line."""
    owner = next((owner.get("displayName") for owner in file.get("owners") or []), None)
    told = {**file, "type": kind_of(file), "owner": owner, "link": file.get("webViewLink")}
    return row(told, ("id", "name", "type", "size", "modifiedTime", "owner", "link"))


def is_text(media_type: str, name: str) -> bool:
    """Whether a file can be shown as it is."""
    family, _, rest = media_type.partition("/")
    plain = rest.partition(";")[0].strip()
    return family == "text" or plain in _TEXTS or plain.endswith(("+json", "+xml")) or name.lower().endswith(_ENDINGS)


def readable(exported: str) -> str:
    """An export without its byte-order mark and without the pictures that Markdown carries inside."""
    return _EMBEDDED.sub("(picture)", exported.removeprefix("\ufeff"))


def as_csv(rows: Sequence[Sequence[Any]]) -> str:
    """Cells as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
