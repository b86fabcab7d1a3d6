"""Google Drive as a session reads it: a real token exchange, the emulator's Drive, and a small one for what the emulator lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from prefect_routines.connectors.drive_text import file_id, query_of
from prefect_routines.connectors.google_drive import GoogleDrive
from prefect_routines.connectors.http import ServiceError
from prefect_routines.errors import SettingsError, ToolError
from prefect_routines.testing import ScriptedClaude, call, say
from session.world import REPORT, run

from . import drive_service
from .drive_service import WHO, error, key_pair
from .emulator import Emulator
from .http_service import BIG, Said, answered, context


@pytest.fixture
def google() -> Iterator[drive_service.Google]:
    with drive_service.running() as running:
        yield running


def drive(google: drive_service.Google, **fields: Any) -> GoogleDrive:
    given = {"service_account_info": google.key(), "base_url": google.url, "sheets_url": google.url, **fields}
    return GoogleDrive(**given)


@pytest.fixture
def block(google: drive_service.Google) -> GoogleDrive:
    return drive(google)


# reading


async def test_a_document_is_read_as_markdown_without_its_pictures(block: GoogleDrive) -> None:
    """By link; a picture inside Markdown would be a megabyte of letters."""
    said = await answered(block, "google_drive_read", file="https://docs.google.com/document/d/doc1/edit?usp=sharing#heading=h.1")
    head, _, text = said.partition("\n\n")
    assert head == (
        '{"id":"doc1","name":"Deploy guide","type":"document","owner":"Ada","link":"https://docs.google.com/document/d/doc1/edit"}'
    )
    assert text == "# Deploy\n\nRun `make`. ![][image1]\n\n[image1]: <(picture)>\n"


async def test_a_long_text_is_read_in_pieces(block: GoogleDrive) -> None:
    """From the character that the piece before named."""
    whole = await answered(block, "google_drive_read", file="notes1")
    assert await answered(block, "google_drive_read", file="notes1", offset=5) == whole[5:]
    with pytest.raises(ToolError, match="offset: between 0 and"):
        await answered(block, "google_drive_read", file="notes1", offset=10_000)


async def test_a_spreadsheet_is_read_sheet_by_sheet(block: GoogleDrive) -> None:
    """The first one by itself, others by name; which one it is is said."""
    first = await answered(block, "google_drive_read", file="sheet1")
    assert first.endswith("[the first sheet; name another one with `sheet`]\nmonth,cost\nMay,7\n")
    assert (await answered(block, "google_drive_read", file="sheet1", sheet="Ada's")).endswith('\n\n"a, b","say ""hi"""\n\n1\n')
    with pytest.raises(ToolError, match="sheet: there is no 'Summer'; there is 'Costs', \"Ada's\""):
        await answered(block, "google_drive_read", file="sheet1", sheet="Summer")
    with pytest.raises(ToolError, match=r"'notes\.md' is no spreadsheet"):
        await answered(block, "google_drive_read", file="notes1", sheet="Costs")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("slides1", "Kick-off\nWhy we do it\n"),
        ("notes1", "# Notes\né"),
        ("short2", "# Deploy"),
        ("photo1", "[it is no text and cannot be shown]"),
        ("odd1", "[it is no text and cannot be shown]"),
        ("form1", "[it is no text and cannot be shown]"),
        ("video1", "[it is larger than 10 MB and cannot be shown]"),
    ],
)
async def test_other_files_are_read_as_far_as_they_are_text(block: GoogleDrive, file: str, text: str) -> None:
    """Slides and text files are; of others there is name and size."""
    said = await answered(block, "google_drive_read", file=file)
    assert f"\n\n{text}" in said
    assert '"name":' in said


async def test_a_folder_says_how_to_list_it(block: GoogleDrive) -> None:
    """It has no text of its own."""
    with pytest.raises(ToolError, match="'Handbook' is a folder; `search` with folder='handbook'"):
        await answered(block, "google_drive_read", file="handbook")


async def test_files_of_a_folder_are_listed(block: GoogleDrive, google: drive_service.Google) -> None:
    """By link; shared drives are searched too, and an incomplete search is said to be one."""
    listed = await answered(block, "google_drive_search", folder="https://drive.google.com/drive/u/0/folders/guides")
    assert listed.splitlines() == [
        '{"id":"doc1","name":"Deploy guide","type":"document","owner":"Ada","link":"https://docs.google.com/document/d/doc1/edit"}'
    ]
    asked = google.service.asked[-1].query
    assert (asked["corpora"], asked["includeItemsFromAllDrives"], asked["orderBy"]) == ("allDrives", "true", "modifiedTime desc")
    assert (await answered(block, "google_drive_search", query="slow")).endswith("[Google did not search everything]")
    assert "orderBy" not in google.service.asked[-1].query
    assert await answered(block, "google_drive_search", folder="nothing_in_it") == "No file matches."


async def test_a_search_goes_on_from_page_to_page(block: GoogleDrive) -> None:
    """The last line says how."""
    assert (await answered(block, "google_drive_search", query="pay")).endswith("[more: page=2]")
    assert "notes.md" in await answered(block, "google_drive_search", query="pay", page="2")


def test_words_cannot_become_a_query_of_their_own() -> None:
    """Quotes and backslashes stay inside the words."""
    assert query_of(r"it's \ x' or 'a' in owners", None) == (
        r"trashed = false and (name contains 'it\'s \\ x\' or \'a\' in owners' or fullText contains 'it\'s \\ x\' or \'a\' in owners')"
    )


@pytest.mark.parametrize(
    "text", ["", "../about", "a/b", "https://evil.example/d/doc1/edit", "https://docs.google.com/document/d/", "x y", "é"]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    """It would become part of an address."""
    with pytest.raises(ToolError, match="file: write the id or the link"):
        file_id(text, "file")


# what may be read


async def test_only_the_allowed_folders_are_read(google: drive_service.Google) -> None:
    """Folders inside them too; not a shortcut that leads out, not what lies in no folder."""
    block = drive(google, folders=["https://drive.google.com/drive/folders/handbook"])
    assert "# Deploy" in await answered(block, "google_drive_read", file="doc1")
    assert "Guides" in await answered(block, "google_drive_search", folder="handbook")
    for file in ("pay1", "short1", "loose1", "private"):
        with pytest.raises(ToolError, match=r"the file \w+ lies outside the folders that google-drive/test may read") as caught:
            await answered(block, "google_drive_read", file=file)
        assert "Pay" not in str(caught.value)
    with pytest.raises(ToolError, match="the folder private lies outside"):
        await answered(block, "google_drive_search", folder="private")
    asked = [request.path for request in google.service.asked]
    assert "/drive/v3/files/pay1/export" not in asked


async def test_a_search_shows_the_allowed_folders_only(google: drive_service.Google) -> None:
    """Pages without any of their files are passed over."""
    block = drive(google, folders=["handbook"])
    found = await answered(block, "google_drive_search", query="pay")
    assert [json.loads(line)["name"] for line in found.splitlines()] == ["notes.md"]
    everything = await answered(block, "google_drive_search")
    assert "Salaries" in everything  # a shortcut's own name
    assert "Pay" not in everything
    assert '"id":"private"' not in everything


async def test_what_is_not_shared_is_told_with_whom_to_share_it(block: GoogleDrive) -> None:
    """Google does not say whether there is such a file."""
    with pytest.raises(ServiceError, match=f"there is no file nowhere, or it is not shared with {WHO}"):
        await answered(block, "google_drive_read", file="nowhere")


# the login


async def test_a_session_logs_in_once_and_asks_for_reading_only(block: GoogleDrive, google: drive_service.Google) -> None:
    """When the first tool is called, not before; the token is one of the secrets from then on."""
    connection = block.open("test")
    assert list(connection.secrets()) == [key_pair()[0]]
    assert google.service.asked == []
    read = next(tool for tool in connection.tools if tool.name == "google_drive_read")
    for file in ("doc1", "sheet1"):
        await read(context(), read.check({"file": file}))
    await connection.close()
    assert google.tokens == ["ya29.access-token-number-0"]
    assert list(connection.secrets()) == [key_pair()[0], *google.tokens]
    assert google.claims["scope"] == "https://www.googleapis.com/auth/drive.readonly"


async def test_a_token_that_google_no_longer_takes_is_renewed_once(block: GoogleDrive, google: drive_service.Google) -> None:
    """A second refusal is told."""
    google.fails = [error(401, "authError", "Invalid Credentials")]
    assert "# Deploy" in await answered(block, "google_drive_read", file="doc1")
    assert len(google.tokens) == 2
    google.fails = [error(401, "authError", "Invalid Credentials")] * 2
    with pytest.raises(ServiceError, match=r"401: Invalid Credentials \(authError\). The login of google-drive/test is wrong"):
        await answered(block, "google_drive_read", file="doc1")


async def test_a_key_that_google_refuses_is_told(google: drive_service.Google) -> None:
    """The account's key was deleted, or belongs to another account; the key itself is in no error."""
    other = drive(google, service_account_info=google.key(private_key=key_pair("somebody else")[0]))
    for work in (other.check(), answered(other, "google_drive_search")):
        with pytest.raises(
            ServiceError, match=r"Google refused the login of google-drive/.* \(invalid_grant: Invalid JWT Signature.*renew it"
        ):
            await work


async def test_a_key_that_is_none_is_told_without_showing_it(google: drive_service.Google) -> None:
    """Cut while it was copied."""
    cut = drive(google, service_account_info=google.key(private_key=key_pair()[0][:300]))
    with pytest.raises(ServiceError, match="the key of google-drive/test is no service account's") as caught:
        await answered(cut, "google_drive_search")
    assert key_pair()[0][100:140] not in str(caught.value)


@pytest.mark.parametrize(
    "given", ["no JSON, s3cret-w0rd", '{"private_key": "s3cret-w0rd"}', {"private_key": "s3cret-w0rd"}, {"client_email": 1}]
)
def test_a_login_that_cannot_be_one_is_refused_when_it_is_saved(given: Any) -> None:
    """And is not quoted."""
    with pytest.raises(ValidationError, match="service account") as caught:
        GoogleDrive(service_account_info=given)
    assert "s3cret-w0rd" not in str(caught.value)


def test_one_login_is_wanted(google: drive_service.Google) -> None:
    """Not none, not two; and folders must be folders."""
    for given in ({}, {"service_account_info": google.key(), "gcp_credentials": "gcp-credentials/x"}):
        with pytest.raises(ValidationError, match="give either gcp_credentials or service_account_info"):
            GoogleDrive(**given)
    with pytest.raises(ValidationError, match="folders: write the id or the link"):
        drive(google, folders=["all of them"])


async def test_a_token_endpoint_that_is_away_is_told(google: drive_service.Google) -> None:
    """With nothing of the key."""
    away = drive(google, service_account_info=google.key(token_uri="http://127.0.0.1:9/token"))
    with pytest.raises(ServiceError, match="Google cannot be asked for a token for google-drive/test"):
        await answered(away, "google_drive_search")


async def test_a_token_endpoint_that_fails_is_asked_again(block: GoogleDrive, google: drive_service.Google) -> None:
    """Three times; then Claude may try later."""
    google.service.answers = lambda asked: Said({"error": "server_error"}, 503)
    with pytest.raises(ServiceError, match=r"Google gives no token for google-drive/test just now .*try again later") as caught:
        await answered(block, "google_drive_search")
    assert caught.value.status == 503
    assert [asked.path for asked in google.service.asked] == ["/token"] * 3


async def test_a_missing_library_names_the_extra(google: drive_service.Google, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, when it is needed first."""
    monkeypatch.setitem(sys.modules, "google.oauth2", None)  # as if it were not installed
    with pytest.raises(SettingsError, match=r"google-drive/test needs the package google-auth.*pip install 'prefect-routines\[google\]'"):
        await answered(drive(google), "google_drive_search")


async def test_the_login_may_come_from_a_block_of_prefect_gcp(prefect: str, google: drive_service.Google) -> None:
    """Loaded when it is first needed; with our scope, not that of the block."""
    from prefect_gcp import GcpCredentials

    name = f"test-{uuid4().hex[:8]}"
    await GcpCredentials(service_account_info=google.key()).save(name)  # type: ignore[misc]
    block = GoogleDrive(gcp_credentials=f"gcp-credentials/{name}", base_url=google.url)
    connection = block.open("test")
    search = next(tool for tool in connection.tools if tool.name == "google_drive_search")
    result = await search(context(), search.check({}))
    await connection.close()
    assert "Deploy guide" in str(result)
    assert google.claims["scope"] == "https://www.googleapis.com/auth/drive.readonly"
    assert key_pair()[0] in list(connection.secrets())
    gone = GoogleDrive(gcp_credentials="gcp-credentials/nowhere", base_url=google.url)
    with pytest.raises(SettingsError, match="there is no block 'gcp-credentials/nowhere'"):
        await answered(gone, "google_drive_search")


def test_the_connector_loads_no_library_of_google() -> None:
    """They come with the first call."""
    code = "import sys, prefect_routines.connectors.google_drive; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "prefect_routines.connectors.google_drive" in loaded
    assert not {"google.auth", "google.oauth2", "prefect_gcp", "requests"} & set(loaded)


async def test_check_says_who_and_what(google: drive_service.Google) -> None:
    """Names of the folders; one that is not shared is an error."""
    assert await drive(google).check() == f"Google Drive as {WHO}: reads all that is shared with it"
    assert (await drive(google, folders=["handbook", "guides"]).check()).endswith("reads Handbook, Guides")
    with pytest.raises(ServiceError, match="there is no file gone, or it is not shared with"):
        await drive(google, folders=["gone"]).check()


# how Google fails


async def test_a_rate_limit_is_waited_for(block: GoogleDrive, google: drive_service.Google) -> None:
    """Google says it with 403 and without a time."""
    google.fails = [error(403, "userRateLimitExceeded", "User Rate Limit Exceeded"), error(403, "rateLimitExceeded", "Rate Limit Exceeded")]
    assert "notes.md" in await answered(block, "google_drive_search")
    assert google.fails == []


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        (
            [error(403, "insufficientFilePermissions", "The user does not have sufficient permissions for this file.")],
            "google-drive/test may",
        ),
        ([error(403, "accessNotConfigured", "Google Drive API has not been used in project 7 before")], "has not been used in project 7"),
        ([error(500, "backendError", "Internal Error")] * 3, r"status 500: Internal Error \(backendError\); tried 3 times"),
        ([Said(b"<html>Sorry")], "no JSON: <html>Sorry"),
        ([Said([1])], "is not Google Drive; the author has to set the address in google-drive/test right"),
        ([Said(b" " * BIG)], "larger than 10 MB"),
    ],
)
async def test_what_google_refuses_is_told(block: GoogleDrive, google: drive_service.Google, fails: list[Said], said: str) -> None:
    """In its words."""
    google.fails = list(fails)
    with pytest.raises(ServiceError, match=said):
        await answered(block, "google_drive_search")


async def test_a_document_too_large_to_export_is_told(block: GoogleDrive) -> None:
    """It is no matter of permissions, though Google says 403."""
    with pytest.raises(ServiceError, match="too large for Google to export") as caught:
        await answered(block, "google_drive_read", file="huge1")
    assert "permission" not in str(caught.value)


# the emulator, and a session


async def test_the_emulators_drive_is_searched_and_read(google: drive_service.Google, emulator: Emulator) -> None:
    """A Drive that others wrote: folders, files, what is not there."""
    items = [
        {"id": "f1", "name": "Handbook", "mime_type": "application/vnd.google-apps.folder", "user_email": "ada@acme.dev"},
        {
            "id": "t1",
            "name": "guide.md",
            "mime_type": "text/markdown",
            "parent_ids": ["f1"],
            "data": "# Guide",
            "user_email": "ada@acme.dev",
        },
        {"id": "t2", "name": "other.md", "mime_type": "text/markdown", "data": "# Other", "user_email": "ada@acme.dev"},
    ]
    seed = {"google": {"users": [{"email": "ada@acme.dev", "name": "Ada"}], "drive_items": items}}
    with emulator.start("google", seed) as service:
        block = drive(google, base_url=service.url, folders=["f1"])
        listed = await answered(block, "google_drive_search", folder="f1")
        assert [json.loads(line)["name"] for line in listed.splitlines()] == ["guide.md"]
        assert (await answered(block, "google_drive_read", file="t1")).endswith("\n\n# Guide")
        with pytest.raises(ToolError, match="lies outside the folders"):
            await answered(block, "google_drive_read", file="t2")
        with pytest.raises(ServiceError, match="there is no file t3, or it is not shared"):
            await answered(block, "google_drive_read", file="t3")


async def test_a_session_reads_drive(prefect: str, block: GoogleDrive, google: drive_service.Google) -> None:
    """From the saved block to what Claude reads; neither key nor token is in anything that is kept."""
    name = f"test-{uuid4().hex[:8]}"
    await block.save(name)
    script = [
        say(call("google_drive_search", query="deploy")),
        say(call("google_drive_read", file="doc1"), call("google_drive_read", file="nowhere")),
        REPORT,
    ]
    with ScriptedClaude(script) as claude:
        ran = await run(claude, connectors=[f"google-drive/{name}"])
    assert ran.outcome.verdict == "done"
    _, found, both = ran.requests
    assert "Deploy guide" in found.results[0].text
    read, missing = both.results
    assert "Run `make`" in read.text
    assert "there is no file nowhere" in missing.text
    for secret in (google.tokens[0], key_pair()[0][40:100]):
        assert secret not in str(ran.journal)
