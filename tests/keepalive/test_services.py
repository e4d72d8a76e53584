from __future__ import annotations

import os
import plistlib
import re
import subprocess
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from requires import require_program

from cells_loopback.errors import UsageError
from cells_loopback.keepalive import services
from cells_loopback.keepalive.services import Job

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ODD_NAME = """it's $HOME %h "quoted" back\\slash é"""
MOST_EXPOSED = 2.0
"""systemd calls up to 2 "OK"; a plain service has 9.6."""


def job(config_dir: str = "/home/a/.config/cells-loopback", *arguments: str) -> Job:
    return Job((sys.executable, "--config-dir", config_dir, *arguments), config_dir, minute=17)


@pytest.fixture
def analyze(tmp_path: Path) -> AnalyzeCommand:
    return AnalyzeCommand(require_program("systemd-analyze"), tmp_path)


class AnalyzeCommand:
    """systemd's own check of unit files, in a directory made for it."""

    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self._directory = directory

    def __call__(self, verb: str, units: Mapping[str, str], *options: str) -> str:
        for name, text in units.items():
            (self._directory / name).write_text(text)
        ended = subprocess.run(
            [self._program, verb, *options, *(self._directory / name for name in units)],
            env={**os.environ, "XDG_RUNTIME_DIR": str(self._directory)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout


@pytest.mark.parametrize("namespaces", [True, False], ids=["sandboxed", "without namespaces"])
@pytest.mark.parametrize("directory", ["/home/a/.config/cells-loopback", f"/home/{ODD_NAME}"])
def test_systemd_finds_nothing_to_complain_about_in_the_units(
    namespaces: bool, directory: str, analyze: AnalyzeCommand
) -> None:
    units = services.render_systemd(job(directory), namespaces=namespaces)
    assert sorted(units) == ["cells-loopback-keepalive.service", "cells-loopback-keepalive.timer"]
    analyze("verify", units, "--user")


def test_systemd_rates_the_service_as_hardly_exposed(analyze: AnalyzeCommand) -> None:
    name = "cells-loopback-keepalive.service"
    service = services.render_systemd(job())[name]
    report = analyze("security", {name: service}, "--offline=true", "--no-pager")
    exposure = re.search(r"Overall exposure level.*: (\d+\.\d+)", report)
    assert exposure
    assert float(exposure[1]) <= MOST_EXPOSED


def test_a_missed_run_is_made_up_for_and_machines_do_not_run_in_step() -> None:
    timer = services.render_systemd(job())["cells-loopback-keepalive.timer"]
    for line in ("OnCalendar=*-*-* 00/3:00:00", "Persistent=yes", "RandomizedDelaySec=15min"):
        assert line in timer.splitlines()


def test_only_the_config_directory_can_be_written_to() -> None:
    service = services.render_systemd(job("/home/a/b c"))["cells-loopback-keepalive.service"]
    writable = [line for line in service.splitlines() if re.match("(ReadWrite|Bind)Paths|.*Directory=", line)]
    assert writable == ["WorkingDirectory=-/home/a/b c/", 'ReadWritePaths="-/home/a/b c"']


# launchd.plist(5), as far as we use it
PLIST_KEYS: Mapping[str, type] = {
    "Label": str,
    "ProgramArguments": list,
    "WorkingDirectory": str,
    "EnvironmentVariables": dict,
    "StartCalendarInterval": list,
    "RunAtLoad": bool,
    "ProcessType": str,
    "LowPriorityIO": bool,
    "Umask": int,
}


def test_the_launchd_agent_uses_documented_keys_with_their_types() -> None:
    with_environment = Job(("/bin/x", "é <&> ]]>"), "/a/b", (("NO_PROXY", "a,b"),), minute=17)
    agent = plistlib.loads(services.render_launchd(with_environment).encode())
    assert {name: type(value) for name, value in agent.items()} == PLIST_KEYS
    assert agent["ProgramArguments"] == ["/bin/x", "é <&> ]]>"]
    assert agent["EnvironmentVariables"] == {"NO_PROXY": "a,b"}
    assert agent["StartCalendarInterval"][:2] == [{"Hour": 0, "Minute": 17}, {"Hour": 3, "Minute": 17}]
    assert len(agent["StartCalendarInterval"]) == 8
    assert agent["Umask"] == 0o077


def test_a_parser_that_is_not_pythons_reads_the_launchd_agent(tmp_path: Path) -> None:
    agent, binary = tmp_path / "agent.plist", tmp_path / "binary.plist"
    agent.write_text(services.render_launchd(job(ODD_NAME)))
    subprocess.run([require_program("plistutil"), "-i", agent, "-o", binary], check=True, timeout=30)
    assert plistlib.loads(binary.read_bytes(), fmt=plistlib.FMT_BINARY) == plistlib.loads(agent.read_bytes())


# The Task Scheduler's schema: for each element we use, the children it may have. Those of a trigger are an
# xs:sequence and so come in this order; all other groups are xs:all, in any order.
TASK_SCHEMA: Mapping[str, list[str]] = {
    "Task": ["RegistrationInfo", "Triggers", "Settings", "Data", "Principals", "Actions"],
    "RegistrationInfo": [
        *("URI", "SecurityDescriptor", "Source", "Date", "Author", "Version"),
        *("Description", "Documentation"),
    ],
    "Triggers": ["TimeTrigger", "CalendarTrigger", "LogonTrigger"],
    "TimeTrigger": [
        *("Enabled", "StartBoundary", "EndBoundary", "Repetition", "ExecutionTimeLimit", "RandomDelay"),
    ],
    "Repetition": ["Interval", "Duration", "StopAtDurationEnd"],
    "Principals": ["Principal"],
    "Principal": ["UserId", "LogonType", "GroupId", "DisplayName", "RunLevel"],
    "Settings": [
        *("AllowStartOnDemand", "RestartOnFailure", "MultipleInstancesPolicy", "DisallowStartIfOnBatteries"),
        *("StopIfGoingOnBatteries", "AllowHardTerminate", "StartWhenAvailable", "RunOnlyIfNetworkAvailable"),
        *("WakeToRun", "Enabled", "Hidden", "ExecutionTimeLimit", "Priority", "RunOnlyIfIdle"),
    ],
    "Actions": ["Exec"],
    "Exec": ["Command", "Arguments", "WorkingDirectory"],
}
NAMESPACE = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"


def read_task(text: str) -> ET.Element:
    """Read the XML as the Task Scheduler does: in UTF-16."""
    return ET.fromstring(text.encode("utf-16"))


def test_the_windows_task_follows_the_task_schedulers_schema() -> None:
    task = read_task(services.render_task_scheduler(job(), user="HOME\\alice"))
    assert (task.tag, task.attrib) == (f"{NAMESPACE}Task", {"version": "1.2"})
    for element in task.iter():
        name = element.tag.removeprefix(NAMESPACE)
        children = [child.tag.removeprefix(NAMESPACE) for child in element]
        allowed = TASK_SCHEMA.get(name, [])
        assert set(children) <= set(allowed), name
        if name.endswith("Trigger"):
            assert children == sorted(children, key=allowed.index)
        assert bool(children) != bool((element.text or "").strip()), name


def test_the_windows_task_runs_as_the_person_and_makes_up_for_a_missed_run() -> None:
    task = read_task(services.render_task_scheduler(job(), user="HOME\\alice"))
    values = {element.tag.removeprefix(NAMESPACE): element.text for element in task.iter()}
    assert (values["UserId"], values["LogonType"]) == ("HOME\\alice", "InteractiveToken")
    assert (values["StartBoundary"], values["Interval"]) == ("2024-01-01T00:17:00", "PT3H")
    assert (values["StartWhenAvailable"], values["MultipleInstancesPolicy"]) == ("true", "IgnoreNew")


def test_the_windows_task_quotes_its_arguments_and_its_xml() -> None:
    directory = "C:\\Users\\a & b\\{minute}"
    task = read_task(services.render_task_scheduler(job(directory, "run"), user="a"))
    assert task.findtext(f".//{NAMESPACE}Arguments") == f'--config-dir "{directory}" run'
    assert task.findtext(f".//{NAMESPACE}WorkingDirectory") == directory


def test_the_job_runs_the_launcher_beside_the_interpreter(tmp_path: Path) -> None:
    (tmp_path / "cells-loopback").touch()
    built = services.build_job("/c", minute=3, executable=str(tmp_path / "python3"), environ={})
    assert built.command == (
        *(str(tmp_path / "cells-loopback"), "--config-dir", "/c"),
        *("keepalive", "run", "--once"),
    )
    assert (built.config_dir, built.minute) == ("/c", 3)


def test_cron_is_given_the_same_command_with_its_percent_signs_escaped() -> None:
    line = services.render_cron(job("/home/100 %", "run"))
    assert line == f"17 */3 * * * {sys.executable} --config-dir '/home/100 \\%' run --quiet"


def test_the_job_runs_the_module_where_there_is_no_launcher(tmp_path: Path) -> None:
    built = services.build_job("/c", minute=0, executable=str(tmp_path / "python3"), environ={})
    assert built.command[:3] == (str(tmp_path / "python3"), "-m", "cells_loopback")


def test_on_windows_the_job_opens_no_console_window(tmp_path: Path) -> None:
    (tmp_path / "pythonw.exe").touch()
    built = services.build_job("/c", minute=0, executable=str(tmp_path / "python.exe"), environ={})
    assert built.command[:3] == (str(tmp_path / "pythonw.exe"), "-m", "cells_loopback")


@pytest.mark.parametrize("name", ["a\nExecStart=/bin/evil", "a\x07", "a\udcff"])
def test_a_path_that_a_unit_file_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        services.build_job(f"/home/{name}", minute=0, environ={})


def test_the_proxies_of_the_shell_come_along_but_not_their_passwords() -> None:
    environ = {
        "HTTPS_PROXY": "http://proxy:3128",
        "http_proxy": "http://user:password@proxy:3128",
        "NO_PROXY": "",
        "SSL_CERT_FILE": "/etc/ssl/own.pem",
        "HOME": "/home/a",
    }
    assert dict(services.carried_environment(environ)) == {
        "HTTPS_PROXY": "http://proxy:3128",
        "SSL_CERT_FILE": "/etc/ssl/own.pem",
    }


def test_a_command_is_left_alone_outside_the_hardened_unit() -> None:
    assert services.escape_sandbox(["browser", "url"], {}) == ["browser", "url"]


def test_a_command_escapes_the_hardened_unit_with_its_time_limit() -> None:
    escaped = services.escape_sandbox(["browser", "-x"], {services.SANDBOX_MARK: "systemd"}, seconds=90)
    assert escaped[:2] == ["systemd-run", "--user"]
    assert {"--property=RuntimeMaxSec=90", "--property=KillSignal=SIGINT"} < set(escaped)
    assert escaped[-3:] == ["--", "browser", "-x"]


def test_what_an_opener_leaves_behind_outside_the_unit_is_not_ended_with_it() -> None:
    escaped = services.escape_sandbox(["xdg-open", "url"], {services.SANDBOX_MARK: "systemd"})
    assert "--property=KillMode=process" in escaped
