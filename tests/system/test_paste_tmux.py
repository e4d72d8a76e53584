"""A paste login as a person sees it: in a real tmux, everything read from the screen and typed with keys."""

from __future__ import annotations

import re
import subprocess
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from program import Program
from requires import require_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cells_loopback.testing import CellsServer

# tmux tells of a dead pane only now and then: a shell that outlives the command tells how that ended.
_SHELL = 'trap : INT; "$@"; echo "ended with $?"; read -r _'
_TIME_LIMIT = 30.0
_LOOK_AGAIN = 0.05


class Tmux:
    """One tmux server with one window of 80 by 24."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        # A socket of its own: nobody else's sessions, and none of their settings.
        self._base = [require_program("tmux"), "-f", "/dev/null", "-S", str(directory / "tmux")]
        self._environment = {**environment, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}
        self._environment.pop("TMUX", None)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [*self._base, *command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, command: list[str]) -> None:
        self.run("new-session", "-d", "-x", "80", "-y", "24", "--", "sh", "-c", _SHELL, "sh", *command)

    def screen(self, *, unfolded: bool = False) -> str:
        """Return what the window shows; unfolded, a line that was too wide is in one piece."""
        return self.run("capture-pane", "-p", *(("-J",) if unfolded else ()))

    def wait_for(self, pattern: str, *, unfolded: bool = False) -> re.Match[str]:
        """Wait until the screen shows something: a terminal tells nobody when it changes."""
        deadline = time.monotonic() + _TIME_LIMIT
        while not (found := re.search(pattern, self.screen(unfolded=unfolded), re.MULTILINE)):
            assert time.monotonic() < deadline, self.screen()
            time.sleep(_LOOK_AGAIN)
        return found

    def type(self, text: str) -> None:
        self.run("send-keys", "-l", "--", text)
        self.run("send-keys", "Enter")

    def close(self) -> None:
        subprocess.run([*self._base, "kill-server"], capture_output=True, timeout=_TIME_LIMIT, check=False)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def tmux(tmp_path_factory: pytest.TempPathFactory, program: Program) -> Iterator[Tmux]:
    tmux = Tmux(tmp_path_factory.mktemp("t"), program.environment)  # the path of a socket must be short
    yield tmux
    tmux.close()


def code_on_page(server: CellsServer, address: str) -> str:
    found = re.search(r'<code id="code">([^<]+)</code>', server.sign_in(address).text)
    assert found is not None
    return found[1]


def test_a_paste_login_on_a_screen_of_eighty_columns(
    server: CellsServer, program: Program, tmux: Tmux
) -> None:
    tmux.start(program.command("login", server.site, "--paste"))
    address = tmux.wait_for(r"^http://\S+$", unfolded=True)[0]
    tmux.wait_for("and paste here the code that it shows at the end:")
    assert address not in tmux.screen(), "it is wider than the screen, and was folded by the terminal"

    tmux.type(code_on_page(server, address))

    tmux.wait_for(f"logged in to {re.escape(server.site)} as alice")
    tmux.wait_for("^ended with 0$")
    assert program.read_profile(urlsplit(server.site).netloc)["user"]["name"] == "alice"


def test_a_wrong_code_is_told_on_the_screen(server: CellsServer, program: Program, tmux: Tmux) -> None:
    tmux.start(program.command("login", server.site, "--paste"))
    tmux.wait_for("and paste here the code")
    tmux.type("not-the-code")
    tmux.wait_for("^error: the server refused the code: invalid_grant")
    tmux.wait_for("^ended with 5$")


def test_ctrl_c_on_the_screen(server: CellsServer, program: Program, tmux: Tmux) -> None:
    tmux.start(program.command("login", server.site, "--paste"))
    tmux.wait_for("and paste here the code")
    tmux.run("send-keys", "C-c")
    tmux.wait_for("\\^Cended with 130$")
    assert "Traceback" not in tmux.screen()
