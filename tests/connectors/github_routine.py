"""The routine whose runs are killed while they write to GitHub."""

from __future__ import annotations

from prefect_routines import Policy, routine


@routine(
    name="github-writes",
    policy=Policy(allow=["github_open_pull_request(repository=acme/docs) x1", "github_comment(repository=acme/docs, number=1) x1"]),
)
def github_writes() -> str:
    """Open a pull request and comment on an issue."""
    return "Open a pull request for claude/new, and say so on issue 1."
