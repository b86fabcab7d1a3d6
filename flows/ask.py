"""The routine whose prompt is its parameter: with it a routine needs no Python, only a deployment."""

from prefect_routines import Event, routine


@routine
def ask(prompt: str, event: Event | None = None) -> str:
    """Do what the prompt says, with the repositories and rules that `settings` give.

    Args:
        prompt: The task, in your own words.
        event: What started the run, by id; Claude reads its text with `read_event`.
    """
    return prompt
