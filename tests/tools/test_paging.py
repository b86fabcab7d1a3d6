"""Long texts in pieces."""

from __future__ import annotations

import pytest

from prefect_routines.errors import ToolError
from prefect_routines.redaction import Redactor
from prefect_routines.tools.paging import redacting, window


def test_the_pieces_make_the_whole() -> None:
    """Each says where to go on; the last one does not."""
    assert window("abcdef", 0, 4) == "abcd\n\n[2 more characters; go on with offset=4]"
    assert window("abcdef", 4, 4) == "ef"
    with pytest.raises(ToolError, match="between 0 and 6"):
        window("abcdef", 7)


def test_no_piece_holds_a_part_of_a_secret() -> None:
    """The text is redacted before it is cut, so the cut never goes through a secret."""
    secret = "s3cret-value-of-a-token"
    text = f"password: {secret}, and so on"
    with redacting(Redactor([secret]).text):
        pieces = [window(text, offset, 5).partition("\n\n[")[0] for offset in range(0, 29, 5)]
    assert "".join(pieces) == "password: [secret], and so on"
    assert window(text, 0, 16).startswith("password: s3cret")  # outside of a session nothing is known
