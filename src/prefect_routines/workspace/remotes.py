"""Where a remote is and how the host is let in: addresses, credentials, and the environment that carries them to git."""

from __future__ import annotations

import base64
import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

from prefect_routines.blocks import load_block
from prefect_routines.errors import SettingsError
from prefect_routines.workspace.git import Access

_SCP = re.compile(r"(?:(?P<user>[A-Za-z0-9._-]+)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?!//)(?P<path>[^:\s].*)\Z")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*\Z|\[[0-9A-Fa-f:.]+\]\Z")
_LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}

# Asked by git for exactly one host (`credential.<url>.helper`); the values come from its environment, `printf` is the shell's own:
# nothing of it shows in a list of processes. `store` and `erase` are ignored, so nothing is kept.
# https://git-scm.com/docs/gitcredentials#_custom_helpers
_HELPER = '!f() { test "$1" = get || exit 0; printf "username=%s\\npassword=%s\\n" "$ROUTINES_GIT_USERNAME" "$ROUTINES_GIT_PASSWORD"; }; f'


@dataclass(frozen=True)
class Credential:
    """What the host shows at a remote. It stays on the host: the sandbox never sees it.

    Attributes:
        username: For https. Forges that take tokens ignore it or want this very name (GitHub: `x-access-token`).
        password: The token, for https.
        private_key: An OpenSSH private key without a passphrase, for ssh. Without one the worker's own agent and keys serve.
    """

    username: str = "x-access-token"
    password: SecretStr | None = None
    private_key: SecretStr | None = None

    def __post_init__(self) -> None:
        for value in (self.username, self.password.get_secret_value() if self.password else ""):
            if any(ord(character) < 32 or ord(character) == 127 for character in value):
                raise SettingsError("a git credential contains a line break or another control character; store the token again without it")


@dataclass(frozen=True)
class Remote:
    """An address, understood.

    Attributes:
        url: As git gets it.
        protocol: `https`, `http`, `ssh` or `file`.
        host: Host and port as in the URL; empty for `file`.
        path: Directory on this machine, for `file`.
    """

    url: str
    protocol: Literal["https", "http", "ssh", "file"]
    host: str = ""
    path: Path | None = None

    @classmethod
    def parse(cls, url: str) -> Remote:
        """Understand an https, http, ssh or file URL, `git@host:path`, or a local path.

        Raises:
            SettingsError: It is none of these, or it contains a credential.

        Example:
            >>> Remote.parse("git@github.com:acme/docs.git").host
            'github.com'
        """
        if not url or url.startswith("-") or any(ord(character) < 32 or ord(character) == 127 for character in url):
            raise SettingsError("the address of a repository is empty, starts with '-' or contains control characters; write its URL")
        if "://" in url:
            return cls._from_url(url)
        if "::" in url:
            raise SettingsError(
                f"the address {url[:200]!r} names a git remote helper, which is not allowed; use https, ssh or a local path"
            )
        if not url.startswith((".", "/", "~")) and (match := _SCP.match(url)):
            return cls(url, "ssh", match["host"])
        path = Path(url).expanduser().absolute()
        return cls(str(path), "file", path=path)

    @classmethod
    def _from_url(cls, url: str) -> Remote:
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError as error:
            raise SettingsError(f"the address of a repository is not a URL: {error}") from None
        user, _, host = parts.netloc.rpartition("@")
        if (parts.scheme in {"https", "http"} and user) or ":" in user:
            raise SettingsError(
                f"the URL of {parts.scheme}://{host}{parts.path} contains a login; take it out of the URL and use credentials=<block>, "
                "for example credentials='github-credentials/bot'"
            )
        if parts.query or parts.fragment:
            raise SettingsError(f"the URL of {parts.scheme}://{host}{parts.path} has a query or a fragment; a repository's URL has none")
        match parts.scheme:
            case "file" if host in {"", "localhost"} and parts.path:
                path = Path(unquote(parts.path))
                return cls(str(path), "file", path=path)
            case "https" | "http" | "ssh" if _HOST.match(re.sub(r":\d+\Z", "", host)) and parts.path.strip("/"):
                return cls(url, parts.scheme, host)
        raise SettingsError(
            f"the address {parts.scheme}://{host}{parts.path} is no https, ssh or file URL of a repository; write it like https://github.com/acme/docs"
        )

    @property
    def public(self) -> str:
        """The address as the sandbox may know it: a directory of this machine is not shown."""
        return self.url if self.path is None else f"/nonexistent/{self.path.name}"


@contextlib.contextmanager
def access(remote: Remote, credential: Credential | None) -> Iterator[Access]:
    """The way in for git commands that run while this context is open.

    The token goes only to the remote's own host: not to another one that a redirect names. A private key lies in a file
    of mode 0600 until the context ends.

    Raises:
        SettingsError: A token would be sent in the clear.
    """
    if remote.protocol == "ssh":
        with _ssh(credential) as command:
            yield Access("ssh", {"GIT_SSH_COMMAND": command, "GIT_SSH_VARIANT": "ssh"})
        return
    if credential is None or credential.password is None or remote.protocol == "file":
        yield Access(remote.protocol)
        return
    if remote.protocol == "http" and re.sub(r":\d+\Z", "", remote.host) not in _LOOPBACK:
        raise SettingsError(f"the token for http://{remote.host} would be sent unencrypted; use an https URL")
    password = credential.password.get_secret_value()
    basic = base64.b64encode(f"{credential.username}:{password}".encode()).decode()
    yield Access(
        remote.protocol,
        {
            f"credential.{remote.protocol}://{remote.host}.helper": _HELPER,
            "ROUTINES_GIT_USERNAME": credential.username,
            "ROUTINES_GIT_PASSWORD": password,
        },
        (password, quote(password, safe=""), basic),
    )


@contextlib.contextmanager
def _ssh(credential: Credential | None) -> Iterator[str]:
    # An unknown host key is refused (BatchMode answers no question), never learned.
    command = "ssh -oBatchMode=yes -oConnectTimeout=15 -oServerAliveInterval=15 -oServerAliveCountMax=4 -oPermitLocalCommand=no"
    if credential is None or credential.private_key is None:
        yield command
        return
    with tempfile.NamedTemporaryFile("w", prefix="routines-key-") as file:  # created with mode 0600
        file.write(credential.private_key.get_secret_value().replace("\r\n", "\n").rstrip("\n") + "\n")
        file.flush()
        yield f"{command} -oIdentitiesOnly=yes -oIdentityAgent=none -i {file.name}"


async def credential_from_block(ref: str) -> Credential:
    """The credential in a Prefect block.

    Args:
        ref: `type-slug/name`, for example `github-credentials/bot` (its token), `github/docs-app` (a connector that has tokens
            for git) or `secret/deploy-key` (a token or a private key).

    Raises:
        SettingsError: There is no such block, or it holds neither a token nor a key.
        RoutinesError: The service gives no token; the text says why.
    """
    block = await load_block(ref)
    if hasattr(block, "git_token"):  # an App's token is fetched
        return Credential(password=await block.git_token())
    return _credential(block, ref)


def _credential(block: Any, ref: str) -> Credential:
    for attribute in ("token", "api_token", "password", "value"):
        value: Any = getattr(block, attribute, None)
        if hasattr(value, "get_secret_value"):
            value = value.get_secret_value()
        if isinstance(value, str) and value.strip():
            if "PRIVATE KEY-----" in value:
                return Credential(private_key=SecretStr(value))
            username = getattr(block, "username", None)
            return Credential(username if isinstance(username, str) and username else "x-access-token", SecretStr(value.strip()))
    raise SettingsError(f"credentials={ref!r}: the block holds no token and no private key; open it in the UI and fill it in")
