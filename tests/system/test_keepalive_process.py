"""The keep-alive as it really runs: processes, signals, a real Chromium, a real systemd user manager."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kept_alive import rest, rest_session
from program import Program, finish
from requires import require_program, thorough
from sessions import make_session, read_session, write_session
from user_manager import UID, UserManager

from cells_loopback.keepalive.policy import DAILY
from cells_loopback.protocol.client import ClientRegistration, parse_redirect_uri
from cells_loopback.store.profiles import ProfileStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cells_loopback.store.profiles import Profile
    from cells_loopback.testing import CellsServer

DUE = DAILY[1] + 60
BROWSERS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "browser")
OWN_CHROMIUM = os.path.join(BROWSERS, "own_chromium.py")
LINK_OPENER = os.path.join(BROWSERS, "link_opener.py")
ANY_PORT = ClientRegistration("any-port", (parse_redirect_uri("http://127.0.0.1:0/servers/callback"),))

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and shell scripts")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@contextlib.contextmanager
def resident(program: Program) -> Iterator[subprocess.Popen[str]]:
    """Start the resident run and wait until it sleeps; it is gone at the end."""
    process = program.start("keepalive", "run", environment={"PYTHONUNBUFFERED": "1"})
    try:
        assert process.stderr is not None
        assert "keeping the sessions alive" in process.stderr.readline()
        wait_for((program.config_dir / "keepalive.json").exists)
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: object, seconds: float = 30.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        time.sleep(0.02)


def write_due_session(server: CellsServer, config_dir: Path, name: str = "work") -> None:
    write_session(config_dir, rest(make_session(server, name), DUE))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_resident_run_at_once(
    number: signal.Signals, code: int, server: CellsServer, program: Program
) -> None:
    write_session(program.config_dir, make_session(server))
    with resident(program) as process:
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=10)
    assert (process.returncode, stdout, stderr) == (code, "", "")


def test_profiles_that_come_are_renewed_and_ones_that_go_are_forgotten(
    server: CellsServer, program: Program
) -> None:
    with resident(program):
        write_due_session(server, program.config_dir, "first")
        server.wait_for("refresh", 1)
        write_due_session(server, program.config_dir, "second")
        server.wait_for("refresh", 2)
        wait_for(lambda: "second" in json.loads(state(program))["profiles"])
        os.unlink(program.profile_path("first"))
        write_due_session(server, program.config_dir, "third")
        wait_for(lambda: set(json.loads(state(program))["profiles"]) == {"second", "third"})


def state(program: Program) -> str:
    return (program.config_dir / "keepalive.json").read_text()


def test_with_fifty_processes_at_once_there_is_one_refresh_for_each_expiry(
    server: CellsServer, program: Program
) -> None:
    write_session(program.config_dir, make_session(server))
    store = ProfileStore(str(program.config_dir))
    with resident(program):
        for expiry in (1, 2):
            lock = store.lock("work")
            lock.acquire()
            due = rest(read_session(program.config_dir), DUE)
            with store.replacement("work") as replacement:
                store.write(due, replacement)
            asking = [program.start("token") for _ in range(50)]
            # All of them are started, and the resident run has seen the change: now they may.
            for one in asking:
                wait_for(partial(waits_for_lock, one.pid))
            lock.release()
            answers = [finish(process) for process in asking]
            assert {answer.returncode for answer in answers} == {0}
            assert len({answer.stdout for answer in answers}) == 1
            assert server.count("refresh") == expiry


def waits_for_lock(pid: int) -> bool:
    """Whether a process has ended, or runs our program by now and waits for the lock."""
    try:
        with open(f"/proc/{pid}/wchan") as file:
            call = file.read()
        waits = any(name in call for name in ("nanosleep", "select", "poll"))  # time.sleep, by version
        with open(f"/proc/{pid}/cmdline") as file:
            return waits and "token" in file.read()
    except OSError:
        return True


def test_the_resident_run_uses_no_time_while_it_sleeps(server: CellsServer, program: Program) -> None:
    if not os.path.exists("/proc/self/stat"):
        pytest.skip("there is no /proc to look at")
    write_session(program.config_dir, make_session(server))
    with resident(program) as process:
        wait_for(lambda: used(process.pid) == used(process.pid, after=0.3))
        before = used(process.pid)
        time.sleep(1.5)  # nothing is awaited: nothing is what is to be seen
        assert used(process.pid) == before


def used(pid: int, after: float = 0.0) -> tuple[int, int]:
    """Return the processor time of a process in clock ticks, and how often it gave the processor up."""
    time.sleep(after)
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    with open(f"/proc/{pid}/status") as file:
        switches = next(line for line in file if line.startswith("voluntary_ctxt_switches"))
    return int(fields[11]) + int(fields[12]), int(switches.split()[1])


def test_a_thousand_profiles_fit_into_sixty_megabytes_and_half_a_second(
    server: CellsServer, program: Program
) -> None:
    if not os.path.exists("/proc/self/status"):
        pytest.skip("there is no /proc to look at")
    profile = make_session(server)
    write_session(program.config_dir, profile)
    text = program.profile_path("work").read_text()
    for number in range(1000):
        path = program.profile_path(f"p{number}")
        path.write_text(text)
        path.chmod(0o600)
    with resident(program) as process:
        rest_session(program.config_dir, DUE)
        server.wait_for("refresh")
        wait_for(lambda: "tried_at" in state(program))
        with open(f"/proc/{process.pid}/status") as file:
            peak = next(line for line in file if line.startswith("VmHWM"))
        assert int(peak.split()[1]) < 60 * 1024

    before = os.times()
    status = program.run("keepalive", "status", "--json")
    after = os.times()
    assert len(json.loads(status.stdout)["sessions"]) == 1001
    # The processor's time, not the wall's: other tests run beside this one.
    assert after.children_user - before.children_user < 1.0


def test_once_does_what_is_due_and_tells_how_it_went(server: CellsServer, program: Program) -> None:
    write_due_session(server, program.config_dir)
    done = program.run("keepalive", "run", "--once")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "work: renewed\n")
    server.revoke_sessions()
    rest_session(program.config_dir, DUE)
    refused = program.run("keepalive", "run", "--once", "--quiet")
    assert refused.returncode == 4
    assert refused.stderr == (
        "error: work: the server no longer renews this session\n"
        "hint: log in again: cells-loopback login --profile work\n"
    )
    status = program.run("keepalive", "status")
    assert status.returncode == 4
    assert "cells-loopback login --profile work" in status.stdout
    assert not [secret for secret in server.secrets() if secret in state(program) + status.stdout]


@pytest.mark.parametrize("option", [("--once", "status"), ("--json", "run"), ("--once", "install")])
def test_an_option_that_belongs_to_another_verb_is_refused(option: tuple[str, str], program: Program) -> None:
    assert program.run("keepalive", option[1], option[0]).returncode == 2


def test_a_profile_that_is_not_there_is_told(program: Program) -> None:
    assert program.run("keepalive", "run", "--once", "-p", "gone").returncode == 3


def test_without_a_terminal_or_any_stream_it_runs_all_the_same(server: CellsServer, program: Program) -> None:
    """As under pythonw on Windows, where ``sys.stdout`` and ``sys.stderr`` are None."""
    write_due_session(server, program.config_dir)
    code = (
        "import sys; sys.stdin = sys.stdout = sys.stderr = None;"
        "sys.argv[1:] = ['keepalive', 'run', '--once'];"
        "from cells_loopback.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=program.environment, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert server.count("refresh") == 1


# -- a headless Chromium


@pytest.fixture
def chromium(tmp_path: Path, program: Program, server: CellsServer) -> str:
    """The program of the profile's own Chromium; its window is played by a person without a screen."""
    require_program("chromium")
    launcher = tmp_path / "own-chromium"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} {OWN_CHROMIUM} "$@"\n')
    launcher.chmod(0o700)
    program.environment.update(
        DISPLAY=":99", PERSON_NAME=server.user.name, PERSON_PASSWORD=server.user.password
    )
    return str(launcher)


def log_in_visibly(program: Program, server: CellsServer, chromium: str) -> None:
    login = ("login", server.site, "--client-id", "any-port", "-p", "work", "--timeout", "60")
    uri = ("--redirect-uri", "http://127.0.0.1:0/servers/callback")
    done = program.run(*login, *uri, "--relogin", "headless", "--browser", chromium)
    assert done.returncode == 0, done.stderr


@thorough
def test_a_headless_chromium_logs_in_again_without_a_person_after_the_session_was_revoked(
    server: CellsServer, program: Program, chromium: str
) -> None:
    log_in_visibly(program, server, chromium)
    directory = program.config_dir / "browser" / "work"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    before = read_session(program.config_dir)
    del program.environment["DISPLAY"], program.environment["PERSON_PASSWORD"]

    for round_ in (1, 2):
        server.revoke_sessions()
        rest_session(program.config_dir, DUE)
        done = program.run("keepalive", "run", "--once", "-v")
        assert done.returncode == 0, done.stderr
        assert "work: logged in again" in done.stderr
        session = read_session(program.config_dir)
        assert session.tokens.access_token.reveal() in server.access_tokens()
        assert (session.settings, session.user.sub) == (before.settings, before.user.sub)
        assert server.count("exchange") == 1 + round_
        # A profile has at most one browser an hour.
        make_last_browser_older(program)
    assert not (directory / "SingletonLock").is_symlink(), "Chromium is gone"
    assert sum(request.path == "/login" and request.method == "POST" for request in server.requests) == 1

    assert program.run("logout", "-p", "work").returncode == 0
    assert not directory.exists(), "the web session is forgotten with the session"


def make_last_browser_older(program: Program) -> None:
    document = json.loads(state(program))
    document["profiles"]["work"]["browser_at"] -= 3600
    (program.config_dir / "keepalive.json").write_text(json.dumps(document))


@thorough
def test_a_headless_chromium_is_started_with_nothing_secret_on_its_command_line(
    server: CellsServer, program: Program, chromium: str, tmp_path: Path
) -> None:
    log_in_visibly(program, server, chromium)
    arguments = tmp_path / "arguments"
    launcher = tmp_path / "own-chromium"
    launcher.write_text(launcher.read_text().replace("exec", f'echo "$@" >> {arguments}\nexec'))
    server.revoke_sessions()
    rest_session(program.config_dir, DUE)
    assert program.run("keepalive", "run", "--once").returncode == 0
    command = arguments.read_text()
    assert "--headless=new" in command
    assert "/start/" in command
    assert not [secret for secret in server.secrets() if secret in command]


# -- systemd


@thorough
def test_installed_it_renews_from_inside_its_sandbox(server: CellsServer) -> None:
    with UserManager() as manager:
        command = shutil.which("cells-loopback", path=os.path.dirname(sys.executable))
        assert command is not None
        config_dir = f"{manager.home}/.config/cells-loopback"
        give(manager, config_dir, rest(make_session(server), DUE))
        assert "not installed" in manager.run(command, "keepalive", "status").stdout
        installed = manager.run(command, "keepalive", "install")
        assert installed.returncode == 0, installed.stderr
        assert [os.path.basename(path) for path in installed.stdout.splitlines()] == [
            "cells-loopback-keepalive.service",
            "cells-loopback-keepalive.timer",
        ]

        manager.run("systemctl", "--user", "start", "cells-loopback-keepalive.service")

        assert server.count("refresh", 200) == 1
        report = json.loads(manager.run(command, "keepalive", "status", "--json").stdout)
        assert (report["scheduler"], report["installed"], report["active"]) == ("systemd", True, True)
        assert report["last_exit_code"] == 0
        assert report["next_run"] > report["last_run"]
        [session] = report["sessions"]
        assert (session["profile"], session["last_exit_code"]) == ("work", 0)
        assert session["due_at"] > session["renewed_at"]

        assert "no longer" in manager.run(command, "keepalive", "uninstall").stderr
        assert "not installed" in manager.run(command, "keepalive", "uninstall").stderr
        assert not json.loads(manager.run(command, "keepalive", "status", "--json").stdout)["installed"]


@thorough
def test_from_inside_its_sandbox_it_opens_a_browser_outside_of_it(server: CellsServer) -> None:
    with UserManager() as manager:
        command = shutil.which("cells-loopback", path=os.path.dirname(sys.executable))
        assert command is not None
        log = f"{manager.home}/tabs"  # which the service itself could not write
        person = ["--log", log, "--user", server.user.name, "--password", server.user.password]
        browser = shlex.join([sys.executable, LINK_OPENER, *person]) + " %s"
        profile = make_session(server, client=ANY_PORT)
        renewals = replace(profile.renewals, rejected_at=profile.renewals.refresh_token_at)
        settings = replace(profile.settings, relogin="browser", browser=browser)
        profile = replace(profile, renewals=renewals, settings=settings)
        give(manager, f"{manager.home}/.config/cells-loopback", profile)
        assert manager.run(command, "keepalive", "install").returncode == 0
        manager.run("systemctl", "--user", "set-environment", "DISPLAY=:0")

        manager.run("systemctl", "--user", "start", "cells-loopback-keepalive.service")

        report = json.loads(manager.run(command, "keepalive", "status", "--json").stdout)
        assert (report["last_exit_code"], report["sessions"][0]["needs_person"]) == (0, False)
        assert server.count("exchange") == 2
        with open(log) as tabs:
            assert len(tabs.readlines()) == 1


def give(manager: UserManager, config_dir: str, profile: Profile) -> None:
    """Put a session into the config directory of the manager's user."""
    write_session(Path(config_dir), profile)
    for directory, _, files in os.walk(os.path.dirname(config_dir)):
        for path in (directory, *(os.path.join(directory, name) for name in files)):
            os.chown(path, UID, UID)
