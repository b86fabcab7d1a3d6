"""The block `GitHub`: who logs in and where, and what it gives a session."""

from __future__ import annotations

from urllib.parse import urlsplit

from prefect_github import GitHubCredentials
from pydantic import Field, HttpUrl, SecretStr

from prefect_routines.connectors.address import Address
from prefect_routines.connectors.connector import Connection, Connector
from prefect_routines.connectors.github.login import Installation, Login
from prefect_routines.connectors.github.service import GitHubApi
from prefect_routines.errors import SettingsError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class GitHub(Connector):
    """GitHub, as the owner of a token or as a GitHub App; GitHub Enterprise too.

    Example:
        ```python
        from prefect_github import GitHubCredentials
        from prefect_routines.connectors.github import GitHub

        GitHub(credentials=GitHubCredentials.load("docs-bot")).save("docs-bot")
        GitHub(app_id="12345", installation_id=678, private_key=open("app.pem").read()).save("docs-app")
        ```

        A routine names it, and declares what it may write:
        `@routine(connectors=["github/docs-bot"], policy=Policy(allow=["github_open_pull_request(repository=acme/docs) x1"]))`.
        A repository may log in with it as well: `Repository(url=..., credentials="github/docs-bot")`.
    """

    _block_type_name = "GitHub"
    _block_type_slug = "github"
    _logo_url = HttpUrl("https://cdn.sanity.io/images/3ugk85nk/production/41971cfecfea5f79ff334164f06ecb34d1038dd4-250x250.png")
    _documentation_url = HttpUrl("https://docs.github.com/en/rest")

    credentials: GitHubCredentials | None = Field(default=None, description="A token. Leave it out to log in as a GitHub App.")
    app_id: str | None = Field(default=None, description="Id (or client id) of the GitHub App, as its page at GitHub shows it.")
    installation_id: int | None = Field(default=None, description="Number of the App's installation: the end of its page's address.")
    private_key: SecretStr | None = Field(default=None, description="Private key of the App, the whole PEM file.")
    base_url: Address = Field(
        default="https://api.github.com", description="Address of the API; of an Enterprise server: https://HOST/api/v3."
    )
    prefix: str = Field(default="github", description="What the tools' names begin with; for a session that uses two.")

    def open(self, name: str) -> Connection:
        """The tools; GitHub is not asked for anything yet.

        Raises:
            SettingsError: The block holds no login.
        """
        from prefect_routines.connectors.github.tools import GitHubAppTools, GitHubTools

        login, api = self._opened(name)
        kind = GitHubAppTools if isinstance(login, Installation) else GitHubTools

        async def close() -> None:
            await api.close()
            await login.close()

        return Connection(tools=kind(api).tools(self.prefix), hosts=(api.web_host, api.host), secrets=login.secrets, close=close)

    async def check(self) -> str:
        """Who logs in, and what it may do."""
        login, api = self._opened(self._block_document_name or "?")
        try:
            return f"{await login.who(api)}; at {api.web_host}"
        finally:
            await api.close()
            await login.close()

    async def git_token(self) -> SecretStr:
        """A token with which git can clone and push over https. That of an App ends within an hour."""
        login, api = self._opened(self._block_document_name or "?")
        try:
            return await login.token()
        finally:
            await api.close()
            await login.close()

    def _opened(self, name: str) -> tuple[Login, GitHubApi]:
        block = f"github/{name}"
        address = urlsplit(self.base_url)
        if not (address.scheme == "https" or (address.scheme == "http" and address.hostname in _LOOPBACK)):
            raise SettingsError(f"{block}: a login is sent over https only, and base_url is {self.base_url!r}; set it right")
        login = self._login(block)
        return login, GitHubApi(self.base_url, block, login)

    def _login(self, block: str) -> Login:
        app = (self.app_id, self.installation_id, self.private_key)
        token = self.credentials.token if self.credentials else None
        if token is not None and token.get_secret_value().strip() and not any(app):
            return Login(SecretStr(token.get_secret_value().strip()))
        if not self.credentials and self.app_id and self.installation_id and self.private_key:
            return Installation(self.base_url, self.app_id.strip(), self.installation_id, self.private_key, block)
        raise SettingsError(
            f"{block} needs one login: either credentials that hold a token, or app_id, installation_id and private_key; fill it in"
        )
