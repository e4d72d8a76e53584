"""Which browser is opened, and what the person is told when none comes up."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import pytest
from desktop import ended
from own_network import OWN_NETWORK
from program import finish
from requires import thorough
from terminal_window import TerminalWindow

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from desktop import Desktop
    from program import Program

    from cells_loopback.testing import CellsServer

pytestmark = OWN_NETWORK


def make_program(path: Path, script: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n" + script + "\n")
    os.chmod(path, 0o700)
    return str(path)


def stand_in_at(path: Path, desktop: Desktop) -> str:
    """Put the stand-in under another name; its last argument is the address."""
    return make_program(
        path, f'for address; do :; done\nexec {desktop.browser.removesuffix(" %s")} "$address"'
    )


def shown_address(process: subprocess.Popen[str]) -> tuple[str, list[str]]:
    """Read stderr up to the address, and return it with what was told before."""
    assert process.stderr is not None
    told: list[str] = []
    for line in process.stderr:
        if line.startswith("http"):
            return line.removesuffix("\n"), told
        told.append(line.removesuffix("\n"))
    raise AssertionError(f"no address was shown: {told}")


@pytest.mark.parametrize(
    "variable",
    [
        pytest.param("{browser} %s", id="with-%s"),
        pytest.param("{browser}", id="without-%s", marks=thorough),
        pytest.param("{browser} --new-window --profile 'My Work' %s", id="with-arguments", marks=thorough),
        pytest.param("{browser} &", id="in-the-background", marks=thorough),
        pytest.param("no-such-browser:{browser}", id="the-second-of-two"),
        pytest.param("w3m:{browser}", id="after-one-for-text", marks=thorough),
    ],
)
def test_the_variable_names_the_browser(
    server: CellsServer, program: Program, desktop: Desktop, tmp_path: Path, variable: str
) -> None:
    marker = tmp_path / "text-mode"
    make_program(tmp_path / "bin" / "w3m", f"touch {shlex.quote(str(marker))}")
    browser = stand_in_at(tmp_path / "a browser", desktop)
    environment = {
        "BROWSER": variable.format(browser=shlex.quote(browser)),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }
    login = program.start("login", server.site, environment=environment)
    assert "You are logged in" in server.sign_in(desktop.opened(login)).text
    assert finish(login).returncode == 0
    assert not marker.exists()


def test_the_option_comes_before_the_variable_and_is_remembered(
    server: CellsServer, program: Program, desktop: Desktop, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    other = make_program(tmp_path / "other", f"touch {wrong}")
    assert desktop.log_in(program, server, environment={"BROWSER": other}).exit_code == 0
    login = program.start("login", server.site, "--force", environment={"BROWSER": other})
    server.sign_in(desktop.opened(login))
    assert finish(login).returncode == 0
    assert not wrong.exists()


def test_wsl_opens_the_browser_of_windows(
    server: CellsServer, program: Program, desktop: Desktop, tmp_path: Path
) -> None:
    stand_in_at(tmp_path / "bin" / "wslview", desktop)
    environment = {"WSL_DISTRO_NAME": "Debian", "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    login = program.start("login", server.site, environment=environment)
    server.sign_in(desktop.opened(login))
    assert finish(login).returncode == 0


@pytest.mark.parametrize(
    ("browser", "reason"),
    [
        pytest.param("no-such-browser", "--browser: there is no program 'no-such-browser'", id="missing"),
        pytest.param(
            "'unclosed", '--browser is not a command: "\'unclosed"', id="no-command", marks=thorough
        ),
        pytest.param("{bin}/lynx", "is a text-mode browser and would take over the terminal", id="text-mode"),
        pytest.param("{bin}/no-exec", "does not start", id="no-program"),
        pytest.param("{bin}/failing", "the browser ended at once with status 3", id="failing"),
        pytest.param("{bin}/killed", "the browser ended at once with status -9", id="killed", marks=thorough),
    ],
)
def test_a_browser_that_does_not_come_up_is_noticed_and_the_address_is_shown(
    server: CellsServer, program: Program, tmp_path: Path, browser: str, reason: str
) -> None:
    make_program(tmp_path / "bin" / "lynx", "exit 0")
    make_program(tmp_path / "bin" / "failing", "exit 3")
    make_program(tmp_path / "bin" / "killed", "kill -9 $$")
    (tmp_path / "bin" / "no-exec").write_bytes(b"\x7fELF\x00")
    (tmp_path / "bin" / "no-exec").chmod(0o700)

    login = program.start("login", server.site, "--browser", browser.format(bin=tmp_path / "bin"))
    address, told = shown_address(login)
    assert "You are logged in" in server.sign_in(address).text
    end = ended(finish(login))

    assert end.exit_code == 0, end.stderr
    assert any(line.startswith("warning: no browser: ") and reason in line for line in told), told
    assert told[-2:] == ["open this address in a browser on this machine:", ""]


def test_without_a_display_the_address_is_shown(server: CellsServer, program: Program) -> None:
    environment = dict.fromkeys(("DISPLAY", "WAYLAND_DISPLAY"), "")
    login = program.start("login", server.site, environment=environment)
    address, told = shown_address(login)
    server.sign_in(address)
    assert finish(login).returncode == 0
    assert told[0].startswith("warning: no browser: ")
    assert "display" in told[0]


def test_the_address_is_one_unbroken_line_in_the_narrowest_terminal(
    server: CellsServer, program: Program
) -> None:
    command = program.command("login", server.site, "--no-browser")
    with TerminalWindow(command, {**program.environment, "COLUMNS": "20"}) as window:
        address = window.wait_for_line("http://")
        assert len(address) > 300
        assert "You are logged in" in server.sign_in(address).text
        assert window.wait() == 0


def test_a_terminal_that_draws_links_gets_one_around_the_whole_address(
    server: CellsServer, program: Program
) -> None:
    command = program.command("login", server.site, "--no-browser")
    with TerminalWindow(command, {**program.environment, "FORCE_HYPERLINK": "1"}) as window:
        line = window.wait_for_line("\x1b]8;;")
        address, shown = line.removeprefix("\x1b]8;;").removesuffix("\x1b]8;;\x1b\\").split("\x1b\\")
        assert address == shown
        server.sign_in(address)
        assert window.wait() == 0


def test_quiet_hides_everything_but_the_address(server: CellsServer, program: Program) -> None:
    login = program.start("login", server.site, "--no-browser", "--quiet")
    address, told = shown_address(login)
    server.sign_in(address)
    done = finish(login)
    assert (told, done.stderr.strip(), done.stdout, done.returncode) == ([""], "", "", 0)


def test_the_authorization_url_is_on_no_command_line(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    """Other users of the machine read command lines, and ``state`` with it."""
    desktop.log_in(program, server)
    (address,) = desktop.opened_pages()
    assert address.startswith("http://localhost:3000/start/")
    assert "state" not in address
