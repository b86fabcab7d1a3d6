"""`routines gateway`: starts, says where, and ends in good order."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import threading

import pytest

from .terminal import Terminal

AWAY = "http://127.0.0.1:9/api"


def start(terminal: Terminal) -> tuple[subprocess.Popen[str], int]:
    process = terminal.start("gateway", "--port", "0", PREFECT_API_URL=AWAY, ROUTINES_GATEWAY_BODY_SECONDS="20")
    assert process.stdout is not None
    found = re.search(r"listens at http://127\.0\.0\.1:(\d+)", process.stdout.readline())
    assert found
    return process, int(found[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_good_order(terminal: Terminal, number: signal.Signals) -> None:
    """With status 0 within seconds; a request under way is finished, idle connections do not hold it up."""
    process, port = start(terminal)
    with process, socket.create_connection(("127.0.0.1", port)) as idle, socket.create_connection(("127.0.0.1", port)) as busy:
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(4096).startswith(b"HTTP/1.1 200")
        busy.sendall(b"POST /v1/claude_code/routines/x/fire HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        process.send_signal(number)
        threading.Timer(0.2, lambda: busy.sendall(b"{   }")).start()
        answer = http.client.HTTPResponse(busy)
        answer.begin()
        assert answer.status == 401
        assert process.wait(15) == 0


def test_a_port_that_is_taken_is_one_line(terminal: Terminal) -> None:
    """With status 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = terminal.run("gateway", "--port", str(taken.getsockname()[1]), PREFECT_API_URL=AWAY)
    assert done.status == 2
    assert "cannot listen on 127.0.0.1" in done.err
    assert "--port" in done.err
    assert "Traceback" not in done.err


def test_without_a_prefect_server_it_says_what_to_do(terminal: Terminal) -> None:
    """It would start one of its own otherwise."""
    done = terminal.run("gateway", "--port", "0", PREFECT_API_URL="")
    assert done.status == 2
    assert "prefect server start" in done.err.splitlines()[-1]
