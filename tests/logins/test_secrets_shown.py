"""The whole life of a session with everything shown that can be shown: no secret stands where it must not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from own_network import OWN_NETWORK
from requires import thorough

from cells_loopback.testing import Behaviour

if TYPE_CHECKING:
    from desktop import Desktop
    from program import Program

    from cells_loopback.testing import CellsServer, RecordedRequest

pytestmark = OWN_NETWORK

LETS_OUT_THE_TOKEN = {
    "token": ("token",),
    "a header": ("token", "--format", "header"),
    "S3 credentials": ("s3", "credentials"),
    "the environment": ("s3", "env"),
}
"""Commands whose result is the access token: it stands on stdout, and nowhere else."""

SAYS_NOTHING = {
    "a renewal": ("token", "--refresh"),
    "the API": ("api", "/a/frontend/state"),
    "an unknown address": ("api", "/a/nothing"),
    "whoami": ("whoami", "--json"),
    "status": ("status", "--json"),
    "list": ("list",),
    "doctor": ("doctor",),
    "logout": ("logout",),
}


def everything_issued(server: CellsServer) -> list[str]:
    return [secret for secret in server.secrets() if len(secret) > 8]


def shown_in(text: str, server: CellsServer) -> list[str]:
    return [secret for secret in everything_issued(server) if secret in text]


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(), pytest.param(Behaviour(pkce="foreign", nonce="dropped"), marks=thorough)],
    ids=lambda behaviour: behaviour.pkce,
)
def test_from_login_to_logout_with_everything_shown(
    server: CellsServer, program: Program, desktop: Desktop, behaviour: Behaviour
) -> None:
    server.behaviour = behaviour
    login = desktop.log_in(program, server, "-vv")
    assert login.exit_code == 0, login.stderr
    assert shown_in(login.stdout + login.stderr + login.shown, server) == []

    for arguments in LETS_OUT_THE_TOKEN.values():
        done = program.run("-vv", *arguments)
        assert done.returncode == 0, done.stderr
        assert shown_in(done.stderr, server) == []
        assert {*shown_in(done.stdout, server)} <= {*server.access_tokens()}

    for arguments in SAYS_NOTHING.values():
        done = program.run("-vv", *arguments)
        shown = done.stderr if arguments[0] == "token" else done.stderr + done.stdout
        assert shown_in(shown, server) == []

    for request in server.requests:
        assert shown_in(_outside_of_the_right_places(request), server) == []


def _outside_of_the_right_places(request: RecordedRequest) -> str:
    """A request without the body of token requests, the Authorization header and the browser's own cookie."""
    headers = {
        name: value for name, value in request.headers.items() if name not in {"Authorization", "Cookie"}
    }
    form = {} if request.kind in {"exchange", "refresh", "revoke", "login"} else request.form
    cookie = request.headers.get("Cookie", "") if request.kind not in _BY_THE_BROWSER else ""
    return repr((request.path, request.query, form, headers, cookie))


_BY_THE_BROWSER = {"authorize", "login-page", "login", "consent", "oob", "other"}


@pytest.mark.parametrize(
    ("behaviour", "exit_code"),
    [
        (Behaviour(iss="wrong"), 9),
        (Behaviour(nonce="wrong"), 9),
        (Behaviour(id_token_fault="signature"), 9),
        (Behaviour(consent=True), 5),
    ],
    ids=["iss", "nonce", "signature", "refused"],
)
def test_a_login_that_fails_with_everything_shown(
    server: CellsServer, program: Program, desktop: Desktop, behaviour: Behaviour, exit_code: int
) -> None:
    server.behaviour = behaviour
    login = desktop.log_in(program, server, "-vv", person=lambda url: server.sign_in(url, consent="deny"))
    assert login.exit_code == exit_code, login.stderr
    assert "Traceback" in login.stderr
    assert shown_in(login.stdout + login.stderr + login.shown, server) == []
