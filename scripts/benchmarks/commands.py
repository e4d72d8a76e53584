"""Whole commands, timed by hyperfine, or by pyperf where that is not installed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class Command:
    """A command by its name in the tables."""

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def run(self) -> str:
        """Return what it prints; it must succeed."""
        done = subprocess.run(
            self.argv, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.name} ends with {done.returncode}: {done.stderr.strip()[-500:]}")
        return done.stdout


def timer() -> str:
    """Return the name and version of what takes the times."""
    hyperfine = shutil.which("hyperfine")
    if hyperfine is None:
        subprocess.run([sys.executable, "-m", "pip", "--quiet", "install", "pyperf"], check=True)
        return f"pyperf {version('pyperf')}"
    return subprocess.run([hyperfine, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def time_commands(commands: Sequence[Command]) -> Iterator[tuple[str, float]]:
    """Run each command once, in order, and yield its name and its seconds."""
    measure = _by_hyperfine if shutil.which("hyperfine") else _by_pyperf
    with tempfile.TemporaryDirectory() as directory:
        for number, command in enumerate(commands):
            yield command.name, measure(command, os.path.join(directory, f"{number}.json"))


def _by_hyperfine(command: Command, path: str) -> float:
    once = ("--shell=none", "--style=none", "--runs=1")
    (result,) = _measure(command, path, "hyperfine", *once, "--export-json", path, shlex.join(command.argv))[
        "results"
    ]
    return float(result["times"][0])


def _by_pyperf(command: Command, path: str) -> float:
    once = ("--processes=1", "--values=1", "--warmups=0", "--loops=1", "--copy-env", "--quiet")
    call = (sys.executable, "-m", "pyperf", "command", *once, "--output", path, "--", *command.argv)
    (benchmark,) = _measure(command, path, *call)["benchmarks"]
    return float(next(value for run in benchmark["runs"] for value in run.get("values", ())))


def _measure(command: Command, path: str, *call: str) -> dict[str, Any]:
    environment = {**os.environ, **command.environment}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command.name} cannot be timed: {done.stderr.strip()[-500:]}")
    with open(path, encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found
