"""`routines inbox`, over a store that was filled by hand; with a Prefect server and a gateway where something is to start."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from gateway.inbox_world import answering, deliver, deploy, issue, runs_of, unique
from prefect_routines.store import FAILED, Delivery, Dispatch, DispatchStatus, Store

from .terminal import Terminal

T = TypeVar("T")
NASTY = "\x1b[2J\x1b]0;owned\x07\u202e\ud800 [red]x[/red]"
NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens
SES = "ses-0123456789abcdef01234567"


def in_store(terminal: Terminal, work: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
    """Do something with the store that the terminal's commands use."""

    async def opened() -> T:
        async with await Store.open(f"sqlite+aiosqlite:///{terminal.directory}/home/store.db") as store:
            return await work(store)

    (terminal.directory / "home").mkdir(exist_ok=True)
    return asyncio.run(opened())


def _delivery(name: str, minutes: float, **changes: Any) -> Delivery:
    made = Delivery(
        id=f"{name}-0000",
        source="github",
        delivery_id=f"guid-{name}",
        kind="issues",
        body=json.dumps({"name": name, "title": NASTY}),
        repository="acme/docs",
        number=7,
        event="github.issues.opened",
        labels={"resource": {"github.repository": "acme/docs"}, "related": []},
        received_at=datetime.now(UTC) - timedelta(minutes=minutes),
        content_type="application/json",
    )
    return replace(made, **changes)


def _dispatch(delivery: str, status: DispatchStatus, reason: str | None = None, name: str = "docs/main", session: str = SES) -> Dispatch:
    at = datetime.now(UTC) - timedelta(minutes=5)
    return Dispatch(f"{delivery}-0000", str(uuid.uuid5(uuid.NAMESPACE_DNS, ascii(name))), name, status, session, reason, created_at=at)


async def _fill(store: Store) -> None:
    nasty = {"repository": NASTY, "delivery_id": NASTY, "note": NASTY, "content_type": NASTY, "event": f"github.{NASTY}", "kind": NASTY}
    nasty |= {"labels": {"resource": {NASTY: NASTY}, "related": [{"prefect.resource.role": NASTY, "prefect.resource.id": NASTY}]}}
    nasty |= {"body": NASTY, "body_sha256": ""}
    rows: list[tuple[Delivery, list[Dispatch]]] = [
        (_delivery("aa11", 1, status="received"), []),
        (_delivery("aa22", 2, status="refused", note="nested deeper than 100 levels"), []),
        (_delivery("bb11", 3, status="unmatched", source="gitlab", event="webhook.gitlab.push"), []),
        (_delivery("bb22", 4), [_dispatch("bb22", "ended"), _dispatch("bb22", "filtered", "issue.title is 'x'", "critic/main")]),
        (_delivery("cc11", 5, status="received"), [_dispatch("cc11", "waiting")]),
        (_delivery("cc22", 6, status="ping", event=""), []),
        (_delivery("dd11", 7), [_dispatch("dd11", "queued", f"waits for session {SES}")]),
        (_delivery("ee11", 9), [_dispatch("ee11", "ended", session="ses-broken")]),
        (_delivery("dd22", 8, **nasty), [_dispatch("dd22", "own", NASTY, f"{NASTY}/main")]),
    ]
    for delivery, dispatches in rows:
        await store.record_delivery(delivery)
        await store.write_dispatches([(one, "new") for one in dispatches])
    for _ in range(2):
        await store.record_delivery(_delivery("again", 0, delivery_id="guid-bb22"))
    record = await store.create_session(session_id=SES, routine="docs", flow_run_id="run-1")
    await store.update_session(await store.acquire(record.id), status="ended", verdict="done")
    broken = await store.create_session(session_id="ses-broken", routine="docs", flow_run_id="run-2")
    await store.update_session(await store.acquire(broken.id), status="idle", data={FAILED: "the repository is not there"})


@pytest.fixture
def filled(terminal: Terminal) -> Terminal:
    """A terminal whose inbox holds some of everything."""
    in_store(terminal, _fill)
    return terminal


def test_each_delivery_is_accounted_for(filled: Terminal) -> None:
    """Newest first: session and verdict, the rule that filtered, no match, refusal with reason, what it waits for; how often it came."""
    done = filled.run("inbox")
    assert done.status == 0, done.err
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert [line[:4] for line in lines if re.match(r"[a-d]{2}\d\d", line)] == [
        "aa11", "aa22", "bb11", "bb22", "cc11", "cc22", "dd11", "dd22",
    ]  # fmt: skip
    for told in (
        "waiting for a gateway, since 1 min ago",
        "refused nested deeper than 100 levels",
        "unmatched no routine's trigger fits",
        "ping the webhook works",
        f"ended docs/main {SES} done",
        "ended docs/main ses-broken failed",
        "filtered critic/main issue.title is 'x'",
        "waiting docs/main for its run, since 5 min ago",
        f"queued docs/main waits for session {SES}",
    ):
        assert any(told in line for line in lines), told
    assert next(line for line in lines if line.startswith("bb22")).endswith("github.issues.opened acme/docs#7 3x")


def test_some_of_them(filled: Terminal) -> None:
    """By sender, status - their own or at a routine -, routine, number, and those that are a problem."""
    chosen = {
        ("--source", "gitlab"): ["bb11"],
        ("--status", "received"): ["aa11", "cc11"],
        ("--status", "filtered"): ["bb22"],
        ("--status", "duplicate"): ["bb22"],
        ("--deployment", "critic"): ["bb22"],
        ("--limit", "2"): ["aa11", "aa22"],
        ("--problems",): ["aa11", "aa22", "cc11", "ee11"],
        ("--source", "nobody"): [],
    }
    for options, wanted in chosen.items():
        assert [one["id"][:4] for one in json.loads(filled.run("inbox", *options, "--json").out)] == wanted, options
    assert "No such deliveries" in filled.run("inbox", "--source", "nobody").out
    refused = filled.run("inbox", "--status", "good")
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "there is received, settled" in refused.err


def test_an_empty_inbox(terminal: Terminal) -> None:
    """It says where the address for senders is told."""
    assert "routines show ROUTINE" in terminal.run("inbox").out


def test_as_data(filled: Terminal) -> None:
    """ASCII with stable keys, whatever is in it."""
    done = filled.run("inbox", "--json")
    assert done.out.isascii()
    one = next(one for one in json.loads(done.out) if one["id"] == "bb22-0000")
    assert set(one) == {
        "id", "source", "delivery_id", "event", "kind", "action", "repository", "number", "sha", "key", "received_at", "status", "note",
        "repeats", "sent", "settled_at", "content_type", "body_sha256", "replay_of", "became",
    }  # fmt: skip
    assert one["repeats"] == 2
    ended, filtered = sorted(one["became"], key=lambda each: each["status"])
    assert set(ended) == {
        "deployment", "deployment_id", "status", "reason", "session", "session_url", "verdict", "flow_run_id", "depth", "created_at",
        "ended_at",
    }  # fmt: skip
    assert (ended["status"], ended["session"], ended["verdict"]) == ("ended", SES, "done")
    assert ended["session_url"] == f"http://127.0.0.1:4280/sessions/{SES}"
    assert (filtered["status"], filtered["session"]) == ("filtered", None)


def test_one_delivery(filled: Terminal) -> None:
    """Everything that is known of it, found by the beginning of its id or its sender's id."""
    done = filled.run("inbox", "show", "bb2")
    assert done.status == 0, done.err
    for told in ("Delivery bb22-0000", "its id guid-bb22", "came 3 times", "acme/docs#7", f"/sessions/{SES}", "issue.title is 'x'"):
        assert told in done.out
    assert re.search(r"github\.repository +acme/docs", done.out)
    assert '"name": "bb22"' in done.out
    assert json.loads(filled.run("inbox", "show", "guid-bb22", "--json").out)["body"].startswith('{"name": "bb22"')
    for wrong, told in (("bb", "could be several"), ("zz", "there is none")):
        refused = filled.run("inbox", "show", wrong)
        assert (refused.status, refused.err.count("\n")) == (2, 1)
        assert told in refused.err


def test_the_body_as_it_came(filled: Terminal) -> None:
    """Byte by byte into a pipe."""
    body = b'{"raw": "\xff\xfe \x1b[2J \xc3\xa9"}'
    raw = _delivery("raw", 0, body=body.decode("utf-8", "surrogateescape"), body_sha256="")
    in_store(filled, lambda store: store.record_delivery(raw))
    with filled.start("inbox", "show", "raw", "--body") as process:
        assert process.stdout is not None
        assert process.stdout.buffer.read() == body


@pytest.mark.parametrize("command", [["inbox"], ["inbox", "show", "dd22"], ["inbox", "show", "dd22", "--body"]], ids=" ".join)
def test_nothing_of_a_stranger_reaches_the_terminal(filled: Terminal, command: list[str]) -> None:
    """Control characters are shown, not obeyed; markup is text; nothing is wider than the screen."""
    status, said = filled.run_on_a_tty(*command)
    assert status == 0, said
    assert "[red]x[/red]" in said.replace("\r\n", "").replace(" ", "")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)  # our own colours
    assert "\x1b" not in plain
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u202e]", plain)
    if command == ["inbox"]:
        assert max(len(line) for line in plain.splitlines()) <= 100


class TestReplay:
    """`routines inbox replay`."""

    @pytest.fixture
    def repository(self) -> str:
        """A repository of the test's own, so that tests do not trigger each other's deployments."""
        return f"acme/{unique('docs')}"

    @pytest.fixture
    def gateway(self, online: Terminal) -> Iterator[str]:
        """The address of one that runs."""
        (online.directory / "home").mkdir(exist_ok=True)
        with online.start("gateway", "--port", "0") as process:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            assert found is not None
            yield found[0]
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)

    def _settled(self, terminal: Terminal, repository: str) -> Delivery:
        return in_store(terminal, lambda store: deliver(store, "issues", issue(repository), status="settled"))

    def test_it_starts_what_its_triggers_say(self, online: Terminal, gateway: str, repository: str) -> None:
        """Within seconds, told with its new id; the list says what it repeats."""
        deployment = asyncio.run(deploy(answering(), match={"prefect.resource.id": f"github.repository.{repository}"}))
        delivery = self._settled(online, repository)
        done = online.run("inbox", "replay", delivery.id[:13], ROUTINES_GATEWAY_URL=gateway)
        assert done.status == 0, done.err
        again = re.search(r"delivered again as ([0-9a-f-]{36})", done.out)
        assert again is not None
        assert re.search(r"started +answer/d-", done.out), done.out
        [run] = asyncio.run(runs_of(deployment))
        assert run.parameters["event"] == again[1]
        listed = online.run("inbox").out
        assert f"replay of {delivery.id[:8]}" in listed
        shown = online.run("inbox", "show", again[1])
        assert f"of {delivery.id}" in shown.out
        assert f"run   {run.name}\n" in shown.out
        assert f"/runs/flow-run/{run.id}" in shown.out

    def test_for_one_routine(self, online: Terminal, gateway: str, repository: str) -> None:
        """Whatever its triggers say; as JSON for programs."""
        deployment = asyncio.run(deploy(answering(), expect="nothing.like.this"))
        delivery = self._settled(online, repository)
        done = online.run("inbox", "replay", delivery.id, "--deployment", deployment, "--json", ROUTINES_GATEWAY_URL=gateway)
        assert done.status == 0, done.err
        told = json.loads(done.out)
        assert (told["replay_of"], told["event"]) == (delivery.id, "routines.fire")
        [became] = told["became"]
        [run] = asyncio.run(runs_of(deployment))
        assert (became["status"], became["flow_run_id"]) == ("started", str(run.id))

    def test_without_a_gateway_it_waits(self, filled: Terminal) -> None:
        """And that is said."""
        done = filled.run("inbox", "replay", "bb22", ROUTINES_GATEWAY_URL=NOWHERE)
        assert done.status == 0, done.err
        assert "waiting" in done.out
        assert f"No gateway answers at {NOWHERE}" in done.err
        [newest] = json.loads(filled.run("inbox", "-n", "1", "--json").out)
        assert (newest["status"], newest["replay_of"], newest["repeats"]) == ("received", "bb22-0000", 0)

    def test_what_cannot_be(self, online: Terminal) -> None:
        """One line, and nothing is recorded."""
        in_store(online, _fill)
        paused = asyncio.run(deploy(answering(), paused=True))
        for arguments, told in (
            (["aa22"], "its sender has to send it again"),
            (["cc22"], "name one with --deployment"),
            (["bb22", "--deployment", paused], "is paused; `routines unpause"),
            (["bb22", "--deployment", "no-such-routine"], "there is no routine"),
        ):
            refused = online.run("inbox", "replay", *arguments, ROUTINES_GATEWAY_URL=NOWHERE)
            assert refused.status == 2, arguments
            assert told in refused.err.splitlines()[-1]
        assert len(json.loads(online.run("inbox", "--json").out)) == 9


class TestTest:
    """`routines inbox test`."""

    @pytest.fixture
    def repository(self, online: Terminal) -> str:
        """One with three deliveries: an issue opened, one about the docs, and one labelled."""
        repository = f"acme/{unique('docs')}"

        async def fill(store: Store) -> None:
            await deliver(store, "issues", issue(repository, number=1, title=f"Broken {NASTY}"), received_at=_hours_ago(12))
            await deliver(store, "issues", issue(repository, number=2, title="About the docs"), received_at=_hours_ago(2))
            await deliver(store, "issues", issue(repository, number=3, action="labeled"), received_at=_hours_ago(1))

        in_store(online, fill)
        return repository

    def test_which_part_says_no(self, online: Terminal, repository: str) -> None:
        """Of each delivery, with a forecast; nothing is started."""
        filtering = answering(when=[{"path": "issue.title", "contains": "docs"}])
        deployment = asyncio.run(deploy(filtering, match={"prefect.resource.id": f"github.repository.{repository}"}))
        done = online.run("inbox", "test", deployment)
        assert done.status == 0, done.err
        lines = [" ".join(line.split()) for line in done.out.splitlines()]
        assert any(f"fires github.issues.opened {repository}#2" in line for line in lines)
        assert any("when github.issues.opened" in line and line.endswith("#1") for line in lines)
        assert any(line.startswith("issue.title contains 'docs': it is 'Broken") for line in lines)
        assert not any("labeled" in line for line in lines)
        assert re.search(r"1 of 3 deliveries of the last 12\.\d hours would start it: about (2\.0|1\.9) a day", done.out)
        assert any("Not the others: 1 by event, 1 by when." in line for line in lines)
        assert "it is github.issues.labeled, not github.issues.opened" in online.run("inbox", "test", deployment, "--all").out
        assert asyncio.run(runs_of(deployment)) == []

    def test_other_conditions(self, online: Terminal, repository: str) -> None:
        """As a person types them, or as a file has them; as data; exit status 1 if it would never start."""
        deployment = asyncio.run(deploy(answering(), match={"prefect.resource.id": f"github.repository.{repository}"}))

        def fires(*conditions: str) -> tuple[int, list[str]]:
            options = [each for condition in conditions for each in ("--when", condition)]
            done = online.run("inbox", "test", deployment, "--json", *options)
            trials = json.loads(done.out)["trials"]
            return done.status, [trial["part"] for trial in trials]

        assert fires() == (0, ["event", "fires", "fires"])
        assert fires("issue.title starts with About") == (0, ["event", "fires", "when"])
        assert fires("issue.number is one of 1, 5", "{path: issue.title, contains: Broken}") == (0, ["event", "when", "fires"])
        assert fires("issue.milestone is present") == (1, ["event", "when", "when"])
        for wrong, told in (("issue.title", "PATH OPERATOR VALUE"), ("a..b equals c", "is not a path"), ("{path: [}", "no valid YAML")):
            refused = online.run("inbox", "test", deployment, "--when", wrong)
            assert (refused.status, refused.err.count("\n")) == (2, 1), refused.err
            assert told in refused.err

    def test_triggers_whose_event_never_comes(self, online: Terminal, repository: str) -> None:
        """What came instead is named, so that a slip in `expect` is seen; minutes are no forecast for a day."""
        (online.directory / "answers.py").write_text(ANSWERS)
        (online.directory / "new.yaml").write_text(STANZA.replace("REPOSITORY", repository).replace("github.issues.opened", "github.push"))
        done = online.run("inbox", "test", "new", "--file", "new.yaml")
        assert done.status == 1, done.err
        assert "What came: github.issues.opened, github.issues.labeled." in done.out

    def test_a_file(self, online: Terminal, repository: str) -> None:
        """A routine that is not deployed yet."""
        (online.directory / "answers.py").write_text(ANSWERS)
        (online.directory / "new.yaml").write_text(STANZA.replace("REPOSITORY", repository))
        done = online.run("inbox", "test", "new", "--file", "new.yaml")
        assert done.status == 0, done.err
        assert done.out.startswith("answer/new")
        assert "2 of 3 deliveries" in done.out
        refused = online.run("inbox", "test", "other", "--file", "new.yaml")
        assert "there is no deployment 'other'; there is new" in refused.err.splitlines()[-1]

    def test_a_routine_without_triggers(self, online: Terminal) -> None:
        """There is nothing to test, and why is said."""
        deployment = asyncio.run(deploy(answering(), passes={"x": "1"}))
        refused = online.run("inbox", "test", deployment)
        assert refused.status == 2
        assert "has no trigger that takes deliveries" in refused.err.splitlines()[-1]


def _hours_ago(hours: float) -> datetime:
    return datetime.now(UTC) - timedelta(hours=hours)


ANSWERS = '''
from prefect_routines import Event, routine

@routine
def answer(event: Event | None = None) -> str:
    """Answer."""
    return "Answer."
'''
STANZA = """
deployments:
  - name: new
    entrypoint: answers.py:answer
    work_pool: {name: routines}
    triggers:
      - expect: [github.issues.opened]
        match: {github.repository: REPOSITORY}
        parameters: {event: "{{ event.id | string }}"}
"""
