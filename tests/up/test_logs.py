"""The logs of the parts: complete, private, bounded."""

from __future__ import annotations

from pathlib import Path

from prefect_routines.up.logs import RotatingLog


def test_a_log_is_turned_over_and_stays_within_its_bounds(tmp_path: Path) -> None:
    """The newest lines are in the file, older ones in the elders, the oldest are gone."""
    log = RotatingLog(tmp_path / "logs" / "part.log", size=100, elders=2)
    for number in range(100):
        log.write(f"line {number:03}\n".encode())
    log.close()
    files = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert files == ["part.log", "part.log.1", "part.log.2"]
    assert sum(path.stat().st_size for path in (tmp_path / "logs").iterdir()) <= 300
    kept = "".join((tmp_path / "logs" / name).read_text() for name in reversed(files)).split("\n")
    assert kept[-2] == "line 099"
    assert kept[:-1] == [f"line {number:03}" for number in range(100 - len(kept) + 1, 100)]


def test_a_log_is_its_owners(tmp_path: Path) -> None:
    """What a server says may be private."""
    log = RotatingLog(tmp_path / "logs" / "part.log")
    log.write(b"hello\n")
    log.close()
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_a_log_goes_on_where_the_last_start_ended(tmp_path: Path) -> None:
    """The reason of a crash is still there after the restart."""
    for word in (b"first\n", b"second\n"):
        log = RotatingLog(tmp_path / "part.log")
        log.write(word)
        log.close()
    assert (tmp_path / "part.log").read_text() == "first\nsecond\n"


def test_the_last_line_that_says_something_is_kept(tmp_path: Path) -> None:
    """Frames and blank lines are no reason."""
    log = RotatingLog(tmp_path / "part.log")
    for line in (b"ValueError: no such column\n", b"+------+\n", b"\n"):
        log.write(line)
    log.close()
    assert log.last_line() == "ValueError: no such column"
