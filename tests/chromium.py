"""A person with a real headless Chromium, as a command for ``--browser``, and what that person saw."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from requires import require_program

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "browser", "chromium_login.py")


@dataclass(frozen=True)
class ChromiumReport:
    """What `chromium_login.Report` says, read back."""

    finished: bool
    url: str
    title: str
    text: str
    history: list[str]
    requests: list[str]
    clicks: list[str]
    last_click_at: float | None
    result_at: float | None
    console_errors: list[str]
    screenshot: str


def chromium_browser(report_path: str, user: str, password: str, *options: str) -> str:
    """Return the command of a person who logs in; `read_chromium_report` tells how it went."""
    require_program("chromium")
    words = [
        sys.executable,
        SCRIPT,
        "--user",
        user,
        "--password",
        password,
        "--report",
        report_path,
        *options,
    ]
    return shlex.join(words) + " %s"


def read_chromium_report(report_path: str, *, timeout: float = 30.0) -> ChromiumReport:
    """Wait until the person's Chromium is gone, then return what it saw.

    The script is a child of the command under test, which does not wait for it: all there is to wait
    for is the report.
    """
    deadline = time.monotonic() + timeout
    while not os.path.exists(report_path):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no report at {report_path}")
        time.sleep(0.02)
    with open(report_path, encoding="utf-8") as file:
        fields: dict[str, Any] = json.load(file)
    return ChromiumReport(**fields)


class ChromiumPerson:
    """One person with one browser, which keeps its cookies from login to login."""

    def __init__(self, directory: Path, user: str, password: str) -> None:
        self._directory = directory
        self._user = user
        self._password = password
        self._logins = 0

    def browser(self, *options: str, password: str | None = None) -> tuple[str, ...]:
        """Return the options that make the next login this person's."""
        self._logins += 1
        command = chromium_browser(
            self._report_path,
            self._user,
            self._password if password is None else password,
            "--user-data-dir",
            str(self._directory / "chromium"),
            *options,
        )
        return ("--browser", command, "--timeout", "30")

    def report(self) -> ChromiumReport:
        """Return what the person saw at the last login."""
        return read_chromium_report(self._report_path)

    @property
    def _report_path(self) -> str:
        return str(self._directory / f"login-{self._logins}.json")
