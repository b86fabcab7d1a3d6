"""Every error a user can meet: one base, few leaves; the message says what happened, to what, and what to do next."""

from __future__ import annotations

from typing import Any


class RoutinesError(Exception):
    """Base of all errors of this package. Its text is one readable line: show it, never a traceback."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Prefect may keep a run's error and hand it to another process; Python alone would call `__init__` with the message."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[RoutinesError], arguments: tuple[Any, ...], state: dict[str, Any]) -> RoutinesError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


class SettingsError(RoutinesError):
    """Something an author or an operator wrote is wrong: a setting, a rule, a parameter, a prompt function."""


class StoreError(RoutinesError):
    """The session store cannot be used: unreachable, not writable, full, or of a newer schema than this version knows."""


class LeaseLost(StoreError):
    """Another process holds the session now; this one must stop at once and write nothing more."""

    def __init__(self, session_id: str, fence: int | None = None) -> None:
        super().__init__(f"session {session_id}: another process has taken it over; this one stops. Nothing to do: the other one goes on.")
        self.session_id, self.fence = session_id, fence


class LeaseHeld(StoreError):
    """A live process holds the session, so it cannot be taken."""

    def __init__(self, session_id: str, holder: str, seconds: float) -> None:
        super().__init__(
            f"session {session_id} is being run by {holder}; wait until that process ends, or stop it "
            f"(its lease ends in {seconds:.0f} s unless it is renewed)."
        )
        self.session_id, self.holder, self.seconds = session_id, holder, seconds


class SessionCancelled(BaseException):
    """A person has stopped the session; nothing more of it is done. `except Exception` of an author lets it pass."""

    def __init__(self, session_id: str, person: str, via: str) -> None:
        super().__init__(f"cancelled by {person or 'somebody'}{f' ({via})' if via else ''}")
        self.session_id, self.person, self.via = session_id, person, via


class OutputLimit(RoutinesError):
    """A policy rule allows no further write in this session. Nothing was sent."""

    def __init__(self, rule: str, limit: int) -> None:
        super().__init__(
            f"rule {rule!r} allows {limit} write{'' if limit == 1 else 's'} in a session and they are used up; "
            "raise its count in the routine's policy, or continue in a new session."
        )
        self.rule, self.limit = rule, limit


class AnswerRefused(RoutinesError):
    """A form takes no answer any more; nothing was changed."""

    def __init__(self, form: str, status: str | None, *, by: str = "") -> None:
        why = {
            None: "there is no such form; what it asked about is over",
            "expired": "the time for an answer is over",
            "answered": f"{by or 'somebody'} has answered it already",
            "withdrawn": "it is not needed any more",
        }[status]
        super().__init__(f"form {form}: {why}. Nothing was changed; `routines watch` shows where the session stands.")
        self.form, self.status = form, status


class ModelError(RoutinesError):
    """The Messages API refused or failed in a way that trying again does not mend."""


class SandboxUnavailable(RoutinesError):
    """The sandbox cannot be built on this machine. Nothing ran; the message names the remedy."""


class SandboxLost(RoutinesError):
    """The sandbox was there and has died (killed, out of memory, protocol broken)."""


class RepositoryError(RoutinesError):
    """A repository cannot be reached, read or cloned."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"repository {name}: {message}")
        self.name = name


class PushRefused(RoutinesError):
    """A push broke a rule. Nothing left this machine; the text tells Claude what to change."""


class ToolError(RoutinesError):
    """A tool call failed in a way Claude can read and act on. It becomes an `is_error` tool result, never the session's end."""


class OutcomeUnknown(ToolError):
    """An outward write may have arrived or not: the answer was lost. It is looked up where that is possible, never just repeated."""
