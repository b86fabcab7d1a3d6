"""`routines run`: whole runs, watched from the outside."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect import get_client

from prefect_routines.testing import LocalForge, ScriptedClaude, attempts, call, fail, say
from prefect_routines.testing.api import Scripts

from .terminal import Terminal

StartClaude = Callable[[Scripts], ScriptedClaude]
DONE = say(call("report", verdict="done", summary="It was done.", evidence=["I looked."]))


def test_a_run_is_shown_as_it_goes(online: Terminal, claude: StartClaude, forge: LocalForge, ask: str) -> None:
    """Turns, calls, checks, retries and pushes are shown with cost and duration; the verdict and the branch come last; status 0."""
    docs = forge.repository("docs", {"api.md": "hello(name)\n"})
    script = claude(
        [
            say("I look first.\nThen I write.", call("read", path="docs/api.md"), call("bash", command="false")),
            attempts(fail(529), say(call("bash", command="cd docs && sed -i s/name/nam/ api.md && git commit -qam 'Say more'"))),
            say(call("push", repository="docs")),
            say(call("bash", command="sed -i s/nam/name,loud/ api.md && git commit -qam 'Mend it'")),
            say(call("push", repository="docs")),
            DONE,
        ]
    )
    (online.directory / "settings.yaml").write_text(
        f"repositories: [{docs.url}]\nchecks: [{{repository: docs, command: grep loud api.md}}]\npolicy: {{allow: [push]}}\n"
    )
    done = online.run("run", ask, "--param", "prompt=Document it", "--settings", "settings.yaml", **script.environment())
    assert done.status == 0, done.err
    [push] = docs.pushes
    for line in (
        r"^ask · \S+",
        r"^http://127\.0\.0\.1:\d+/runs/flow-run/",
        r"^Session ses-\w+",
        r"^ +cloned docs \(main @ \w{12}\)",
        r"^Turn 1  \$0\.\d+  I look first\.$",
        r"^ +✓ +\d+\.\d\d s  read: docs/api\.md",
        r"^ +✗ +\d+\.\d\d s  bash: false · exit 1",
        r"^ +↻ turn 2, attempt 1: .*529|^ +↻ turn 2, attempt 1: .*overloaded",
        r"^Turn 2  \$0\.\d+  → bash",
        r"^ +✗ .* push: docs · checks failed",
        r"^ +✗ .* check docs: grep loud api\.md · exit 1",
        r"^ +✓ .* check docs: grep loud api\.md$",
        rf"^ +↑ pushed docs: {push.branch} @ {(push.new or '')[:12]} · 1 file$",
        r"^✓ done$",
        r"^  It was done\.$",
        r"^  · I looked\.$",
        rf"^  branch  docs: {push.branch} @ ",
        r"^  cost    \$0\.\d+ · 6 turns, [\d,]+ tokens, \d+ s$",
        r"routines show ses-",
    ):
        assert re.search(line, done.out, re.MULTILINE), f"{line}\n{done.out}"
    assert done.err == ""
    assert "\x1b" not in done.out, "colour belongs on terminals only"


def test_text_from_outside_cannot_act_on_the_terminal(online: Terminal, claude: StartClaude, ask: str) -> None:
    """Escape codes of Claude's and of tools are shown, not obeyed; what looks like markup stays as it is - also on a real terminal."""
    clear, title, markup = "\x1b[2J", "\x1b]0;owned\x07", "[bold red]not markup[/bold red] :smile: [/nope]"
    script = [
        say(f"{clear}{title}{markup} \u202eback", call("bash", command=f"printf 'x{clear}' # {title}{markup}")),
        say(call("report", verdict="done", summary=f"{clear}{markup}", evidence=[title], links=[clear])),
    ]
    given = claude([*script]).environment()
    status, said = Terminal(online.directory, {**online.environment, **given}).run_on_a_tty("run", ask, "-p", f"prompt=x{title}")
    assert status == 0, said
    assert "\x1b[1" in said, "a terminal has colour"
    for hostile in (clear, title, "\x07", "\u202e"):
        assert hostile not in said
    session = re.search(r"ses-\w+", said)
    assert session
    shown = online.run("show", session[0])
    for text in (said, shown.out):
        flat = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\s+", " ", text)
        assert "\\x1b[2J" in flat
        assert "\\x1b]0;owned\\x07" in flat
        assert "[bold red]not markup[/bold red] :smile: [/nope]" in flat
        assert "\\u202eback" in flat
    assert "\x1b" not in shown.out


@pytest.mark.parametrize(("verdict", "status"), [("nothing_to_do", 0), ("needs_attention", 1), ("failed", 1)])
def test_only_a_green_verdict_is_success(online: Terminal, claude: StartClaude, ask: str, verdict: str, status: int) -> None:
    """The exit status is 0 for green verdicts and 1 for the others, and the verdict is in the output."""
    script = claude([say(call("report", verdict=verdict, summary="As it is."))])
    done = online.run("run", ask, "-p", "prompt=x", **script.environment())
    assert done.status == status
    assert verdict.replace("_", " ") in done.out
    assert done.err == ""


def test_the_end_as_json(online: Terminal, done: dict[str, str], ask: str) -> None:
    """With --json stdout is one JSON object with the run and its sessions; what a person watches goes to stderr."""
    ran = online.run("run", ask, "-p", "prompt=x", "--set", "budget.turns=3", "--json", **done)
    data = json.loads(ran.out)
    assert data["run"]["exit_status"] == ran.status == 0
    assert (data["run"]["state"], data["run"]["error"], data["run"]["flow"]) == ("Completed", None, "ask")
    [session] = data["sessions"]
    assert session["session"]["verdict"] == "done"
    assert session["session"]["flow_run_id"] == data["run"]["id"]
    assert [entry["seq"] for entry in session["entries"]] == list(range(1, len(session["entries"]) + 1))
    assert session["spend"]["dollars"] > 0
    assert "Turn 1" in ran.err
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(data["run"]["id"]).parameters == {"prompt": "x", "settings": {"budget": {"turns": 3}}}


def test_a_payload_of_any_size_is_read_by_claude_as_an_event(online: Terminal, claude: StartClaude, ask: str) -> None:
    """A payload larger than Prefect takes goes through the inbox: only its id is a parameter, Claude reads the text with read_event."""
    (online.directory / "alert.json").write_bytes(b'{"text": "' + b"x" * 700_000 + b'the end\xff"}')
    script = claude([say(call("read_event")), DONE])
    done = online.run("run", ask, "-p", "prompt=Look", "--payload", "alert.json", "--json", **script.environment())
    assert done.status == 0, done.err
    assert '{"text": "xxx' in script.requests[1].result("read_event").text
    with get_client(sync_client=True) as client:
        parameters = client.read_flow_run(json.loads(done.out)["run"]["id"]).parameters
    assert re.fullmatch(r"evt-\w+", parameters["event"])
    second = claude([say(call("read_event")), DONE])
    shown = online.run("run", ask, "-p", "prompt=Look", "--text", "Something broke", **second.environment())
    assert shown.status == 0, shown.err
    assert "Something broke" in second.requests[1].result("read_event").text


@pytest.mark.parametrize(("number", "message"), [(signal.SIGINT, "Stopped with Ctrl-C"), (signal.SIGTERM, "Stopped by SIGTERM")])
def test_stopping_and_going_on(online: Terminal, claude: StartClaude, ask: str, number: signal.Signals, message: str) -> None:
    """Ctrl-C ends the run in order - cancelled in Prefect, nothing left running - and the line it prints goes on with the session."""
    script = claude([say("I wait.", call("bash", command="sleep 3119")), say("I go on."), DONE])
    with online.start("run", ask, "-p", "prompt=x", **script.environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        head: list[str] = []
        while not head or not head[-1].startswith("Turn 1"):
            head.append(process.stdout.readline())
            assert head[-1], "".join(head)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    flow_run = head[1].strip().rsplit("/", 1)[-1]
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(flow_run).state
    assert state is not None
    assert (state.name, state.message) == ("Cancelled", message)
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if b"sleep\x003119" in _bytes(p)]
    again = re.search(r"Go on with: routines (run .*)", said)
    assert again, said
    done = online.run(*again[1].split(), **script.environment())
    assert done.status == 0, done.err
    assert flow_run in done.out
    assert "goes on where it was" in done.out
    assert len(script.requests) == 3, "no turn is asked for twice"
    ended = online.run(*again[1].split(), **script.environment())
    assert ended.status == 2
    assert "has ended with the verdict done" in ended.err


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_hand_written_flow_with_two_sessions(online: Terminal, claude: StartClaude) -> None:
    """A plain flow runs too; its sessions are told apart, its parameters are typed, and a verdict that is not green decides."""
    (online.directory / "pair.py").write_text(
        "from prefect import flow\nfrom prefect_routines import Session\n\n@flow\nasync def pair(rounds: int = 1):\n"
        "    assert isinstance(rounds, int)\n"
        "    async with Session('writer') as writer:\n        await writer.run('Write.')\n"
        "    async with Session('critic') as critic:\n        await critic.run('Review.')\n"
    )
    report = {"writer": "done", "critic": "needs_attention"}

    def play(request: object) -> object:
        name = "writer" if "Write." in str(request.messages) else "critic"  # type: ignore[attr-defined]
        return say(call("report", verdict=report[name], summary=f"The {name} is through."))

    script = claude([play])
    done = online.run("run", "pair.py", "-p", "rounds=2", **script.environment())
    assert done.status == 1, done.err
    assert "Session writer ses-" in done.out
    assert re.search(r"^critic Turn 1", done.out, re.MULTILINE)
    assert "The critic is through." in done.out
    assert online.run("sessions").out.count("pair/") == 2


def test_a_cancelled_session_ends_a_hand_written_flow(online: Terminal, claude: StartClaude) -> None:
    """`routines cancel` in another terminal: the run is cancelled and says who did it, though the flow swallows errors."""
    (online.directory / "careless.py").write_text(
        "from prefect import flow\nfrom prefect_routines import Session\n\n@flow\nasync def careless():\n    try:\n"
        "        async with Session('careless') as session:\n            await session.run('Work.')\n"
        "    except Exception:\n        print('swallowed')\n    return 'went on'\n"
    )
    script = claude([say("I wait.", call("bash", command="sleep 3118")), say("Never said.")])
    with online.start("run", "careless.py", **script.environment()) as process:
        assert process.stdout is not None
        head: list[str] = []
        while not head or "Turn 1" not in head[-1]:
            head.append(process.stdout.readline())
            assert head[-1], "".join(head)
        session = re.search(r"ses-\w+", "".join(head))
        assert session, head
        cancelled = online.run("cancel", session[0], "--as", "ada")
        assert cancelled.status == 0, cancelled.err
        out, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert "cancelled by ada" in said
    assert f"routines resume {session[0]}" in said
    assert "Traceback" not in said + out
    assert "swallowed" not in out
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(head[1].strip().rsplit("/", 1)[-1]).state
    assert state is not None
    assert state.name == "Cancelled"


def test_a_plain_flow_without_sessions(online: Terminal) -> None:
    """Any flow can be run; one that raises is told in one line."""
    (online.directory / "plain.py").write_text(
        "from prefect import flow\n\n@flow\ndef add(a: int, b: int = 1):\n"
        "    print('sum', a + b)\n    if a < 0:\n        raise ValueError('too small')\n"
    )
    done = online.run("run", "plain.py", "-p", "a=2")
    assert done.status == 0, done.err
    assert "sum 3" in done.out
    bad = online.run("run", "plain.py", "-p", "a=-2")
    assert bad.status == 1
    assert bad.err == "error: ValueError: too small\n"


def test_a_flow_of_a_module(online: Terminal, done: dict[str, str]) -> None:
    """`module:name` works beside paths; a file may import its neighbours."""
    (online.directory / "words.py").write_text("TEXT = 'Do it.'\n")
    (online.directory / "work.py").write_text(
        "from prefect_routines import routine\nfrom words import TEXT\n\n@routine\ndef one() -> str:\n    'One.'\n    return TEXT\n\n"
        "@routine\ndef two() -> str:\n    'Two.'\n    return TEXT\n"
    )
    assert online.run("run", "work:one", **done).status == 0
    which = online.run("run", "work.py")
    assert which.status == 2
    assert "there is one, two; name one of them: work.py:NAME" in which.err


FLOWS = """\
from prefect_routines import Policy, routine

@routine
def raises() -> str:
    "Raises."
    raise KeyError("nothing here")

@routine
def empty() -> None:
    "Returns nothing."

@routine(policy=Policy(allow=["fly(to=*)"]))
def rule() -> str:
    "Has a rule that names no tool."
    return "x"

@routine
def fine(count: int = 1) -> str:
    "Is fine."
    return "x"
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.py"], "nowhere.py: there is no such file"),
        (["nowhere"], "nowhere: there is no such file or module"),
        (["flows.py"], "there is empty, fine, raises, rule; name one of them"),
        (["flows.py:nowhere"], "no routine or flow 'nowhere'; there is empty, fine, raises, rule"),
        (["broken.py"], "broken.py cannot be loaded: ZeroDivisionError: division by zero (line 2)"),
        (["syntax.py"], "syntax.py cannot be loaded: SyntaxError: "),
        (["wrong.py"], "wrong.py: @routine: budget.turns: "),
        (["flows.py:raises"], "the prompt function raises raised KeyError: 'nothing here'"),
        (["flows.py:empty"], "the prompt function empty returned None"),
        (["flows.py:rule"], "the rule 'fly(to=*)' names no tool"),
        (["flows.py:fine", "--set", "policy.deny=['fly']"], "the rule 'fly' names no tool"),
        (["flows.py:fine", "--set", "policy.deny=['fly (']"], "is not a rule"),
        (["flows.py:fine", "--set", "repositories=[/nowhere/gone.git]"], "repository gone: there is no repository"),
        (["flows.py:fine", "--set", "repositories=[{url: 'https://e.org/x', credentials: secret/nowhere}]"], "no block 'secret/nowhere'"),
        (["flows.py:fine", "--set", "claude=anthropic-credentials/nowhere"], "there is no block 'anthropic-credentials/nowhere'"),
        (["flows.py:fine", "--set", "model=claude-nowhere"], "unknown model 'claude-nowhere'"),
        (["flows.py:fine", "--settings", "nowhere.yaml"], "settings file nowhere.yaml: No such file"),
        (["flows.py:fine", "--param", "count=x"], "parameter count: "),
        (["flows.py:fine", "--text", "hello"], "fine declares no parameter `event: Event | None`"),
        (["flows.py:fine", "--text", "a", "--payload", "flows.py"], "give either --text or --payload"),
        (["flows.py:fine", "--continue", "ses-none"], "session 'ses-none': there is none"),
        (["flows.py:fine", "--continue", "ses-none", "--rehearsal"], "--continue goes on with the parameters"),
    ],
)
def test_mistakes_are_one_line_and_cost_nothing(online: Terminal, claude: StartClaude, arguments: list[str], said: str) -> None:
    """What a person got wrong is told in one line with exit status 2, and Claude is asked nothing."""
    (online.directory / "flows.py").write_text(FLOWS)
    (online.directory / "broken.py").write_text("from prefect_routines import routine\n1 / 0\n")
    (online.directory / "syntax.py").write_text("def x(:\n")
    wrong = "from prefect_routines import routine\n\n@routine(budget={'turns': 0})\ndef x() -> str:\n    'X.'\n    return 'x'\n"
    (online.directory / "wrong.py").write_text(wrong)
    script = claude([DONE])
    done = online.run("run", *arguments, **script.environment())
    assert done.status == 2, done
    assert done.err.startswith("error: ")
    assert len(done.err.splitlines()) == 1, done.err
    assert said in done.err
    assert script.requests == []
    if "unknown model" in said:
        script.expect("claude-nowhere")


@pytest.mark.parametrize(("key", "said"), [("", "no login for Claude"), ("sk-wrong", "Claude refused the login (401")])
def test_a_login_that_is_missing_or_wrong(online: Terminal, claude: StartClaude, ask: str, key: str, said: str) -> None:
    """It is found out before a token is spent."""
    script = claude([DONE])
    done = online.run("run", ask, "-p", "prompt=x", **{**script.environment(), "ANTHROPIC_API_KEY": key})
    assert (done.status, len(done.err.splitlines())) == (2, 1), done.err
    assert said in done.err
    assert script.requests == []
    script.problems.clear()  # the refused login is what this is about


def test_a_parameter_that_is_no_text_is_refused(terminal: Terminal, ask: str) -> None:
    """Bytes that are no UTF-8 are refused before anything starts."""
    done = terminal.run("run", ask, "-p", b"prompt=a\xff")
    assert done.status == 2
    assert "lone surrogate" in done.err


def test_an_unwritable_store_leaves_nothing_behind(online: Terminal, ask: str, done: dict[str, str]) -> None:
    """Without the store no flow run is made: the remedy in one line."""
    ran = online.run("run", ask, "-p", "prompt=x", ROUTINES_HOME="/proc/nowhere", **done)
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.startswith("error: session store /proc/nowhere/store.db: cannot be opened for writing")
    assert "ROUTINES_DATABASE_URL" in ran.err


def test_an_unreachable_prefect_is_told_with_the_remedy(terminal: Terminal, ask: str) -> None:
    """Nothing starts without Prefect's API; the line names the address and what to do."""
    done = terminal.run("run", ask, "-p", "prompt=x", PREFECT_API_URL="http://127.0.0.1:1/api", ANTHROPIC_API_KEY="x")
    assert done.status == 2
    assert "Prefect cannot be reached at http://127.0.0.1:1/api" in done.err
    assert "prefect server start" in done.err
    assert len(done.err.splitlines()) == 1


def test_the_service_failing_in_the_middle(online: Terminal, claude: StartClaude, ask: str) -> None:
    """A run that breaks after Claude was asked has status 1, its cause in one line, and a line that says how to go on."""
    script = claude([say("First.", call("bash", command="true")), fail(402, message="No credit is left.")])
    done = online.run("run", ask, "-p", "prompt=x", **script.environment())
    assert done.status == 1
    cause, how = done.err.splitlines()
    assert "No credit is left." in cause
    assert re.fullmatch(r"Not finished; nothing is lost\. Go on with: routines run \S+ask\.py --continue ses-\w+", how)


def test_without_a_server_prefect_starts_one_for_the_run(terminal: Terminal, done: dict[str, str], ask: str) -> None:
    """With no PREFECT_API_URL a temporary server is started, which is said and waited for; it ends with the run."""
    home = str(terminal.directory / "prefect")
    ran = terminal.run("run", ask, "-p", "prompt=x", PREFECT_API_URL="", PREFECT_HOME=home, **done)
    assert ran.status == 0, ran.err
    assert ran.err.startswith("No PREFECT_API_URL is set")
    assert not [p for p in Path("/proc").glob("[0-9]*/environ") if f"PREFECT_HOME={home}".encode() in _bytes(p)]
