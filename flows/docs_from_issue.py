"""Turn an issue that shows a gap of the documentation into a pull request."""

from prefect_routines import Check, Event, Policy, routine


@routine(
    repositories=["https://github.com/acme/sdk", "https://github.com/acme/docs"],
    connectors=["github/docs-bot"],
    policy=Policy(
        allow=[
            "push(repository=docs) x3",
            "github_open_pull_request(repository=acme/docs) x1",
            "github_comment(repository={event.repository}, number={event.number}) x1",
        ]
    ),
    checks=[Check("docs", "mkdocs build --strict")],
)
def docs_from_issue(event: Event | None = None) -> str:
    """Ask of a new issue whether the documentation should have answered it; if so, write what was missing.

    Args:
        event: The issue that was opened.
    """
    return """\
An issue was opened. Read it with `read_event` and decide: would a better page in docs have answered it?

- No - it is a bug, a wish, a duplicate, or docs says it already: change nothing, comment nothing, report nothing_to_do and say why.
- Somebody is at it already (a linked or open pull request): the same.
- Yes: find out in sdk what is true, and write it where a reader of docs would look for it. Commit, push, open one pull request in
  acme/docs that names the issue, and comment on the issue with the link.
"""
