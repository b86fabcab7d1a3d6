"""Shapes of tokens that are secrets whoever holds them: few, exact, fast. Pure."""

from __future__ import annotations

import re

_KEY = "a private key"
# Vendors' own prefixes with their lengths, so that prose and hashes do not match: the literal beginnings, then what follows them.
# Each is listed in its vendor's documentation or in
# https://docs.github.com/code-security/secret-scanning/introduction/supported-secret-scanning-patterns
_SHAPES: tuple[tuple[str, str, str], ...] = (
    (_KEY, "-----BEGIN ", r"(?:[A-Z0-9]{1,16} ){0,4}PRIVATE KEY(?: BLOCK)?-----"),
    ("an AWS access key", "AKIA ASIA", r"[A-Z2-7]{16}\b"),
    ("a GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", r"[A-Za-z0-9]{36,}"),
    ("a GitHub token", "github_pat_", r"[A-Za-z0-9_]{60,}"),
    ("a GitLab token", "glpat- glptt- gldt- glrt- glcbt- glagent-", r"[A-Za-z0-9_-]{20,}"),
    ("a Slack token", "xox", r"[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("a Slack token", "xapp-", r"\d-[A-Za-z0-9-]{20,}"),
    ("a Slack webhook", "hooks.slack.com/services/", r"T[A-Z0-9]{1,20}/B[A-Z0-9]{1,20}/[A-Za-z0-9]{20,}"),
    ("an Anthropic key", "sk-ant-", r"[a-z0-9]{3,16}-[A-Za-z0-9_-]{20,}"),
    ("an OpenAI key", "sk-", r"(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20,}"),
    ("an OpenAI key", "sk-", r"[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}"),
    ("a Stripe key", "sk_live_ rk_live_", r"[A-Za-z0-9]{20,}"),
    ("a Google API key", "AIza", r"[A-Za-z0-9_-]{35}"),
    ("an npm token", "npm_", r"[A-Za-z0-9]{36}\b"),
    ("a PyPI token", "pypi-AgE", r"[A-Za-z0-9_-]{50,}"),
    ("a Prefect key", "pnu_ pnb_", r"[A-Za-z0-9]{36}\b"),
    ("a SendGrid key", "SG.", r"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    ("a Hugging Face token", "hf_", r"[A-Za-z0-9]{34,}\b"),
    ("a DigitalOcean token", "doo_v1_ dop_v1_ dor_v1_", r"[a-f0-9]{64}\b"),
    ("a routine token", "rt_", r"[A-Za-z0-9]{43}\b"),  # store/tokens.py
    ("an Azure storage key", "AccountKey=", r"[A-Za-z0-9+/]{86}=="),
)
KINDS = tuple(dict.fromkeys(kind for kind, _, _ in _SHAPES))

# What belongs to a private key after its first line, whole or in an escaped string: armour headers, the body, the last line.
_KEY_REST = (
    r"(?:\s*(?:Version|Comment|Charset|Hash|Proc-Type|DEK-Info): [^\n]{0,100}\n){0,6}"
    r"[A-Za-z0-9+/=\s\\]{0,16384}(?:-----END [A-Z0-9 ]{1,60}-----)?"
)

DECIDED = 128  # characters, from its first one, after which it is clear whether something is a secret
KEY_TAIL = 256  # characters at the end of a private key that may still become part of it when more text comes
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./+="  # what all of them but a private key are made of


def _pattern(tails: dict[str, list[str]], head: str = "") -> str:
    """One alternative per next character of the beginnings that start with `head`, so that the engine compares few at each place.

    Before a token stands no letter, but that of an escape (`"\\nghp_..."`) is none.
    """
    follows = sorted({known[len(head)] for known in tails if known.startswith(head) and known != head})
    choices = [re.escape(char) + _pattern(tails, head + char) for char in follows]
    if head in tails:
        width = len(head)
        boundary = rf"(?:(?<!\w.{{{width}}})|(?<=\\[nrt].{{{width}}}))" if head[0].isalnum() else ""
        choices.append(f"{boundary}(?:{'|'.join(tails[head])})")
    return choices[0] if len(choices) == 1 else f"(?:{'|'.join(choices)})" if head else "|".join(choices)


def _shortest(kind: str, rest: str) -> str:
    """As soon as a token is long enough it is one, and everything that hangs on it goes with it. Examples are none."""
    if kind == _KEY:
        return f"{rest}{_KEY_REST}"
    fixed = re.sub(r"\{(\d+),\}", r"{\1}", rest.removesuffix(r"\b"))
    return f"(?={fixed})(?![A-Za-z0-9_-]{{0,12}}(?i:EXAMPLE)){fixed}[A-Za-z0-9_-]*"


_ROWS = [(kind, head, rest) for kind, heads, rest in _SHAPES for head in ([heads] if kind == _KEY else heads.split())]
_ANY = re.compile(_pattern({head: [rest for _, other, rest in _ROWS if other == head] for _, head, _ in _ROWS}))
SECRET = re.compile(_pattern({head: [_shortest(kind, rest) for kind, other, rest in _ROWS if other == head] for _, head, _ in _ROWS}))


def kind_of(secret: str) -> str:
    """What a text that `find_secrets` or `SECRET` found is, such as "a GitHub token"."""
    found = [kind for kind, head, rest in _ROWS if secret.startswith(head) and re.match(rest, secret[len(head) :])]
    # One that hangs on more letters than its vendor gives it fits no row whole: the beginning tells.
    return found[0] if found else next(kind for kind, head, _ in _ROWS if secret.startswith(head))


def find_secrets(text: str) -> dict[str, str]:
    """The secrets in `text`, each with its kind. Examples of documentation ("...EXAMPLE") are none.

    Example:
        >>> list(find_secrets("token = ghp_" + "a1B2" * 9).values())
        ['a GitHub token']
    """
    found = {match[0] for match in _ANY.finditer(text)}
    return {secret: kind_of(secret) for secret in found if "EXAMPLE" not in secret.upper()}
