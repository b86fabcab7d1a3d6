"""What stands on the run page: other people's text shows as it is and does nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from prefect_routines.session import page
from prefect_routines.settings import Settings
from prefect_routines.verdict import Outcome

from .journals import agent, config, entries, fold, result, text, use, user, verdict

RENDER = MarkdownIt("gfm-like", {"html": True, "linkify": False})
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![pixel](https://evil.example/x.png)",
    "[click](javascript:alert(1))",
    "[a]: https://evil.example",
    "<https://evil.example>",
    "# heading",
    "```\nout of the fence",
    "~~~\nx",
    "| a | b |\n| --- | --- |\n| c | d |",
    "1. one\n2. two",
    "    indented",
    "- item",
    "**bold** _it_ ~~no~~ `code`",
    "\x1b[2J\u202egpj\ud800\0",
    "a\n\n---\n\nb",
    "&lt;b&gt; &amp;",
    "\\`x\\`",
]
TEXT = st.text(st.sampled_from("`~<>[]()!#*_-|\\&\n :/abc.=\"'+1\t"), max_size=60) | st.sampled_from(HOSTILE)
ALIVE = re.compile(r"<(a|img|script|h\d|table|iframe|b)\b")


def dead(html: str) -> bool:
    """Whether nothing in it acts."""
    return not ALIVE.search(html)


@given(TEXT)
def test_plain_text_stays_text(words: str) -> None:
    """No link, no picture, no HTML, no heading, no table comes of it."""
    assert dead(RENDER.render(f"Before\n\n{page.plain(words)}\n\nafter"))


@given(TEXT)
def test_a_fence_holds(words: str) -> None:
    """Whatever fences the text has, it is one block of code, and what follows is outside."""
    tokens = RENDER.parse(f"{page.fenced(words)}\n\nafter")
    assert [token.type for token in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert tokens[0].content == words.replace("\r", "\\x0d") + "\n" or page.visible(words) + "\n" == tokens[0].content


@given(TEXT)
def test_code_in_a_line_holds(words: str) -> None:
    """One line, no way out."""
    html = RENDER.render(f"see {page.code(words)} there")
    assert dead(html)
    assert html.count("<p>") == 1


@pytest.mark.parametrize("words", HOSTILE)
def test_no_page_lets_it_out(words: str) -> None:
    """In a prompt, a reply, a call, a result, a summary, a diff, a check: all pages together."""
    pushed = {"repository": words, "branch": words, "sha": words, "files": [], "captured": False, "checks_passed": True, "diff": words}
    check = {"repository": words, "command": words, "sha": words, "passed": False, "exit_code": 1, "seconds": 1.0, "output": words}
    journal = entries(
        config(),
        user(words, prompt=1),
        agent(text(words), use("a", name="bash", command=words)),
        result("a", words, pushed=[pushed], checks=[check]),
        ("turn.failed", {"turn": 2, "attempt": 1, "error": words, "dollars": 0}),
        verdict(),
    )
    state = fold(*((entry.kind, entry.data) for entry in journal))
    outcome = Outcome("ses-1", "done", words, evidence=[words], links=[words])
    whole = page.summary(state, Settings(), session_id="ses-1", routine=words, outcome=outcome)
    for text_of_page in (whole, page.transcript_page(journal), page.checks(state), page.diff(state), page.usage(journal)):
        html = RENDER.render(text_of_page)
        assert not re.search(r"<(img|script|iframe|b)\b", html)
        assert not re.search(r'href="(?!https://evil\.example)', html)
        text_of_page.encode("utf-8")
        assert "\x1b" not in text_of_page
        assert "\u202e" not in text_of_page


def test_a_long_transcript_is_cut_between_its_parts() -> None:
    """A cut inside a fence would turn what it holds into markdown; the end of the session is what stays."""
    turns = []
    for i in range(150):
        turns += [agent(use(f"c{i}", command="x")), result(f"c{i}", "<img src=x>\n" * 300)]
    shown = page.transcript_page(entries(config(), user("Go.", prompt=1), *turns, agent(text("The end."))))
    assert len(shown) <= page.WHOLE + 200
    assert shown.startswith("*The beginning is left out here")
    assert shown.endswith("The end.")
    assert "<img" not in RENDER.render(shown)


def test_a_long_diff_is_cut_inside_its_fence() -> None:
    """The fence closes; the last push has its room first."""
    pushed = {
        "repository": "docs",
        "branch": "b",
        "sha": "s",
        "files": [],
        "captured": False,
        "checks_passed": True,
        "diff": "<img>\n" * 60_000,
    }
    state = fold(config(), agent(use("a"), use("b")), result("a", pushed=[pushed]), result("b", pushed=[{**pushed, "diff": "last"}]))
    shown = page.diff(state)
    assert "<img" not in RENDER.render(shown)
    assert "last" in shown


def test_the_summary_tells_what_it_took() -> None:
    """Budget and use, before there is a verdict, too."""
    state = fold(config(), user("Go.", prompt=1), agent(use("a"), dollars=0.25), result("a"))
    settings = Settings.model_validate({"budget": {"turns": 9}})
    shown = page.summary(state, settings, session_id="ses-1", routine="r", outcome=None, address="https://x.example/sessions/ses-1")
    assert "<https://x.example/sessions/ses-1>" in shown
    assert "working" in shown
    assert "| turns | 1 | 9 |" in shown
    assert "$0.2500" in shown
