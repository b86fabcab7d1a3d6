"""The critic: review the pull requests that our other routines open, before a person does."""

from prefect_routines import Event, Policy, routine


@routine(
    repositories=["https://github.com/acme/sdk", "https://github.com/acme/docs"],
    connectors=["github/docs-bot"],
    policy=Policy(allow=["github_review(repository={event.repository}, number={event.number}, event=COMMENT) x1"]),
    own_events="others",
)
def second_look(event: Event | None = None) -> str:
    """Review a pull request of another routine against the code that it speaks of.

    Args:
        event: The pull request.
    """
    return """\
Another routine has opened a pull request. `read_event` shows it; read its whole diff.

Check each claim that it makes against sdk: does the function, the argument, the default, the command exist as described? Try the
examples. Then write one review: what is wrong, line by line, with what sdk really does; what is missing; or that you found nothing
wrong, and what you checked. Comment only - a person approves. Report done when the review is written.
"""
