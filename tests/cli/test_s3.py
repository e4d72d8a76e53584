"""The ``s3`` command: what it prints, what it writes, and what it does not take."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from program import Program
from signed_in import log_in

from cells_loopback.cli import main
from cells_loopback.testing import CellsServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLIENTS = ("aws", "rclone", "s3cmd", "mc")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One person's program, logged in as the profile "me"."""
    program = Program(tmp_path_factory.mktemp("desk"))
    with CellsServer() as server:
        log_in(program, server, "me")
        yield program


@pytest.fixture
def s3(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLS_LOOPBACK_CONFIG_DIR", str(program.config_dir))
    monkeypatch.setattr(sys, "argv", ["pytest"])


def test_credentials_are_json_and_nothing_else(
    s3: None, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["s3", "credentials"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["AccessKeyId"] == program.read_profile("me")["token"]["access_token"]
    assert err == ""


@pytest.mark.parametrize(
    ("options", "first"),
    [([], "export "), (["--shell", "fish"], "set -gx "), (["--shell", "powershell"], "$env:")],
)
def test_variables_are_set_in_the_words_of_the_shell(
    s3: None, options: list[str], first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["s3", "env", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all(line.startswith(first) for line in lines)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_configuration_is_printed_and_nothing_written(
    s3: None, client: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["s3", "setup", client]) == 0
    out, err = capsys.readouterr()
    assert "localhost:" in out
    assert "s3://io" in err or "io" in err
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("client", CLIENTS)
def test_a_configuration_is_written_once_and_the_rest_of_the_file_kept(
    s3: None, client: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dotfiles" / "own"
    before = '{"version": "10", "mine": 1}\n' if client == "mc" else "# mine\r\n"
    path.parent.mkdir()
    path.write_bytes(before.encode())
    command = ["s3", "setup", client, "--write", "--file", str(path)]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out == ""
    (backup,) = path.parent.glob("own.*.bak")
    assert f"{path}: written, the former one is {backup}" in err
    assert backup.read_bytes() == before.encode()
    written = path.read_bytes()
    assert b"# mine\r\n" in written or b'"mine": 1' in written
    assert main(command) == 0
    assert f"{path}: nothing to change" in capsys.readouterr().err
    assert path.read_bytes() == written


def test_the_written_command_finds_this_session_from_anywhere(
    s3: None,
    program: Program,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    main(["s3", "setup", "aws"])
    by_module = f"credential_process = {sys.executable} -m cells_loopback --config-dir {program.config_dir}"
    assert f"{by_module} --profile me s3 credentials\n" in capsys.readouterr().out
    launcher = tmp_path / "cells-loopback"
    launcher.touch()
    monkeypatch.setattr(sys, "argv", [str(launcher), "s3"])
    main(["s3", "setup", "aws"])
    assert f"credential_process = {launcher} --config-dir" in capsys.readouterr().out


def test_the_name_can_be_chosen(s3: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["s3", "setup", "rclone", "--name", "cells"]) == 0
    out = capsys.readouterr().out
    assert "[cells]\n" in out
    assert "[profile rclone-cells]\n" in out


@pytest.mark.parametrize("between", [["--write"], ["-q"], ["-p", "me"], ["--name", "x"]], ids=str)
def test_options_may_stand_before_the_client(
    s3: None, between: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["s3", "setup", *between, "aws", "--file", str(tmp_path / "config")]) == 0
    assert (tmp_path / "config").exists() == (between == ["--write"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["setup"], "aws, rclone, s3cmd, mc"),
        (["setup", "cyberduck"], "cyberduck"),
        (["setup", "mc", "--name", "a-b"], "--name a_b"),
        (["setup", "aws", "--shell", "sh"], "--shell is for env"),
        (["credentials", "aws"], "for setup, not for credentials"),
        (["env", "--write"], "for setup, not for env"),
        ([], "what"),
    ],
)
def test_a_wrong_call_is_answered_with_the_right_one(
    s3: None, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["s3", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_nobody_logged_in_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["s3", "credentials"]) == 3
    assert capsys.readouterr().out == ""


def test_a_token_handed_in_has_no_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CELLS_LOOPBACK_TOKEN", "TOKEN")
    monkeypatch.setenv("CELLS_SITE", "https://files.example.com")
    assert main(["s3", "credentials"]) == 0
    assert json.loads(capsys.readouterr().out)["AccessKeyId"] == "TOKEN"
    assert main(["s3", "setup", "aws"]) == 3
