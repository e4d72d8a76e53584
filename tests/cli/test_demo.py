"""The ``demo`` command: what it is told wrong, and an end before its time."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from cells_loopback.cli import main
from cells_loopback.cli.demo import play_browser
from cells_loopback.testing import Fault

if TYPE_CHECKING:
    from cells_loopback.testing import CellsServer


@pytest.mark.parametrize("port", ["-1", "65536", "many", "\u0663"])
def test_a_port_is_a_number_that_a_port_can_have(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", f"--port={port}"]) == 2
    assert "is not a port" in capsys.readouterr().err


def test_a_port_in_use_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--headless", "--port", str(port)]) == 5
    assert f"cannot listen on port {port}" in capsys.readouterr().err


def test_a_login_that_ends_first_leaves_the_played_browser_silent(
    server: CellsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault("/gone", Fault(drop="before"))
    play_browser(server)(f"{server.site}/gone")
    for thread in threading.enumerate():
        if thread.name == "the browser":
            thread.join()
    assert server.count("other") == 1
    assert capsys.readouterr().err == ""
