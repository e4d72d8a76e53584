"""The ``exec`` command: the program takes our place, with the session in its environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from program import Program
from sessions import read_session, store_session

from cells_loopback import Session
from cells_loopback.cli import main
from cells_loopback.cli.exec import run_and_wait, session_environment

if TYPE_CHECKING:
    from pathlib import Path

    from cells_loopback.testing import CellsServer


@pytest.fixture
def program(tmp_path: Path, server: CellsServer) -> Program:
    program = Program(tmp_path)
    store_session(server, program.config_dir)
    return program


def test_the_program_is_this_process_with_the_session_in_its_environment(
    program: Program, server: CellsServer
) -> None:
    script = "import json, os, sys; print(json.dumps([os.getpid(), sys.argv[1:], dict(os.environ)]))"
    # Options behind the program's name are the program's, with or without a "--" before it.
    process = program.start("exec", sys.executable, "-c", script, "-p", "x", "--", "--help")
    out, err = process.communicate(timeout=60)
    pid, arguments, environ = json.loads(out)
    assert (pid, arguments, err) == (process.pid, ["-p", "x", "--", "--help"], "")
    token = read_session(program.config_dir).tokens.access_token.reveal()
    assert {name: value for name, value in environ.items() if program.environment.get(name) != value} == {
        "CELLS_SITE": server.site,
        "CELLS_ACCESS_TOKEN": token,
        "AWS_ACCESS_KEY_ID": token,
        "AWS_SECRET_ACCESS_KEY": "gatewaysecret",
        "AWS_ENDPOINT_URL_S3": server.site,
        "AWS_REGION": "us-east-1",
    }


def test_what_other_credentials_have_left_is_not_handed_on(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "stale")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    environ = session_environment(Session.load(config_dir=str(program.config_dir)))
    assert "AWS_SESSION_TOKEN" not in environ
    assert environ["AWS_DEFAULT_REGION"] == environ["AWS_REGION"] == "us-east-1"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ((), 2),
        (("--",), 2),
        (("no-such-program",), 127),
        (("./no-such-program",), 127),
        (("/",), 126),
        (("./not-executable",), 126),
        (("./no-interpreter",), 126),
    ],
)
def test_a_program_that_cannot_be_run_is_told_in_two_lines(
    program: Program,
    command: tuple[str, ...],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(program.config_dir.parent)
    for name, mode in (("not-executable", 0o600), ("no-interpreter", 0o700)):
        with open(name, "w", opener=lambda path, flags, mode=mode: os.open(path, flags, mode)) as file:
            file.write("#!/no/such/interpreter\n")
    monkeypatch.setattr("cells_loopback.cli.exec.restore_signals", lambda: None)
    monkeypatch.setattr("cells_loopback.cli.exec.restore_core_dumps", lambda _limit: None)
    assert main(["exec", "--config-dir", str(program.config_dir), *command]) == code
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["error", "hint"]


@pytest.mark.parametrize(("returned", "code"), [(0, 0), (37, 37), (0xC000013A, -1073741510)])
def test_windows_waits_for_the_program_and_leaves_ctrl_c_to_it(
    monkeypatch: pytest.MonkeyPatch, returned: int, code: int
) -> None:
    handlers = []
    monkeypatch.setattr("signal.signal", lambda number, handler: handlers.append((number, handler)))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=returned))
    assert run_and_wait(["program"], {}) == code
    ((_, handler),) = handlers
    assert handler(2, None) is None
