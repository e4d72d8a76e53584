"""The examples of embedding run as they are written, with a stand-in for the person at the browser."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from requires import lacks, require_program

if TYPE_CHECKING:
    from cells_loopback.testing import CellsServer

EXAMPLES = Path(__file__).parent.parent / "scripts" / "examples"
TIMEOUT = 60.0
PERSON = """\
import sys
from cells_loopback.testing import Browser
Browser().sign_in(sys.argv[-1], "alice", "open-sesame")
"""
LOGGED_IN = "Logged in to {site} as alice"


def qt_python() -> str:
    """Return a Python that has a Qt binding, ours or the system's."""
    for python in (sys.executable, "/usr/bin/python3"):
        for binding in ("PySide6", "PyQt6"):
            found = subprocess.run(
                [python, "-c", f"import {binding}.QtWidgets"], capture_output=True, check=False
            )
            if found.returncode == 0:
                return python
    return lacks("neither PySide6 nor PyQt6 is installed")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home of its own, the installed command on the PATH, and a browser that logs in by itself."""
    person = tmp_path / "person.py"
    person.write_text(PERSON)
    return {
        **os.environ,
        "BROWSER": shlex.join([sys.executable, str(person)]) + " %s",
        "CELLS_LOOPBACK_CONFIG_DIR": str(tmp_path / "config"),
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "QT_QPA_PLATFORM": "offscreen",
        "XDG_RUNTIME_DIR": str(tmp_path),
    }


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


@pytest.mark.xdist_group("port 3000")
def test_the_qt_example_logs_in_and_shows_who(server: CellsServer, environment: dict[str, str]) -> None:
    done = run([qt_python(), str(EXAMPLES / "desktop_qt.py"), server.site, "--click"], environment)
    assert LOGGED_IN.format(site=server.site) in done.stdout, done.stderr


@pytest.mark.xdist_group("port 3000")
def test_the_qt_example_shows_the_message_of_a_login_that_failed(environment: dict[str, str]) -> None:
    done = run([qt_python(), str(EXAMPLES / "desktop_qt.py"), "nobody.invalid", "--click"], environment)
    assert "there is no host nobody.invalid" in done.stdout, done.stderr


@pytest.mark.xdist_group("port 3000")
def test_the_node_example_logs_in_and_calls_the_api(server: CellsServer, environment: dict[str, str]) -> None:
    done = run([require_program("node"), str(EXAMPLES / "desktop_node.mjs"), server.site], environment)
    assert f"logged in to {server.site} as alice; the API answers 200" in done.stdout, done.stderr


def test_the_node_example_ends_with_the_exit_code_of_the_login(environment: dict[str, str]) -> None:
    done = run([require_program("node"), str(EXAMPLES / "desktop_node.mjs"), "not/a/site"], environment)
    assert done.returncode == 2
    assert "is not a site" in done.stderr
