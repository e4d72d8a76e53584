"""What comes back from the server and cannot be believed: nothing is stored, and the page says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from desktop import address_elsewhere
from own_network import OWN_NETWORK
from requires import thorough
from sessions import store_session

from cells_loopback.testing import Behaviour, Browser, ErrorAnswer, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from desktop import Attempt, Desktop
    from program import Program

    from cells_loopback.testing import CellsServer, Page

pytestmark = OWN_NETWORK


def name_of(server: CellsServer) -> str:
    return urlsplit(server.site).netloc


def assert_nothing_came_of_it(login: Attempt, exit_code: int, server: CellsServer, program: Program) -> None:
    """Hold a failed login to what every one leaves behind: two lines, a page that says so, and no session."""
    assert (login.exit_code, login.stdout) == (exit_code, ""), login.stderr
    assert login.stderr.splitlines()[-2:] == [f"error: {login.error}", f"hint: {login.hint}"]
    assert "The login failed" in login.shown
    assert not program.profile_path(name_of(server)).exists()
    assert not any(secret in login.stderr + login.shown for secret in server.secrets())
    assert server.refresh_tokens() == [], "what was issued is revoked"


PROMISED = {"authorization_response_iss_parameter_supported": True}


@pytest.mark.parametrize(
    ("behaviour", "exit_code"),
    [
        pytest.param(Behaviour(iss="right"), 0, id="right"),
        pytest.param(Behaviour(iss="right", discovery=PROMISED), 0, id="right-and-promised", marks=thorough),
        pytest.param(
            Behaviour(iss="right", issuer_slash=False), 0, id="right-but-for-the-slash", marks=thorough
        ),
        pytest.param(Behaviour(iss="absent"), 0, id="absent"),
        pytest.param(Behaviour(iss="absent", discovery=PROMISED), 9, id="promised-and-absent"),
        pytest.param(Behaviour(iss="wrong"), 9, id="wrong"),
    ],
)
def test_the_issuer_in_the_answer(
    server: CellsServer, program: Program, desktop: Desktop, behaviour: Behaviour, exit_code: int
) -> None:
    """RFC 9207 §2.4."""
    server.behaviour = behaviour
    login = desktop.log_in(program, server)
    assert login.exit_code == exit_code, login.stderr
    if exit_code:
        assert_nothing_came_of_it(login, 9, server, program)
        assert login.error.startswith("the answer comes from another issuer: ")
        assert "the answer comes from another issuer" in login.shown
        assert server.count("exchange") == 0


ID_TOKENS: dict[str, tuple[Behaviour, str]] = {
    "iss": (Behaviour(id_token_fault="iss"), "its issuer is another"),
    "aud": (Behaviour(id_token_fault="aud"), "it was made for another client"),
    "azp": (Behaviour(azp="wrong"), "its authorized party is another client"),
    "exp": (Behaviour(id_token_fault="exp"), "it has expired"),
    "iat": (Behaviour(id_token_fault="iat"), "it was issued in the future"),
    "sub": (Behaviour(id_token_fault="sub"), "it names no subject"),
    "at_hash": (Behaviour(id_token_fault="at_hash"), "it was made for another access token"),
    "nonce": (Behaviour(nonce="wrong"), "its nonce is not the one of this login"),
    "signature": (Behaviour(id_token_fault="signature"), "its signature cannot be verified"),
    "alg-none": (Behaviour(id_token_fault="alg-none"), "its signature cannot be verified"),
    "alg-hs256": (Behaviour(id_token_fault="alg-hs256"), "its signature cannot be verified"),
    "kid": (Behaviour(id_token_fault="kid"), "its signature cannot be verified"),
}


@pytest.mark.parametrize(("behaviour", "reason"), ID_TOKENS.values(), ids=ID_TOKENS)
@thorough
def test_every_single_fault_of_an_id_token(
    server: CellsServer, program: Program, desktop: Desktop, behaviour: Behaviour, reason: str
) -> None:
    server.behaviour = behaviour
    login = desktop.log_in(program, server)
    assert_nothing_came_of_it(login, 9, server, program)
    assert login.error.startswith(f"the ID token cannot be trusted: {reason}")
    assert "the ID token cannot be trusted" in login.shown


def test_no_id_token_at_all_leaves_it_to_userinfo(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    server.behaviour = Behaviour(id_token_fault="missing")
    assert desktop.log_in(program, server).exit_code == 0
    assert program.output("whoami") == "alice\n"


def test_keys_that_were_rotated_meanwhile_are_fetched_again(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    def person(url: str) -> Page:
        server.wait_for("jwks")
        server.rotate_signing_key(retire=True)
        return server.sign_in(url)

    login = desktop.log_in(program, server, person=person)
    assert login.exit_code == 0, login.stderr
    assert server.count("jwks") == 2


@pytest.mark.parametrize(
    ("fault", "exit_code", "words"),
    [
        pytest.param(Fault(status=200, body="{}"), 9, "without a usable access token", id="no-token"),
        pytest.param(
            Fault(status=200, body='{"access_token": "a b", "token_type": "bearer"}'),
            9,
            "without a usable access token",
            id="a-token-with-a-space",
            marks=thorough,
        ),
        pytest.param(
            Fault(status=200, body='{"access_token": "a", "token_type": "mac"}'),
            9,
            "without a usable access token",
            id="another-type",
            marks=thorough,
        ),
        pytest.param(
            Fault(status=307, headers={"Location": "https://elsewhere.example/token"}),
            9,
            "with a redirect, which is never followed",
            id="redirected",
        ),
    ],
)
def test_every_answer_to_the_exchange_that_cannot_be_used(
    server: CellsServer, program: Program, desktop: Desktop, fault: Fault, exit_code: int, words: str
) -> None:
    server.fault("exchange", fault)
    login = desktop.log_in(program, server)
    assert_nothing_came_of_it(login, exit_code, server, program)
    assert words in login.error
    assert server.count("exchange") == 1


# Whose answer it is


def test_a_code_for_another_state_is_turned_away_and_never_exchanged(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    """Somebody lures the person's browser to the callback with a code of his own account."""
    injected: list[Page] = []

    def person(url: str) -> Page:
        mallorys = Browser()
        theirs = mallorys.open(url)  # the start address is for one browser: he gets no further
        assert theirs.url.startswith(server.site)
        for query in ("code=mallorys&state=" + "x" * 43, "code=mallorys", "error=access_denied"):
            page = Browser().open(f"http://localhost:3000/servers/callback?{query}")
            injected.append(page)
        return mallorys.sign_in(theirs.url, "alice", server.user.password)

    login = desktop.log_in(program, server, "-v", person=person)

    assert login.exit_code == 0, login.stderr
    assert [page.status for page in injected] == [400, 400, 400]
    assert all("This is not the login" in page.text for page in injected)
    assert "turned away: state_mismatch" in login.stderr
    assert "turned away: state_missing" in login.stderr
    (exchange,) = (request for request in server.requests if request.kind == "exchange")
    assert exchange.form["code"] != "mallorys"


def put_in_a_code(server: CellsServer, **changes: str) -> Callable[[str], Page]:
    """A person whose answer is exchanged on the way by somebody who sees even our ``state``.

    ``changes`` are what the other's own authorization request says otherwise; '' leaves it out.
    """

    def person(url: str) -> Page:
        browser = Browser()
        browser.open(url)
        ours = next(request.query for request in reversed(server.requests) if request.kind == "authorize")
        theirs = {name: value for name, value in {**ours, **changes}.items() if value}
        address = address_elsewhere(server, f"{server.site}/oidc/oauth2/auth?{urlencode(theirs)}")
        code = parse_qs(urlsplit(address).query)["code"][0]
        return server.sign_in(f"{ours['redirect_uri']}?code={code}&state={ours['state']}")

    return person


def test_a_code_with_another_challenge_is_tried_once_and_dropped(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    """It reads like a foreign challenge: the person logs in once more, and that is the code that counts."""
    login = desktop.log_in(program, server, person=put_in_a_code(server, code_challenge="x" * 43))
    assert login.exit_code == 0, login.stderr
    first, second = (request.form for request in server.requests if request.kind == "exchange")
    assert "code_verifier" in first
    assert second["code"] != first["code"]


def test_where_the_site_has_bound_before_such_a_code_ends_the_login(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    store_session(server, program.config_dir)
    login = desktop.log_in(program, server, person=put_in_a_code(server, code_challenge="x" * 43))
    assert login.exit_code == 9
    assert "somebody may have put in a foreign code" in login.error
    assert "somebody may have put in a foreign code" in login.shown


def test_a_code_without_a_challenge_is_betrayed_by_its_nonce(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    changes = {"code_challenge": "", "code_challenge_method": "", "nonce": "x" * 43}
    login = desktop.log_in(program, server, person=put_in_a_code(server, **changes))
    assert_nothing_came_of_it(login, 9, server, program)
    assert "its nonce is not the one of this login" in login.error


# The server's own words


ESCAPES = "\x1b]0;owned\x07\x1b[2Jno \u202eemos\u202c <script>alert(1)</script>\nerror: forged\r"


@pytest.mark.parametrize(
    ("error", "start"),
    [
        pytest.param("access_denied", "the login was refused: access_denied: ", id="access_denied"),
        pytest.param("server_error", "the server answered with an error: server_error: ", id="another"),
    ],
)
def test_the_words_of_an_error_are_safe_for_a_terminal_and_for_html(
    server: CellsServer, program: Program, desktop: Desktop, error: str, start: str
) -> None:
    server.behaviour = Behaviour(authorization_error=ErrorAnswer(error, ESCAPES, "Ask \x1b[31mBob."))
    login = desktop.log_in(program, server)

    assert_nothing_came_of_it(login, 5, server, program)
    assert login.error.startswith(start)
    assert len(login.told("error")) == 1, "no line of the server's looks like one of ours"
    for text in (login.stderr, login.shown):
        assert all(char.isprintable() or char == "\n" for char in text)
        assert "\u202e" not in text
    assert "<script" not in login.shown
    assert "&lt;script&gt;" in login.shown
    assert "\\x1b[31mBob." in login.error


def test_refused_consent_is_told_to_the_program_that_embeds_us(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    server.behaviour = Behaviour(consent=True)

    def person(url: str) -> Page:
        return server.sign_in(url, consent="deny")

    login = desktop.log_in(program, server, "--json", person=person)
    assert login.exit_code == 5
    last: dict[str, Any] = json.loads(login.stdout.splitlines()[-1])
    assert (last["event"], last["code"], last["exit_code"]) == ("error", "access_denied", 5)
    assert "The resource owner denied the request." in last["message"]
