"""The Chromium of a profile's own: its directory, its command line, and how it ends."""

from __future__ import annotations

import os
import platform
import signal
import stat
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cells_loopback.desktop import own_chromium
from cells_loopback.desktop.browser import BrowserError
from cells_loopback.desktop.own_chromium import (
    HeadlessChromium,
    close_running,
    find_chromium,
    headless_command,
    own_directory,
    visible_command,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shell scripts stand in for browsers")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A machine with a screen and with nothing but a Chromium."""
    program(tmp_path / "bin" / "chromium")
    return {"PATH": str(tmp_path / "bin"), "DISPLAY": ":0", "CELLS_LOOPBACK_TOKEN": "secret"}


def program(path: Path, script: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return path


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return own_directory(str(tmp_path / "config"), "work")


def test_its_directory_is_the_persons_alone(directory: str, environ: dict[str, str]) -> None:
    visible_command(directory, environ=environ)
    for path in (directory, os.path.dirname(directory)):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    assert directory.endswith("config/browser/work")


def test_both_commands_are_one_browser_on_one_directory(directory: str, environ: dict[str, str]) -> None:
    visible = visible_command(directory, environ=environ).split()
    headless = headless_command(directory, environ=environ)
    assert visible[-1] == "%s"
    assert visible[:-1] == headless[:-1]
    assert headless[-1] == "--headless=new"
    assert f"--user-data-dir={directory}" in headless
    assert {"--restore-last-session", "--no-first-run", "--password-store=basic"} < set(headless)


@pytest.mark.parametrize(("user", "unboxed"), [(0, True), (1000, False)])
def test_only_root_goes_without_a_sandbox(
    user: int, unboxed: bool, directory: str, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.makedirs(directory, 0o700)
    monkeypatch.setattr(own_chromium, "_prepare", lambda _directory: None)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert ("--no-sandbox" in headless_command(directory, environ=environ)) is unboxed


@pytest.mark.parametrize("insecure", [True, False])
def test_certificates_are_checked_unless_the_login_was_told_not_to(
    insecure: bool, directory: str, environ: dict[str, str]
) -> None:
    command = visible_command(directory, insecure=insecure, environ=environ)
    assert ("--ignore-certificate-errors" in command) is insecure


def test_tabs_of_the_last_time_are_forgotten_and_cookies_are_not(
    directory: str, environ: dict[str, str]
) -> None:
    sessions = os.path.join(directory, "Default", "Sessions")
    os.makedirs(sessions, 0o700)
    os.chmod(directory, 0o700)
    with open(os.path.join(directory, "Default", "Cookies"), "w"):
        pass
    headless_command(directory, environ=environ)
    assert os.listdir(os.path.join(directory, "Default")) == ["Cookies"]


def test_nothing_is_started_visibly_without_a_screen(directory: str, environ: dict[str, str]) -> None:
    del environ["DISPLAY"]
    with pytest.raises(BrowserError, match=r"no display|without a display"):
        visible_command(directory, environ=environ)


def test_nothing_is_started_headless_where_nobody_has_logged_in(
    directory: str, environ: dict[str, str]
) -> None:
    with pytest.raises(BrowserError, match="--relogin headless"):
        headless_command(directory, environ=environ)


@pytest.mark.parametrize(
    ("named", "found"),
    [
        pytest.param(None, "bin/chromium", id="nothing named"),
        pytest.param("firefox", "bin/chromium", id="a browser of another family named"),
        pytest.param("other/google-chrome", "other/google-chrome", id="a relative named"),
        pytest.param("gone/google-chrome", "bin/chromium", id="one that is gone named"),
    ],
)
def test_the_browser_that_the_person_named_is_used_if_it_is_of_the_family(
    named: str | None, found: str, tmp_path: Path, environ: dict[str, str]
) -> None:
    program(tmp_path / "other" / "google-chrome")
    named = str(tmp_path / named) if named and "/" in named else named
    assert find_chromium(named, environ) == str(tmp_path / found)


def test_without_any_there_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(BrowserError, match="no Chromium, Chrome or Edge"):
        find_chromium(environ={"PATH": str(tmp_path)}, platform="linux")


def test_it_is_ended_by_an_interrupt_so_that_it_writes_its_cookies(tmp_path: Path) -> None:
    note = tmp_path / "ended"
    ready = tmp_path / "ready"
    script = f"trap 'echo $CELLS_LOOPBACK_TOKEN > {note}; exit 0' INT; touch {ready}; sleep 60 & wait"
    browser = program(tmp_path / "chromium", script)
    chromium = HeadlessChromium([str(browser)], {**os.environ, "CELLS_LOOPBACK_TOKEN": "secret"})
    wait_for(ready)
    chromium.close()
    assert note.read_text() == "\n", "and it was never told our token"


def test_one_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_chromium, "CLOSING_TIMEOUT", 0.2)
    ready = tmp_path / "ready"
    browser = program(tmp_path / "chromium", f"trap '' INT; touch {ready}; exec sleep 60")
    chromium = HeadlessChromium([str(browser)], os.environ)
    wait_for(ready)
    started = time.monotonic()
    chromium.close()
    assert time.monotonic() - started < 10


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(BrowserError, match="does not start: No such file"):
        HeadlessChromium([str(tmp_path / "gone")], os.environ)


@pytest.mark.parametrize(("of_this_directory", "ends"), [(True, True), (False, False)])
def test_a_window_that_is_still_open_on_the_directory_is_closed_first(
    of_this_directory: bool, ends: bool, tmp_path: Path
) -> None:
    place = tmp_path if of_this_directory else tmp_path / "elsewhere"
    code = "import time; print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, f"--user-data-dir={place}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as window:
        assert window.stdout is not None
        window.stdout.readline()
        (tmp_path / "SingletonLock").symlink_to(f"{platform.node()}-{window.pid}")
        waiting = threading.Thread(target=window.wait)  # a process that nobody waits for stays
        waiting.start()
        close_running(str(tmp_path))
        waiting.join(10 if ends else 0)
        assert (window.returncode == -signal.SIGINT) is ends
        window.kill()


def test_a_window_that_closes_by_itself_just_then_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as window:
        window.wait()
    (tmp_path / "SingletonLock").symlink_to(f"{platform.node()}-{window.pid}")
    ended_since = f"chromium --user-data-dir={tmp_path}"
    monkeypatch.setattr("cells_loopback.desktop.own_chromium._command_line", lambda _pid: ended_since)
    close_running(str(tmp_path))


@pytest.mark.parametrize("target", ["elsewhere-1", "no number", "-", f"{platform.node()}-{2**22 + 1}"])
def test_a_window_on_another_machine_or_an_odd_link_is_left_alone(target: str, tmp_path: Path) -> None:
    (tmp_path / "SingletonLock").symlink_to(target)
    close_running(str(tmp_path))


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
