"""A Chromium with a profile directory of its own, for ``login --relogin headless``.

The person logs in there once, visibly; later the keep-alive starts the same directory without a window
and comes back with a code, as long as the web session in it lives. Nothing else of the person's browsers
is touched. The directory holds the cookies of that one site, so it is as private as the sessions.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from cells_loopback.desktop.browser import BrowserError, find_program, why_no_screen
from cells_loopback.store.private_file import make_private_directory
from cells_loopback.store.profiles import file_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CLOSING_TIMEOUT = 10.0
"""Seconds that a Chromium may take to write its cookies and end."""

_PROGRAMS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "microsoft-edge-stable",
)
# Not Brave: it forgets session cookies at every start (brave/brave-core pull request 17122).
_FAMILY = ("chrom", "edge")
_APPLICATIONS = ("Google Chrome", "Chromium", "Microsoft Edge")
_WINDOWS_PATHS = (r"Google\Chrome\Application\chrome.exe", r"Microsoft\Edge\Application\msedge.exe")
_WINDOWS_ROOTS = ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")

_OPTIONS = (
    "--no-first-run",
    "--no-default-browser-check",
    # Without it a start drops the cookies that have no end of their own, as a web session's often are.
    "--restore-last-session",
    "--hide-crash-restore-bubble",
)


def own_directory(config_dir: str, profile_name: str) -> str:
    """Return the user data directory of a profile's own Chromium; it need not exist."""
    return os.path.join(config_dir, "browser", file_name(profile_name))


def visible_command(
    directory: str,
    program: str | None = None,
    *,
    insecure: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> str:
    """Prepare the directory and return the command for `browser.open_browser`.

    ``program`` is the browser that the person named, used if it is of the family. Raises `BrowserError`
    without a screen or a Chromium, `StoreError` when the directory cannot be made.
    """
    words = [find_visible_chromium(program, environ), *_options(directory, insecure=insecure), "%s"]
    _prepare(directory)
    if sys.platform == "win32":
        return " ".join(f'"{word}"' for word in words)
    import shlex

    return shlex.join(words)


def headless_command(
    directory: str,
    program: str | None = None,
    *,
    insecure: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> list[str]:
    """Prepare the directory and return the command, without its last word: the address to go to.

    A window that is still open on the directory is closed. Raises `BrowserError` when nobody has logged
    in there yet or there is no Chromium, `StoreError` when the directory cannot be made.
    """
    if not os.path.isdir(directory):
        raise BrowserError("nobody has logged in with --relogin headless yet")
    words = [find_chromium(program, environ), *_options(directory, insecure=insecure), "--headless=new"]
    close_running(directory)
    _prepare(directory)
    return words


def find_visible_chromium(program: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """Return the path of a Chromium that the person would see. Raises `BrowserError`.

    In WSL it is a program of Linux, not of Windows, and needs a display as on Linux.
    """
    reason = why_no_screen(environ, sys.platform if sys.platform in {"darwin", "win32"} else "linux")
    if reason is not None:
        raise BrowserError(reason)
    return find_chromium(program, environ)


def find_chromium(
    program: str | None = None, environ: Mapping[str, str] = os.environ, platform: str = sys.platform
) -> str:
    """Return the path of a Chromium or a relative of it. Raises `BrowserError`."""
    for candidate in _candidates(program, environ, platform):
        path = find_program(candidate, environ, platform)
        # A snap may not write to hidden directories of its person's home, such as ~/.config.
        if path is not None and not path.startswith("/snap/"):
            return path
    raise BrowserError("no Chromium, Chrome or Edge was found")


def _candidates(program: str | None, environ: Mapping[str, str], platform: str) -> Iterator[str]:
    if program is not None and any(word in os.path.basename(program).lower() for word in _FAMILY):
        yield program
    if platform == "darwin":
        for application in _APPLICATIONS:
            for root in ("/Applications", os.path.expanduser("~/Applications")):
                yield f"{root}/{application}.app/Contents/MacOS/{application}"
    elif platform == "win32":
        for path in _WINDOWS_PATHS:
            yield from (os.path.join(environ[root], path) for root in _WINDOWS_ROOTS if root in environ)
    yield from _PROGRAMS


def _options(directory: str, *, insecure: bool) -> list[str]:
    options = [f"--user-data-dir={directory}", *_OPTIONS]
    # The desktop's keyring is locked when nobody is there: cookies are as safe as the session beside them.
    options.append("--use-mock-keychain" if sys.platform == "darwin" else "--password-store=basic")
    if insecure:
        options.append("--ignore-certificate-errors")
    if sys.platform != "win32" and os.geteuid() == 0:
        options.append("--no-sandbox")  # Chromium refuses to run as root with it
    return options


def _prepare(directory: str) -> None:
    """Make the directory, and forget the tabs that ``--restore-last-session`` would open again."""
    make_private_directory(os.path.dirname(directory))
    make_private_directory(directory)
    shutil.rmtree(os.path.join(directory, "Default", "Sessions"), ignore_errors=True)


def forget(config_dir: str, profile_name: str) -> None:
    """Remove a profile's own Chromium with all its cookies, as far as there is one."""
    directory = own_directory(config_dir, profile_name)
    close_running(directory)
    shutil.rmtree(directory, ignore_errors=True)


def close_running(directory: str) -> None:
    """Close the window that is still open on this directory: only one Chromium at a time can use it."""
    pid = _running(directory)
    if pid is None:
        return
    try:
        os.kill(pid, signal.SIGINT)
    except ProcessLookupError:  # it ended by itself meanwhile
        return
    deadline = time.monotonic() + CLOSING_TIMEOUT
    while _running(directory) is not None and time.monotonic() < deadline:
        time.sleep(0.05)


def _running(directory: str) -> int | None:
    """Return the process that holds Chromium's own lock, a link to ``HOST-PID``; Windows has another."""
    import platform

    try:
        host, _, pid = os.readlink(os.path.join(directory, "SingletonLock")).rpartition("-")
    except OSError:
        return None
    if host != platform.node() or not pid.isdecimal():
        return None
    # The lock of one that crashed names a number that may be another program's by now.
    ours = f" --user-data-dir={directory} "
    return int(pid) if ours in f" {_command_line(int(pid)).strip()} " else None


def _command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="surrogateescape") as file:
            return file.read().replace("\0", " ")
    except OSError:
        pass
    asked = ["ps", "-o", "command=", "-p", str(pid)]
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


class HeadlessChromium:
    """A Chromium without a window, to be closed when it has come back or has not."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start it. Raises `BrowserError`."""
        null = subprocess.DEVNULL
        environment = {
            name: value for name, value in environ.items() if not name.startswith("CELLS_LOOPBACK_")
        }
        try:
            self._process = subprocess.Popen(
                command, env=environment, stdin=null, stdout=null, stderr=null, start_new_session=True
            )
        except OSError as error:
            raise BrowserError(f"{command[0]} does not start: {error.strerror}") from None

    def close(self) -> None:
        """Let it write its cookies and end; SIGTERM would lose those of the last half minute."""
        if sys.platform == "win32":
            self._process.terminate()
        else:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(CLOSING_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
