"""PKCE against every server there is: what is stored, how often a code is tried, what is never given up."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from own_network import OWN_NETWORK
from requires import thorough
from sessions import store_session

from cells_loopback.testing import Behaviour, CellsServer, Fault

if TYPE_CHECKING:
    from desktop import Desktop
    from program import Program

    from cells_loopback.testing import RecordedRequest

pytestmark = OWN_NETWORK

SERVERS = {
    "bound": Behaviour(),
    "bound-not-advertised": Behaviour(code_challenge_methods_supported=None),
    "bound-only-plain-advertised": Behaviour(code_challenge_methods_supported=("plain",)),
    "bound-and-required": Behaviour(pkce_required=True),
    "unbound": Behaviour(pkce="unbound", nonce="dropped"),
    "unbound-hint-apart": Behaviour(pkce="unbound", nonce="dropped", error_format="error-hint"),
    "unbound-old-words": Behaviour(pkce="unbound-old-wording", nonce="dropped"),
    "unbound-old-words-hint-apart": Behaviour(
        pkce="unbound-old-wording", nonce="dropped", error_format="error-hint", error_details=True
    ),
    "unbound-not-advertised": Behaviour(
        pkce="unbound", nonce="dropped", code_challenge_methods_supported=None
    ),
    "unbound-and-required": Behaviour(pkce="unbound", nonce="dropped", pkce_required=True),
    "foreign": Behaviour(pkce="foreign", nonce="dropped"),
    "foreign-hint-apart": Behaviour(pkce="foreign", nonce="dropped", error_format="error-hint"),
    "foreign-not-advertised": Behaviour(
        pkce="foreign", nonce="dropped", code_challenge_methods_supported=None
    ),
}

# What is recorded is "-" where nothing is stored; the authorizations are those the server was asked for.
MATRIX = """
server                        --pkce    exit  authorizations  exchanges  recorded  warned
bound                         auto      0     1               1          bound     no
bound                         required  0     1               1          bound     no
bound                         off       0     1               1          off       no
bound-not-advertised          auto      0     1               1          bound     no
bound-not-advertised          required  0     1               1          bound     no
bound-not-advertised          off       0     1               1          off       no
bound-only-plain-advertised   auto      0     1               1          bound     no
bound-and-required            auto      0     1               1          bound     no
bound-and-required            required  0     1               1          bound     no
bound-and-required            off       5     1               0          -         no
unbound                       auto      0     1               2          unbound   yes
unbound                       required  9     1               1          -         no
unbound                       off       0     1               1          off       no
unbound-hint-apart            auto      0     1               2          unbound   yes
unbound-hint-apart            required  9     1               1          -         no
unbound-old-words             auto      0     1               2          unbound   yes
unbound-old-words             required  9     1               1          -         no
unbound-old-words             off       0     1               1          off       no
unbound-old-words-hint-apart  auto      0     1               2          unbound   yes
unbound-old-words-hint-apart  required  9     1               1          -         no
unbound-not-advertised        auto      0     1               2          unbound   yes
unbound-not-advertised        required  9     1               1          -         no
unbound-and-required          auto      5     1               2          -         no
foreign                       auto      0     2               2          foreign   yes
foreign                       required  9     1               1          -         no
foreign                       off       0     1               1          off       no
foreign-hint-apart            auto      0     2               2          foreign   yes
foreign-hint-apart            required  9     1               1          -         no
foreign-not-advertised        auto      0     2               2          foreign   yes
foreign-not-advertised        required  9     1               1          -         no
"""
ROWS = [line.split() for line in MATRIX.strip().splitlines()[1:]]

RANDOM = re.compile(r"[A-Za-z0-9_-]{43}")
"""256 bits in the alphabet that Cells carries through its redirect unharmed."""


def profile_name(server: CellsServer) -> str:
    return urlsplit(server.site).netloc


def authorizations(server: CellsServer) -> list[RecordedRequest]:
    return [request for request in server.requests if request.kind == "authorize"]


@pytest.mark.parametrize(
    ("mode", "policy", "exit_code", "authorized", "exchanges", "recorded", "warned"),
    [
        # Other words for the same, and other promises of it, are for the thorough.
        pytest.param(*row, id=f"{row[0]}/{row[1]}", marks=thorough if "-" in row[0] else ())
        for row in ROWS
    ],
)
def test_every_server_under_every_policy(
    server: CellsServer,
    program: Program,
    desktop: Desktop,
    mode: str,
    policy: str,
    exit_code: str,
    authorized: str,
    exchanges: str,
    recorded: str,
    warned: str,
) -> None:
    server.behaviour = SERVERS[mode]

    login = desktop.log_in(program, server, "--pkce", policy)

    assert login.exit_code == int(exit_code), login.stderr
    assert (len(authorizations(server)), server.count("exchange")) == (int(authorized), int(exchanges))
    challenged = ["code_challenge" in request.query for request in authorizations(server)]
    assert challenged == [policy != "off", False][: len(challenged)]
    assert len(login.warnings) == (warned == "yes")
    assert not any(secret in login.stderr + login.stdout for secret in server.secrets())
    if recorded == "-":
        assert not program.profile_path(profile_name(server)).exists()
        assert "The login failed" in login.shown
    else:
        assert program.read_profile(profile_name(server))["pkce_binding"] == recorded
        assert "You are logged in" in login.shown
        assert len(desktop.opened_pages()) == 1


def test_a_policy_that_the_server_does_not_meet_is_told_with_its_reason(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    server.behaviour = SERVERS["foreign"]
    login = desktop.log_in(program, server, "--pkce", "required")
    assert login.error == "this server does not bind PKCE (foreign), and --pkce required was given"
    assert "--pkce auto" in login.hint
    assert "this server does not bind PKCE (foreign)" in login.shown


def test_status_tells_of_a_server_that_does_not_bind(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    server.behaviour = SERVERS["unbound"]
    desktop.log_in(program, server)
    assert "pkce         unbound: the server did not bind the login" in program.output("status")
    assert json.loads(program.output("status", "--json"))[0]["pkce"] == "unbound"


# A site that has bound PKCE is never downgraded again


@pytest.mark.parametrize(
    "mode", ["unbound", pytest.param("unbound-old-words-hint-apart", marks=thorough), "foreign"]
)
@pytest.mark.parametrize("profile", ["the-same", "another"])
def test_a_site_that_has_bound_is_never_believed_to_be_unable(
    server: CellsServer, program: Program, desktop: Desktop, mode: str, profile: str
) -> None:
    store_session(server, program.config_dir, "the-same")
    before = program.profile_path("the-same").read_bytes()
    sessions = server.refresh_tokens()
    server.behaviour = SERVERS[mode]

    login = desktop.log_in(program, server, "-p", profile, "--force")

    assert login.exit_code == 9, login.stderr
    assert "has bound PKCE before and does not now" in login.error
    assert "has bound PKCE before and does not now" in login.shown
    assert server.count("exchange") == 2, "one each: the code is not tried again"
    assert program.profile_path("the-same").read_bytes() == before
    assert not program.profile_path("another").exists()
    assert server.refresh_tokens() == sessions


def test_switching_it_off_by_hand_does_not_make_the_site_forgotten(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    store_session(server, program.config_dir, profile_name(server))
    server.behaviour = SERVERS["unbound"]
    off = desktop.log_in(program, server, "--force", "--pkce", "off")
    assert off.exit_code == 0, off.stderr
    assert program.read_profile(profile_name(server))["pkce_binding"] == "bound"

    assert desktop.log_in(program, server, "--force", "--pkce", "auto").exit_code == 9


def test_what_another_site_binds_says_nothing_about_this_one(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    store_session(server, program.config_dir)
    with CellsServer(behaviour=SERVERS["unbound"]) as other:
        assert desktop.log_in(program, other).exit_code == 0


def test_a_site_that_begins_to_bind_is_remembered_so(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    store_session(server, program.config_dir, profile_name(server), pkce_binding="foreign")
    desktop.log_in(program, server, "--force")
    assert program.read_profile(profile_name(server))["pkce_binding"] == "bound"


# No other error downgrades

MISMATCH = "The PKCE code challenge did not match the code verifier."
TOO_SHORT = "The PKCE code verifier must be at least 43 characters."
UNBOUND = "Unable to find initial PKCE data tied to this request"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            {"error": "invalid_grant", "error_hint": "The authorization code expired."}, id="expired"
        ),
        pytest.param({"error": "invalid_grant"}, id="no-hint", marks=thorough),
        pytest.param({"error": "invalid_request", "error_description": UNBOUND}, id="another-error"),
        pytest.param({"error": "invalid_client", "error_hint": MISMATCH}, id="client", marks=thorough),
        pytest.param({"error": "invalid_grant", "error_uri": UNBOUND}, id="words-elsewhere", marks=thorough),
        pytest.param(
            {
                "error": "invalid_grant",
                "error_hint": "The PKCE code verifier must be at least 43 characters.",
            },
            id="verifier-too-short",
            marks=thorough,
        ),
    ],
)
def test_no_other_error_gives_pkce_up(
    server: CellsServer, program: Program, desktop: Desktop, answer: dict[str, str]
) -> None:
    server.fault("exchange", Fault(status=400, body=json.dumps(answer), times=None))
    login = desktop.log_in(program, server)
    assert login.exit_code == 5, login.stderr
    assert (len(authorizations(server)), server.count("exchange")) == (1, 1)
    assert not program.profile_path(profile_name(server)).exists()


def test_where_both_wordings_stand_the_code_is_taken_for_injected(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    answer = {"error": "invalid_grant", "error_description": UNBOUND, "error_hint": MISMATCH}
    server.fault("exchange", Fault(status=400, body=json.dumps(answer)))
    server.behaviour = SERVERS["unbound"]
    login = desktop.log_in(program, server)
    assert login.exit_code == 0, login.stderr
    first, second = (request for request in server.requests if request.kind == "exchange")
    assert first.form["code"] != second.form["code"]


def test_there_is_one_new_authorization_and_no_third(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    answer = {"error": "invalid_grant", "error_hint": MISMATCH}
    server.fault("exchange", Fault(status=400, body=json.dumps(answer), times=None))
    login = desktop.log_in(program, server)
    assert login.exit_code == 5, login.stderr
    assert (len(authorizations(server)), server.count("exchange")) == (2, 2)
    assert "The login failed" in login.shown


# What is sent


def test_an_unbound_code_is_exchanged_once_more_without_the_verifier(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    server.behaviour = SERVERS["unbound"]
    desktop.log_in(program, server)
    first, second = (request.form for request in server.requests if request.kind == "exchange")
    assert first.pop("code_verifier")
    assert first == second


def test_a_code_of_a_foreign_challenge_is_dropped_and_nobody_types_twice(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    server.behaviour = SERVERS["foreign"]
    login = desktop.log_in(program, server)
    first, second = (request.form for request in server.requests if request.kind == "exchange")
    assert first["code"] != second["code"]
    assert "code_verifier" not in second
    assert (server.count("login"), len(desktop.opened_pages())) == (1, 1)
    assert login.page is not None
    assert [urlsplit(url).path for url in login.page.history][-2:] == [
        "/oidc/oauth2/auth",
        "/servers/callback",
    ], "the callback sends the same window to the second authorization"


def test_random_values_are_long_url_safe_and_never_used_twice(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    server.behaviour = replace(SERVERS["foreign"], nonce="kept")
    desktop.log_in(program, server)
    server.behaviour = SERVERS["bound"]
    desktop.log_in(program, server, "-p", "another")

    queries = [request.query for request in authorizations(server)]
    forms = [request.form for request in server.requests if request.kind == "exchange"]
    values = [
        *(query[name] for query in queries for name in ("state", "nonce")),
        *(query["code_challenge"] for query in queries if "code_challenge" in query),
        *(form["code_verifier"] for form in forms if "code_verifier" in form),
    ]
    assert len(queries) == len(forms) == 3
    assert len(values) == 3 * 2 + 2 + 2
    assert all(RANDOM.fullmatch(value) for value in values)
    assert len(set(values)) == len(values)
    assert {query.get("code_challenge_method") for query in queries} == {"S256", None}
