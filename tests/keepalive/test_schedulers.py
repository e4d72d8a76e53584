from __future__ import annotations

import json
import os
import plistlib
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from user_manager import UserManager

from cells_loopback.errors import StoreError
from cells_loopback.keepalive import schedulers, services
from cells_loopback.keepalive.schedulers import Launchd, Schedule, Systemd, TaskScheduler
from cells_loopback.keepalive.services import NAMESPACE_OPTIONS, Job

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVICE = "cells-loopback-keepalive.service"
TIMER = "cells-loopback-keepalive.timer"

# Runs as the manager's user: installs a job whose command is this Python with the given code.
INSTALL = """
import sys
from cells_loopback.keepalive.schedulers import system_scheduler
from cells_loopback.keepalive.services import Job
program, config_dir, *arguments = sys.argv[1:]
print(*system_scheduler().install(Job((program, *arguments), config_dir)), sep="\\n")
"""
QUERY = """
import dataclasses, json
from cells_loopback.keepalive.schedulers import system_scheduler
print(json.dumps(dataclasses.asdict(system_scheduler().query())))
"""
UNINSTALL = """
from cells_loopback.keepalive.schedulers import system_scheduler
print(system_scheduler().uninstall())
"""

# What the service runs: does what the keep-alive does, tries what it must not, and says what it saw.
PROGRAM = """
import asyncio, json, os, socket, ssl, subprocess, sys
import aiohttp, cryptography.x509, httpx, joserfc
from cells_loopback.keepalive.services import escape_sandbox

config_dir, outside, *arguments = sys.argv[1:]
seen = {"arguments": arguments, "cwd": os.getcwd()}

def attempt(name, action):
    try:
        action()
        seen[name] = True
    except OSError as error:
        seen[name] = error.strerror

ssl.create_default_context()
attempt("listens", lambda: socket.create_server(("127.0.0.1", 0)).close())
attempt("resolves", lambda: socket.getaddrinfo("localhost", 443))
attempt("write home", lambda: open(outside + ".inside", "w").close())
attempt("write /tmp", lambda: open("/tmp/cells-loopback-inside", "w").close())
attempt("raw socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close())
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
seen["NoNewPrivs"], seen["Seccomp"] = status["NoNewPrivs"].strip(), status["Seccomp"].strip()
seen["escaped"] = subprocess.run(escape_sandbox(["touch", outside], os.environ)).returncode
with open(os.path.join(config_dir, "seen.json"), "w") as file:
    json.dump(seen, file)
sys.exit(7)
"""


@pytest.fixture
def manager() -> Iterator[UserManager]:
    with UserManager() as running:
        yield running


def install(manager: UserManager, config_dir: str, *arguments: str) -> list[str]:
    ended = manager.run(sys.executable, "-c", INSTALL, sys.executable, config_dir, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def query(manager: UserManager) -> Schedule:
    return Schedule(**json.loads(manager.run(sys.executable, "-c", QUERY).stdout))


def test_under_a_real_user_manager_the_service_can_do_its_work_and_nothing_else(manager: UserManager) -> None:
    config_dir = f'{manager.home}/it\'s $HOME %h "quoted"'
    manager.run("mkdir", config_dir)
    outside, program = f"{manager.home}/outside", f"{manager.home}/program.py"
    with open(program, "w") as file:
        file.write(PROGRAM)
    written = install(manager, config_dir, program, config_dir, outside, "$HOME %h", 'a "b" \\c')
    assert "PrivateUsers=yes" in manager.run("cat", written[0]).stdout

    started = manager.run("systemctl", "--user", "start", SERVICE)

    assert started.returncode == 0, "7, an unreachable server, is no failure of the unit"
    with open(f"{config_dir}/seen.json") as file:
        seen = json.load(file)
    assert seen == {
        "arguments": ["$HOME %h", 'a "b" \\c'],
        "cwd": config_dir,
        "listens": True,
        "resolves": True,
        "write home": "Read-only file system",
        "write /tmp": "Read-only file system",
        "raw socket": "Address family not supported by protocol",
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "escaped": 0,
    }
    deadline = time.monotonic() + 10
    while not os.path.exists(outside):  # the user manager starts it on its own time
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_timer_is_armed_and_both_runs_and_exit_code_are_told(manager: UserManager) -> None:
    before = time.time()
    paths = install(manager, manager.home, "-c", "raise SystemExit(4)")
    unit_dir = f"{manager.home}/.config/systemd/user"
    assert paths == [f"{unit_dir}/{SERVICE}", f"{unit_dir}/{TIMER}"]

    waiting = query(manager)
    assert replace(waiting, next_run=None) == Schedule("systemd", installed=True, active=True)
    assert waiting.next_run
    assert before < waiting.next_run < before + 3.5 * 3600

    manager.run("systemctl", "--user", "start", SERVICE)
    ran = query(manager)
    assert ran.last_run
    assert before - 1 < ran.last_run < time.time() + 1
    assert ran.last_exit_code == 4


def test_installing_twice_is_installing_once_and_uninstalling_leaves_nothing(manager: UserManager) -> None:
    install(manager, manager.home, "-c", "pass")
    install(manager, manager.home, "-c", "pass")
    assert manager.run(sys.executable, "-c", UNINSTALL).stdout == "True\n"

    assert query(manager) == Schedule("systemd", installed=False)
    assert manager.run(sys.executable, "-c", UNINSTALL).stdout == "False\n"
    left = manager.run("find", manager.home, "-name", "*cells-loopback*").stdout
    assert left == ""


def test_where_sandboxes_are_forbidden_the_service_runs_with_what_is_left() -> None:
    with UserManager(sandboxes=False) as manager:
        written = install(manager, manager.home, "-c", "pass")
        service = manager.run("cat", written[0]).stdout
        assert "PrivateUsers" not in service
        assert "NoNewPrivileges=yes" in service
        manager.run("systemctl", "--user", "start", SERVICE)
        assert query(manager).last_exit_code == 0


def test_without_a_user_manager_the_units_are_written_and_the_hint_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    systemd = Systemd(str(tmp_path / "units"))
    with pytest.raises(StoreError, match="the units are written") as caught:
        systemd.install(Job(("/bin/true",), str(tmp_path)))
    assert "cron: 0 */3 * * * /bin/true --quiet" in caught.value.hint
    assert sorted(os.listdir(tmp_path / "units")) == [SERVICE, TIMER]
    service = (tmp_path / "units" / SERVICE).read_text()
    assert set(NAMESPACE_OPTIONS) <= set(service.splitlines()), "nothing has shown that these do not work"
    assert systemd.query() == Schedule("systemd", installed=True, active=False)
    assert systemd.uninstall()
    assert os.listdir(tmp_path / "units") == []


def test_a_unit_directory_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "units").touch()
    with pytest.raises(StoreError, match="cannot write"):
        Systemd(str(tmp_path / "units")).install(Job(("/bin/true",), str(tmp_path)))


class StandIn:
    """A program of another system: writes down how it was called, and answers as it is told."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self._log = directory / "calls.jsonl"
        monkeypatch.setenv("PATH", str(directory), prepend=":")

    def answer(self, name: str, *, output: str = "", code: int = 0, run: str = "") -> None:
        program = self._directory / name
        program.write_text(
            f"#!{sys.executable}\nimport json, shutil, sys\n"
            f"with open({str(self._log)!r}, 'a') as log:\n    print(json.dumps(sys.argv[1:]), file=log)\n"
            f"print({output!r}, end='')\n{run}\nsys.exit({code})\n"
        )
        program.chmod(0o700)

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    (tmp_path / "bin").mkdir()
    return StandIn(tmp_path / "bin", monkeypatch)


def test_launchd_is_given_the_agent_in_place_of_an_older_one(tmp_path: Path, stand_in: StandIn) -> None:
    stand_in.answer("launchctl")
    launchd = Launchd(str(tmp_path / "LaunchAgents"), 501)
    path = str(tmp_path / "LaunchAgents" / "cells-loopback-keepalive.plist")
    assert launchd.install(Job(("/bin/x",), "/c")) == [path]
    assert stand_in.calls() == [
        ["bootout", "gui/501/cells-loopback-keepalive"],
        ["bootstrap", "gui/501", path],
    ]
    with open(path, "rb") as file:
        assert plistlib.load(file)["ProgramArguments"] == ["/bin/x"]
    assert launchd.uninstall()
    assert not launchd.uninstall()


def test_launchds_answer_tells_how_the_last_run_ended(tmp_path: Path, stand_in: StandIn) -> None:
    launchd = Launchd(str(tmp_path), 501)
    assert launchd.query() == Schedule("launchd", installed=False)
    stand_in.answer("launchctl", output="gui/501/x = {\n\tstate = not running\n\tlast exit code = 7\n}\n")
    launchd.install(Job(("/bin/x",), "/c", minute=30))
    schedule = launchd.query()
    assert (schedule.installed, schedule.active, schedule.last_exit_code) == (True, True, 7)
    assert schedule.next_run
    assert 0 < schedule.next_run - time.time() <= 4 * 3600
    assert time.localtime(schedule.next_run).tm_min == 30


def test_launchd_is_asked_again_while_it_takes_the_older_agent_away(
    tmp_path: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedulers, "BOOTSTRAP_PAUSES", (0.0, 0.0))
    gone = str(tmp_path / "gone")
    busy = f"import os\nif not os.path.exists({gone!r}): open({gone!r}, 'x'); sys.exit(5)"
    stand_in.answer("launchctl", run=f"if sys.argv[1] == 'bootstrap':\n  exec({busy!r})")
    Launchd(str(tmp_path), 501).install(Job(("/bin/x",), "/c"))
    assert [verb for verb, *_ in stand_in.calls()] == ["bootout", "bootstrap", "bootstrap"]


def test_an_agent_that_launchd_refuses_is_told(
    tmp_path: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedulers, "BOOTSTRAP_PAUSES", (0.0,))
    stand_in.answer("launchctl", output="Bootstrap failed: 5: Input/output error\n", code=5)
    with pytest.raises(StoreError, match="Bootstrap failed: 5"):
        Launchd(str(tmp_path), 501).install(Job(("/bin/x",), "/c"))


@pytest.mark.parametrize(
    ("now", "expected"),
    [("08:59", "09:30"), ("09:29", "09:30"), ("09:30", "21:30"), ("21:30", "09:30 the next day")],
)
def test_launchds_next_run_is_the_next_moment_of_its_calendar(now: str, expected: str) -> None:
    def instant(text: str, day: int = 10) -> float:
        return time.mktime(time.strptime(f"2025-06-{day} {text[:5]}", "%Y-%m-%d %H:%M"))

    moments = [{"Hour": hour, "Minute": 30} for hour in (9, 21)]
    day = 11 if "next day" in expected else 10
    assert schedulers.next_calendar_run(moments, instant(now)) == instant(expected, day)


def test_windows_is_given_the_task_in_utf_16(tmp_path: Path, stand_in: StandIn) -> None:
    taken = tmp_path / "taken.xml"
    stand_in.answer("schtasks", run=f"shutil.copy(sys.argv[5], {str(taken)!r})")
    scheduler = TaskScheduler("HOME\\alice")
    assert scheduler.install(Job(("C:\\x.exe",), str(tmp_path))) == []
    path = tmp_path / "cells-loopback-keepalive.xml"
    assert stand_in.calls() == [
        ["/Create", "/TN", "cells-loopback-keepalive-alice", "/XML", str(path), "/F"],
    ]
    assert taken.read_bytes().decode("utf-16").startswith('<?xml version="1.0" encoding="UTF-16"?>')
    assert not path.exists()


def test_a_task_that_windows_refuses_is_told(tmp_path: Path, stand_in: StandIn) -> None:
    stand_in.answer("schtasks", output="ERROR: Access is denied.\n", code=1)
    with pytest.raises(StoreError, match="Access is denied"):
        TaskScheduler("HOME\\alice").install(Job(("C:\\x.exe",), str(tmp_path)))
    stand_in.answer("powershell", code=1)
    assert TaskScheduler("HOME\\alice").query() == Schedule("Task Scheduler", installed=False)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("1750000000\r\n1749990000\r\n7\r\n", (1750000000, 1749990000, 7)),
        ("1750000000\r\n943920000\r\n267011\r\n", (1750000000, None, None)),
        ("1750000000\r\n1749990000\r\n267009\r\n", (1750000000, 1749990000, None)),
    ],
    ids=["ran", "never ran", "is running"],
)
def test_windows_tells_the_next_and_the_last_run(
    answer: str, expected: tuple[float | None, ...], stand_in: StandIn
) -> None:
    stand_in.answer("powershell", output=answer)
    schedule = TaskScheduler("HOME\\alice").query()
    assert (schedule.next_run, schedule.last_run, schedule.last_exit_code) == expected


@pytest.mark.parametrize(
    ("platform", "kind"), [("linux", Systemd), ("darwin", Launchd), ("win32", TaskScheduler)]
)
def test_each_platform_has_its_scheduler(platform: str, kind: type) -> None:
    assert isinstance(schedulers.system_scheduler(platform, {"USERNAME": "alice"}), kind)


def test_the_three_schedulers_agree_on_the_period() -> None:
    job = Job(("/bin/x",), "/c")
    hours = services.PERIOD_HOURS
    assert f"00/{hours}:00:00" in services.render_systemd(job)[TIMER]
    assert services.render_launchd(job).count("<key>Hour</key>") == 24 // hours
    assert f"PT{hours}H" in services.render_task_scheduler(job, user="a")
