"""The start of a login to a known site: the browser comes up before anything else is imported.

Like the warm path of ``token`` it answers the plainest call only, and leaves any other to the ordinary
command.

The redirect URI of the last login is bound and listens, and the browser is sent to a one-time address
there. Its connection waits in the system's queue until the callback server takes the sockets over. The
authorization URL, with its ``state``, never stands on a command line that other users can read.
"""

from __future__ import annotations

import os

from cells_loopback.desktop.browser import BrowserError, open_browser
from cells_loopback.loopback.listener import PortUnavailable, bind_loopback
from cells_loopback.process.termination import terminate_on_signals
from cells_loopback.store.config_dir import find_config_dir
from cells_loopback.store.lock import FileLock
from cells_loopback.store.snapshot import (
    NOT_PLAIN,
    Unusual,
    check_plain_config,
    find_profile_path,
    read_snapshot,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from typing import Any

    from cells_loopback.desktop.browser import BrowserProcess

_FLAGS = {
    "--force": "force",
    "-q": "quiet",
    "--quiet": "quiet",
    "-v": "verbose",
    "--verbose": "verbose",
    "--no-color": "no_color",
}
_VALUES = {
    "-p": "profile",
    "--profile": "profile",
    "--config-dir": "config_dir",
    "--browser": "browser",
}


def make_start_path() -> str:
    """Return a path of 256 random bits for the one-time address of one browser."""
    return "/start/" + os.urandom(32).hex()


class EarlyBrowser:
    """A browser on its way to us, and the profile's login lock, held, until a login takes both over."""

    def __init__(
        self,
        lock: FileLock,
        sockets: list[socket.socket],
        redirect_uri: str,
        start_path: str,
        process: BrowserProcess,
    ) -> None:
        self.sockets = sockets
        self.redirect_uri = redirect_uri
        self.start_path = start_path
        self.process = process
        self._lock: FileLock | None = lock

    def take_over(self) -> FileLock:
        """Return the lock: everything is the caller's from now on."""
        lock, self._lock = self._lock, None
        if lock is None:
            raise RuntimeError("another login has taken the browser over")
        return lock

    def abandon(self) -> None:
        """Leave nothing behind of what no login has taken over."""
        lock, self._lock = self._lock, None
        if lock is not None:
            _undo(lock, self.sockets)


def open_early_browser(arguments: Sequence[str]) -> EarlyBrowser | None:
    """Open the browser for a call of ``login`` that certainly needs one; None leaves it to the login.

    Nothing is opened unless the stored session has been refused by the server or ``--force`` is given,
    unless the login is sure to take it over, and unless everything is as the last login left it.
    """
    try:
        options = _read_options(arguments)
        site = options.get("site")
        config_dir = find_config_dir(options.get("config_dir"))
        name = options.get("profile") or os.environ.get("CELLS_LOOPBACK_PROFILE") or _default_name(site)
        path = find_profile_path(config_dir, name)
        document = read_snapshot(path)
        check_plain_config(config_dir)  # preferences may change how the browser is opened
        _check_plain(document, site, force="force" in options)
        terminate_on_signals()
        return _open(path, document, options.get("browser"))
    except (*NOT_PLAIN, BrowserError, PortUnavailable):
        return None


def _read_options(arguments: Sequence[str]) -> dict[str, str]:
    """Read the arguments of a plain ``login`` call; `Unusual` for any other."""
    if os.environ.get("CELLS_LOOPBACK_CLIENT_SECRET"):
        raise Unusual
    options: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if argument in _FLAGS:
            options[_FLAGS[argument]] = argument
        elif name in _VALUES and (not equals or name.startswith("--")):
            value = value if equals else next(rest)
            if not value or value.startswith("-"):
                raise Unusual
            options[_VALUES[name]] = value
        elif argument.startswith("-") or "site" in options:
            raise Unusual
        else:
            options["site" if "command" in options else "command"] = argument
        if "browser" in options and "command" not in options:
            raise Unusual  # before the command only global options have values
    if options.get("command") != "login" or "" in options.values():
        raise Unusual
    return options


def _default_name(site: str | None) -> str | None:
    return None if site is None else (site.partition("://")[2] or site).rstrip("/")


def _check_plain(document: dict[str, Any], site: str | None, *, force: bool) -> None:
    if site is not None and document["site"] not in {site.rstrip("/"), f"https://{site}".rstrip("/")}:
        raise Unusual
    if not force and document["renewals"]["rejected_at"] is None:
        raise Unusual  # it may still work: the login asks the server first
    if document["settings"]["relogin"] == "headless":
        raise Unusual


def _open(path: str, document: dict[str, Any], command: str | None) -> EarlyBrowser:
    redirect_uri = document["client"]["redirect_uri"]
    authority = redirect_uri.removeprefix("http://").partition("/")[0]
    host, _, port = authority.rpartition(":")
    lock = FileLock(path[: -len(".json")] + ".login")
    if not lock.try_acquire():
        raise Unusual  # another login is under way: join it
    sockets: list[socket.socket] = []
    try:
        sockets += bind_loopback(host.strip("[]"), int(port))
        start_path = make_start_path()
        process = open_browser(f"http://{authority}{start_path}", command or document["settings"]["browser"])
    except BaseException:
        _undo(lock, sockets)
        raise
    return EarlyBrowser(lock, sockets, redirect_uri, start_path, process)


def _undo(lock: FileLock, sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
    lock.remove()
    lock.release()
