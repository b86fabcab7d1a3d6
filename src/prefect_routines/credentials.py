"""The block that holds the login for the Messages API."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr


class AnthropicCredentials(Block):
    """Login for Claude's Messages API, or for any endpoint that speaks it.

    Example:
        ```python
        from prefect_routines import AnthropicCredentials

        AnthropicCredentials(api_key="...").save("team")
        ```

        A routine names it: `@routine(claude="anthropic-credentials/team")`.
    """

    _block_type_name = "Anthropic Credentials"
    _block_type_slug = "anthropic-credentials"
    _documentation_url = HttpUrl("https://platform.claude.com/docs/en/api/overview")

    api_key: SecretStr | None = Field(default=None, description="API key of the account.")
    auth_token: SecretStr | None = Field(default=None, description="Bearer token, for gateways that want one instead of a key.")
    base_url: str | None = Field(default=None, description="Address of another endpoint that speaks the Messages API.")
