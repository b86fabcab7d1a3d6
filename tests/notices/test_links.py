"""Links of one person to one answer: signed, expiring, one spelling each."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace

import pytest

from prefect_routines.notices.links import AnswerLink, LinkKey, LinkRefused

KEY = b"k" * 32
LINK = AnswerLink("frm-1", "d" * 32, "approve", "ada@acme.com", 2_000)


def test_a_link_says_what_was_signed() -> None:
    """Until its time is over."""
    token = LINK.signed(KEY)
    assert AnswerLink.read(token, KEY, now=2_000) == LINK
    with pytest.raises(LinkRefused, match="time of this link is over"):
        AnswerLink.read(token, KEY, now=2_001)
    with pytest.raises(LinkRefused, match="not one of ours"):
        AnswerLink.read(token, b"another" * 5, now=0)


def test_no_changed_link_is_taken() -> None:
    """Not by a character, not the signature of another, not in another spelling."""
    token = LINK.signed(KEY)
    said, _, signature = token.partition(".")
    other = replace(LINK, decision="deny").signed(KEY).partition(".")[2]
    bad = [
        said,
        f"{said}.",
        f".{signature}",
        f"{said}.{other}",
        f"{token}=",
        f"{token}.",
        f" {token}",
        f"{token}\n",
        "",
        ".",
        "é.é",
        "a" * 9000,
    ]
    bad += [f"{token}\n", "", ".", "é.é", "a" * 9000]
    bad += [token[:n] + ("A" if token[n] != "A" else "B") + token[n + 1 :] for n in range(len(token))]
    bad.append(base64.urlsafe_b64encode(b"[1]").decode() + "." + signature)
    for one in bad:
        with pytest.raises(LinkRefused):
            AnswerLink.read(one, KEY, now=0)


async def test_the_key_is_made_once_and_kept_in_prefect(prefect_server: str) -> None:
    """Several processes that need it at once agree."""
    keys = await asyncio.gather(*(LinkKey().get() for _ in range(5)))
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32
