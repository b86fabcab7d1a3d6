"""Text from outside, made harmless to look at."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_routines.visible import one_line, slug, visible

ANY = st.text(st.characters(categories=None) | st.sampled_from("\x1b\x9b\u202e\u2066\ufeff\ud800\0\r\n\t"), max_size=60)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünï 👍\n\tend", "plain, ünï 👍\n\tend"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\0c\x7f", "a\\x0db\\x00c\\x7f"),
        ("user\u202egpj.exe", "user\\u202egpj.exe"),
        ("a\u2066b\u200bc\ufeff", "a\\u2066b\\u200bc\\ufeff"),
        ("lone \ud800 surrogate", "lone \\ud800 surrogate"),
        ("tag \U000e0041", "tag \\U000e0041"),
    ],
)
def test_what_hides_or_moves_is_shown(text: str, shown: str) -> None:
    """As an escape; ordinary text, tabs and newlines stay."""
    assert visible(text) == shown


@given(ANY)
def test_nothing_that_acts_is_left(text: str) -> None:
    """No control, no direction, no surrogate; and what is shown can be stored anywhere."""
    shown = visible(text)
    shown.encode("utf-8")
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n"]
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", shown)
    assert visible(shown) == shown


@given(ANY, st.integers(2, 50))
def test_one_line_is_one_line(text: str, limit: int) -> None:
    """Of at most that many characters."""
    line = one_line(text, limit)
    assert len(line) <= limit
    assert "\n" not in line
    assert line == visible(line)


@given(ANY)
def test_a_slug_has_letters_digits_and_dashes(text: str) -> None:
    """As Prefect's keys and branch names want them; never empty."""
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug(text))
    assert len(slug(text)) <= 40


def test_a_slug_reads_like_its_name() -> None:
    """Accents go, words stay."""
    assert slug("Dépendances à jour!") == "dependances-a-jour"
    assert slug("日本") == "routine"
