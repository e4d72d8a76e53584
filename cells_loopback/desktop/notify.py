"""The desktop: show a notification, or say that it could not be shown.

Whatever the system offers is used: the freedesktop notification service on the session bus, through
the first program that can reach it, ``osascript`` on macOS, a toast by way of PowerShell on Windows
and WSL. Scripts are constants and texts are handed to them as data, so there is nothing to quote.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from cells_loopback.process.windows import system_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    Urgency = Literal["low", "normal", "critical"]

APP_NAME = "cells-loopback"
_SECONDS = 10  # a service that must first be started answers within two; a hung one must not hold us up

_SERVICE = "org.freedesktop.Notifications"
_OBJECT = "/org/freedesktop/Notifications"
_URGENCY_BYTE = {"low": 0, "normal": 1, "critical": 2}
_SERVERS_CHOICE = -1  # of how long it stays on the screen

_APPLE_SCRIPT = (
    "on run argv",
    "display notification (item 3 of argv) with title (item 2 of argv)",
    "end run",
)
_POWERSHELL_APP = r"{1AC14E77-02E7-4E5D-B744-2EB1AE5198B7}\WindowsPowerShell\v1.0\powershell.exe"
_POWERSHELL_SCRIPT = f"""\
$ErrorActionPreference = 'Stop'
$manager = [Windows.UI.Notifications.ToastNotificationManager, Windows.UI.Notifications, \
ContentType = WindowsRuntime]
$toast = $manager::GetTemplateContent('ToastText02')
$lines = $toast.GetElementsByTagName('text')
[void]$lines.Item(0).AppendChild($toast.CreateTextNode($env:CELLS_LOOPBACK_TITLE))
[void]$lines.Item(1).AppendChild($toast.CreateTextNode($env:CELLS_LOOPBACK_BODY))
$manager::CreateToastNotifier('{_POWERSHELL_APP}').Show([Windows.UI.Notifications.ToastNotification]::new($toast))
"""


@dataclass(frozen=True)
class Notification:
    """What to show: plain text, no markup."""

    title: str
    body: str
    urgency: Urgency = "normal"


def send_notification(
    title: str,
    body: str,
    *,
    urgency: Urgency = "normal",
    platform: str = sys.platform,
    environ: Mapping[str, str] = os.environ,
) -> bool:
    """Show a notification; False when this machine has no way to. It raises nothing."""
    notification = Notification(_plain(title), _plain(body), urgency)
    if platform == "darwin":
        return _run(osascript_command(notification), environ)
    if platform == "win32":
        return _run(powershell_command(system_program("powershell")), _with_texts(environ, notification))
    bus = _session_bus(environ)
    if any(_run(build(notification), bus) for build in _BUS_COMMANDS):
        return True
    if "WSL_DISTRO_NAME" in environ:
        return _run(powershell_command("powershell.exe"), _with_texts(environ, notification))
    return False


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


def _run(command: list[str], environ: Mapping[str, str]) -> bool:
    import subprocess

    null = subprocess.DEVNULL
    try:
        ended = subprocess.run(
            command,
            env=environ,
            stdin=null,
            stdout=null,
            stderr=null,
            timeout=_SECONDS,
            check=False,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # from a job without a console
        )
    except (OSError, subprocess.TimeoutExpired):  # not installed, or hung
        return False
    return ended.returncode == 0


# -- freedesktop.org: Desktop Notifications Specification 1.2 ---------------------------------------------


def notify_send_command(notification: Notification) -> list[str]:
    """Return the call of libnotify's own program, which resolves C escapes in the body."""
    body = _escape_markup(notification.body).replace("\\", "\\\\")
    return [
        "notify-send",
        f"--app-name={APP_NAME}",
        f"--urgency={notification.urgency}",
        "--",
        notification.title,
        body,
    ]


def busctl_command(notification: Notification) -> list[str]:
    """Return the call of systemd's bus client, which takes strings as they are."""
    return [
        *("busctl", "--user", "call", "--", _SERVICE, _OBJECT, _SERVICE, "Notify", "susssasa{sv}i"),
        *(APP_NAME, "0", "", notification.title, _escape_markup(notification.body)),
        "0",
        *("1", "urgency", "y", str(_URGENCY_BYTE[notification.urgency])),
        str(_SERVERS_CHOICE),
    ]


def gdbus_command(notification: Notification) -> list[str]:
    """Return the call of GLib's bus client, which takes values in GVariant text format."""
    return [
        *("gdbus", "call", "--session", f"--dest={_SERVICE}", f"--object-path={_OBJECT}"),
        f"--method={_SERVICE}.Notify",
        *(_gvariant(APP_NAME), "uint32 0", _gvariant("")),
        *(_gvariant(notification.title), _gvariant(_escape_markup(notification.body)), "@as []"),
        f"{{'urgency': <byte {_URGENCY_BYTE[notification.urgency]}>}}",
        f"int32 {_SERVERS_CHOICE}",
    ]


_BUS_COMMANDS: tuple[Callable[[Notification], list[str]], ...] = (
    notify_send_command,
    busctl_command,
    gdbus_command,
)


def _escape_markup(body: str) -> str:
    """Keep what looks like markup from being taken for it (section "Markup"; a title has none)."""
    return body.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _gvariant(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _session_bus(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the person's session bus in it, which cron and ssh leave out."""
    found = dict(environ)
    if sys.platform != "win32" and not found.get("DBUS_SESSION_BUS_ADDRESS"):
        socket = os.path.join(found.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}", "bus")
        if os.path.exists(socket):
            found["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={socket}"
    return found


# -- macOS and Windows ------------------------------------------------------------------------------------


def osascript_command(notification: Notification) -> list[str]:
    """Return the AppleScript call; the texts are its arguments, after a word that ends the options."""
    lines = [word for line in _APPLE_SCRIPT for word in ("-e", line)]
    return ["osascript", *lines, "notification", notification.title, notification.body]


def powershell_command(program: str) -> list[str]:
    """Return the toast script's call; the texts are in its environment."""
    return [program, "-NoProfile", "-NonInteractive", "-Command", _POWERSHELL_SCRIPT]


def _with_texts(environ: Mapping[str, str], notification: Notification) -> dict[str, str]:
    names = ("CELLS_LOOPBACK_TITLE", "CELLS_LOOPBACK_BODY")
    return {
        **environ,
        **dict(zip(names, (notification.title, notification.body), strict=True)),
        "WSLENV": ":".join([*filter(None, [environ.get("WSLENV")]), *names]),
    }
