"""How channels, people, messages and emoji are named in arguments: one spelling each, so that rules can match them. Pure."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from prefect_routines.visible import one_line

CHANNEL_ID = re.compile(r"[CGD][A-Z0-9]{8,20}\Z")
USER_ID = re.compile(r"[UW][A-Z0-9]{8,20}\Z")
# letters of any alphabet, digits, '-' and '_', nothing in upper case: https://slack.com/help/articles/201402297-Create-a-channel
_CHANNEL = re.compile(r"[\w-]{1,80}\Z")
_HANDLE = re.compile(r"[\w.-]{1,80}\Z")
_ADDRESS = re.compile(r"[^\s@<>,;()\[\]\\\"]{1,64}@[A-Za-z0-9.-]{1,190}\Z")
_MESSAGE = re.compile(r"(?:p(?P<whole>[0-9]{9,11})|(?P<seconds>[0-9]{9,11})\.)(?P<rest>[0-9]{6})\Z")
_LINK = re.compile(r"https://[^/\s]+/archives/[CGD][A-Z0-9]+/(p[0-9]{15,17})(?:\?\S*)?\Z")
_EMOJI = re.compile(r"[\w+'-]{1,100}(?:::skin-tone-[2-6])?\Z")
_FILE = re.compile(r"[\w][\w. +-]{0,119}\Z")


def _channel(value: str) -> str:
    value = value.strip()
    if CHANNEL_ID.match(value):
        return value
    name = value.removeprefix("#").lower()
    if not _CHANNEL.match(name):
        raise ValueError(f"{one_line(value, 60)!r} names no channel; write '#name' as slack_channels shows it")
    return f"#{name}"


def _user(value: str) -> str:
    value = value.strip()
    if USER_ID.match(value):
        return value
    if _ADDRESS.match(value):
        return value.lower()
    handle = value.removeprefix("@").lower()
    if not _HANDLE.match(handle):
        raise ValueError(f"{one_line(value, 60)!r} names nobody; write '@name', an e-mail address, or an id as slack_users shows it")
    return f"@{handle}"


def _message(value: str) -> str:
    value = value.strip()
    link = _LINK.match(value)
    found = _MESSAGE.match(link[1] if link else value)
    if not found:
        raise ValueError(f"{one_line(value, 60)!r} is no message; give its 'ts' such as 1712345678.123456, or the link to it")
    return f"{found['whole'] or found['seconds']}.{found['rest']}"


def _emoji(value: str) -> str:
    name = value.strip().strip(":").lower()
    if not _EMOJI.match(name):
        raise ValueError(f"{one_line(value, 60)!r} is no emoji's name; write it as in eyes or +1")
    return name


def _file(value: str) -> str:
    if not _FILE.match(value):
        raise ValueError("a file is named with letters, digits, spaces and . _ + -, at most 120 of them")
    return value


Channel = Annotated[str, AfterValidator(_channel)]
"""`#docs` or an id, whatever way Claude wrote it: `slack_post(channel=#docs) x1` matches 'docs', too.
For writes the name alone, see `Web.channel_to_write`."""
User = Annotated[str, AfterValidator(_user)]
"""`@jane`, an address or an id; for writes the first alone, see `Web.person_to_write`."""
Message = Annotated[str, AfterValidator(_message)]
"""A message's `ts`: its time with six decimals, which names it within its channel."""
Emoji = Annotated[str, AfterValidator(_emoji)]
FileName = Annotated[str, AfterValidator(_file)]
