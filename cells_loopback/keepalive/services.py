"""What the system's own scheduler is told about the keep-alive: systemd units, launchd agent, Windows task.

Text only; `schedulers` puts it in place. All three say the same: start ``keepalive run --once`` every
`PERIOD_HOURS`, make up for a run that was missed while the machine slept or was off, and do not let
the machines of a fleet start in step. Most runs find nothing due and end at once.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from cells_loopback.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "cells-loopback-keepalive"
DESCRIPTION = "Renew the sessions of cells-loopback before they lapse"
PERIOD_HOURS = 3
SPREAD_MINUTES = 15
"""A renewal is due once a day (`keepalive`), so one fleet of 100,000 puts 14 a second on its server."""

SANDBOX_MARK = "CELLS_LOOPBACK_SANDBOX"
"""Set inside the hardened unit, where a browser could neither write its files nor outlive the run."""

_CARRIED = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Job:
    """What is to be started: the command, the one directory it writes to, and its environment.

    ``minute`` is the minute of the hour for the schedulers that know no random delay. Each of them also
    makes ``config_dir`` the working directory, so that ``python -m`` finds no module but ours there.
    """

    command: tuple[str, ...]
    config_dir: str
    environment: tuple[tuple[str, str], ...] = ()
    minute: int = 0


def build_job(
    config_dir: str, *, minute: int, executable: str = sys.executable, environ: Mapping[str, str] = os.environ
) -> Job:
    """Return the job that renews the sessions in ``config_dir`` with the program that runs now."""
    command = (*_program(executable), "--config-dir", config_dir, "keepalive", "run", "--once")
    for path in command:
        if not path.isprintable():
            raise UsageError(
                f"no scheduler can be given the path {path!r}", hint="use one without such characters"
            )
    return Job(
        command=command,
        config_dir=config_dir,
        environment=carried_environment(environ),
        minute=minute,
    )


def _program(executable: str) -> tuple[str, ...]:
    directory, name = os.path.split(executable)
    launcher = os.path.join(directory, "cells-loopback")
    if os.path.exists(launcher):
        return (launcher,)
    windowless = os.path.join(directory, "pythonw.exe")  # python.exe would flash a console at every run
    if name.endswith(".exe") and os.path.exists(windowless):
        executable = windowless
    return (executable, "-m", "cells_loopback")


def carried_environment(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return what a scheduler's environment lacks: the proxies and certificates of the person's shell.

    A proxy address with a user name in it stays out: these files are no place for a password.
    """
    names = [name for upper in _CARRIED for name in (upper, upper.lower())]
    return tuple((name, environ[name]) for name in names if environ.get(name) and "@" not in environ[name])


def escape_sandbox(command: list[str], environ: Mapping[str, str], *, seconds: int = 0) -> list[str]:
    """Return ``command`` such that it starts outside the hardened unit, when we run inside it.

    The user manager starts it in a unit of its own. That ends after ``seconds``, by SIGINT, at which a
    Chromium writes its cookies; 0 leaves alone what an opener such as xdg-open has left behind.
    """
    if SANDBOX_MARK not in environ:
        return command
    limit = [f"RuntimeMaxSec={seconds}", "KillSignal=SIGINT"] if seconds else ["KillMode=process"]
    properties = [f"--property={one}" for one in limit]
    return ["systemd-run", "--user", "--quiet", "--collect", *properties, "--", *command]


def render_cron(job: Job) -> str:
    """Return the line that does the same for cron: crontab(5), where a percent sign ends the command.

    Quiet, so that only what went wrong is mailed.
    """
    import shlex

    return f"{job.minute} */{PERIOD_HOURS} * * * {shlex.join((*job.command, '--quiet'))}".replace("%", "\\%")


# -- systemd ---------------------------------------------------------------------------------------------

# In a user unit these work only together with PrivateUsers= (systemd.exec(5), "Sandboxing"), and not at
# all where the kernel or AppArmor keeps user namespaces from ordinary users. PrivateTmp= is left out on
# purpose: ProtectSystem=strict makes /tmp read-only already, and a private one hides an environment there.
NAMESPACE_OPTIONS = (
    "PrivateUsers=yes",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "PrivateDevices=yes",
    "PrivateMounts=yes",
    "ProtectProc=invisible",
    "ProtectControlGroups=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "CapabilityBoundingSet=",
)

_SERVICE = """\
# Written by `cells-loopback keepalive install`; `cells-loopback keepalive uninstall` removes it.
[Unit]
Description={description}

[Service]
Type=oneshot
ExecStart={command}
WorkingDirectory=-{working_directory}/
{environment}TimeoutStartSec=15min
# A server that is down, or a session that needs a person, is told by the keep-alive itself.
SuccessExitStatus=4 7
Slice=background.slice
Nice=10

NoNewPrivileges=yes
UMask=0077
{namespace_options}LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
"""

_TIMER = """\
# Written by `cells-loopback keepalive install`; `cells-loopback keepalive uninstall` removes it.
[Unit]
Description={description}

[Timer]
OnCalendar=*-*-* 00/{period}:00:00
RandomizedDelaySec={spread}min
FixedRandomDelay=yes
# A run missed while the machine slept, was off or nobody was logged in is made up for.
Persistent=yes

[Install]
WantedBy=timers.target
"""


def render_systemd(job: Job, *, namespaces: bool = True) -> dict[str, str]:
    """Return the user service and its timer as file names and texts.

    Without ``namespaces`` the service lacks what needs user namespaces, for systems that forbid them.
    """
    executable, *arguments = job.command
    words = [_quote_word(executable), *(_quote_word(argument, dollar="$$") for argument in arguments)]
    variables = [(SANDBOX_MARK, "systemd"), *job.environment]
    options = [*NAMESPACE_OPTIONS, f"ReadWritePaths={_quote_word('-' + job.config_dir)}"]
    service = _SERVICE.format(
        description=DESCRIPTION,
        command=" ".join(words),
        working_directory=_escape_specifiers(job.config_dir),
        environment="".join(f"Environment={_quote_word(f'{name}={value}')}\n" for name, value in variables),
        namespace_options="".join(f"{option}\n" for option in options if namespaces),
    )
    timer = _TIMER.format(description=DESCRIPTION, period=PERIOD_HOURS, spread=SPREAD_MINUTES)
    return {f"{NAME}.service": service, f"{NAME}.timer": timer}


def _quote_word(text: str, *, dollar: str = "$") -> str:
    """Quote one word of a unit file: systemd.syntax(7) for escapes, systemd.unit(5) for specifiers."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", dollar)
    return f'"{_escape_specifiers(escaped)}"'


def _escape_specifiers(text: str) -> str:
    return text.replace("%", "%%")


# -- launchd ---------------------------------------------------------------------------------------------


def render_launchd(job: Job) -> str:
    """Return the agent's property list: launchd.plist(5).

    ``StartCalendarInterval`` and not ``StartInterval``, which skips a run that falls into a sleep;
    ``RunAtLoad`` makes up for the time that the machine was off.
    """
    import plistlib

    agent = {
        "Label": NAME,
        "ProgramArguments": list(job.command),
        "WorkingDirectory": job.config_dir,
        "StartCalendarInterval": [
            {"Hour": hour, "Minute": job.minute} for hour in range(0, 24, PERIOD_HOURS)
        ],
        "RunAtLoad": True,
        "ProcessType": "Background",
        "LowPriorityIO": True,
        "Umask": 0o077,
    }
    if job.environment:
        agent["EnvironmentVariables"] = dict(job.environment)
    return plistlib.dumps(agent, sort_keys=False).decode()


# -- Windows ---------------------------------------------------------------------------------------------

_TASK_NAMESPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"
_TASK: dict[str, object] = {
    "RegistrationInfo": {"Description": DESCRIPTION},
    "Triggers": {
        "TimeTrigger": {
            "StartBoundary": "2024-01-01T00:{minute:02}:00",
            "Repetition": {"Interval": f"PT{PERIOD_HOURS}H"},
        }
    },
    "Principals": {"Principal": {"UserId": "{user}", "LogonType": "InteractiveToken"}},
    "Settings": {
        "MultipleInstancesPolicy": "IgnoreNew",
        "DisallowStartIfOnBatteries": "false",
        "StopIfGoingOnBatteries": "false",
        "StartWhenAvailable": "true",  # makes up for a missed run
        "RunOnlyIfNetworkAvailable": "true",
        "ExecutionTimeLimit": "PT15M",
    },
    "Actions": {
        "Exec": {"Command": "{command}", "Arguments": "{arguments}", "WorkingDirectory": "{directory}"}
    },
}


def render_task_scheduler(job: Job, *, user: str) -> str:
    r"""Return the task's XML (MS-TSCH §2.5); a task has no environment of its own, nor does it need one.

    ``user`` is ``DOMAIN\name``. Write it in UTF-16, the only encoding that ``schtasks`` takes.
    """
    import subprocess
    from xml.etree import ElementTree as ET

    values = {
        "minute": job.minute,
        "user": user,
        "command": job.command[0],
        "arguments": subprocess.list2cmdline(job.command[1:]),
        "directory": job.config_dir,
    }

    def add(parent: ET.Element, content: object) -> None:
        if isinstance(content, dict):
            for name, child in content.items():
                add(ET.SubElement(parent, name), child)
        else:
            parent.text = str(content).format_map(values)

    task = ET.Element("Task", {"version": "1.2", "xmlns": _TASK_NAMESPACE})
    add(task, _TASK)
    ET.indent(task)
    return f'<?xml version="1.0" encoding="UTF-16"?>\n{ET.tostring(task, encoding="unicode")}\n'
