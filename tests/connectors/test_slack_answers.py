"""What Slack says and the emulator never does: errors, doubts, limits, other hosts. A small server answers as Slack documents it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
from prefect_slack import SlackCredentials

from prefect_routines.connectors.http import ServiceError
from prefect_routines.connectors.slack import Slack
from prefect_routines.errors import OutcomeUnknown, ToolError

from .http_service import BIG, Asked, HttpService, Said, answered, context, planned, serving

CHANNEL, TS = "C0123456789", "1712345678.123456"
ME = {"ok": True, "user_id": "U0BOT000000", "bot_id": "B0BOT000000", "team": "Acme", "url": "https://acme.slack.com/", "user": "docs-bot"}
POST: dict[str, Any] = {"channel": "#docs", "text": "See https://acme.com/a"}

Answers = dict[str, Any]


@pytest.fixture
def answers() -> Answers:
    """What each method answers: a body, a whole `Said`, or a function of the request."""
    return {
        "auth.test": ME,
        "conversations.list": {"ok": True, "channels": [{"id": CHANNEL, "name": "docs"}]},
        "chat.getPermalink": refused("message_not_found"),
        "chat.postMessage": {"ok": True, "ts": TS},
    }


@pytest.fixture
def service(answers: Answers) -> Iterator[HttpService]:
    def answer(asked: Asked) -> Said:
        found: Any = answers[asked.path.rpartition("/")[2]]
        found = found(asked) if callable(found) else found
        return found if isinstance(found, Said) else Said(found)

    with serving(answer) as service:
        yield service


@pytest.fixture
def block(service: HttpService) -> Slack:
    return Slack(credentials=SlackCredentials(token="xoxb-s3cret-of-the-bot"), base_url=f"{service.url}/api")


def refused(error: str, **more: Any) -> dict[str, Any]:
    return {"ok": False, "error": error, **more}


def given(asked: Asked) -> dict[str, str]:
    """The arguments of a call."""
    return {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}


def asked(service: HttpService, method: str) -> list[dict[str, str]]:
    """The arguments of all calls of a method."""
    return [given(request) for request in service.asked if request.path == f"/api/{method}"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (refused("invalid_auth"), "invalid_auth: renew the token of its slack-credentials"),
        (refused("token_expired"), "token_expired: renew the token"),
        (refused("account_inactive"), "account_inactive: renew the token"),
        (
            refused("missing_scope", needed="chat:write", provided="channels:read"),
            "lacks the scope chat:write; it has channels:read: add it",
        ),
        (refused("channel_not_found"), "there is no such channel, or the bot cannot see it"),
        (refused("not_in_channel"), "not_in_channel: invite the bot there: /invite"),
        (refused("is_archived"), "the channel is archived"),
        (refused("ratelimited"), "too many requests; do something else for a minute"),
        (refused("rate_limited"), "too many messages; do something else for a minute"),
        (refused("invalid_arguments", response_metadata={"messages": ["[ERROR] no such field: x"]}), "[ERROR] no such field: x"),
        (refused("brand\n\x1b[31mnew"), "brand \\x1b[31mnew"),
    ],
)
async def test_a_refusal_is_one_line_with_what_to_do(block: Slack, answers: Answers, body: dict[str, Any], told: str) -> None:
    """Known not to have been sent, though the status was 200."""
    answers["chat.postMessage"] = body
    async with planned(block, "slack_post", **POST) as plan:
        with pytest.raises(ServiceError) as error:
            await plan.send()
    assert not isinstance(error.value, OutcomeUnknown)
    assert str(error.value).startswith("Slack refused chat.postMessage (slack/test): ")
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("answer", [refused("internal_error"), refused("fatal_error"), Said(b"<html>"), Said(b""), Said([]), Said({}, 502)])
async def test_a_doubtful_answer_leaves_the_outcome_unknown(block: Slack, answers: Answers, service: HttpService, answer: Any) -> None:
    """Slack says itself that something may have happened; and what is no answer says nothing. It is not sent again."""
    answers["chat.postMessage"] = answer
    async with planned(block, "slack_post", **POST) as plan:
        with pytest.raises(OutcomeUnknown):
            await plan.send()
    assert len(asked(service, "chat.postMessage")) == 1


async def test_a_sent_message_is_sent_whether_its_link_can_be_had_or_not(block: Slack) -> None:
    """The link is for people only."""
    async with planned(block, "slack_post", **POST) as plan:
        assert await plan.send() == f"Sent as {TS} in {CHANNEL}."


async def test_a_limit_is_waited_for_and_then_it_goes_on(block: Slack, answers: Answers, service: HttpService) -> None:
    """429 with a short pause: sent once."""
    replies = iter([Said(refused("ratelimited"), 429, {"Retry-After": "0"}), Said({"ok": True, "ts": TS})])
    answers["chat.postMessage"] = lambda _: next(replies)
    async with planned(block, "slack_post", **POST) as plan:
        assert TS in await plan.send()
    assert len(asked(service, "chat.postMessage")) == 2


async def test_a_long_limit_says_until_when(block: Slack, answers: Answers) -> None:
    """Nobody waits for an hour in a turn."""
    answers["conversations.history"] = Said(refused("ratelimited"), 429, {"Retry-After": "3600"})
    with pytest.raises(ServiceError, match=r"Slack limits the rate of requests until \d\d:\d\d:\d\d UTC"):
        await answered(block, "slack_history", channel=CHANNEL)


async def test_a_huge_answer_is_not_read(block: Slack, answers: Answers) -> None:
    """50 MB of history do not come into the session."""
    answers["conversations.history"] = Said(b"x" * BIG)
    with pytest.raises(ServiceError, match=r"larger than 10 MB"):
        await answered(block, "slack_history", channel=CHANNEL)


async def test_a_server_that_is_not_slack_is_told(block: Slack, answers: Answers) -> None:
    """A mistyped base_url."""
    answers["users.list"] = {"hello": "world"}
    with pytest.raises(ServiceError, match=r"is not Slack's API; set the base_url of slack/test right"):
        await answered(block, "slack_users")


async def test_times_go_to_slack_as_it_wants_them(block: Slack, answers: Answers, service: HttpService) -> None:
    """The emulator does not look at them."""
    answers["conversations.history"] = {"ok": True, "messages": []}
    assert await answered(block, "slack_history", channel=CHANNEL, oldest="2026-03-31T09:00:00+02:00", latest="1774947600.5") == "Nothing."
    [call] = asked(service, "conversations.history")
    assert (call["oldest"], call["latest"], call["channel"]) == ("1774940400.000000", "1774947600.500000", CHANNEL)
    with pytest.raises(ToolError, match=r"oldest: write 'now', 'now-15m'"):
        await answered(block, "slack_history", channel=CHANNEL, oldest="yesterday")


async def test_search_says_that_it_needs_a_user_token(block: Slack, answers: Answers) -> None:
    """And shows what it finds, where there is one."""
    answers["search.messages"] = refused("not_allowed_token_type")
    with pytest.raises(ServiceError, match=r"this needs a user token \(xoxp-...\)"):
        await answered(block, "slack_search", query="docs")
    match = {"ts": TS, "user": "U0JANE00000", "text": "the docs", "channel": {"name": "docs"}, "permalink": "https://acme.slack.com/x"}
    answers["users.info"] = {"ok": True, "user": {"id": "U0JANE00000", "name": "jane"}}
    answers["search.messages"] = {"ok": True, "messages": {"matches": [match], "paging": {"page": 1, "pages": 2}}}
    assert (await answered(block, "slack_search", query="docs")).split("\n") == [
        f'{{"ts": "{TS}", "time": "2024-04-05 19:34:38 UTC", "by": "@jane U0JANE00000", "text": "the docs", "channel": "#docs", '
        '"link": "https://acme.slack.com/x"}',
        "[more: page=2]",
    ]


async def test_the_check_names_what_the_token_cannot_do(block: Slack, answers: Answers) -> None:
    """Slack tells the scopes in a header."""
    answers["auth.test"] = Said(ME, headers={"X-OAuth-Scopes": "channels:read,channels:history,users:read,chat:write,im:write"})
    assert await block.check() == (
        "Slack workspace Acme (https://acme.slack.com/) as docs-bot, bot B0BOT000000 U0BOT000000; "
        "it cannot react (reactions:write), upload (files:write)"
    )


# --- names


@pytest.mark.parametrize(
    ("info", "told"),
    [
        ({"ok": True, "channel": {"id": CHANNEL, "name": "general"}}, r"^C0123456789 is #general: use that name, rules name channels so$"),
        ({"ok": True, "channel": {"id": CHANNEL, "is_im": True}}, r"use slack_direct_message"),
        (refused("missing_scope", needed="channels:read"), r"lacks the scope channels:read: add it to the app"),
        (refused("channel_not_found"), r"there is no such channel"),
    ],
)
async def test_an_id_is_no_second_name_of_a_channel(
    block: Slack, answers: Answers, service: HttpService, info: dict[str, Any], told: str
) -> None:
    """Also not where its name cannot be read."""
    answers["conversations.info"] = info
    with pytest.raises(ToolError, match=told):
        async with planned(block, "slack_post", channel=CHANNEL, text="x"):
            pass
    assert asked(service, "chat.postMessage") == []


async def test_a_group_that_has_no_name_is_written_to_by_its_id(block: Slack, answers: Answers, service: HttpService) -> None:
    """What Slack calls its name leads nowhere."""
    answers["conversations.info"] = {"ok": True, "channel": {"id": CHANNEL, "name": "mpdm-jane--max-1", "is_mpim": True}}
    async with planned(block, "slack_post", channel=CHANNEL, text="x") as plan:
        await plan.send()
    assert [call["channel"] for call in asked(service, "chat.postMessage")] == [CHANNEL]


@pytest.mark.parametrize("given_as", ["jane@acme.com", "U0JANE00000"])
@pytest.mark.parametrize(
    ("info", "told"),
    [
        ({"ok": True, "user": {"id": "U0JANE00000", "name": "jane"}}, r" is @jane: use that name, rules name people so$"),
        (refused("missing_scope", needed="users:read"), r"lacks the scope users:read: add it to the app"),
    ],
)
async def test_an_id_is_no_second_name_of_a_person(block: Slack, answers: Answers, given_as: str, info: dict[str, Any], told: str) -> None:
    """Nor is an address."""
    answers |= {"users.lookupByEmail": {"ok": True, "user": {"id": "U0JANE00000"}}, "users.info": info}
    with pytest.raises(ToolError, match=told):
        async with planned(block, "slack_direct_message", user=given_as, text="x"):
            pass


# --- looking up


def message(**fields: Any) -> dict[str, Any]:
    return {"type": "message", "ts": TS, "user": "U0BOT000000", "bot_id": "B0BOT000000", "text": POST["text"], **fields}


def marked(key: str) -> dict[str, Any]:
    return {"metadata": {"event_type": "prefect_routine", "event_payload": {"key": key}}}


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        (message(**marked(context().key)), True),
        (message(**marked(context().key), text="edited meanwhile"), True),
        (message(**marked("another")), False),
        (message(**marked(context().key), user="U0JANE00000", bot_id=None), False),
        (message(text="See <https://acme.com/a>"), True),
        (message(text="See <https://acme.com/b>"), False),
        (message(text=POST["text"], user="U0JANE00000", bot_id=None), False),
    ],
    ids=[
        "key",
        "key, edited",
        "other key",
        "key, of another person",
        "no metadata, same text",
        "no metadata, other text",
        "somebody's text",
    ],
)
async def test_a_message_is_found_by_its_key(block: Slack, answers: Answers, shown: dict[str, Any], found: bool) -> None:
    """By its text only where Slack shows no metadata at all; and it must be of our own."""
    answers["conversations.history"] = {"ok": True, "messages": [message(text="older", ts="1.000001"), shown]}
    async with planned(block, "slack_post", **POST) as plan:
        assert (await plan.find() is not None) is found


async def test_it_is_looked_for_on_all_pages(block: Slack, answers: Answers, service: HttpService) -> None:
    """And no further back than the session goes."""
    ours = message(**marked(context().key))

    def page(request: Asked) -> dict[str, Any]:
        first = "cursor" not in given(request)
        more = {"response_metadata": {"next_cursor": "two" if first else ""}}
        return {"ok": True, "messages": [message(**marked("x"))] if first else [ours], **more}

    answers["conversations.history"] = page
    async with planned(block, "slack_post", **POST) as plan:
        assert TS in await plan.find()
    first, second = asked(service, "conversations.history")
    assert second["cursor"] == "two"
    assert first["include_all_metadata"] == "true"
    assert float(first["oldest"]) > 1_700_000_000


async def test_without_the_scope_for_metadata_the_text_is_looked_for(block: Slack, answers: Answers) -> None:
    """Then metadata is not asked for."""

    def page(request: Asked) -> dict[str, Any]:
        if "include_all_metadata" in given(request):
            return refused("missing_scope", needed="metadata.message:read", provided="channels:history")
        return {"ok": True, "messages": [message()]}

    answers["conversations.history"] = page
    async with planned(block, "slack_post", **POST) as plan:
        assert TS in await plan.find()


@pytest.mark.parametrize("answer", [refused("missing_scope", needed="channels:history"), refused("invalid_auth"), Said({}, 404)])
async def test_a_look_up_that_fails_leaves_the_outcome_unknown(block: Slack, answers: Answers, answer: Any) -> None:
    """It does not mean that nothing was sent."""
    answers["conversations.history"] = answer
    async with planned(block, "slack_post", **POST) as plan:
        with pytest.raises(OutcomeUnknown, match=r"whether it was sent is unknown"):
            await plan.find()


# --- files


async def uploaded(block: Slack, answers: Answers, address: str) -> list[Asked]:
    took: list[Asked] = []

    def take(request: Asked) -> Said:
        took.append(request)
        return Said(b"OK")

    answers["files.getUploadURLExternal"] = {"ok": True, "upload_url": address, "file_id": "F1"}
    answers["F1"] = take
    answers["files.completeUploadExternal"] = {"ok": True, "files": [{"id": "F1", "permalink": "https://acme.slack.com/files/F1"}]}
    async with planned(block, "slack_upload_file", channel="#docs", name="a.md", content="x") as plan:
        assert await plan.send() == "Uploaded a.md. https://acme.slack.com/files/F1"
    return took


async def test_a_file_is_put_up_without_the_token(block: Slack, answers: Answers, service: HttpService) -> None:
    """The address is the login."""
    [request] = await uploaded(block, answers, f"{service.url}/upload/F1")
    assert request.body == b"x"
    assert "authorization" not in request.headers


@pytest.mark.parametrize("other", ["http://127.0.0.2:1/F1", "https://127.0.0.1/F1", "file:///etc/passwd", "http://evil.org/F1"])
async def test_a_file_goes_nowhere_but_to_slack(block: Slack, answers: Answers, service: HttpService, other: str) -> None:
    """Not where an answer points to."""
    with pytest.raises(ServiceError, match=r"which is not its own address; nothing was sent"):
        await uploaded(block, answers, other)
    assert asked(service, "files.completeUploadExternal") == []


@pytest.mark.parametrize("step", ["files.getUploadURLExternal", "F1"])
async def test_a_file_that_was_not_completed_is_known_not_to_be_there(
    block: Slack, answers: Answers, service: HttpService, step: str
) -> None:
    """Nobody has seen anything of it."""
    answers["files.getUploadURLExternal"] = {"ok": True, "upload_url": f"{service.url}/upload/F1", "file_id": "F1"}
    answers[step] = Said({}, 404)
    async with planned(block, "slack_upload_file", channel="#docs", name="a.md", content="x") as plan:
        with pytest.raises(ServiceError) as error:
            await plan.send()
    assert not isinstance(error.value, OutcomeUnknown)
    assert asked(service, "files.completeUploadExternal") == []
