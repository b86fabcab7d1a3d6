"""Google's side of a service account: a token endpoint that checks the signature, and a Drive with exports, which the emulator lacks.

https://developers.google.com/identity/protocols/oauth2/service-account
https://developers.google.com/workspace/drive/api/reference/rest/v3
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from .http_service import Asked, HttpService, Said, serving

WHO = "docs-bot@acme.iam.gserviceaccount.com"
GOOGLE = "application/vnd.google-apps."


@functools.cache
def key_pair(owner: str = WHO) -> tuple[str, str]:
    """Somebody's private key and its public half, made once."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def error(status: int, reason: str, message: str) -> Said:
    """An error as Google's APIs send it."""
    errors = [{"domain": "global", "reason": reason, "message": message}]
    return Said({"error": {"code": status, "message": message, "errors": errors}}, status)


def file(id: str, name: str, kind: str, parent: str = "root", **more: Any) -> dict[str, Any]:
    return {"id": id, "name": name, "mimeType": kind if "/" in kind else GOOGLE + kind, "parents": [parent], **more}


FILES = {
    found["id"]: found
    for found in [
        file("handbook", "Handbook", "folder"),
        file("guides", "Guides", "folder", "handbook"),
        file("private", "Salaries", "folder"),
        file(
            "doc1",
            "Deploy guide",
            "document",
            "guides",
            owners=[{"displayName": "Ada"}],
            webViewLink="https://docs.google.com/document/d/doc1/edit",
        ),
        file("sheet1", "Budget", "spreadsheet", "handbook"),
        file("slides1", "Kick-off", "presentation", "handbook"),
        file("notes1", "notes.md", "text/markdown", "handbook", size="12"),
        file("photo1", "photo.png", "image/png", "handbook", size="2048"),
        file("odd1", "odd.txt", "text/plain", "handbook", size="4"),
        file("video1", "all.log", "text/plain", "handbook", size="50000000"),
        file("form1", "Survey", "form", "handbook"),
        file("short1", "Salaries", "shortcut", "handbook", shortcutDetails={"targetId": "pay1"}),
        file("short2", "The guide", "shortcut", "handbook", shortcutDetails={"targetId": "doc1"}),
        file("pay1", "Pay", "document", "private"),
        file("huge1", "Everything", "document", "handbook"),
        file("loose1", "Loose", "document", parents=[]),
    ]
}
PICTURE = "data:image/png;base64," + "iVBORw0KGgo" * 1000
EXPORTED = {
    ("doc1", "text/markdown"): f"\ufeff# Deploy\n\nRun `make`. ![][image1]\n\n[image1]: <{PICTURE}>\n",
    ("sheet1", "text/csv"): "month,cost\nMay,7\n",
    ("slides1", "text/plain"): "Kick-off\nWhy we do it\n",
    ("pay1", "text/markdown"): "everybody's pay\n",
}
SHEETS = {"Costs": [["month", "cost"], ["May", "7"]], "Ada's": [["a, b", 'say "hi"'], [], [1]]}
MEDIA = {"notes1": b"# Notes\n\xc3\xa9", "odd1": b"a\0bc"}


@dataclass
class Google:
    """What it keeps, and how it is to fail."""

    service: HttpService
    tokens: list[str] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    claims: dict[str, Any] = field(default_factory=dict)
    fails: list[Said] = field(default_factory=list)  # answers of the Drive before it works

    @property
    def url(self) -> str:
        return self.service.url

    def key(self, **changes: str) -> dict[str, str]:
        """The service account's key."""
        found = {"type": "service_account", "project_id": "acme", "private_key_id": "k1", "private_key": key_pair()[0], "client_email": WHO}
        return {**found, "client_id": "1", "token_uri": f"{self.url}/token", **changes}

    def answer(self, asked: Asked) -> Said:  # noqa: PLR0911  # one for each endpoint
        if asked.path == "/token":
            return self._token(asked)
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.tokens or token in self.revoked:
            return error(401, "authError", "Invalid Credentials")
        if self.fails:
            return self.fails.pop(0)
        if asked.path == "/drive/v3/about":
            return Said({"user": {"emailAddress": WHO, "displayName": WHO}})
        if asked.path == "/drive/v3/files":
            return self._listed(asked.query)
        if asked.path.startswith("/v4/spreadsheets/sheet1"):
            return self._sheet(asked.path)
        return self._file(asked)

    def _token(self, asked: Asked) -> Said:
        posted = parse_qs(asked.body.decode())
        try:
            self.claims = dict(jwt.decode(posted["assertion"][0], certs=key_pair()[1], audience="https://oauth2.googleapis.com/token"))
        except ValueError:
            return Said({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, 400)
        self.tokens.append(f"ya29.access-token-number-{len(self.tokens)}")
        return Said({"access_token": self.tokens[-1], "expires_in": 3600, "token_type": "Bearer"})

    def _listed(self, query: Mapping[str, str]) -> Said:
        wanted = query["q"].rpartition("' in parents")[0].rpartition("'")[2]
        found = [file for file in FILES.values() if not wanted or wanted in file["parents"]]
        if "contains 'pay'" in query["q"]:
            found = [FILES["pay1"]] * 3 + [FILES["notes1"]]
        begin = int(query.get("pageToken") or 0)
        size = 2 if "contains 'pay'" in query["q"] else int(query["pageSize"])
        more = {"nextPageToken": str(begin + size)} if begin + size < len(found) else {}
        return Said({"files": found[begin : begin + size], "incompleteSearch": "slow" in query["q"], **more})

    def _sheet(self, path: str) -> Said:
        if path == "/v4/spreadsheets/sheet1":
            return Said({"sheets": [{"properties": {"title": title}} for title in SHEETS]})
        cells = unquote(path.rpartition("/")[2])
        return Said({"range": cells, "values": SHEETS[cells[1:-1].replace("''", "'")]})

    def _file(self, asked: Asked) -> Said:
        id, _, export = asked.path.removeprefix("/drive/v3/files/").partition("/")
        if id not in FILES:
            return error(404, "notFound", f"File not found: {id}.")
        if export and id == "huge1":
            return error(403, "exportSizeLimitExceeded", "This file is too large to be exported.")
        if export:
            return Said(EXPORTED[id, asked.query["mimeType"]].encode())
        return Said(MEDIA[id]) if asked.query.get("alt") == "media" else Said(FILES[id])


@contextlib.contextmanager
def running() -> Iterator[Google]:
    """It, for the length of a test."""
    with serving(lambda asked: Said(status=503)) as service:
        google = Google(service)
        service.answers = google.answer
        yield google
