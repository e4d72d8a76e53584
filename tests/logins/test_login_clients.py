"""Public and confidential clients, where the secret comes from, and the scope that is asked for."""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from own_network import OWN_NETWORK
from requires import thorough

from cells_loopback.testing import Behaviour, Client

if TYPE_CHECKING:
    from pathlib import Path

    from desktop import Desktop
    from program import Program

    from cells_loopback.testing import CellsServer, RecordedRequest

pytestmark = OWN_NETWORK

SECRET = "open-sesame-42"
ODD_ID, ODD_SECRET = "own client: 100% +1", 'p@ss:w/rd %2B +&="\u00fc\u20ac'
ANY_PORT = "http://127.0.0.1:0/cb"
TO_TOKEN_ENDPOINTS = {"exchange", "refresh", "revoke"}


def register(
    server: CellsServer, client_id: str = "own", secret: str = SECRET, method: str = "client_secret_basic"
) -> tuple[str, ...]:
    """Register a confidential client and return the options that name it, all but the secret."""
    server.add_client(Client(client_id, ("http://127.0.0.1/cb",), secret, method))
    return ("--client-id", client_id, "--redirect-uri", ANY_PORT)


def token_requests(server: CellsServer) -> list[RecordedRequest]:
    return [request for request in server.requests if request.kind in TO_TOKEN_ENDPOINTS]


def name_of(server: CellsServer) -> str:
    return urlsplit(server.site).netloc


def in_file(directory: Path, text: str) -> str:
    path = directory / "client-secret"
    path.write_text(text, encoding="utf-8")
    return str(path)


# A whole life with each way of authentication


@pytest.mark.parametrize(
    ("client_id", "secret"),
    [
        pytest.param("own", SECRET, id="plain", marks=thorough),
        pytest.param(ODD_ID, ODD_SECRET, id="odd-characters"),
    ],
)
def test_a_confidential_client_authenticates_by_basic(
    server: CellsServer, program: Program, desktop: Desktop, tmp_path: Path, client_id: str, secret: str
) -> None:
    """RFC 6749 §2.3.1: both halves form-encoded; the embedded server decodes them with its own code."""
    options = register(server, client_id, secret)
    login = desktop.log_in(program, server, *options, "--client-secret-file", in_file(tmp_path, secret))
    assert login.exit_code == 0, login.stderr
    program.output("token", "--refresh")
    program.output("logout")

    requests = token_requests(server)
    assert {request.kind for request in requests} == TO_TOKEN_ENDPOINTS
    assert all(request.status == 200 for request in requests)
    assert all(request.authorization.startswith("Basic ") for request in requests)
    assert not any({"client_id", "client_secret"} & request.form.keys() for request in requests)


@pytest.mark.parametrize(
    ("client_id", "secret"),
    [
        pytest.param("own", SECRET, id="plain", marks=thorough),
        pytest.param(ODD_ID, ODD_SECRET, id="odd-characters"),
    ],
)
def test_a_confidential_client_authenticates_in_the_body_where_the_metadata_says_so(
    server: CellsServer, program: Program, desktop: Desktop, tmp_path: Path, client_id: str, secret: str
) -> None:
    methods = {"token_endpoint_auth_methods_supported": ["client_secret_post", "none"]}
    server.behaviour = Behaviour(discovery=methods)
    options = register(server, client_id, secret, "client_secret_post")
    login = desktop.log_in(program, server, *options, "--client-secret-file", in_file(tmp_path, secret))
    assert login.exit_code == 0, login.stderr
    program.output("token", "--refresh")
    program.output("logout")

    requests = token_requests(server)
    assert {request.kind for request in requests} == TO_TOKEN_ENDPOINTS
    assert all(request.status == 200 and not request.authorization for request in requests)
    assert {(request.form["client_id"], request.form["client_secret"]) for request in requests} == {
        (client_id, secret)
    }


def test_a_public_client_never_sends_an_authorization_header(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    server.behaviour = Behaviour(public_client_basic="rejected")
    assert desktop.log_in(program, server).exit_code == 0
    program.output("token", "--refresh")
    program.output("logout")

    requests = token_requests(server)
    assert {request.kind for request in requests} == TO_TOKEN_ENDPOINTS
    assert all(request.status == 200 and not request.authorization for request in requests)
    assert {request.form["client_id"] for request in requests} == {"cells-client"}


# Where the secret comes from, and where it never is


@pytest.mark.parametrize(
    "source", ["file", pytest.param("file-from-windows", marks=thorough), "stdin", "environment"]
)
def test_the_secret_comes_from(
    server: CellsServer, program: Program, desktop: Desktop, tmp_path: Path, source: str
) -> None:
    options = register(server)
    environment, given = {}, None
    if source == "environment":
        environment["CELLS_LOOPBACK_CLIENT_SECRET"] = SECRET
    elif source == "stdin":
        options, given = (*options, "--client-secret-file", "-"), SECRET + "\n"
    else:
        ending = "\r\n" if source == "file-from-windows" else "\n"
        options = (*options, "--client-secret-file", in_file(tmp_path, SECRET + ending))

    login = desktop.log_in(program, server, *options, "-vv", environment=environment, given=given)

    assert login.exit_code == 0, login.stderr
    assert SECRET not in login.stderr + login.stdout + login.shown
    (exchange,) = token_requests(server)
    assert base64.b64decode(exchange.authorization.removeprefix("Basic ")).decode() == f"own:{SECRET}"


def test_the_secret_is_remembered_for_the_next_login(
    server: CellsServer, program: Program, desktop: Desktop, tmp_path: Path
) -> None:
    options = register(server)
    desktop.log_in(program, server, *options, "--client-secret-file", in_file(tmp_path, SECRET))
    again = desktop.log_in(program, server, "--force", site="")
    assert again.exit_code == 0, again.stderr
    assert {request.authorization[:6] for request in token_requests(server)} == {"Basic "}


def test_there_is_no_way_to_put_it_on_the_command_line(server: CellsServer, program: Program) -> None:
    done = program.run("login", server.site, "--client-id", "own", "--client-secret", SECRET)
    assert done.returncode == 2
    assert "--client-secret" in done.stderr


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        pytest.param("missing", "No such file or directory", id="missing"),
        pytest.param("empty", "is empty", id="empty"),
        pytest.param("binary", "it is not text", id="binary", marks=thorough),
        pytest.param("directory", "Is a directory", id="directory", marks=thorough),
    ],
)
def test_a_secret_that_cannot_be_read_is_wrong_usage(
    server: CellsServer, program: Program, tmp_path: Path, file: str, reason: str
) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "directory").mkdir()
    path = str(tmp_path / file)
    done = program.run("login", server.site, "--client-id", "own", "--client-secret-file", path)
    assert done.returncode == 2
    assert reason in done.stderr.splitlines()[0]
    assert server.requests == []


@pytest.mark.parametrize("sent", ["wrong-secret", None], ids=["wrong", "none"])
def test_a_refused_client_is_told_in_the_servers_words_without_the_secret(
    server: CellsServer, program: Program, desktop: Desktop, tmp_path: Path, sent: str | None
) -> None:
    options = register(server)
    if sent:
        options = (*options, "--client-secret-file", in_file(tmp_path, sent))
    login = desktop.log_in(program, server, *options, "-vv")
    assert login.exit_code == 5
    assert "invalid_client: Client authentication failed" in login.error
    assert "wrong-secret" not in login.stderr + login.shown
    assert base64.b64encode(b"own:wrong-secret").decode() not in login.stderr
    assert server.count("exchange") == 1, "no second way of authentication is tried"
    assert not program.profile_path(name_of(server)).exists()


def test_an_unknown_client_is_told_by_the_server_in_the_browser(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    login = desktop.log_in(program, server, "--client-id", "nobody", "--timeout", "1")
    assert login.exit_code == 6
    assert login.page is not None
    assert (urlsplit(login.page.url).netloc, login.page.status) == (name_of(server), 401)


# Scope


@pytest.mark.parametrize(
    "words", ["openid profile offline", pytest.param("openid offline_access", marks=thorough)]
)
def test_a_custom_scope_is_asked_for_and_remembered(
    server: CellsServer, program: Program, desktop: Desktop, words: str
) -> None:
    login = desktop.log_in(program, server, "--scope", words)
    assert (login.exit_code, login.warnings) == (0, [])
    again = desktop.log_in(program, server, "--force")
    assert again.exit_code == 0, again.stderr
    assert [r.query["scope"] for r in server.requests if r.kind == "authorize"] == [words, words]
    assert program.read_profile(name_of(server))["token"]["refresh_token"]


def test_without_offline_the_person_is_warned_that_the_session_will_end(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    login = desktop.log_in(program, server, "--scope", "openid profile")
    assert login.exit_code == 0, login.stderr
    assert login.warnings == [
        "the scope has no 'offline': the session will end with its first token and cannot be renewed"
    ]
    assert login.stderr.splitlines()[-1] == "this session cannot be renewed"
    assert program.run("token").returncode == 0
    assert program.run("token", "--refresh").returncode == 4


@pytest.mark.parametrize(
    ("granted", "missing", "renewable"),
    [
        pytest.param("openid email profile offline", "pydio", True, id="less"),
        pytest.param("openid offline", "email profile pydio", True, id="much-less", marks=thorough),
        pytest.param("openid email profile pydio", "offline", False, id="no-offline"),
    ],
)
def test_a_server_that_grants_less_is_told(
    server: CellsServer, program: Program, desktop: Desktop, granted: str, missing: str, renewable: bool
) -> None:
    server.behaviour = replace(server.behaviour, granted_scope=granted)
    login = desktop.log_in(program, server)
    assert login.exit_code == 0, login.stderr
    assert login.warnings == [f"the server granted less than was asked: without {missing}"]
    assert ("this session cannot be renewed" in login.stderr) is not renewable
    assert bool(program.read_profile(name_of(server))["token"]["refresh_token"]) is renewable


def test_no_secret_is_in_the_environment_of_the_browser(
    server: CellsServer, program: Program, desktop: Desktop, tmp_path: Path
) -> None:
    seen = tmp_path / "environment"
    browser = tmp_path / "browser"
    stand_in = desktop.browser.removesuffix("%s")
    browser.write_text(f'#!/bin/sh\nenv > {seen}\nexec {stand_in} "$1"\n')
    os.chmod(browser, 0o700)
    secrets = {"CELLS_LOOPBACK_CLIENT_SECRET": SECRET}
    login = desktop.log_in(program, server, *register(server), "--browser", str(browser), environment=secrets)
    assert login.exit_code == 0, login.stderr
    assert "HOME=" in seen.read_text()
    assert SECRET not in seen.read_text()
