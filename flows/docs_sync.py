"""Keep the documentation in step with the code."""

from prefect_routines import Check, Policy, routine


@routine(
    repositories=["https://github.com/acme/sdk", "https://github.com/acme/docs"],
    policy=Policy(allow=["push(repository=docs) x5"]),
    checks=[Check("docs", "mkdocs build --strict")],
)
def docs_sync(since: str = "the last change of the documentation") -> str:
    """Bring the documentation up to date with everything merged to main, on one branch ready for review.

    Args:
        since: From where on to look, as you would say it: a date, a tag, "last Monday".
    """
    return f"""\
Compare what was merged to main in sdk since {since} with the documentation in docs.

1. Read the log and the changes of sdk. Note what a user of the library would notice: new or changed functions, arguments,
   defaults, commands, and what was removed.
2. For each of these find the pages in docs that speak of it, or that should.
3. Correct and complete those pages in their own style. Do not touch what is still right.
4. Commit in docs, one commit with a message that names the changes of sdk it follows, and push.

If the documentation already says all of it, change nothing and report nothing_to_do.
"""
