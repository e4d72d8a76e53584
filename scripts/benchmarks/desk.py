"""A person's machine for the bench: an embedded server, config directories, a browser that does as told."""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cells_loopback.testing import Behaviour, Browser, CellsServer

from .commands import Command

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

PROGRAM = os.path.join(sys.prefix, "bin", "cells-loopback")
PERSON = 1.5
"""Seconds that the person takes at the login page; much less than a person needs."""

LIFETIME = 10 * 86400.0
"""Seconds that access tokens live, so that none ends while it is measured."""

_TIME_LIMIT = 60.0
_ANSWERED = frozenset({"authorize", "login-page", "login", "consent"})


@dataclass(frozen=True)
class Login:
    """The seconds of one login; what the server took is left out of both."""

    to_browser: float
    to_end: float
    imports: str = ""


class Desk:
    """Everything that the bench needs around the program, in one directory."""

    def __init__(self, directory: str, *, tls: bool = False) -> None:
        self.directory = directory
        self.server = CellsServer(behaviour=Behaviour(access_token_lifetime=LIFETIME), tls=tls)
        self._fifo = os.path.join(directory, "opened")
        self._script = os.path.join(directory, "browser")
        self._browser: Browser | None = None

    def __enter__(self) -> Desk:
        self.server.start()
        self._browser = Browser(self.server.ca_file)
        os.mkfifo(self._fifo)
        with open(os.open(self._script, os.O_WRONLY | os.O_CREAT, 0o700), "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nprintf "%s\\n" "$1" >{self._fifo}\n')
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.server.stop()

    def config_dir(self, name: str) -> str:
        """Return a config directory, which need not exist."""
        return os.path.join(self.directory, name)

    def command(self, name: str, config: str, *arguments: str, **environment: str) -> Command:
        """Return a call of the program on one config directory."""
        return Command(
            name,
            (PROGRAM, *arguments),
            {"CELLS_LOOPBACK_CONFIG_DIR": self.config_dir(config), **environment},
        )

    def log_in(self, config: str, *options: str, **environment: str) -> Login:
        """Log in by the program, play the person, and return the times."""
        opened = os.open(self._fifo, os.O_RDWR)
        errors = self.config_dir(f"{config}.stderr")
        trust = ("--ca-bundle", self.server.ca_file) if self.server.ca_file else ()
        arguments = (PROGRAM, "login", self.server.site, "--browser", self._script, *trust, *options)
        settings = {**os.environ, "CELLS_LOOPBACK_CONFIG_DIR": self.config_dir(config), **environment}
        try:
            began = time.time()
            pid = _spawn(arguments, settings, errors)
            ended = _watch(pid)
            url = _read_line(opened, ended)
            launched = time.time()
            imports = _read(errors)
            answers = len(self.server.requests)
            time.sleep(PERSON)
            self._play(url)
            ended.wait(_TIME_LIMIT)
        finally:
            os.close(opened)
        if ended.status != 0:
            raise RuntimeError(f"the login ends with {ended.status}: {_read(errors)[-500:]}")
        requests = self.server.requests
        before = sum(one.seconds or 0.0 for one in requests[:answers] if one.time >= began)
        callback = max(one.time + (one.seconds or 0.0) for one in requests if one.kind in _ANSWERED)
        after = sum(one.seconds or 0.0 for one in requests if one.time >= callback)
        return Login(launched - began - before, ended.time - callback - after, imports)

    def _play(self, url: str) -> None:
        if self._browser is None:
            raise RuntimeError("the desk is not open")
        user = self.server.user
        page = self._browser.sign_in(url, user.name, user.password)
        if page.status != 200:
            raise RuntimeError(f"the browser ends at a page of status {page.status}")

    def copy_profiles(self, source: str, target: str, count: int) -> None:
        """Make a config directory with ``count`` copies of the only session of another one."""
        shutil.copytree(self.config_dir(source), self.config_dir(target))
        only = self._profile_path(target)
        for number in range(1, count):
            shutil.copy2(only, os.path.join(os.path.dirname(only), f"copy-{number}.json"))

    def expire(self, config: str) -> None:
        """Let the only session's access token be at its end by both clocks."""
        path = self._profile_path(config)
        document: dict[str, Any] = json.loads(_read(path))
        for clock in ("obtained_at", "obtained_uptime"):
            document["token"][clock] -= document["token"]["lifetime"]
        with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            json.dump(document, file)
        os.replace(path + ".new", path)

    def read_profile(self, config: str) -> str:
        """Return the file of the only session of a config directory."""
        return _read(self._profile_path(config))

    def _profile_path(self, config: str) -> str:
        directory = os.path.join(self.config_dir(config), "profiles")
        (name,) = (entry for entry in os.listdir(directory) if entry.endswith(".json"))
        return os.path.join(directory, name)


class Ended(threading.Thread):
    """Waits for a process, so that its end is known to the moment."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self.time = 0.0
        self.status: int | None = None

    def run(self) -> None:
        _, status = os.waitpid(self._pid, 0)
        self.time, self.status = time.time(), os.waitstatus_to_exitcode(status)

    def wait(self, seconds: float) -> None:
        """Wait until it has ended."""
        self.join(seconds)
        if self.status is None:
            os.kill(self._pid, 9)
            raise RuntimeError("a command does not end")


def _watch(pid: int) -> Ended:
    ended = Ended(pid)
    ended.start()
    return ended


def _spawn(argv: Iterable[str], environment: dict[str, str], errors: str) -> int:
    program, *arguments = argv
    return os.posix_spawn(
        program,
        [program, *arguments],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        ],
    )


def _read_line(descriptor: int, ended: Ended) -> str:
    line = b""
    while not line.endswith(b"\n"):
        if not select.select([descriptor], [], [], _TIME_LIMIT)[0] or ended.status is not None:
            raise RuntimeError("the login opens no browser")
        line += os.read(descriptor, 65536)
    return line.decode().strip()


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
