"""Completion in the shells themselves: typed on a terminal in bash and zsh, asked of fish."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from program import Program
from requires import require_program

from cells_loopback.cli import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIME_LIMIT = 30.0

SETUP = {
    "bash": "bind 'set bell-style none'; bind 'set enable-bracketed-paste off'; PS1='> '",
    "zsh": "autoload -U compinit; compinit -D -u; unsetopt beep zle_bracketed_paste; PS1='> '",
}
COMMAND_LINE = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}

CASES = [
    pytest.param("cells-loopback who", ["whoami"], id="command"),
    pytest.param("cells-loopback log", ["login", "logout"], id="commands"),
    pytest.param("cells-loopback token --ref", ["--refresh"], id="option"),
    pytest.param("cells-loopback token --format he", ["header"], id="choice"),
    pytest.param("cells-loopback use wo", ["work"], id="profile"),
    pytest.param("cells-loopback status -p wo", ["work"], id="profile-option"),
    pytest.param("cells-loopback -p wo", ["work"], id="profile-option-first"),
    pytest.param("cells-loopback use local", ["localhost:8080"], id="profile-with-a-colon"),
]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Somebody with profiles; completion asks for their names only."""
    program = Program(tmp_path)
    profiles = program.config_dir / "profiles"
    profiles.mkdir(parents=True, mode=0o700)
    for name in ("work", "localhost:8080"):
        (profiles / f"{name}.json").touch(mode=0o600)
    directory = os.path.dirname(sys.executable)
    program.environment |= {
        "PATH": os.pathsep.join([directory, os.environ["PATH"]]),
        "TERM": "dumb",
        "HISTFILE": "",
        "LC_ALL": "C.UTF-8",
    }
    return program


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, shell: str, environment: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [require_program(shell), *COMMAND_LINE[shell]],
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def read_until(self, *words: str) -> str:
        """Return what the terminal shows once all words are there."""
        shown = ""
        deadline = time.monotonic() + TIME_LIMIT
        while not all(word in shown for word in words):
            ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{words} not among {shown!r}"
            shown += os.read(self._ours, 65536).decode(errors="replace")
        return shown

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._ours)


@pytest.fixture(params=["bash", "zsh"])
def terminal(request: pytest.FixtureRequest, program: Program) -> Iterator[Terminal]:
    shell: str = request.param
    terminal = Terminal(shell, program.environment)
    try:
        terminal.type(f'{SETUP[shell]}; eval "$(cells-loopback completion {shell})"; echo rea""dy\n')
        terminal.read_until("ready")
        yield terminal
    finally:
        terminal.close()


@pytest.mark.parametrize(("typed", "words"), CASES)
def test_a_key_completes_what_is_typed(terminal: Terminal, typed: str, words: list[str]) -> None:
    start = typed.rpartition(" ")[2]
    terminal.type(typed)
    terminal.read_until(typed)
    terminal.type("\t\t")
    # A single answer is put behind what is typed, several are listed.
    terminal.read_until(*(words if len(words) > 1 else [words[0].removeprefix(start)]))


def ask_fish(program: Program, typed: str) -> list[str]:
    """Return what fish would offer for a line, in its order."""
    script = f"cells-loopback completion fish | source; complete --do-complete '{typed}'"
    done = subprocess.run(
        [require_program("fish"), "--no-config", "--command", script],
        env=program.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("typed", "words"), CASES)
def test_fish_is_told_all_answers(program: Program, typed: str, words: list[str]) -> None:
    assert [answer for answer in ask_fish(program, typed) if answer in words] == words


def test_nothing_typed_names_every_command(program: Program) -> None:
    assert set(COMMANDS) <= set(ask_fish(program, "cells-loopback "))


def test_profiles_that_may_not_be_read_complete_to_nothing(program: Program) -> None:
    (program.config_dir / "profiles").chmod(0o777)
    assert "work" not in ask_fish(program, "cells-loopback use ")
