"""Write the documentation of a release, or of a merged pull request that needs some."""

from prefect_routines import Check, Event, Policy, routine


@routine(
    repositories=["https://github.com/acme/sdk", "https://github.com/acme/docs"],
    connectors=["github/docs-bot"],
    policy=Policy(allow=["push(repository=docs) x3", "github_open_pull_request(repository=acme/docs) x1"]),
    checks=[Check("docs", "mkdocs build --strict")],
)
def docs_for_change(event: Event | None = None) -> str:
    """Bring the documentation up to a release that was published, or to a pull request that was merged.

    Args:
        event: The release, or the pull request.
    """
    return """\
`read_event` shows what happened in acme/sdk: a release was published, or a pull request labelled `needs-docs` was merged.

1. Look at what it changed in sdk; of a release, at everything since the one before it.
2. Correct and complete the pages of docs that speak of it, or that should; for a release also the page that lists what is new.
3. Commit, push, and open one pull request in acme/docs that names the release or the pull request it follows.

If docs says all of it already, change nothing and report nothing_to_do.
"""
