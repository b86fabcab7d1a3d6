"""Who logs in to GitHub: tokens and Apps, what is said of them, and git with the same login."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect_github import GitHubCredentials
from pydantic import SecretStr

from prefect_routines.blocks import load_block
from prefect_routines.connectors.github import GitHub
from prefect_routines.connectors.http import ServiceError
from prefect_routines.errors import RoutinesError, SettingsError
from prefect_routines.testing.forge import LocalForge
from prefect_routines.workspace.git import git
from prefect_routines.workspace.remotes import Remote, access, credential_from_block

from .github_answers import NOT_FOUND
from .github_world import DOCS, Caller, World
from .http_service import Asked, HttpService, Said, serving

BLOCKS = Path(__file__).parents[2] / "blocks"


def knows(answers: dict[str, Any]) -> Any:
    """A server's answers by request."""
    return lambda asked: answers.get(f"{asked.method} {asked.path}", NOT_FOUND)


def with_token(service: HttpService, token: str = "github_pat_x") -> GitHub:
    return GitHub(credentials=GitHubCredentials(token=SecretStr(token)), base_url=service.url)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"X-OAuth-Scopes": "repo, workflow"}, "docs-bot; scopes: repo, workflow; at 127.0.0.1"),
        ({"X-OAuth-Scopes": ""}, "docs-bot; scopes: none; at 127.0.0.1"),
        (
            {"GitHub-Authentication-Token-Expiration": "2026-12-01 00:00:00 UTC"},
            "docs-bot; a fine-grained token: GitHub shows its owner what it may do; valid until 2026-12-01 00:00:00 UTC; at 127.0.0.1",
        ),
    ],
)
async def test_check_says_who_a_token_belongs_to_and_what_it_may_do(headers: dict[str, str], said: str) -> None:
    """As far as GitHub tells."""
    with serving(knows({"GET /user": Said({"login": "docs-bot"}, headers=headers)})) as service:
        assert await with_token(service).check() == said


async def test_check_knows_the_token_of_an_installation() -> None:
    """It belongs to no user."""
    refused = Said({"message": "Resource not accessible by integration"}, 403)
    with serving(knows({"GET /user": refused, "GET /installation/repositories": Said({"total_count": 3})})) as service:
        assert await with_token(service, "ghs_x").check() == "an App's token for 3 repositories; at 127.0.0.1"


async def test_check_fails_with_a_wrong_token() -> None:
    """In one line, without the token."""
    refused = pytest.raises(RoutinesError, match="401: Bad credentials")
    with serving(knows({"GET /user": Said({"message": "Bad credentials"}, 401)})) as service, refused as caught:
        await with_token(service, "ghp_wrong").check()
    assert "ghp_wrong" not in str(caught.value)


async def test_an_app_works_as_its_installation(world: World) -> None:
    """Against the emulator, which checks the signature: check, a read, and a write that is signed by the App's bot."""
    block = world.app()
    said = await block.check()
    assert said.startswith("GitHub App docs-app, installation 100 on all repositories; permissions: checks: write, contents: write")
    connection = block.open("docs-app")
    app = Caller(connection)
    assert DOCS in await app.read("repository", repository=DOCS)
    await app.write("comment", repository=DOCS, number=world.issue, body="It is.")
    await connection.close()
    assert world.get(f"/repos/{DOCS}/issues/{world.issue}/comments")[-1]["user"]["login"] == "docs-app[bot]"
    assert len(world.get("/_emulate/installation-tokens")) >= 1


@pytest.mark.parametrize("spoilt", [lambda key: key.replace("\n", " "), lambda key: key.replace("\n", "\\n"), lambda key: f"\n{key}\n\n"])
async def test_a_key_that_lost_its_line_breaks_is_taken(world: World, spoilt: Any) -> None:
    """A form with one line, or an environment variable, loses them."""
    assert "docs-app" in await world.app(private_key=SecretStr(spoilt(world.app_key))).check()


async def test_a_key_that_is_none_is_not_repeated(world: World) -> None:
    """The error says what to do, not what the key is."""
    for key in ("hunter2", world.app_key.replace("A", "B"), "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"):
        with pytest.raises(SettingsError, match=r"private key of github/\? is no RSA key in PEM form; generate one") as caught:
            await world.app(private_key=SecretStr(key)).check()
        assert caught.value.__cause__ is None
        assert "hunter2" not in str(caught.value)


class Tokens:
    """An App's tokens as GitHub gives them out.

    Args:
        minutes: How long each is valid.
    """

    def __init__(self, minutes: float) -> None:
        self.valid, self.given, self.seen = timedelta(minutes=minutes), 0, list[str]()
        self.revoked: set[str] = set()

    def __call__(self, asked: Asked) -> Said:
        if asked.path == "/app/installations/100/access_tokens":
            self.given += 1
            until = (datetime.now(UTC) + self.valid).strftime("%Y-%m-%dT%H:%M:%SZ")
            return Said({"token": f"ghs_{self.given}{'x' * 20}", "expires_at": until, "permissions": {"contents": "read"}}, 201)
        token = asked.headers["authorization"].removeprefix("Bearer ")
        self.seen.append(token)
        return Said({"message": "Bad credentials"}, 401) if token in self.revoked else Said({"full_name": "acme/docs"})

    def app(self, service: HttpService, key: str) -> GitHub:
        return GitHub(app_id="12345", installation_id=100, private_key=SecretStr(key), base_url=service.url)


async def test_a_token_of_an_app_is_kept_until_shortly_before_its_end(world: World) -> None:
    """With five minutes to spare; each one fetched counts as a secret, the key too."""
    for minutes, fetched in ((60, 1), (5.5, 1), (4.5, 3)):
        tokens = Tokens(minutes)
        with serving(tokens) as service:
            connection = tokens.app(service, world.app_key).open("docs-app")
            assert next(iter(connection.secrets())) == world.app_key
            assert not [secret for secret in connection.secrets() if secret.startswith("ghs_")]
            for _ in range(3):
                await Caller(connection).read("repository", repository=DOCS)
            assert tokens.given == fetched
            assert [secret for secret in connection.secrets() if secret.startswith("ghs_")] == list(dict.fromkeys(tokens.seen))
            await connection.close()


async def test_the_app_signs_for_itself_for_some_minutes_only(world: World) -> None:
    """RS256, by its key, at most ten minutes; the clock of GitHub may be a minute behind."""
    import jwt
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    tokens = Tokens(60)
    with serving(tokens) as service:
        await tokens.app(service, world.app_key).git_token()
        signed = service.asked[0].headers["authorization"].removeprefix("Bearer ")
    public = load_pem_private_key(world.app_key.encode(), None).public_key()
    claims = jwt.decode(signed, public, algorithms=["RS256"])  # type: ignore[arg-type]  # any kind of key, as far as types go
    assert claims["iss"] == "12345"
    assert claims["exp"] - claims["iat"] == 600
    assert claims["iat"] <= datetime.now(UTC).timestamp() - 59


async def test_a_revoked_token_of_an_app_is_replaced(world: World) -> None:
    """The call that meets it fails, the next one logs in anew."""
    tokens = Tokens(60)
    with serving(tokens) as service:
        connection = tokens.app(service, world.app_key).open("docs-app")
        await Caller(connection).read("repository", repository=DOCS)
        tokens.revoked.update(tokens.seen)
        with pytest.raises(ServiceError, match="401"):
            await Caller(connection).read("repository", repository=DOCS)
        await Caller(connection).read("repository", repository=DOCS)
        await connection.close()
    assert tokens.given == 2


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"credentials": GitHubCredentials()},
        {"app_id": "1", "installation_id": 2},
        {"credentials": GitHubCredentials(token=SecretStr("x")), "app_id": "1"},
    ],
)
def test_a_block_without_one_whole_login_says_so(fields: dict[str, Any]) -> None:
    """When it is opened; a form may have saved it half filled in."""
    with pytest.raises(SettingsError, match="github/x needs one login"):
        GitHub(**fields).open("x")


def test_a_login_is_not_sent_in_the_clear() -> None:
    """Only to this machine itself."""
    with pytest.raises(SettingsError, match="a login is sent over https only"):
        GitHub(credentials=GitHubCredentials(token=SecretStr("x")), base_url="http://github.example").open("x")


@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        ("https://api.github.com", ("github.com", "api.github.com")),
        ("https://git.example.org/api/v3", ("git.example.org", "git.example.org")),
        ("https://api.acme.ghe.com", ("acme.ghe.com", "api.acme.ghe.com")),
        ("https://api.example.org", ("api.example.org", "api.example.org")),
    ],
)
def test_the_host_of_the_pages_is_known(address: str, hosts: tuple[str, str]) -> None:
    """Text may link there."""
    assert GitHub(credentials=GitHubCredentials(token=SecretStr("x")), base_url=address).open("x").hosts == hosts


def test_two_of_them_have_tools_of_two_names() -> None:
    """A session may use two logins."""
    connection = GitHub(credentials=GitHubCredentials(token=SecretStr("x")), prefix="upstream").open("x")
    assert {tool.name.partition("_")[0] for tool in connection.tools} == {"upstream"}


async def test_git_logs_in_with_the_connector(prefect_server: str, tmp_path: Path) -> None:
    """A repository may name it: what is private is read over https with its token, and not without."""
    assert prefect_server
    name = f"git-{uuid4().hex[:8]}"
    forge = LocalForge(tmp_path)
    forge.repository("docs", files={"api.md": "x\n"})
    with forge.serve("ghp_private") as address:
        await GitHub(credentials=GitHubCredentials(token=SecretStr("ghp_private"))).save(name)  # type: ignore[misc]
        credential = await credential_from_block(f"github/{name}")
        assert (credential.username, str(credential.password)) == ("x-access-token", "**********")
        remote = Remote.parse(f"{address}/docs.git")
        with access(remote, credential) as way:
            assert b"refs/heads/main" in (await git("ls-remote", remote.url, name="docs", access=way)).stdout
        with access(remote, None) as way, pytest.raises(RoutinesError):
            await git("ls-remote", remote.url, name="docs", access=way)


async def test_git_gets_a_token_of_an_app(prefect_server: str, world: World) -> None:
    """Fetched when the block is loaded."""
    assert prefect_server
    name = f"git-{uuid4().hex[:8]}"
    await world.app().save(name)  # type: ignore[misc]
    credential = await credential_from_block(f"github/{name}")
    assert credential.password is not None
    assert credential.password.get_secret_value().startswith("ghs_")


def saved_by_script(name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run blocks/save_github.py."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GITHUB_")}
    command = [sys.executable, str(BLOCKS / "save_github.py"), name]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=False, timeout=120)


async def test_the_script_saves_a_token_with_its_connector(prefect_server: str, world: World) -> None:
    """Both are there afterwards, and the connector logs in."""
    assert prefect_server
    done = saved_by_script("by-script", GITHUB_TOKEN="ghp_docsbot", GITHUB_API_URL=world.url)
    assert done.returncode == 0, done.stderr
    assert "connectors=['github/by-script']" in done.stdout
    assert "credentials='github-credentials/by-script'" in done.stdout
    assert "ghp_docsbot" not in done.stdout + done.stderr
    block = await load_block("github/by-script")
    assert isinstance(block, GitHub)
    assert (await block.check()).startswith("docs-bot;")
    credential = await credential_from_block("github-credentials/by-script")
    assert credential.password == SecretStr("ghp_docsbot")


async def test_the_script_saves_an_app(prefect_server: str, world: World, tmp_path: Path) -> None:
    """With its key from a file."""
    assert prefect_server
    key = tmp_path / "app.pem"
    key.write_text(world.app_key)
    app = {"GITHUB_APP_ID": "12345", "GITHUB_INSTALLATION_ID": "100", "GITHUB_API_URL": world.url}
    failed = saved_by_script("app-by-script", **app)
    assert (failed.returncode, failed.stderr) == (1, "error: GITHUB_APP_ID is set; set GITHUB_PRIVATE_KEY_FILE too\n")
    done = saved_by_script("app-by-script", **app, GITHUB_PRIVATE_KEY_FILE=str(key))
    assert done.returncode == 0, done.stderr
    block = await load_block("github/app-by-script")
    assert isinstance(block, GitHub)
    assert (await block.check()).startswith("GitHub App docs-app")


def test_the_script_says_what_is_missing() -> None:
    """In one line."""
    done = saved_by_script("nothing")
    assert done.returncode == 1
    assert done.stderr.startswith("error: set GITHUB_TOKEN")
    assert len(done.stderr.splitlines()) == 1
