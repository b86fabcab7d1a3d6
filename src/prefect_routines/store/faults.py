"""What goes wrong with a database, as one line that says what to do; and which faults are worth another try."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from prefect_routines.errors import StoreError

SETTING = "ROUTINES_DATABASE_URL"

# sqlite3.Error: what is run on the driver itself (BEGIN, PRAGMA) does not pass through SQLAlchemy's wrapping
DATABASE_ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError, sqlite3.Error, OSError, TimeoutError)


def place(url: URL) -> str:
    """The database as a person may read it: a file, or a server without the password and without query arguments."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return f"{url.host or url.query.get('host') or 'localhost'}:{url.port or 5432}/{url.database}"


def sqlstate(error: BaseException) -> str | None:
    """PostgreSQL's error code (https://www.postgresql.org/docs/current/errcodes-appendix.html), wherever it is wrapped."""
    seen: BaseException | None = error
    while seen is not None:
        code = getattr(seen, "sqlstate", None)
        if isinstance(code, str):
            return code
        seen = getattr(seen, "orig", None) or seen.__cause__
    return None


def is_missing_table(error: BaseException) -> bool:
    """True when the statement named a table that is not there."""
    return sqlstate(error) == "42P01" or "no such table" in str(error)


def is_locked(error: BaseException) -> bool:
    """True when SQLite gave up waiting for another writer, or PostgreSQL broke up a deadlock: nothing was written."""
    return "database is locked" in str(error) or "database table is locked" in str(error) or sqlstate(error) in ("40001", "40P01", "55P03")


def is_disconnect(error: BaseException) -> bool:
    """True when the connection is gone (or was never made), so that a new one may help."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or (sqlstate(error) or "").startswith(("08", "57P"))
    return isinstance(error, OSError)


def explain(error: BaseException, url: URL) -> StoreError:
    """The error for the user: what happened, to which database, and the remedy. Never holds the password."""
    if isinstance(error, StoreError):
        return error
    where = place(url)
    text = _sqlite(error, Path(where)) if url.get_backend_name() == "sqlite" else _postgresql(error, where, url)
    return StoreError(text)


def _reason(error: BaseException) -> str:
    """The driver's own words on one line."""
    origin = getattr(error, "orig", None) or error
    if isinstance(origin, TimeoutError):
        return "no answer in time"
    return " ".join(str(origin).split())[:200] or type(origin).__name__


def _sqlite(error: BaseException, path: Path) -> str:
    system = isinstance(error, OSError)  # its text holds a path, which may hold any word
    reason = "" if system else _reason(error).lower()
    code = getattr(error, "errno", None)
    if "disk is full" in reason or "disk i/o error" in reason or code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        try:
            left = f"{shutil.disk_usage(path.parent).free // 1024:,} KiB left"
        except OSError:
            left = "it cannot be read"
        return (
            f"session store {path}: the disk is full or fails ({left} on the disk of {path.parent}; {_reason(error)}). "
            f"Make room or lift the quota, or set {SETTING} to another place."
        )
    if "locked" in reason:
        return (
            f"session store {path}: another program keeps the database locked. Close it (a shell with an open transaction, a "
            f"backup), or set {SETTING} to a PostgreSQL database."
        )
    if system or "readonly" in reason or "unable to open" in reason:
        return (
            f"session store {path}: cannot be opened for writing ({_reason(error)}). Make the directory {path.parent} writable for "
            f"this user, or set {SETTING} to another place."
        )
    if "not a database" in reason or "malformed" in reason:
        return f"session store {path}: the file is damaged or no SQLite database ({_reason(error)}). Restore a copy, or change {SETTING}."
    return f"session store {path}: {_reason(error)}. If it stays so, set {SETTING} to another place."


def _postgresql(error: BaseException, where: str, url: URL) -> str:
    code = sqlstate(error) or ""
    if code.startswith("28"):
        remedy = f"the server refuses the login of user {url.username!r}; correct user and password in {SETTING}."
    elif code == "3D000":
        remedy = f"there is no such database; create it (createdb {url.database}) or correct {SETTING}."
    elif code == "42501":
        remedy = f"user {url.username!r} may not do that; grant CREATE and USAGE on the schema, or correct {SETTING}."
    elif code in ("53100", "53200"):
        remedy = "the server's disk or memory is full; make room there."
    elif code == "53300":
        remedy = "the server has no free connection; raise its max_connections or run fewer processes."
    elif isinstance(error, TypeError | ValueError):
        remedy = f"the driver does not take the arguments of the URL ({_reason(error)}); correct {SETTING}."
    elif is_disconnect(error) or "connection" in _reason(error).lower():
        remedy = f"the server cannot be reached ({_reason(error)}); start it, or correct {SETTING}."
    else:
        remedy = f"{_reason(error)} (set by {SETTING})."
    if url.password:
        remedy = remedy.replace(str(url.password), "***")
    return f"session store {where}: {remedy}"
