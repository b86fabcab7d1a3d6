"""Text that leaves acts on nobody: whatever a model was talked into, a service only shows it."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from prefect_routines.outgoing import Allowance, Outgoing, Service, sanitise

GITHUB, SLACK, PLAIN = Outgoing("github"), Outgoing("slack"), Outgoing("plain")
NOBODY = Allowance()
OUTSIDE = Allowance(outside=True, hosts=frozenset({"github.com", "*.acme.org"}))
SERVICES: list[Service] = ["github", "slack", "mail", "plain"]
PARTS = st.sampled_from(
    ["@", "@user", "@acme/docs", "`", "``", "```", "\n```\n", "~~~", "\n", "\n\n", " ", "\\", "[", "]", "(", ")", "](", "![", "]:", "#1",
     "fixes ", "Closes: ", "acme/docs#2", "GH-3", "<", ">", "<!--", "-->", "<a href=", "https://", "www.", "evil.com", "/x", "github.com",
     "javascript:", "&#64;", "&commat;", "&#x40;", "&", "&amp;", "#", ";", "|", "a", "  ", "- ", "> ", "\x1b[31m", "\u202e", "\u200b",
     "\u200d", "\U0001f469", "\x9d", "\r", "*", "_", ":", "//", "!", "<!here>", "<@U123ABC>", '"', "'", "[cut: 3 more characters]"]
)  # fmt: skip
TEXT = st.lists(PARTS | st.text(st.characters(categories=None), max_size=3), max_size=30).map("".join)
ALLOWANCES = st.sampled_from([NOBODY, OUTSIDE, Allowance(mentions=frozenset({"user", "u123abc"}), closes=frozenset({1}))])


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünï 👍\n\tend", "plain, ünï 👍\n\tend"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\x1b[1;31mred\x1b[0m \x9b2Jx", "red x"),
        ("\x1b]0;title\x07a \x1b]8;;x\x1b\\link\x1b]8;;\x1b\\ \x9d52;c;eA\x9cb", "a link b"),
        ("\x1b]never ended", "never ended"),
        ("user\u202egpj.exe \u2066x\u2069", "usergpj.exe x"),
        ("z\u200be\ufeffr\u2060o \U000e0041\U000e007f\ud800\0\x85\u3164", "zero "),
        ("👩\u200d💻 ❤\ufe0f a\u200db", "👩\u200d💻 ❤\ufe0f ab"),
    ],
)
def test_what_hides_turns_or_colours_goes(service: Service, text: str, shown: str) -> None:
    """For every service; letters and emoji stay."""
    assert sanitise(text, Outgoing(service), NOBODY) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("@user hi", "`@user` hi"),
        ("hi (@user), @org/team. @everyone!", "hi (`@user`), `@org/team`. `@everyone`!"),
        ("_@user_ **@user** é@user", "_`@user`_ **`@user`** é`@user`"),
        ("me@example.org stays", "me@example.org stays"),
        ("full ＠user", "full ＠user"),
        ("`@user` and ``a ` @user``", "`@user` and ``a ` @user``"),
        ("`open @user", "\\`open `@user`"),
        ("a ` b\n@user ` c", "a \\` b\n`@user` \\` c"),
        ("```py\n@decorator\n```\n@user", "```py\n@decorator\n```\n`@user`"),
        ("- list\n  ```\n  @x\n  ```", "- list\n  ```\n  @x\n  ```"),
        ("- list\n  ```\n@user\n  ```", "- list\n  \\`\\`\\`\n`@user`\n  \\`\\`\\`"),
        ("```\n@user", "\\`\\`\\`\n`@user`"),
        ("~~~\n@user\n```", "\\~\\~\\~\n`@user`\n\\`\\`\\`"),
        ("```\ncode\n```\t\n@user\n```\nx\n```", "```\ncode\n```\t\n`@user`\n```\nx\n```"),
        ("&#64;user &#x40;user &commat;user @&#117;ser", "`@user` `@user` `@user` `@user`"),
        ("&&#35;64;user", "&amp;#64;user"),
        ("\\@user \\\\@user", "`@user` \\\\`@user`"),
        ("\\`@user`", "\\` `@user`\\`"),
        ("| `a | @user |` |", "| \\`a | `@user` |\\` |"),
        ("`a`@user`b`", "`a` `@user` `b`"),
        ("https://github.com/` @user `", "https://github.com/ ` @user `"),
        ("@[user](https://github.com)", "@[user](https://github.com)"),
    ],
)
def test_nobody_is_called_on_github(text: str, shown: str) -> None:
    """Names become code, unless they are; what only looks like code is made text first."""
    assert sanitise(text, GITHUB, NOBODY) == shown


def test_who_may_be_called_is_called() -> None:
    """In any case of letters."""
    allowance = Allowance(mentions=frozenset({"ann", "acme/docs"}))
    assert sanitise("@Ann @acme/Docs @acme/ops @bob", GITHUB, allowance) == "@Ann @acme/Docs `@acme/ops` `@bob`"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fixes #1", "fixes `#1`"),
        ("Fixes: acme/docs#2", "Fixes: `acme/docs#2`"),
        ("RESOLVED GH-13", "RESOLVED `GH-13`"),
        ("closes\nhttps://github.com/acme/docs/issues/3", "closes\n`https://github.com/acme/docs/issues/3`"),
        ("fix **#4**, close&#32;&#35;5 fixe&#115; \\#6", "fix **`#4`**, close `#5` fixes `#6`"),
        ("prefixes #7 and see #8", "prefixes #7 and see #8"),
        ("`fixes #9`", "`fixes #9`"),
        ("fixes #12 and fixes other/repo#12", "fixes #12 and fixes `other/repo#12`"),
        ("fixes [#1](javascript:x)", "fixes `#1` `x`"),
    ],
)
def test_no_issue_is_closed_on_github(text: str, shown: str) -> None:
    """But those that may be."""
    assert sanitise(text, GITHUB, Allowance(closes=frozenset({12}))) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('<a href="x">y</a> <img src=x> a < b <3', '&lt;a href="x">y&lt;/a> &lt;img src=x> a < b <3'),
        ("a<!-- marker -->b", "ab"),
        ("`<!-- marker -->` <!<!-- x -->-- y -->", "\\`\\` &lt;! -- y -->"),
        ("<!-- open", "&lt;! -- open"),
        ("```html\n<b>\n```", "```html\n<b>\n```"),
    ],
)
def test_tags_show_and_comments_go(text: str, shown: str) -> None:
    """Nobody writes our markers but us."""
    assert sanitise(text, GITHUB, NOBODY) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("![chart](https://evil.com/x.png?d=1)", "chart `evil.com/x.png?d=1`"),
        ("[docs](https://evil.com/x 'title') end", "docs `evil.com/x` end"),
        ("[![alt](https://evil.com/i.png)](https://evil.com/x)", " alt `evil.com/i.png` `evil.com/x`"),
        ("[a](//evil.com) [b](/relative) [c](#part)", "a `evil.com` [b](/relative) [c](#part)"),
        ("[a](https&#58;//evil.com)", "a `evil.com`"),
        ("[a](https://docs.acme.org/x) ![b](https://github.com/b.png)", "[a](https://docs.acme.org/x) ![b](https://github.com/b.png)"),
        ("[a](https://acme.org.evil.com) [b](https://github.com@evil.com)", "a `acme.org.evil.com` b `github.com@evil.com`"),
        ("see https://evil.com/x. And www.evil.com!", "see `evil.com/x`. And `www.evil.com`!"),
        ("HTTPS://GitHub.com/x <https://github.com/y> <https://evil.com>", "HTTPS://GitHub.com/x <https://github.com/y> `evil.com`"),
        ("[text][ref]\n\n[ref]: https://evil.com/x", "[text][ref]\n\n[ref]\\: `evil.com/x`"),
        ("![text][ref]\n\n[ref]:\nhttps://evil.com/x", "![text][ref]\n\n[ref]\\:\n`evil.com/x`"),
        ("[text][ref]\n\n[ref]: https://github.com/x", "[text][ref]\n\n[ref]: https://github.com/x"),
        ("`https://evil.com`", "`https://evil.com`"),
        ("[a](mailto:x@acme.org)", "[a](mailto:x@acme.org)"),
    ],
)
def test_after_outside_text_links_go_to_known_hosts_only(text: str, shown: str) -> None:
    """What an image's address carries away is carried nowhere."""
    assert sanitise(text, GITHUB, OUTSIDE) == shown


@pytest.mark.parametrize(
    "text", ["![a](https://x.com/i.png) [b](https://x.com 'y') <https://x.com> https://x.com www.x.com\n\n[r]: https://x.com"]
)
def test_our_own_links_stay(text: str) -> None:
    """When only trusted text was read."""
    assert sanitise(text, GITHUB, NOBODY) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](javascript:alert(1))", "a `alert(1)`"),
        ("[a](java&#115;cript:x) [b](data:text/html,x)", "a `x` b `text/html,x`"),
        ("[r]: vbscript:x", "[r]\\: vbscript:x"),
        ("ftp://x.com <javascript:x>", "`x.com` `x`"),
        ("[a](java\nscript:x)", "[a]\\(java\nscript:x)"),
    ],
)
def test_only_the_web_and_mail_are_linked(text: str, shown: str) -> None:
    """Whoever wrote it."""
    assert sanitise(text, GITHUB, NOBODY) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<!channel> <@U1A> <https://x.com|y> a & b", "&lt;!channel&gt; &lt;@U1A&gt; &lt;https://x.com|y&gt; a &amp; b"),
        ("@everyone @channel @here @hereafter", "＠everyone ＠channel ＠here @hereafter"),
        ("<@U123ABC> and <@U999>", "<@U123ABC> and &lt;@U999&gt;"),
    ],
)
def test_slack_shows_and_calls_nobody(text: str, shown: str) -> None:
    """But whom it may."""
    assert sanitise(text, SLACK, Allowance(mentions=frozenset({"u123abc"}))) == shown


@pytest.mark.parametrize("service", ["slack", "mail", "plain"])
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://evil.com/a.b, www.evil.com", "see evil[.]com/a.b, www[.]evil[.]com"),
        ("https://github.com/x https://eu.acme.org:8443/y", "https://github.com/x https://eu.acme.org:8443/y"),
        ("slack://open file:///etc/passwd", "open etc/passwd"),
        ("https://github.com@evil.com/", "github[.]com@evil[.]com/"),
    ],
)
def test_a_client_links_nothing_unknown(service: Service, text: str, shown: str) -> None:
    """Neither the scheme is left nor a name with dots."""
    assert sanitise(text, Outgoing(service), OUTSIDE) == shown


def test_a_title_is_one_line() -> None:
    """No header can be added to a mail."""
    assert sanitise("Report\r\nBcc: all@acme.org", Outgoing("mail", one_line=True), NOBODY) == "Report Bcc: all@acme.org"


def test_long_text_is_cut_with_a_mark() -> None:
    """Which says how much is missing."""
    assert sanitise("x" * 200, Outgoing("plain", limit=100), NOBODY) == "x" * 73 + " [cut: 127 more characters]"


@given(TEXT, st.sampled_from(SERVICES), ALLOWANCES, st.booleans(), st.integers(0, 120) | st.just(65_000))
def test_whatever_comes_is_clean_short_and_settled(text: str, service: Service, allowance: Allowance, one_line: bool, limit: int) -> None:
    """No control characters, within the limit, and the same when it is done again."""
    kind = Outgoing(service, limit, one_line)
    shown = sanitise(text, kind, allowance)
    assert len(shown) <= limit
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"]
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\ufeff]", shown)
    assert "\n" not in shown or not one_line
    assert sanitise(shown, kind, allowance) == shown


@given(TEXT, st.sampled_from(["github", "slack"]))
def test_no_comment_and_no_tag_leaves(text: str, service: Service) -> None:
    """Neither a marker of ours nor a call of Slack's."""
    shown = sanitise(text, Outgoing(service), NOBODY)
    assert "<!--" not in shown
    if service == "slack":
        assert "<" not in shown


def visible_text(markdown: str) -> list[str]:
    """The text that a page shows outside code, as another reader of Markdown sees it; fails where there is markup that acts."""
    shown = []
    for block in MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown):
        assert block.type != "html_block"
        joined = ""
        for token in block.children or []:
            assert token.type not in ("html_inline",), token
            assert not any(str(token.attrs.get(name, "")).startswith("http") for name in ("href", "src"))
            joined += token.content if token.type in ("text", "text_special") else "\n" if token.type.endswith("break") else "\0"
        shown.append(joined)
    return shown


@given(TEXT)
def test_another_reader_finds_nothing_that_acts(text: str) -> None:
    """What we take for code is code to it too, and nothing outside calls, closes or links."""
    shown = sanitise(text, GITHUB, Allowance(outside=True))
    for line in visible_text(shown):
        assert not re.search(r"(?<![A-Za-z0-9])@[A-Za-z0-9]", line), shown
        assert not re.search(r"(?i)\b(?:fixes|closes):?\s+(?:acme/docs)?#\d|https?://[a-z]", line), shown
