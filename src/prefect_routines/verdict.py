"""What the work came to. Not the same as whether the machinery held."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from prefect_routines.errors import RoutinesError
from prefect_routines.visible import one_line

Verdict = Literal["done", "nothing_to_do", "needs_attention", "failed"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
GREEN: tuple[Verdict, ...] = ("done", "nothing_to_do")


@dataclass(frozen=True)
class Outcome:
    """The end of a session: its verdict, what it rests on, and what it took.

    Args:
        session_id: Id of the session.
        verdict: `done` and `nothing_to_do` are green; `needs_attention` and `failed` are not.
        summary: What was done, in a few sentences.
        evidence: What the verdict rests on: checks that ran, commits that were pushed, what Claude names.
        links: Addresses worth opening.
        branches: Pushed branches as `repository: branch @ sha`.
        turns: Replies of Claude.
        tokens: Tokens in all.
        dollars: Cost of the model in US dollars.
        rehearsal: Whether outward writes were captured instead of sent.
    """

    session_id: str
    verdict: Verdict
    summary: str
    evidence: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    branches: list[str] = field(default_factory=list)
    turns: int = 0
    tokens: int = 0
    dollars: float = 0.0
    rehearsal: bool = False

    @property
    def green(self) -> bool:
        """Whether the work is done (or there was none)."""
        return self.verdict in GREEN

    @property
    def line(self) -> str:
        """One line for the run's final state."""
        first = self.summary.strip().splitlines()[0] if self.summary.strip() else "no summary"
        return f"{self.verdict}{' (rehearsal)' if self.rehearsal else ''}: {one_line(first, 300)}"

    @classmethod
    def of(cls, session_id: str, transcript: Any, verdict: dict[str, Any] | None = None) -> Outcome:
        """The outcome that a transcript tells: of its last piece of work, or of an earlier one by that one's verdict."""
        verdict = verdict or transcript.verdict
        return cls(
            session_id=session_id,
            verdict=verdict["verdict"],
            summary=verdict["summary"],
            evidence=list(verdict.get("evidence", [])),
            links=list(verdict.get("links", [])),
            branches=[f"{push['repository']}: {push['branch']} @ {push['sha'][:12]}" for push in transcript.pushes],
            turns=transcript.turns,
            tokens=transcript.total_tokens,
            dollars=transcript.dollars,
            rehearsal=bool(verdict.get("rehearsal")),
        )


class WorkNotDone(RoutinesError):
    """A session ended with the verdict `needs_attention` or `failed`. The outcome is in `.outcome`."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.line)
        self.outcome = outcome

    def __reduce__(self) -> tuple[type[WorkNotDone], tuple[Outcome]]:
        return WorkNotDone, (self.outcome,)
