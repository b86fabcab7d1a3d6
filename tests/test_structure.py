"""The rules of the house that a machine can hold: imports go one way, the pure parts stay pure, heavy libraries load late."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "prefect_routines"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if "migrations" not in path.parts)

# A module may import what stands in its own line or further down.
LAYERS = [
    {"cli"},
    {"collection"},
    {"gateway", "workers", "deploying", "up"},
    {"routines"},
    {"session"},
    {"notices"},
    {"steering"},
    {"doctor"},
    {"connectors"},
    {"workspace", "tools"},
    {"store", "credentials", "blocks"},
    {"settings", "verdict", "events", "redaction", "outgoing"},
    {"policy", "config", "when", "audience"},
    {"errors", "visible", "secret_shapes"},
]
LEVEL = {name: number for number, names in enumerate(LAYERS) for name in names}
PURE = ["policy", "settings", "events", "visible", "redaction", "verdict", "errors", "session/transcript", "session/budget", "session/page"]
PURE += ["session/prompt", "workspace/guard", "secret_shapes", "outgoing/text", "outgoing/github", "outgoing/allowance", "when"]
PURE += ["steering/form", "notices/told", "audience"]
PURE += ["gateway/markup", "gateway/transcript_view", "gateway/form_view", "gateway/session_view", "gateway/list_view"]
PURE += ["gateway/signatures", "gateway/body", "gateway/occurrence", "gateway/github", "gateway/webhooks"]


def imports(path: Path, *, at_top: bool = False) -> Iterator[str]:
    """Names of the modules that a file imports; with `at_top` only what is imported when it is loaded."""
    tree = ast.parse(path.read_text())
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(module: str) -> str:
    """`session` for `prefect_routines.session.loop.converse`."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    """cli -> routines -> session -> tools, workspace -> store -> settings, policy, errors. The testing package stands aside."""
    mine = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if mine in ("__init__", "testing"):
        return
    under_type_checking = {
        name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in node.body
        if isinstance(child, ast.ImportFrom)
        for name in [f"{child.module}.{alias.name}" for alias in child.names]
    }
    upwards = [
        name
        for name in imports(path)
        if name.startswith("prefect_routines.") and name not in under_type_checking and LEVEL.get(part(name), 99) < LEVEL[mine]
    ]
    assert not upwards, f"{mine} is below {[part(name) for name in upwards]}"


def test_the_product_does_not_need_the_testing_package() -> None:
    """What users test with is not part of what runs."""
    for path in MODULES:
        if path.relative_to(SOURCE).parts[0] != "testing":
            assert not [name for name in imports(path) if name.startswith("prefect_routines.testing")], path


@pytest.mark.parametrize("name", PURE)
def test_pure_parts_import_only_the_standard_library_and_pydantic(name: str) -> None:
    """Then they are tested in milliseconds."""
    for module in imports(SOURCE / f"{name}.py", at_top=True):
        root = module.split(".")[0]
        assert root in sys.stdlib_module_names or root in ("pydantic", "pydantic_core", "prefect_routines"), module


def test_only_one_module_talks_to_the_messages_api() -> None:
    """`anthropic` is imported by session/claude.py alone, and only when it is needed."""
    users = [path for path in MODULES if any(name.split(".")[0] == "anthropic" for name in imports(path))]
    assert [path.relative_to(SOURCE).as_posix() for path in users] == ["session/claude.py"]
    assert not any(name.startswith("anthropic") for name in imports(SOURCE / "session/claude.py", at_top=True))


def test_connectors_load_their_libraries_late() -> None:
    """A connector that a session does not use costs next to nothing: its client comes with the first call."""
    code = "import sys; from prefect_routines.blocks import CONNECTORS, import_type\n"
    code += "for slug in CONNECTORS: import_type(slug)\nprint(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("'mcp'", "'httpx2'", "'jwt'", "'anthropic'", "'markdownify'"):  # prefect_slack loads slack_sdk itself
        assert heavy not in done.stdout.splitlines()[-1], heavy


def test_the_command_line_answers_before_heavy_libraries_load() -> None:
    """`routines --help` imports neither Prefect nor the model's client nor the database."""
    code = "import sys; from prefect_routines.cli import main\ntry: main()\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    for heavy in ("'prefect'", "'anthropic'", "'sqlalchemy'", "'genai_prices'"):
        assert heavy not in loaded


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_has_one_subject(path: Path) -> None:
    """It says it in its docstring, and past 400 lines it would have two."""
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text))
