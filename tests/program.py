"""The installed command as a child process, in a home of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

RUN_TIMEOUT = 60.0


class Program:
    """``cells-loopback`` for one person, whose home and configuration are nobody else's."""

    def __init__(self, home: Path) -> None:
        self.config_dir = home / "config"
        self.environment = {
            **os.environ,
            "HOME": str(home),
            "CELLS_LOOPBACK_CONFIG_DIR": str(self.config_dir),
        }

    def start(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        stdin: int | IO[str] = subprocess.DEVNULL,
        under: Sequence[str] = (),
    ) -> subprocess.Popen[str]:
        """Start a command, ``under`` another one if given; stdin is empty, stdout and stderr are pipes."""
        return subprocess.Popen(
            [*under, _command(), *arguments],
            env={**self.environment, **(environment or {})},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str, environment: Mapping[str, str] | None = None, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; ``given`` is what it reads from stdin."""
        if given is None:
            return finish(self.start(*arguments, environment=environment))
        return finish(self.start(*arguments, environment=environment, stdin=subprocess.PIPE), given)

    def output(self, *arguments: str) -> str:
        """Return what a command printed on stdout; it must succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def command(self, *arguments: str) -> list[str]:
        """Return the command as a list, for something else to start it."""
        return [_command(), *arguments]

    def read_profile(self, name: str) -> dict[str, Any]:
        """Read a profile's file as any other program may."""
        document: dict[str, Any] = json.loads(self.profile_path(name).read_text(encoding="utf-8"))
        return document

    def profile_path(self, name: str) -> Path:
        """Return where the profile's file is, or would be."""
        return self.config_dir / "profiles" / f"{name}.json"


def finish(process: subprocess.Popen[str], given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Give a started command its input and wait for its end; kill it when that takes too long."""
    try:
        stdout, stderr = process.communicate(given, timeout=RUN_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _command() -> str:
    """Return the command of the environment that runs the tests."""
    path = shutil.which("cells-loopback", path=os.path.dirname(sys.executable))
    assert path is not None, "the package is not installed in the environment of the tests"
    return path
