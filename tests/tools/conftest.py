"""Tools are tested as Claude uses them: in a real session, in a real sandbox."""

from __future__ import annotations

from session.conftest import prefect

__all__ = ["prefect"]
