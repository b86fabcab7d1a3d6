"""A line as it is typed: keys that change it, text that is pasted, characters that come in pieces."""

from __future__ import annotations

import pytest

from prefect_routines.cli.editing import LineEditor


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (b"stop\r", "stop"),
        (b"stpo\x7f\x7fop\n", "stop"),
        ("größer\x7f\x7fter 日本\r".encode(), "größter 日本"),
        (b"op\x1b[Hst\r", "stop"),
        (b"tops\x01\x1b[3~s\x05!\r", "sops!"),
        (b"stip\x1b[D\x1b[D\x1b[C\x1b[D\x1b[3~o\r", "stop"),
        (b"one two  three\x17\x17end\r", "one end"),
        (b"all of it\x15gone\r", "gone"),
        (b"cut \x1b[D\x1b[D\x0b here\r", "cu here"),
        (b"\x1b[200~line one\nline two\n\x1b[201~ and more\r", "line one\nline two\n and more"),
        (b"a\x1b[5~b\x1bOPc\x00d\r", "abcd"),
    ],
    ids=["plain", "backspace", "wide", "home", "delete", "arrows", "word", "line", "rest", "paste", "unknown"],
)
def test_keys_do_what_they_do_in_a_shell(typed: bytes, line: str) -> None:
    """Whether they come at once or byte by byte."""
    assert LineEditor().feed(typed) == [line]
    slow = LineEditor()
    assert [done for byte in typed for done in slow.feed(bytes([byte]))] == [line]
    assert (slow.text, slow.cursor) == ("", 0)
