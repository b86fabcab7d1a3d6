"""The session page in a real browser: what is needed from a person first, live, on a phone, and safe from what it shows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from chromium import SHOTS
from session.journals import Written, agent, result, started, text, use, user

from .gateway_process import NOWHERE, Gateway
from .session_world import Session, World, asked, ready, sign_in

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HOSTILE = (
    "<img src=http://127.0.0.1:9/pixel onerror=alert(1)><script>alert(2)</script><svg/onload=alert(3)> [x](javascript:alert(4)) "
    "</pre></textarea></title><iframe src=http://127.0.0.1:9/frame></iframe> {{7*7}} \x1b[31mred\x1b[0m \u202egnp.exe "
)
DIFF = """diff --git a/docs/guide.md b/docs/guide.md
--- a/docs/guide.md
+++ b/docs/guide.md
@@ -1,4 +1,4 @@
 # Guide
-Use `sdk.connect(host)` to begin.
+Use `sdk.open(host, timeout=10)` to begin.
 Close it when you are done.
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    gateway = Gateway(tmp_path_factory.mktemp("gateway"), PREFECT_API_URL=NOWHERE, ROUTINES_GATEWAY_FAILURES_PER_MINUTE="10000")
    yield World(gateway)
    assert gateway.stop() == 0
    assert "Unexpected" not in gateway.log, gateway.log


def shot(page: Page, name: str) -> None:
    """Pictures for a person who wants to look: both sizes, light and dark."""
    if not SHOTS:
        return
    height = page.evaluate("document.documentElement.scrollHeight")
    for size, viewport in (("desktop", {**DESKTOP, "height": max(height, DESKTOP["height"])}), ("phone", PHONE)):
        page.set_viewport_size(viewport)  # type: ignore[arg-type]
        page.screenshot(path=f"{SHOTS}/{name}-{size}.png")
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=f"{SHOTS}/{name}-phone-dark.png")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]


def work() -> list[Written]:
    """A session in the middle of its work."""
    return [
        *ready(),
        user("Bring the documentation in step with what was merged to main in acme/sdk since the last run.", prompt=1),
        agent(
            text("I look at what was merged, and at the guide."),
            use("t1", command="git -C sdk log --oneline -5"),
            use("t2", name="read", path="docs/guide.md"),
            turn=1,
            dollars=0.0312,
        ),
        started("t1"),
        started("t2"),
        result("t1", "8f3c2a1 Rename connect to open (#41)\n77aa012 Add a time-out (#40)\n"),
        ("tool.result", {**result("t2", "# Guide\nUse `sdk.connect(host)` to begin.\n")[1], "name": "read", "note": "2 lines"}),
        agent(
            text("`connect` is now `open` and takes a time-out. I change the guide, and run its checks."),
            use("t3", command="mkdocs build --strict"),
            turn=2,
            dollars=0.0451,
        ),
        started("t3"),
        (
            "tool.result",
            {
                **result("t3", "WARNING - A reference to 'connect.md' is not in the nav\n", is_error=False)[1],
                "note": "exit 1",
                "seconds": 4.21,
            },
        ),
        agent(
            text("The navigation still names the old page; I mend that too."),
            use("t4", command="sed -i s/connect.md/open.md/ mkdocs.yml"),
            turn=3,
            dollars=0.0198,
        ),
        started("t4"),
    ]


def pushed() -> Written:
    push = {"repository": "docs", "branch": "claude/docs-sync-8f3c", "sha": "4be2a9d1c3f7", "files": ["docs/guide.md"], "diff": DIFF}
    check = {
        "repository": "docs",
        "sha": "4be2a9d1c3f7",
        "command": "mkdocs build --strict",
        "passed": True,
        "exit_code": 0,
        "seconds": 3.2,
        "output": "INFO - Documentation built",
    }
    return result("t4", "pushed", pushed=[push], checks=[check])


def test_it_is_seen_by_those_who_have_signed_in(page: Page, world: World) -> None:
    """Before: nothing, not even whether there is such a session. After signing out: nothing again."""
    session = world.session("docs-sync", *work())
    for path in (f"/sessions/{session.id}", "/sessions/ses-none", "/sessions"):
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 401
        assert "docs-sync" not in page.content()
    page.goto(f"/sessions/{session.id}")
    page.get_by_label("Token").fill("rt_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not known")
    shot(page, "sign-in")
    page.get_by_label("Token").fill(world.token("read"))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="docs-sync")).to_be_visible()
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["secure"]) == (True, "Strict", False)
    assert not cookie["value"].startswith("rt_")
    expect(page.get_by_role("textbox")).to_have_count(0)  # who may read only is shown no box
    page.goto("/sessions/ses-none")
    expect(page.get_by_text("there is no such session")).to_be_visible()
    page.goto("/sessions")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    assert page.context.cookies() == []


def test_a_person_watches_it_work_and_steers(page: Page, world: World) -> None:
    """Live text, calls as they end, a message, an interrupt, a stop that is asked about; what is sent lands under his name."""
    session = world.session("docs-sync", *work())
    sign_in(page, world, path=f"/sessions/{session.id}", name="ada")
    expect(page.locator(".badge")).to_have_text("running")
    expect(page.locator("#head")).to_contain_text("Runs bash: sed -i s/connect.md/open.md/ mkdocs.yml")
    expect(page.locator("#head")).to_contain_text("of $10.00")
    world.gateway.until(lambda: world.gateway.in_store(lambda store: store.pulse(session.id)).watched)
    session.write(result("t4", "done"))
    expect(page.locator(".call").last).to_contain_text("0.1 s")
    session.show_live(4, "Now I build the pages again, and push ")
    expect(page.locator("#live")).to_contain_text("and push")
    session.show_live(4, "Now I build the pages again, and push them if they are clean.")
    expect(page.locator("#live .text")).to_have_text("Now I build the pages again, and push them if they are clean.")
    shot(page, "running")
    page.get_by_label("Message to Claude").fill("There is a pull request already, stop.")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator("#pending")).to_contain_text("There is a pull request already, stop.")
    expect(page.get_by_label("Message to Claude")).to_have_value("")
    page.get_by_role("button", name="Suspend").click()
    expect(page.locator("#pending")).to_contain_text("suspend")
    page.get_by_text("Cancel the session…").click()
    page.get_by_role("button", name="Yes, cancel the session").click()
    expect(page.get_by_role("status")).to_contain_text("being cancelled")
    assert [(act.kind, act.text, act.person, act.via) for act in session.acts] == [
        ("message", "There is a pull request already, stop.", "ada", "page"),
        ("suspend", "", "ada", "page"),
        ("cancel", "", "ada", "page"),
    ]
    session.end("needs_attention", "A person has told me that there is a pull request already.")
    expect(page.locator(".badge")).to_have_text("! needs attention")
    expect(page.get_by_role("button", name="Send", exact=True)).to_have_count(0)
    expect(page.locator("#live")).to_be_hidden()


def test_a_person_approves(page: Page, world: World) -> None:
    """Sees exactly what will be done, changes it, approves; the answer holds the hash of what was shown."""
    session = world.session("docs-sync", *work())
    form = session.ask()
    sign_in(page, world, path=f"/sessions/{session.id}", name="ada")
    expect(page.locator(".badge")).to_have_text("waits for a person")
    need = page.locator("#needs")
    expect(need).to_contain_text("The documentation is up to date again.")
    expect(page.get_by_role("button", name="Interrupt")).to_have_count(0)  # it would hit the call that is approved
    shot(page, "approval")
    need.get_by_text("Change the arguments").click()
    area = need.get_by_label("Changed arguments")
    area.fill(area.input_value().replace("up to date again", "fresh"))
    need.get_by_role("button", name="Approve", exact=True).click()
    expect(page.locator("#needs form")).to_have_count(0)
    expect(page.get_by_role("button", name="Interrupt")).to_have_count(2)
    kept = session.form(form.id)
    assert (kept.status, kept.person, kept.via) == ("answered", "ada", "page")
    assert kept.answer is not None
    assert kept.answer["decisions"]["toolu_9"] == {
        "decision": "approve",
        "reason": "",
        "arguments": {"channel": "#docs", "text": "The documentation is fresh."},
        "hash": form.content["calls"][0]["hash"],
    }


def test_a_person_denies_answers_and_raises(page: Page, world: World) -> None:
    """Each kind of form has its own buttons; who is too late is told so."""
    session = world.session("docs-sync", *work())
    form = session.ask(content={"calls": [asked("a", editable=False), asked("b", editable=False)]})
    sign_in(page, world, path=f"/sessions/{session.id}")
    page.get_by_label("Reason").first.fill("Not this week")
    page.get_by_role("button", name="Deny all 2 calls").click()
    expect(page.locator("#needs form")).to_have_count(0)
    answer = session.form(form.id).answer
    assert answer is not None
    assert [(one["decision"], one["reason"]) for one in answer["decisions"].values()] == [("deny", "Not this week"), ("deny", "")]

    asks = {"id": "q1", "question": "Which of the two guides shall I change?", "choices": ["The short one", "The long one"]}
    question = session.ask("question", {"questions": [asks]})
    page.get_by_label("The long one").check()
    shot(page, "question")
    page.get_by_role("button", name="Answer").click()
    expect(page.locator("#needs form")).to_have_count(0)
    answer = session.form(question.id).answer
    assert answer is not None
    assert answer["replies"] == {"q1": "The long one"}

    budget = session.ask("budget", {"reached": "200 of 200 turns", "used": {}})
    expect(page.locator("#needs")).to_contain_text("200 of 200 turns")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("status")).to_contain_text("say how much more")
    page.get_by_label("More turns").fill("20")
    shot(page, "budget")
    world.gateway.in_store(lambda store: store.answer_form(budget.id, {"action": "stop"}, person="grace", via="cli"))
    late = page.request.post(
        f"/sessions/{session.id}/forms/{budget.id}",
        form={"action": "continue", "more.turns": "20"},
        headers={"Accept": "application/json", "Origin": f"http://127.0.0.1:{world.gateway.port}"},
    )
    assert late.status == 409
    assert "grace has answered it already" in late.json()["error"]["message"]


def test_enter_decides_nothing(page: Page, world: World) -> None:
    """A reason is being typed, a choice is being made: no key but those on a button answers."""
    session = world.session("docs-sync", *work())
    questions = [{"id": "q", "question": "Which?", "choices": ["first", "second"]}]
    form = session.ask(content={"calls": [asked()], "questions": questions})
    sign_in(page, world, path=f"/sessions/{session.id}")
    page.get_by_label("first").check()
    page.get_by_label("first").press("Enter")
    page.get_by_label("Reason").press_sequentially("No")
    page.get_by_label("Reason").press("Enter")
    page.get_by_label("Reason").press("Control+Enter")
    page.get_by_label("Message to Claude").fill("Sent by keys")
    page.get_by_label("Message to Claude").press("Control+Enter")
    expect(page.locator("#pending")).to_contain_text("Sent by keys")
    assert session.form(form.id).status == "open"
    page.get_by_role("button", name="Deny", exact=True).click()
    expect(page.locator("#needs form")).to_have_count(0)
    answer = session.form(form.id).answer
    assert answer is not None
    assert (answer["decisions"]["toolu_9"]["decision"], answer["replies"]) == ("deny", {"q": "first"})


def test_what_was_typed_for_one_call_is_not_sent_for_another(page: Page, world: World) -> None:
    """Another form in its place begins empty; the same form, drawn again because one came beside it, keeps what was typed."""
    session = world.session("docs-sync", *work())
    first = session.ask(content={"calls": [asked(text="first")]})
    sign_in(page, world, path=f"/sessions/{session.id}")
    page.get_by_text("Change the arguments").click()
    page.get_by_label("Changed arguments").fill('{"text": "meant for the first"}')
    page.get_by_label("Reason").fill("of the first")
    second = session.ask(content={"calls": [asked(text="second")]})
    expect(page.locator("#needs form")).to_have_count(2)
    expect(page.get_by_label("Changed arguments").first).to_have_value('{"text": "meant for the first"}')
    expect(page.get_by_label("Changed arguments").first).to_be_visible()
    expect(page.get_by_label("Reason").last).to_have_value("")
    world.gateway.in_store(lambda store: store.close_form(first.id, "withdrawn", None, person="the session"))
    expect(page.locator("#needs form")).to_have_count(1)
    expect(page.locator("#needs")).to_contain_text("second")
    expect(page.get_by_label("Reason")).to_have_value("")
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page.locator("#needs form")).to_have_count(0)
    answer = session.form(second.id).answer
    assert answer is not None
    assert "arguments" not in answer["decisions"]["toolu_9"]


def test_it_works_without_scripts(browser: Browser, world: World) -> None:
    """Plain forms: signing in, answering, sending; news come when the page is loaded again."""
    session = world.session("docs-sync", *work())
    form = session.ask()
    context = browser.new_context(base_url=f"http://127.0.0.1:{world.gateway.port}", viewport=PHONE, java_script_enabled=False)
    page = context.new_page()
    sign_in(page, world, path=f"/sessions/{session.id}")
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page.locator("#needs form")).to_have_count(0)
    assert session.form(form.id).status == "answered"
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_text("the message is empty")).to_be_visible()
    page.get_by_role("link", name="Back").click()
    page.get_by_label("Message to Claude").fill("Hello")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator("#pending")).to_contain_text("Hello")
    context.close()


def test_a_link_from_elsewhere_opens_for_who_has_signed_in(page: Page, world: World) -> None:
    """The browser sends no cookie with a click on another site; the page looks again by itself."""
    session = world.session("docs-sync", *work())
    sign_in(page, world)
    page.goto(f"http://localhost:{world.gateway.port}/sign-in")  # another site with the same gateway behind it
    expect(page.get_by_label("Token")).to_be_visible()
    page.evaluate(f"location.href = 'http://127.0.0.1:{world.gateway.port}/sessions/{session.id}'")
    expect(page.get_by_role("heading", name="docs-sync")).to_be_visible()


def test_long_texts_are_there_as_a_whole(page: Page, world: World) -> None:
    """As plain text, in which nothing acts."""
    long = "\n".join(f"line {number} <b>x</b> \x1b[2J" for number in range(2000))
    session = world.session("docs-sync", *ready(), agent(use("t1", command="make")), started("t1"), result("t1", long))
    sign_in(page, world, "read", path=f"/sessions/{session.id}")
    page.locator(".call summary").click()
    expect(page.locator(".call .result")).to_contain_text("characters …]")
    address = page.locator(".call .more a").get_attribute("href")
    answer = page.request.get(address or "")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.text() == long.replace("\x1b", "\\x1b")
    for path in ("0", "1", "99", "x", "4'"):
        assert page.request.get(f"/sessions/{session.id}/entries/{path}").status == 404, path


def test_a_finished_session_shows_what_came_of_it(page: Page, world: World) -> None:
    """Verdict and summary on top, then the diff and what was sent, then how it came about."""
    session = world.session("docs-sync", *work(), pushed(), deployment="d-1")
    write = {
        "tool": "github_open_pull_request",
        "target": "acme/docs",
        "status": "done",
        "link": "https://github.com/acme/docs/pull/7",
        "request": {"title": "Say open instead of connect", "body": "Since #41 it is called `open`."},
    }
    session.write(
        agent(text("I open the pull request."), use("t5", "github_open_pull_request", repository="acme/docs"), turn=4),
        started("t5"),
        result("t5", "opened #7", output=write),
    )
    session.end("done", "The guide says `open` now, as the code does since #41; the pull request is open.")
    sign_in(page, world, path=f"/sessions/{session.id}")
    expect(page.locator(".badge")).to_have_text("✓ done")
    page.locator("#results summary").first.click()
    expect(page.locator(".diff .added")).to_have_text("+Use `sdk.open(host, timeout=10)` to begin.\n")
    page.locator("#results summary").last.click()
    expect(page.get_by_role("link", name="https://github.com/acme/docs/pull/7")).to_be_visible()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    shot(page, "finished")


def test_the_list_finds_sessions(page: Page, world: World) -> None:
    """By routine, state and verdict; those with nothing to do can be hidden; and only what the token may see."""
    routine = f"weekly-{uuid4().hex[:6]}"
    at_work, waiting, done, idle = (world.session(routine, *work()) for _ in range(4))
    waiting.ask()
    done.end("done", "Three pages say again what the code does.")
    idle.end("nothing_to_do", "Nothing was merged since Monday.")
    sign_in(page, world, "read", routine=routine)
    rows = page.locator(".sessions li")
    expect(rows).to_have_count(4)
    expect(rows.filter(has_text="waits for a person")).to_have_count(1)
    page.get_by_label("hide “nothing to do”").check()
    expect(rows).to_have_count(3)
    page.get_by_label("verdict").select_option("done")
    expect(rows).to_have_count(1)
    rows.first.click()
    expect(page.locator("#head")).to_contain_text("Three pages say again")
    if SHOTS:
        sign_in_all = page.context.browser
        assert sign_in_all is not None
        other = sign_in_all.new_context(base_url=f"http://127.0.0.1:{world.gateway.port}", viewport=DESKTOP)  # type: ignore[arg-type]
        tab = other.new_page()
        sign_in(tab, world)
        shot(tab, "list")
        other.close()
    assert at_work.acts == []


@pytest.mark.parametrize("live", [False, True], ids=["when it is loaded", "when it arrives"])
def test_nothing_of_a_hostile_session_acts(page: Page, world: World, live: bool) -> None:
    """Whatever it holds: no dialog, no request to anybody else, no script of its, nothing for the policy to stop; it can be read."""
    asked_for: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked_for.append(request.url))
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    session = world.session(f"bad {HOSTILE}"[:60], *ready())
    if not live:
        hostile_work(session)
    sign_in(page, world, path=f"/sessions/{session.id}")
    said.clear()
    if live:
        world.gateway.until(lambda: world.gateway.in_store(lambda store: store.pulse(session.id)).watched)
        hostile_work(session)
        session.show_live(2, f"live {HOSTILE}")
        expect(page.locator("#live")).to_contain_text("live <img")
    expect(page.locator("#needs")).to_contain_text("Which <img")
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    shown = page.locator("main").inner_text()
    for part in ("<script>alert(2)</script>", "\\x1b[31mred", "\\u202egnp.exe", "[x](javascript:alert(4))"):
        assert part in shown, part
    assert "\u202e" not in page.content()
    assert "\x1b" not in page.content()
    links = page.locator("a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert not [
        link for link in links if not (link or "").startswith(("/", "http://127.0.0.1:9/runs/flow-run/", "?", "https://example.org/"))
    ], links
    forms = page.locator("form").evaluate_all("forms => forms.map(form => form.getAttribute('action'))")
    assert not [action for action in forms if not action.startswith("/")]
    assert page.locator("img, iframe, svg, script:not([src^='/static/'])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "a long line makes the page wide"
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "a long line makes the page wide on a phone"
    shot(page, f"hostile-{live}")
    page.goto("/sessions")
    expect(page.locator(".sessions").get_by_text("bad <img").first).to_be_visible()
    assert said == []
    assert not [url for url in asked_for if not url.startswith(f"http://127.0.0.1:{world.gateway.port}/")]


def hostile_work(session: Session) -> None:
    """All that others write, with something in it that wants out."""
    session.write(
        user(f"Task {HOSTILE}", prompt=1),
        agent(text(f"I say {HOSTILE}"), use("t1", f"tool {HOSTILE}", **{f"name {HOSTILE}": HOSTILE, "command": "x" * 5000}), turn=1),
        started("t1"),
        result(
            "t1",
            f"{HOSTILE}\n" + "long" * 50_000,
            is_error=True,
            pushed=[
                {
                    "repository": HOSTILE,
                    "branch": HOSTILE,
                    "sha": HOSTILE,
                    "files": [],
                    "diff": f"+{HOSTILE}\n-{HOSTILE}\n",
                }
            ],
            output={
                "tool": HOSTILE,
                "target": HOSTILE,
                "status": HOSTILE,
                "link": f"javascript:alert('{HOSTILE}')",
                "request": {HOSTILE: HOSTILE},
            },
        ),
        ("session.strange", {"person": HOSTILE, "via": HOSTILE, "text": HOSTILE}),
        ("turn.failed", {"turn": 2, "attempt": 1, "error": HOSTILE}),
        ("tool.result", {"id": "t1"}),
        (
            "session.verdict",
            {
                "verdict": HOSTILE,
                "summary": HOSTILE,
                "evidence": [HOSTILE],
                "links": [
                    "javascript:alert(5)",
                    "data:text/html,<script>alert(6)</script>",
                    "//evil.example/x",
                    "https://example.org/?a=<script>",
                    "https://example.org/fine",
                ],
            },
        ),
    )
    calls = [asked("a", **{HOSTILE: HOSTILE, "diff": f"+{HOSTILE}"}), asked("b", tool=HOSTILE)]
    questions = [{"id": "q", "question": f"Which {HOSTILE}", "choices": [HOSTILE, "other"]}]
    session.ask(content={"calls": calls, "questions": questions})
    session.ask("budget", {"reached": HOSTILE, "used": {}})


def test_requests_from_elsewhere_do_nothing(page: Page, world: World) -> None:
    """Not from another page, not without the cookie, not with a forged one; neither from a frame."""
    session = world.session()
    sign_in(page, world)
    own = f"http://127.0.0.1:{world.gateway.port}"
    path, fields = f"/sessions/{session.id}/act", {"do": "send", "text": "x"}
    for headers in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": own, "Sec-Fetch-Site": "cross-site"}):
        assert page.request.post(path, form=fields, headers=headers).status == 403, headers
    assert page.request.post(path, form=fields, headers={"Origin": own}, max_redirects=0).status == 303
    assert len(session.acts) == 1
    [cookie] = page.context.cookies()
    token_id, until, signature = cookie["value"].split(".")
    for forged in (
        f"{token_id}.{int(until) + 1}.{signature}",
        f"{token_id}.{until}.{'0' * 64}",
        "x",
        "..",
        f"tok-other.{until}.{signature}",
    ):
        page.context.clear_cookies()
        page.context.add_cookies([{"name": cookie["name"], "value": forged, "url": own}])
        assert page.request.post(path, form=fields, headers={"Origin": own}).status == 401
        assert page.request.get("/sessions").status == 401
        assert page.request.get(f"/sessions/{session.id}/stream").status == 401
    headers = page.request.get("/sessions").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert (headers["x-content-type-options"], headers["referrer-policy"], headers["cache-control"]) == (
        "nosniff",
        "no-referrer",
        "no-store",
    )
    assert len(session.acts) == 1


def test_a_long_transcript_is_there_within_a_second(page: Page, world: World) -> None:
    """500 entries: painted, and the message box can be used."""
    long: list[Written] = [*ready(), user("Work for long.", prompt=1)]
    for turn in range(1, 166):
        call = f"t{turn}"
        said = text(f"Step {turn}. " + "I look at the next file, and change what has to be changed. " * 4)
        long += [agent(said, use(call, command=f"cat file-{turn}"), turn=turn, dollars=0.01)]
        long += [started(call), result(call, f"line of file {turn}\n" * 60)]
    session = world.session("long", *long)
    assert len(long) >= 499
    sign_in(page, world, path=f"/sessions/{session.id}")
    took = []
    for _ in range(3):
        began = time.monotonic()
        page.goto(f"/sessions/{session.id}", wait_until="domcontentloaded")
        page.get_by_label("Message to Claude").fill("x")
        took.append(time.monotonic() - began)
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    print(f"a transcript of {len(long)} entries: usable after {min(took):.2f} s, at worst {max(took):.2f} s; first paint {paint:.0f} ms")
    assert page.locator("#items > *").count() > 300
    assert min(took) < 1.0
