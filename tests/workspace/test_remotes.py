"""Addresses are understood or refused with the remedy; credentials travel only as far as they must."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from prefect_routines.errors import SettingsError
from prefect_routines.workspace.remotes import Credential, Remote, access, credential_from_block

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\r\nabc\r\n-----END OPENSSH PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("url", "protocol", "host"),
    [
        ("https://github.com/acme/docs", "https", "github.com"),
        ("https://git.example.org:8443/a/b.git", "https", "git.example.org:8443"),
        ("http://[::1]:3000/x", "http", "[::1]:3000"),
        ("ssh://git@example.org:2222/x.git", "ssh", "example.org:2222"),
        ("git@github.com:acme/docs.git", "ssh", "github.com"),
        ("github.com:acme/docs", "ssh", "github.com"),
        ("file:///srv/git/a%20b.git", "file", ""),
        ("/srv/git/docs.git", "file", ""),
        ("./docs", "file", ""),
        ("~/docs", "file", ""),
    ],
)
def test_addresses(url: str, protocol: str, host: str) -> None:
    remote = Remote.parse(url)
    assert (remote.protocol, remote.host) == (protocol, host)
    assert (remote.path is None) == (protocol != "file")


def test_a_file_url_is_a_path() -> None:
    assert Remote.parse("file:///srv/git/a%20b.git").path == Path("/srv/git/a b.git")
    assert Remote.parse("/srv/x/docs.git").public == "/nonexistent/docs.git"


@pytest.mark.parametrize(
    "url",
    ["", "-oProxyCommand=x", "--upload-pack=x", "ext::sh -c x", "ftp://example.org/x", "git://example.org/x", "https://", "https://example.org",
     "https://exa mple.org/x", "https://-x.org/x", "ssh://-oProxyCommand=x/y", "https://h/x\n", "file://other/x", "https://h/x?token=y", "https://h:nan/x"],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SettingsError):
        Remote.parse(url)


@pytest.mark.parametrize("url", ["https://user:s3cret@h/x", "https://s3cret@h/x", "http://s3cret@h/x", "ssh://git:s3cret@h/x"])
def test_a_login_in_the_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsError, match="use credentials=<block>") as caught:
        Remote.parse(url)
    assert "s3cret" not in str(caught.value)


@given(st.text())
def test_any_text_is_understood_or_refused(url: str) -> None:
    try:
        remote = Remote.parse(url)
    except SettingsError:
        return
    assert remote.protocol in {"https", "http", "ssh", "file"}
    assert not remote.url.startswith("-")


def test_a_token_is_not_sent_in_the_clear() -> None:
    credential = Credential(password=SecretStr("t"))
    with pytest.raises(SettingsError, match="unencrypted"), access(Remote.parse("http://example.org/x"), credential):
        pass
    with access(Remote.parse("http://127.0.0.1:1/x"), credential) as way:
        assert way.environment["ROUTINES_GIT_PASSWORD"] == "t"


def test_a_token_is_for_its_host_only_and_not_shown() -> None:
    with access(Remote.parse("https://git.example.org:8443/x"), Credential("me", SecretStr("t0ken"))) as way:
        assert [name for name in way.environment if name.startswith("credential")] == ["credential.https://git.example.org:8443.helper"]
        assert "t0ken" not in repr(way)
    with access(Remote.parse("/srv/x"), Credential("me", SecretStr("t0ken"))) as way:
        assert not way.environment


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "a\r"])
def test_a_token_with_control_characters_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="control character"):
        Credential(password=SecretStr(value))


def test_a_private_key_is_a_file_only_while_it_is_needed() -> None:
    with access(Remote.parse("git@example.org:x/y"), Credential(private_key=SecretStr(KEY))) as way:
        command = way.environment["GIT_SSH_COMMAND"]
        path = Path(command.rsplit(" ", 1)[1])
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_text() == KEY.replace("\r\n", "\n") + "\n"
        assert "BatchMode=yes" in command
        assert "IdentitiesOnly=yes" in command
    assert not path.exists()
    with access(Remote.parse("git@example.org:x/y"), None) as way:
        assert " -i " not in way.environment["GIT_SSH_COMMAND"]


@pytest.mark.parametrize("ref", ["", "x", "/x", "x/", "a/b/c"])
async def test_a_reference_that_names_no_block_is_told(ref: str) -> None:
    with pytest.raises(SettingsError, match="does not name a block"):
        await credential_from_block(ref)


async def test_blocks_give_their_token_or_key(prefect_server: object) -> None:
    from prefect.blocks.system import Secret
    from prefect_github import GitHubCredentials

    await GitHubCredentials(token=SecretStr("ghp_x")).save("bot", overwrite=True)  # type: ignore[misc]
    await Secret(value=SecretStr(KEY)).save("deploy-key", overwrite=True)  # type: ignore[misc]
    await GitHubCredentials(token=None).save("empty", overwrite=True)  # type: ignore[misc]
    bot = await credential_from_block("github-credentials/bot")
    assert bot.password is not None
    assert (bot.username, bot.password.get_secret_value()) == ("x-access-token", "ghp_x")
    key = await credential_from_block("secret/deploy-key")
    assert key.private_key is not None
    with pytest.raises(SettingsError, match="holds no token"):
        await credential_from_block("github-credentials/empty")
    for ref, remedy in (
        ("github-credentials/nope", "github-credentials"),
        ("secret/nope", r"Secret\(value=\.\.\.\)\.save"),
        ("nope/nope", "create"),
    ):
        with pytest.raises(SettingsError, match=remedy) as caught:
            await credential_from_block(ref)
        assert "\n" not in str(caught.value)
