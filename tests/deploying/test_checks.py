"""Whole prefect files against a real server: everything that is wrong is told at once, and nothing that is right."""

from __future__ import annotations

import pytest

from .conftest import Project

BEGIN = "deployments:\n  - name: a\n    HEAD\n"
WRONG = {
    "triggers:\n      - {expect: [github.issues.open], parameters: {event: '{{ event.id | string }}'}}": "did you mean 'opened'?",
    "triggers:\n      - {expect: [webhook.nobody], parameters: {event: '{{ event.id | string }}'}}": "no block webhook-source/nobody",
    "triggers:\n      - {expect: [github.push], within: soon}": "Prefect refuses the trigger: within: ",
    "parameters: {tims: 3}": "has no parameter 'tims'; did you mean 'times'?",
    "parameters: {times: many}": "times: Input should be a valid integer",
    "parameters: {settings: {budgt: {dollars: 3}}}": "settings.budgt: there is no such setting; did you mean 'budget'?",
    "parameters: {settings: {budget: {dollars: -3}}}": "dollars: Input should be greater than 0",
    "parameters: {settings: {checks: [{repository: sdk, command: make}]}}": "names the repository 'sdk'; there is docs",
    "parameters: {settings: {connectors: [github/nobody]}}": "there is no block 'github/nobody'",
    "parameters: {settings: {claude: anthropic-credentials/nobody}}": "settings: claude: there is no block",
    "parameters: {settings: {policy: {allow: ['pussh(repository=docs)']}}}": "'pussh(repository=docs)' names no tool",
    "parameters: {settings: {policy: {deny: ['push(repository=sdk)']}}}": "matches none of the repositories; there is docs",
    "schedules: [{cron: '0 0 30 2 *', timezone: UTC}]": "never fires",
    "schedules: [{cron: '0 0 1 1 *', timezone: UTC, parameters: {tims: 1}}]": "has no parameter 'tims'",
    "description: x\n    entrypoint: flows/work.py:look": "the key 'entrypoint' stands twice",
}


async def test_all_problems_of_all_files_are_told(project: Project) -> None:
    """Not the first one only; each with its file and line."""
    files = [project.write(f"{BEGIN}    {text}\n", f"f{number:02}.yaml") for number, text in enumerate(WRONG)]
    _, problems = await project.check(*files)
    said = {file.name: [str(problem) for problem in problems if problem.file == file] for file in files}
    for file, wanted in zip(files, WRONG.values(), strict=True):
        assert any(wanted in one for one in said[file.name]), (wanted, said[file.name])
        assert all(one.startswith(f"{file}:") for one in said[file.name])


@pytest.mark.parametrize(
    ("entrypoint", "said"),
    [
        ("flows/gone.py:look", "flows/gone.py: there is no such file; entrypoints count from the directory"),
        ("flows/work.py:lok", "flows/work.py has no routine or flow 'lok'; there is look, plain"),
        ("flows/work.py", "an entrypoint is FILE.py:FUNCTION"),
        ("flows/torn.py:look", "SyntaxError: invalid syntax (line 1)"),
        ("flows/lost.py:look", "ModuleNotFoundError: No module named 'nowhere' (line 1)"),
        ("flows/wrong.py:look", "@routine has no argument 'repositorys'; did you mean 'repositories'?"),
    ],
)
async def test_an_entrypoint_that_does_not_load_is_told_in_one_line(project: Project, entrypoint: str, said: str) -> None:
    """With the line of the user's own file."""
    (project.directory / "flows" / "torn.py").write_text("def (:\n")
    (project.directory / "flows" / "lost.py").write_text("import nowhere\n")
    (project.directory / "flows" / "wrong.py").write_text(
        "from prefect_routines import routine\n\n@routine(repositorys=[])\ndef look(): ...\n"
    )
    text = f"deployments:\n  - name: a\n    entrypoint: {entrypoint}\n    work_pool: {{name: routines}}\n"
    _, problems = await project.check(project.write(text))
    [problem] = [problem for problem in problems if problem.weight == "error"]
    assert said in problem.text
    assert "\n" not in str(problem)
    assert problem.line == 3


async def test_what_a_stanza_lacks_is_told(project: Project) -> None:
    """Name, entrypoint, work pool, a parameter that the flow needs; and the same deployment twice."""
    text = (
        "deployments:\n  - {description: x}\n  - {name: b, entrypoint: 'flows/work.py:plain', schedules: [{interval: 60, timezone: UTC}]}\n"
    )
    _, problems = await project.check(project.write(text))
    said = [problem.text for problem in problems if problem.weight == "error"]
    for wanted in ("it has no name", "it has no entrypoint", "it has no work pool", "plain needs name; give it under `parameters:`"):
        assert any(wanted in one for one in said), wanted
    _, problems = await project.check(project.write(BEGIN, "one.yaml"), project.write(BEGIN, "two.yaml"))
    [twice] = [problem for problem in problems if problem.weight == "error"]
    assert f"{project.flow}/a is deployed twice" in twice.text
    assert twice.file.name == "two.yaml"


async def test_what_is_only_worth_knowing_keeps_nothing_back(project: Project) -> None:
    """A routine that nothing starts is a note; a rule that outside runs cannot use is a warning."""
    _, problems = await project.check(project.write(BEGIN))
    assert "no schedule and no trigger" in next(problem.text for problem in problems if "trigger" in problem.text)
    assert {problem.weight for problem in problems} <= {"note"}
    rule = "parameters: {settings: {policy: {allow: ['push']}}}"
    start = "triggers: [{expect: [github.push], parameters: {event: '{{ event.id | string }}'}}]"
    _, problems = await project.check(project.write(f"{BEGIN}    {rule}\n    {start}\n"))
    [warning] = [problem for problem in problems if problem.weight == "warning"]
    assert "'push' allows nothing in runs that somebody outside starts: it leaves repository open" in warning.text


async def test_sqlite_with_two_machines_is_refused(project: Project) -> None:
    """Runs in containers see another disk; with PostgreSQL there is nothing to say."""
    from prefect import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    async with get_client() as client:
        await client.create_work_pool(WorkPoolCreate(name="boxes", type="docker"), overwrite=True)
    file = project.write("deployments:\n  - {name: a, entrypoint: 'flows/work.py:look', work_pool: {name: boxes}}\n")
    _, problems = await project.check(file)
    [problem] = [problem for problem in problems if problem.weight == "error"]
    assert "'boxes' is of type docker: its runs are on another machine, and the session store is SQLite" in problem.text
    assert "ROUTINES_DATABASE_URL" in problem.text
