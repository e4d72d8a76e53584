"""The system's own scheduler: put the keep-alive's job in place, take it away, ask how it fares.

What is written is `services`' part. One class for each platform, all with the same three verbs; each
asks the platform's own command and believes its answer.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass

from cells_loopback.errors import StoreError
from cells_loopback.keepalive import services
from cells_loopback.process.windows import system_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from cells_loopback.keepalive.services import Job

    class Scheduler(Protocol):
        """Starts the keep-alive's job from time to time."""

        name: str

        def install(self, job: Job) -> list[str]:
            """Put the job in place and return the files written. Raises `StoreError`."""

        def uninstall(self) -> bool:
            """Take the job away; False when there was none."""

        def query(self) -> Schedule:
            """Return how the job stands; an absent scheduler has no job."""


_SECONDS = 60


@dataclass(frozen=True)
class Schedule:
    """How the job stands. Times are Unix seconds, None when unknown or never."""

    scheduler: str
    installed: bool
    active: bool = False
    next_run: float | None = None
    last_run: float | None = None
    last_exit_code: int | None = None


def system_scheduler(platform: str = sys.platform, environ: Mapping[str, str] = os.environ) -> Scheduler:
    """Return this platform's scheduler, for the person who runs this."""
    home = os.path.expanduser("~")
    if platform == "darwin":
        return Launchd(os.path.join(home, "Library", "LaunchAgents"), os.getuid())
    if platform == "win32":
        user = environ.get("USERNAME", "")
        return TaskScheduler(f"{environ.get('USERDOMAIN', '.')}\\{user}")
    config_home = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    return Systemd(os.path.join(config_home, "systemd", "user"))


class Systemd:
    """The person's own instance of systemd: a service and its timer in ``unit_dir``."""

    name = "systemd"
    _service = f"{services.NAME}.service"
    _timer = f"{services.NAME}.timer"

    def __init__(self, unit_dir: str) -> None:
        self._unit_dir = unit_dir
        self._paths = [os.path.join(unit_dir, unit) for unit in (self._service, self._timer)]

    def install(self, job: Job) -> list[str]:
        """Write the units, hardened as far as this system lets them, and enable the timer."""
        units = services.render_systemd(job, namespaces=self._namespaces_work(job))
        for path, text in zip(self._paths, units.values(), strict=True):
            _write(path, text.encode())
        for arguments in (["daemon-reload"], ["enable", self._timer], ["restart", self._timer]):
            ended = _run(["systemctl", "--user", *arguments])
            if ended.failed:
                raise StoreError(
                    f"the units are written, but systemd did not take them: {ended.complaint}",
                    hint="run this again in a login session; where systemd does not run, use cron: "
                    + services.render_cron(job),
                    code="scheduler",
                )
        return self._paths

    def _namespaces_work(self, job: Job) -> bool:
        """Try the sandbox on the very program, for AppArmor and kernels may deny it to user units.

        Only a program that runs without it shows that it is the sandbox that fails.
        """
        probe = ["systemd-run", "--user", "--wait", "--quiet", "--collect"]
        properties = [f"--property={option}" for option in services.NAMESPACE_OPTIONS]
        program = ["--", job.command[0], "--version"]
        return not _run([*probe, *properties, *program]).failed or _run([*probe, *program]).failed

    def uninstall(self) -> bool:
        """Disable the timer, and remove the units and the timer's memory of its last run."""
        installed = [path for path in self._paths if os.path.exists(path)]
        _run(["systemctl", "--user", "disable", "--now", self._timer])
        _run(["systemctl", "--user", "clean", "--what=state", self._timer])
        for path in installed:
            os.unlink(path)
        _run(["systemctl", "--user", "daemon-reload"])
        return bool(installed)

    def query(self) -> Schedule:
        """Ask systemd for the numbers themselves, which ``systemctl show`` gives as local dates."""
        installed = all(map(os.path.exists, self._paths))
        timer = self._properties(self._timer, "Timer", "LastTriggerUSec", "NextElapseUSecRealtime")
        service = self._properties(self._service, "Service", "ExecMainExitTimestamp", "ExecMainStatus")
        if not installed or timer is None or service is None:
            return Schedule(self.name, installed)
        last_trigger, next_run = timer
        ended, exit_code = service
        return Schedule(
            self.name,
            installed,
            active=not _run(["systemctl", "--user", "--quiet", "is-active", self._timer]).failed,
            next_run=_from_microseconds(next_run),
            last_run=_from_microseconds(ended) or _from_microseconds(last_trigger),
            last_exit_code=exit_code if ended else None,
        )

    def _properties(self, unit: str, interface: str, *names: str) -> list[int] | None:
        path = "/org/freedesktop/systemd1/unit/" + "".join(
            character if character.isalnum() else f"_{ord(character):02x}" for character in unit
        )
        bus_name = "org.freedesktop.systemd1"
        get = ["busctl", "--user", "get-property", bus_name, path, f"{bus_name}.{interface}"]
        ended = _run([*get, *names])
        return None if ended.failed else [int(line.split()[1]) for line in ended.output.splitlines()]


def _from_microseconds(instant: int) -> float | None:
    return instant / 1e6 if 0 < instant < 2**64 - 1 else None


BOOTSTRAP_PAUSES = (0.5, 1.0, 2.0)
"""Seconds after which launchd is asked again: it may still be taking the older agent away."""


class Launchd:
    """The person's agents on macOS."""

    name = "launchd"

    def __init__(self, agents_dir: str, uid: int) -> None:
        self._path = os.path.join(agents_dir, f"{services.NAME}.plist")
        self._domain = f"gui/{uid}"

    def install(self, job: Job) -> list[str]:
        """Write the agent's property list and load it, in place of an older one."""
        _write(self._path, services.render_launchd(job).encode())
        _run(["launchctl", "bootout", f"{self._domain}/{services.NAME}"])
        bootstrap = ["launchctl", "bootstrap", self._domain, self._path]
        ended = _run(bootstrap)
        for pause in BOOTSTRAP_PAUSES:
            if ended.failed:
                time.sleep(pause)
                ended = _run(bootstrap)
        if ended.failed:
            raise StoreError(
                f"the agent is written, but launchd did not take it: {ended.complaint}",
                hint="it starts at your next login to the desktop; or run this again there",
                code="scheduler",
            )
        return [self._path]

    def uninstall(self) -> bool:
        """Unload the agent and remove its property list."""
        _run(["launchctl", "bootout", f"{self._domain}/{services.NAME}"])
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return False
        return True

    def query(self) -> Schedule:
        """Ask launchd whether the agent is loaded and how it ended; the next run follows from the file."""
        import plistlib
        import re

        try:
            with open(self._path, "rb") as file:
                moments = plistlib.load(file)["StartCalendarInterval"]
        except FileNotFoundError:
            return Schedule(self.name, installed=False)
        ended = _run(["launchctl", "print", f"{self._domain}/{services.NAME}"])
        exit_code = re.search(r"last exit code = (\d+)", ended.output)
        return Schedule(
            self.name,
            installed=True,
            active=not ended.failed,
            next_run=None if ended.failed else next_calendar_run(moments, time.time()),
            last_exit_code=int(exit_code[1]) if exit_code else None,
        )


def next_calendar_run(moments: list[dict[str, int]], now: float) -> float:
    """Return when launchd starts a job with this ``StartCalendarInterval`` next, in local time."""
    today = time.localtime(now)
    return min(
        instant
        for day in (0, 1)
        for moment in moments
        if (instant := time.mktime(_at(today, day, moment["Hour"], moment["Minute"]))) > now
    )


def _at(today: time.struct_time, days: int, hour: int, minute: int) -> time.struct_time:
    year, month, day = today[:3]
    return time.struct_time((year, month, day + days, hour, minute, 0, 0, 0, -1))


class TaskScheduler:
    """The Task Scheduler of Windows, where all users' tasks share one folder: ours is named for its user."""

    name = "Task Scheduler"

    def __init__(self, user: str) -> None:
        self._user = user
        self._task = "-".join([services.NAME, user.rpartition("\\")[2]])

    def install(self, job: Job) -> list[str]:
        """Register the task, in place of an older one."""
        path = os.path.join(job.config_dir, f"{services.NAME}.xml")
        _write(path, services.render_task_scheduler(job, user=self._user).encode("utf-16"))
        try:
            ended = _run([system_program("schtasks"), "/Create", "/TN", self._task, "/XML", path, "/F"])
        finally:
            os.unlink(path)
        if ended.failed:
            raise StoreError(
                f"the Task Scheduler did not take the task: {ended.complaint}",
                hint="run this again in a session with the right to create tasks",
                code="scheduler",
            )
        return []

    def uninstall(self) -> bool:
        """Delete the task."""
        return not _run([system_program("schtasks"), "/Delete", "/TN", self._task, "/F"]).failed

    def query(self) -> Schedule:
        """Ask PowerShell, because ``schtasks`` answers in the language of the system."""
        script = (
            "$i = Get-ScheduledTaskInfo -TaskName $env:CELLS_LOOPBACK_TASK -ErrorAction Stop; "
            "foreach ($t in $i.NextRunTime, $i.LastRunTime) "
            "{ if ($t) { [DateTimeOffset]::new($t).ToUnixTimeSeconds() } else { 0 } }; $i.LastTaskResult"
        )
        command = [system_program("powershell"), "-NoProfile", "-NonInteractive", "-Command", script]
        ended = _run(command, CELLS_LOOPBACK_TASK=self._task)
        if ended.failed:
            return Schedule(self.name, installed=False)
        next_run, last_run, result = map(int, ended.output.split())
        never_ran = result == _TASK_HAS_NOT_RUN
        has_ended = result not in {_TASK_HAS_NOT_RUN, _TASK_RUNNING}
        return Schedule(
            self.name,
            installed=True,
            active=True,
            next_run=next_run or None,
            last_run=None if never_ran else last_run,
            last_exit_code=result if has_ended else None,
        )


# SCHED_S_TASK_RUNNING and SCHED_S_TASK_HAS_NOT_RUN, MS-TSCH §2.3.14; the "last run" of the latter is in 1999.
_TASK_RUNNING, _TASK_HAS_NOT_RUN = 0x41301, 0x41303


@dataclass(frozen=True)
class _Ended:
    failed: bool
    output: str
    complaint: str


def _run(command: list[str], **environment: str) -> _Ended:
    import subprocess

    try:
        ended = subprocess.run(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        return _Ended(True, "", f"there is no {command[0]} on this machine")
    except (OSError, subprocess.TimeoutExpired) as error:
        return _Ended(True, "", f"{command[0]}: {error}")
    lines = (ended.stderr or ended.stdout).strip().splitlines()
    return _Ended(ended.returncode != 0, ended.stdout, lines[0] if lines else f"{command[0]} failed")


def _write(path: str, content: bytes) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror}", hint="mend that, then run this again"
        ) from error
