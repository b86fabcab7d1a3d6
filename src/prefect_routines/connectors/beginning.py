"""Since when the services are searched for what a session may have written before it was cut off. Pure."""

from __future__ import annotations

import re
import time

SKEW = 300.0  # seconds by which our clock and a service's may differ

_BORN = re.compile(r"ses-([0-9a-f]{8})")


def beginning(session_id: str) -> float:
    """A moment before which the session has written nothing, in seconds since 1970.

    Args:
        session_id: Its id, which begins with the time when it was made. For an id of another form: a day ago.

    Example:
        >>> beginning("ses-66000000aabbccddeeff")
        1711275732.0
    """
    born = _BORN.match(session_id)
    return (float(int(born[1], 16)) if born else time.time() - 86_400) - SKEW
