"""What all tests share: places of their own for whatever is written, and one Prefect server, started when a test asks for it."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ports import free_port
from prefect_process import PrefectProcess

_GIVEN = "TEST_PREFECT_API_URL"  # set by a test that starts further tests in a process of their own: they share its server


# `nohup` and `&` leave these ignored, for all that is started from here, too; the tests send them and wait for what they do.
for _number, _default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _default)

# Prefect reads its settings when it is imported, so they are set before any test module is.
HOME = Path(tempfile.mkdtemp(prefix="prefect-routines-tests-"))
HOME.chmod(0o711)  # as root a session runs under a user of its own, who must get through
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
PORT = free_port()
for _name in [name for name in os.environ if name.startswith(("ANTHROPIC_", "ROUTINES_", "PREFECT_"))]:
    del os.environ[_name]  # what the developer has set must not decide how a test ends
os.environ.update(
    PREFECT_HOME=str(HOME / "prefect"),
    PREFECT_API_URL=os.environ.get(_GIVEN) or f"http://127.0.0.1:{PORT}/api",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    DO_NOT_TRACK="1",
    PREFECT_LOGGING_TO_API_ENABLED="false",  # or this process waits at its end for a server that is gone by then
    ROUTINES_WORKSPACES=str(HOME / "workspaces"),
)


def _let_others_in(place: Path) -> None:
    shared = Path(tempfile.gettempdir())  # everybody's: what it allows is not for a test to change
    for directory in (place, *place.parents):
        if directory == shared or directory.stat().st_uid != os.getuid():
            return
        directory.chmod(stat.S_IMODE(directory.stat().st_mode) | 0o055)


@pytest.fixture(autouse=True)
def environment_as_it_was() -> Iterator[None]:
    """What a test, or a command that it runs in this process, sets in the environment is not for the tests after it.

    Nor is the configuration that was read from it: it is read once in a process, and this is one for many tests.
    """
    from prefect_routines.config import config  # only now: it imports Prefect, which reads what is set above

    before = dict(os.environ)
    config.cache_clear()
    yield
    os.environ.clear()
    os.environ.update(before)
    config.cache_clear()


@pytest.fixture
def configure() -> Iterator[Callable[..., None]]:
    """Sets variables of the environment for this test, and has the configuration read anew."""
    from prefect_routines.config import config

    with pytest.MonkeyPatch.context() as environment:

        def set_variables(**variables: str) -> None:
            for name, value in variables.items():
                environment.setenv(name, value)
            config.cache_clear()

        yield set_variables
    config.cache_clear()


@pytest.fixture(scope="session")
def let_others_in() -> Callable[[Path], None]:
    """Opens a place of a test, and what lies above it, to other users: as root a session runs under one of its own."""
    return _let_others_in


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """The address of a running Prefect server. `PREFECT_API_URL` of this process and of those it starts points there."""
    address = os.environ["PREFECT_API_URL"]
    if os.environ.get(_GIVEN):
        yield address
        return
    server = PrefectProcess(HOME / "prefect", PORT)
    try:
        server.start()
        yield address
    finally:
        server.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was said by tests that failed and passed when they were run again: the defect is there all the same."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"failed and was run again: {report.nodeid} ({report.when})", sep="_")
        terminalreporter.write_line("\n".join(report.longreprtext.splitlines()[-60:]))
