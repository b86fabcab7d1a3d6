"""Text for GitHub's comments and titles, rewritten so that there is one way to read it, and that one acts on nothing. Pure.

Code is only what certainly is code: fences closed at their own depth, spans within a line. Every other backtick is escaped, so that what
is made code here is code there. See https://github.github.com/gfm/
"""

from __future__ import annotations

import html
import re
from bisect import bisect_left
from collections.abc import Callable

from prefect_routines.outgoing.allowance import Allowance, clean, may_link, split_url, without_scheme


def without_comments(text: str) -> str:
    """Our own markers are comments; nobody else writes one, not in code either. What is left of one is broken, and so shown."""
    kept, at = [], 0
    while (start := text.find("<!--", at)) >= 0 and (end := text.find("-->", start + 4)) >= 0:
        kept.append(text[at:start])
        at = end + 3
    return "".join([*kept, text[at:]]).replace("<!--", "<! --")


_FENCE = re.compile(r"( {0,3})(?:(`{3,})[^`]*|(~{3,}).*)\Z")
LAST_FENCE = re.compile(r"(?:^|\n) {0,3}(?:`{3,}|~{3,})[^\n]*\Z")


def render(text: str, allowance: Allowance) -> str:
    page = _Page(allowance)
    lines = text.split("\n")
    ends = _fences(lines)
    at, prose = 0, []
    while at < len(lines):
        if at not in ends:
            prose.append(lines[at])
            at += 1
            continue
        page.prose("".join(f"{line}\n" for line in prose))
        prose, after = [], ends[at] + 1
        page.out.append("\n".join(lines[at:after]) + ("\n" if after < len(lines) else ""))
        at = after
        if at == len(lines):
            return "".join(page.out)
    page.prose("\n".join(prose))
    return "".join(page.out)


def _fences(lines: list[str]) -> dict[int, int]:
    """First and last lines of the code blocks.

    A block is one only if its lines are indented at least as far as its first: else a list around it could end, and the code with it.
    """
    ends: dict[int, int] = {}
    dead: dict[tuple[int, str], tuple[int, int]] = {}  # up to this line none of that length is closed: each is looked for once
    at = 0
    while at < len(lines):
        found = _FENCE.match(lines[at])
        if not found:
            at += 1
            continue
        depth, fence = len(found[1]), found[2] or found[3]
        known, shortest = dead.get((depth, fence[0]), (-1, 0))
        end = None if at < known and len(fence) >= shortest else _fence_end(lines, at, depth, fence)
        if isinstance(end, int) and end > 0:
            ends[at] = end
            at = end
        elif end is not None:
            dead[depth, fence[0]] = (-end, len(fence))
        at += 1
    return ends


def _fence_end(lines: list[str], start: int, depth: int, fence: str) -> int:
    """The line that closes it, or the negative of the one where the search ended."""
    for at in range(start + 1, len(lines)):
        line = lines[at]
        bare = line.strip(" \t")
        blank = line[: len(line) - len(line.lstrip(" \t"))]
        indent = 4 if "\t" in blank else len(blank)
        if not bare:
            continue
        if indent < depth:
            return -at
        if indent <= 3 and len(bare) >= len(fence) and not bare.strip(fence[0]):
            return at
    return -len(lines)


_OPENS = re.compile(r"\\`+|\\[!-/:-@\[-`{-~]|`+")
_SPLITS = re.compile(r"[@#<]|\]\(|\]:|://|www\.", re.IGNORECASE)


def _spans(line: str) -> list[tuple[int, int]]:
    """Where code stands in a line. A row of a table ends code at a bar: code with a bar and something that acts is none."""
    runs: dict[int, list[int]] = {}
    for run in re.finditer("`+", line):
        runs.setdefault(len(run[0]), []).append(run.start())
    spans, at = [], 0
    while found := _OPENS.search(line, at):
        at = found.end()
        if found[0].startswith("\\"):
            continue
        starts = runs.get(len(found[0]), [])
        after = bisect_left(starts, at)
        if after < len(starts):
            end = starts[after] + len(found[0])
            inside = line[at : starts[after]]
            if "|" in inside and _SPLITS.search(inside):
                continue
            spans.append((found.start(), end))
            at = end
    return spans


_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_SPLIT_ENTITY = re.compile(r"&(?=#?[A-Za-z0-9]{0,32}&)")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_REFERENCE = (
    r"(?:[\w.-]{1,100}/[\w.-]{1,100})?\\?\#\d{1,10}|GH-\d{1,10}"
    r"|(?:https?\\?://|www\.)[^\s<>`]{1,300}?/(?:issues|pull|discussions)/\d{1,10}"
)
_TOKEN = re.compile(
    r"""(?P<escape>\\[!-/:-@\[-`{-~]) | (?P<backslash>\\) | (?P<ticks>`+) | (?P<tildes>~{3,})
    | (?P<closing>(?<![A-Za-z0-9])(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?)(?=[^A-Za-z0-9]))
    | (?P<url>(?:(?:https?|ftp)://|www\.|xmpp:)[^\s<>`\\|\[\]]+)
    | (?P<mention>(?<![A-Za-z0-9])@[A-Za-z0-9](?:[A-Za-z0-9_-]{0,98}[A-Za-z0-9])?(?:/[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)?)
    | (?P<target>\]\() | (?P<definition>\]:) | (?P<bracket>!?\[) | (?P<tag><[A-Za-z/!?])""",
    re.IGNORECASE | re.VERBOSE,
)
_CLOSES = re.compile(rf"(?P<word>[a-z]+)(?P<gap>[\s:*_~\"'(\\-]{{0,20}})(?P<ref>{_REFERENCE})", re.IGNORECASE)
_TARGET = re.compile(
    r"""\]\([ ]{0,4}(?:<([^<>\n`\\]{0,2000})>|([^\s()<>`\\]{0,2000}(?:\([^\s()<>`\\]{0,500}\)[^\s()<>`\\]{0,500}){0,4}))"""
    r"""(?:[ ]{1,4}(?:"[^"\n`<\\]{0,300}"|'[^'\n`<\\]{0,300}'))?[ ]{0,4}\)"""
)
_DEFINED = re.compile(r"\]:[ \t]{0,20}([^\s`]{1,300})")
_AUTOLINK = re.compile(r"<([a-z][a-z0-9+.-]{1,31}:[^\s<>`\\]{0,2000})>", re.IGNORECASE)


def _decoded(match: re.Match[str]) -> str:
    """A character written as an entity, unless it would then be markup."""
    char = html.unescape(match[0])
    if char.isspace():
        return " "
    if char == match[0] or (char.isascii() and char.isprintable() and not char.isalnum() and char not in "@#/.-"):
        return match[0]
    return clean(char)


class _Page:
    """The harmless text so far, piece by piece."""

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.out: list[str] = []
        self._open: list[int] = []  # pieces that are the brackets of links not closed yet
        self._address: int | None = None  # after which piece an address may go on

    def prose(self, text: str) -> None:
        """Everything but blocks of code."""
        self._open.clear()
        at = line_at = 0
        for line in text.split("\n"):
            for start, end in _spans(line):
                self._text(text[at : line_at + start])
                self._code(text[line_at + start : line_at + end])
                at = line_at + end
            line_at += len(line) + 1
        self._text(text[at:])

    def _code(self, span: str) -> None:
        last = self.out[-1] if self.out else ""
        # GitHub reads an address on to the next space, through the backtick of what follows.
        goes_on = self._address is not None and not any(re.search(r"\s", piece) for piece in self.out[self._address :])
        self._address = None
        self.out += [" ", span] if goes_on or last.endswith("`") or last == "\\" else [span]

    def _shown(self, text: str) -> None:
        self._code("`" + re.sub("[`\n]", "", text).replace("|", "%7C") + "`")

    def _text(self, text: str) -> None:
        text = _ENTITY.sub(_decoded, _SPLIT_ENTITY.sub("&amp;", text))
        text = _ESCAPED.sub(lambda match: "@" if match[1] == "@" else match[0], text)
        at = 0
        while found := _TOKEN.search(text, at):
            if found.start() > at:
                self.out.append(text[at : found.start()])
            handle: Callable[[re.Match[str]], int] = getattr(self, f"_{found.lastgroup}")
            at = handle(found)
        if at < len(text):
            self.out.append(text[at:])

    def _as_it_is(self, found: re.Match[str]) -> int:
        self.out.append(found[0])
        return found.end()

    _escape = _backslash = _as_it_is

    def _ticks(self, found: re.Match[str]) -> int:
        self.out.append("".join(f"\\{char}" for char in found[0]))
        return found.end()

    _tildes = _ticks

    def _closing(self, found: re.Match[str]) -> int:
        named = _CLOSES.match(found.string, found.start())
        if not named:
            return self._as_it_is(found)
        number = re.fullmatch(r"\\?#(\d+)|GH-(\d+)", named["ref"], re.IGNORECASE)
        if number and int(number[1] or number[2]) in self.allowance.closes:
            self.out.append(named[0])
        else:
            self.out.append(named["word"] + named["gap"].replace("\\", ""))
            self._shown(named["ref"].replace("\\", ""))
        return named.end()

    def _url(self, found: re.Match[str]) -> int:
        url, rest = split_url(found[0])
        joined = found.start() > 0 and found.string[found.start() - 1].isalnum()
        if not joined and may_link(url, self.allowance):
            self.out.append(found[0])
            self._address = len(self.out)
            return found.end()
        self._shown(without_scheme(url) or url)
        return found.end() - len(rest)

    def _mention(self, found: re.Match[str]) -> int:
        if found[0][1:].lower() in self.allowance.mentions:
            return self._as_it_is(found)
        self._shown(found[0])
        return found.end()

    def _bracket(self, found: re.Match[str]) -> int:
        self._open.append(len(self.out))
        return self._as_it_is(found)

    def _target(self, found: re.Match[str]) -> int:
        opened = self._open.pop() if self._open else None
        link = _TARGET.match(found.string, found.start())
        if not link:
            self.out.append("]\\(")
            return found.end()
        target = html.unescape(link[1] or link[2] or "")
        if may_link(target, self.allowance):
            self.out.append(link[0])
        elif opened is None:
            self.out.append("]\\(")
            return found.end()
        else:
            before = self.out[opened - 1] if opened else ""
            self.out[opened] = "" if not before or before[-1].isspace() else " "
            self.out.append(" ")
            self._shown(without_scheme(target) or "link")
        return link.end()

    def _definition(self, found: re.Match[str]) -> int:
        if self._open:
            self._open.pop()
        defined = _DEFINED.match(found.string, found.start())
        harmless = defined and may_link(html.unescape(defined[1].strip("<>")), self.allowance)
        self.out.append("]:" if harmless else "]\\:")
        return found.end()

    def _tag(self, found: re.Match[str]) -> int:
        link = _AUTOLINK.match(found.string, found.start())
        if not link:
            self.out.append("&lt;" + found[0][1:])
            return found.end()
        if may_link(link[1], self.allowance):
            self.out.append(link[0])
        else:
            self._shown(without_scheme(link[1]) or link[1])
        return link.end()
