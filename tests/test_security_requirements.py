"""RFC 8252 §8 and RFC 9700 as checklists: one test named after each requirement that a client can meet.

Each runs the login as a program calls it, against a server on a real socket, with a person who does what
the test says. What only a server can do, or what Cells gives no means for, is listed in the README.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from bare_client import BareClient
from frames import leaks
from watched_login import REDIRECT_URI, Login, intercepted, ours, requests_of

from cells_loopback.errors import UntrustedServerError
from cells_loopback.events import AuthorizationURL
from cells_loopback.http.endpoints import fetch_metadata
from cells_loopback.http.transport import SiteClient
from cells_loopback.http.trust import Trust
from cells_loopback.loopback.listener import is_listening
from cells_loopback.loopback_login.flow import log_in
from cells_loopback.loopback_login.opening import Surroundings
from cells_loopback.loopback_login.options import LoginOptions
from cells_loopback.protocol.authorization import start_authorization
from cells_loopback.protocol.client import ClientRegistration, parse_redirect_uri
from cells_loopback.protocol.site import parse_site
from cells_loopback.secret import Secret
from cells_loopback.session.logout import log_out
from cells_loopback.session.session import Session
from cells_loopback.store.profiles import ProfileStore
from cells_loopback.testing import Behaviour, Browser, CellsServer, Fault
from cells_loopback.testing import Client as RegisteredClient

if TYPE_CHECKING:
    from pathlib import Path


NOTHING_STORED: list[str] = []


@pytest.fixture
def config_dir(tmp_path: Path) -> str:
    return str(tmp_path / "config")


@pytest.fixture
def login(server: CellsServer, config_dir: str) -> Login:
    return Login(server, config_dir)


def code_of_an_attacker(server: CellsServer, login: Login) -> str:
    """A code of another person's own login, for the same client and redirect URI."""
    with SiteClient(parse_site(server.site), Trust()) as client:
        metadata = fetch_metadata(client)
    registration = ClientRegistration("any-port", (parse_redirect_uri(REDIRECT_URI),))
    request = start_authorization(metadata, registration, login.redirect_uri, with_pkce=True)
    page = server.sign_in(request.url, "bob", "open-barley", browser=Browser())
    assert page.status == 400  # the state is not the one that is waited for
    return dict(parse_qsl(urlsplit(page.url).query))["code"]


def inject(login: Login) -> None:
    """Bring an attacker's code with the state of this login, and go no further."""
    stolen = code_of_an_attacker(login.server, login)
    login.get(f"?code={stolen}&state={login.parameters['state']}")


# RFC 8252 §8


def test_rfc8252_8_1_every_authorization_request_carries_a_pkce_challenge(login: Login) -> None:
    login.run()
    assert login.session is not None
    assert login.parameters["code_challenge_method"] == "S256"
    assert len(login.parameters["code_challenge"]) == 43
    exchange = requests_of(login.server, "exchange")[0]
    assert exchange.form["code_verifier"]
    assert exchange.form["code_verifier"] not in login.url


def test_rfc8252_8_1_a_code_that_another_program_got_hold_of_is_of_no_use_to_it(login: Login) -> None:
    def steal(login: Login) -> None:
        bare = BareClient(login.server, "any-port", login.redirect_uri)
        code = intercepted(login)["code"]
        assert bare.exchange(code, code_verifier="").status == 400
        assert bare.exchange(code, code_verifier="x" * 43).status == 400

    login.options["timeout"] = 1.0
    login.run(steal)
    assert login.server.count("exchange", 400) == 2
    assert login.server.access_tokens() == []


def test_rfc8252_8_2_the_implicit_grant_is_not_used(login: Login) -> None:
    login.run()
    assert login.parameters["response_type"] == "code"
    tokens = list(login.server.access_tokens() + login.server.refresh_tokens())
    seen_by_the_browser = " ".join([page.url + " ".join(page.history) + page.text for page in login.pages])
    assert tokens
    assert not [token for token in tokens if token in seen_by_the_browser]


def test_rfc8252_8_3_nobody_listens_but_on_loopback_and_but_during_the_login(login: Login) -> None:
    listening: dict[str, bool] = {}

    def look(login: Login) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: this is how to learn one's own address
            own_address = probe.getsockname()[0]
        for address in ("127.0.0.1", own_address):
            with socket.socket() as client:
                client.settimeout(2)
                listening[address] = client.connect_ex((address, login.port)) == 0
        login.sign_in()

    login.run(look)
    assert listening.pop("127.0.0.1")
    assert not any(listening.values())
    assert not is_listening("127.0.0.1", login.port)
    assert not is_listening("::1", login.port)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_rfc8252_8_3_the_address_literal_is_used_where_it_is_registered(login: Login, host: str) -> None:
    login.options["redirect_uris"] = (f"http://{host}:0/servers/callback",)
    login.run()
    assert login.session is not None
    assert login.redirect_uri == f"http://{host}:{login.port}/servers/callback"
    assert login.port != 0


def test_rfc8252_8_4_the_redirect_uri_is_sent_exactly_as_registered(login: Login) -> None:
    login.options = {
        "client_id": "cells-sync",
        "redirect_uris": ("http://localhost:[3636-3666]/servers/callback",),
    }
    login.run()
    assert login.session is not None
    assert login.redirect_uri in {f"http://localhost:{port}/servers/callback" for port in range(3636, 3667)}
    assert login.parameters["redirect_uri"] == login.redirect_uri
    assert requests_of(login.server, "exchange")[0].form["redirect_uri"] == login.redirect_uri


def test_rfc8252_8_5_a_public_client_sends_no_secret_and_no_credentials(login: Login) -> None:
    login.run()
    for request in requests_of(login.server, "exchange"):
        assert request.authorization == ""
        assert "client_secret" not in request.form
        assert request.form["client_id"] == "any-port"


def test_rfc8252_8_5_the_secret_of_a_confidential_client_goes_to_the_token_endpoint_alone(
    login: Login,
) -> None:
    own = RegisteredClient("own-client", ("http://127.0.0.1/servers/callback",), "secret-of-the-client")
    login.server.add_client(own)
    login.options = {"client_id": "own-client", "client_secret": Secret("secret-of-the-client")}
    login.run()
    assert login.session is not None
    assert "secret-of-the-client" not in login.url + repr(login.events)
    credentials = {
        request.kind for request in ours(login.server) if request.authorization.startswith("Basic ")
    }
    assert credentials == {"exchange"}


def test_rfc8252_8_9_a_forged_answer_neither_logs_in_nor_ends_the_login(login: Login) -> None:
    def forge(login: Login) -> None:
        for query in (
            "?code=forged",
            "?code=forged&state=",
            f"?code=forged&state={'x' * 43}",
            f"?code=forged&state={login.parameters['state'][:-1]}",
            f"?code=forged&state={login.parameters['state']}x",
            "?error=access_denied",
            f"?error=access_denied&state={'x' * 43}",
            f"?code=a&state={login.parameters['state']}&state={'x' * 43}",
            f"?code=a&code=b&state={login.parameters['state']}",
        ):
            assert login.get(query).status_code == 400
        assert (
            login.get(f"?code=forged&state={login.parameters['state']}", Host="evil.example").status_code
            == 421
        )
        login.sign_in()

    login.run(forge)
    assert login.session is not None
    assert set(login.rejections) == {"state_missing", "state_mismatch", "repeated_parameter", "wrong_host"}
    assert login.server.count("exchange") == 1


def test_rfc8252_8_10_an_answer_of_another_authorization_server_is_refused(login: Login) -> None:
    login.server.behaviour = Behaviour(iss="wrong")
    login.run()
    assert login.error is not None
    assert (login.error.exit_code, login.error.code) == (9, "iss_mismatch")
    assert login.server.count("exchange") == 0
    assert login.stored == NOTHING_STORED


def test_rfc8252_8_12_the_person_logs_in_with_a_browser_that_is_not_ours(login: Login) -> None:
    login.run()
    assert login.session is not None
    assert {request.kind for request in ours(login.server)} == {"discovery", "jwks", "exchange"}
    assert login.server.count("login") == 1
    assert not [request for request in ours(login.server) if request.headers.get("Cookie")]


# RFC 9700 §2


def test_rfc9700_2_1_the_state_is_unguessable_and_of_one_login_only(
    server: CellsServer, tmp_path: Path
) -> None:
    logins = [Login(server, str(tmp_path / str(number))).run() for number in range(3)]
    values = [login.parameters[name] for login in logins for name in ("state", "nonce", "code_challenge")]
    assert len(set(values)) == 9
    assert all(len(value) >= 43 for value in values)


def test_rfc9700_2_1_1_the_code_challenge_is_of_this_transaction_only(
    server: CellsServer, config_dir: str
) -> None:
    server.behaviour = Behaviour(pkce="foreign", nonce="dropped")
    login = Login(server, config_dir).run()
    assert login.session is not None
    first, second = (request.query for request in requests_of(server, "authorize"))
    assert first["state"] != second["state"]
    assert first["nonce"] != second["nonce"]
    assert "code_challenge" not in second
    codes = Counter(request.form["code"] for request in requests_of(login.server, "exchange"))
    assert set(codes.values()) == {1}


def test_rfc9700_2_3_no_more_is_asked_for_than_was_wanted(login: Login) -> None:
    login.options["scope"] = "openid profile"
    login.run()
    assert login.session is not None
    assert login.parameters["scope"] == "openid profile"
    assert not login.session.stored.tokens.renewable


def test_rfc9700_2_4_no_password_passes_through_us(login: Login) -> None:
    login.run()
    assert login.session is not None
    grants = {request.form.get("grant_type") for request in ours(login.server)} - {None}
    assert grants == {"authorization_code"}
    password = login.server.user.password
    assert password not in repr([(request.form, request.query) for request in ours(login.server)])


def test_rfc9700_2_6_the_endpoints_come_from_the_servers_metadata(login: Login) -> None:
    login.server.behaviour = Behaviour(userinfo_path="/oidc/userinfo", id_token_fault="missing")
    login.run()
    assert login.session is not None
    assert [request.path for request in requests_of(login.server, "userinfo")] == ["/oidc/userinfo"]


@pytest.mark.parametrize("site", ["http://files.example.com", "http://192.0.2.1:8080"])
def test_rfc9700_2_6_nothing_goes_in_clear_text_to_another_machine(config_dir: str, site: str) -> None:
    opened: list[str] = []
    options = LoginOptions(site=site, client_id="any-port", redirect_uris=(REDIRECT_URI,))
    with pytest.raises(UntrustedServerError) as caught:
        asyncio.run(log_in(options, Surroundings(open_url=opened.append), config_dir))
    assert caught.value.code == "plain_http"
    assert opened == []


def test_rfc9700_2_6_a_certificate_that_cannot_be_verified_ends_the_login(config_dir: str) -> None:
    with CellsServer(tls="self-signed") as server:
        login = Login(server, config_dir).run()
        assert login.error is not None
        assert (login.error.exit_code, login.error.code) == (9, "certificate")
        assert server.requests == []


# RFC 9700 §4


def test_rfc9700_4_1_an_answer_elsewhere_than_at_the_redirect_uri_is_none(login: Login) -> None:
    def misdirect(login: Login) -> None:
        right = f"?code=forged&state={login.parameters['state']}"
        for path in (
            "/",
            "/servers/callback/",
            "/servers/callback/x",
            "/servers//callback",
            "/Servers/Callback",
        ):
            assert login.get(right, path).status_code == 404
        login.sign_in()

    login.run(misdirect)
    assert login.session is not None
    assert login.server.count("exchange") == 1


def test_rfc9700_4_2_the_page_tells_its_address_to_nobody(login: Login) -> None:
    answers: list[httpx.Response] = []

    def visit(login: Login) -> None:
        answers.append(login.get("?code=forged&state=x"))
        login.sign_in()

    login.run(visit)
    text = login.pages[0].text
    assert answers[0].headers["Referrer-Policy"] == "no-referrer"
    assert answers[0].headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in answers[0].headers["Content-Security-Policy"]
    for loading in ("<script", '<link rel="stylesheet', "<img", "<iframe", 'src="http', "url(http"):
        assert loading not in text


def test_rfc9700_4_2_4_an_answer_counts_once_and_a_code_is_exchanged_once(login: Login) -> None:
    def repeat(login: Login) -> None:
        page = login.sign_in()
        callback = next(url for url in page.history if "code=" in url)
        try:
            login.get("?" + urlsplit(callback).query)
            login.get(f"?code=another&state={login.parameters['state']}")
        except httpx.TransportError:  # the login is over, and its listener gone
            pass

    login.run(repeat)
    assert login.session is not None
    assert login.server.count("exchange") == 1


def test_rfc9700_4_3_1_the_code_does_not_stay_in_the_address_bar(login: Login) -> None:
    login.run()
    page = login.pages[0]
    assert urlsplit(page.url).path.startswith("/result/")
    assert not [secret for secret in login.visible_secrets if secret in page.url + page.text]


def test_rfc9700_4_3_2_no_access_token_stands_in_a_url(login: Login) -> None:
    login.run()
    assert login.session is not None
    login.session.token(refresh_now=True)
    with httpx.Client(base_url=login.server.site, auth=login.session.auth, trust_env=False) as client:
        assert client.get("/a/frontend/state").status_code == 200
    urls = [request.path + repr(request.query) for request in login.server.requests]
    tokens = login.server.access_tokens() + login.server.refresh_tokens()
    assert not [token for token in tokens if token in " ".join(urls)]


def test_rfc9700_4_4_a_server_that_names_another_ones_endpoints_gets_nothing(login: Login) -> None:
    with CellsServer() as honest:
        for name in ("authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri"):
            login.server.behaviour = Behaviour(discovery={name: f"{honest.site}/oidc/x"})
            login.run()
            assert login.error is not None
            assert (login.error.exit_code, login.error.code) == (9, "foreign_endpoint")
        login.server.behaviour = Behaviour(issuer=f"{honest.site}/oidc/")
        login.run()
        assert login.error is not None
        assert login.error.code == "issuer_mismatch"
        assert honest.requests == []
    assert not [event for event in login.events if isinstance(event, AuthorizationURL)]


def test_rfc9700_4_5_where_pkce_is_lost_the_nonce_tells_an_injected_code(login: Login) -> None:
    """The attacker even knows the state. Where a release drops both, nothing is left that could tell."""
    login.server.behaviour = Behaviour(pkce="unbound")
    login.run(inject)
    assert login.error is not None
    assert (login.error.exit_code, login.error.code) == (9, "id_token_invalid")
    assert login.stored == NOTHING_STORED


def test_rfc9700_4_5_a_code_that_may_be_injected_is_never_tried_without_its_verifier(login: Login) -> None:
    """What a server answers to it reads the same as where a release replaces our challenge."""
    login.options["timeout"] = 1.0
    login.run(inject)
    assert login.session is None
    assert login.stored == NOTHING_STORED
    exchanges = requests_of(login.server, "exchange")
    assert len(exchanges) == 1
    assert exchanges[0].form["code_verifier"]


@pytest.mark.parametrize(
    "fault", ["aud", "iss", "exp", "signature", "alg-none", "alg-hs256", "kid", "at_hash"]
)
def test_rfc9700_4_5_an_id_token_that_is_not_for_this_login_makes_no_session(
    login: Login, fault: Any
) -> None:
    login.server.behaviour = Behaviour(id_token_fault=fault)
    login.run()
    assert login.error is not None
    assert login.error.exit_code == 9
    assert login.stored == NOTHING_STORED
    assert login.server.refresh_tokens() == []
    assert "You are logged in" not in login.pages[0].text


def test_rfc9700_4_7_a_login_that_nobody_asked_for_is_not_completed(login: Login) -> None:
    """The attacker's own answer, with the attacker's own state, in the victim's browser."""

    def force(login: Login) -> None:
        bare = BareClient(login.server, "any-port", login.redirect_uri)
        page = login.server.sign_in(bare.authorization_url(), "bob", "open-barley", browser=Browser())
        assert page.status == 400
        login.sign_in()

    login.run(force)
    assert login.session is not None
    assert login.session.stored.user.name == "alice"


def test_rfc9700_4_8_a_server_that_bound_pkce_once_is_not_believed_to_have_lost_it(login: Login) -> None:
    login.run()
    assert login.session is not None
    for pkce in ("unbound", "unbound-old-wording", "foreign"):
        login.server.behaviour = Behaviour(pkce=pkce, nonce="dropped")
        again = Login(login.server, login.config_dir, {"force": True}).run()
        assert again.error is not None
        assert (again.error.exit_code, again.error.code) == (9, "pkce_downgrade")
    another = Login(login.server, login.config_dir, {"profile": "another"}).run()
    assert another.error is not None
    assert another.error.code == "pkce_downgrade"
    assert Session.load(config_dir=login.config_dir).access_token() == login.session.access_token()


def test_rfc9700_4_8_where_pkce_is_required_no_login_goes_without(login: Login) -> None:
    login.options["pkce"] = "required"
    login.server.behaviour = Behaviour(pkce="unbound", nonce="dropped")
    login.run()
    assert login.error is not None
    assert (login.error.exit_code, login.error.code) == (9, "pkce_not_bound")
    assert login.server.count("exchange") == 1
    assert login.stored == NOTHING_STORED


def test_rfc9700_4_9_1_the_token_is_sent_to_its_own_site_only(login: Login) -> None:
    login.run()
    assert login.session is not None
    with CellsServer() as counterfeit:
        login.server.fault(
            "rest", Fault(status=307, headers={"Location": f"{counterfeit.site}/a/frontend/state"})
        )
        with httpx.Client(auth=login.session.auth, follow_redirects=True, trust_env=False) as client:
            client.get(f"{login.server.site}/a/frontend/state")
            client.get(f"{counterfeit.site}/a/frontend/state")
        assert len(counterfeit.requests) == 2
        assert not [request for request in counterfeit.requests if request.authorization]


def test_rfc9700_4_11_1_the_callback_server_is_no_open_redirector(login: Login) -> None:
    locations: list[str | None] = []

    def probe(login: Login) -> None:
        evil = "https://evil.example/"
        for path, query in (
            ("/servers/callback", f"?code=x&state=x&redirect_uri={evil}&next={evil}&url={evil}"),
            ("/servers/callback", f"?error=x&error_uri={evil}"),
            ("//evil.example/", ""),
            ("/start/x", f"?url={evil}"),
            ("/result/x", f"?url={evil}"),
            ("/", f"?continue={evil}"),
        ):
            locations.append(login.get(query, path).headers.get("Location"))
        login.sign_in()

    login.run(probe)
    assert login.session is not None
    assert set(locations) == {None}


def test_rfc9700_4_12_a_redirect_of_ours_makes_the_browser_go_on_with_get(login: Login) -> None:
    answers: list[httpx.Response] = []

    def watch(login: Login) -> None:
        answer = intercepted(login)
        answers.append(login.get(f"?code={answer['code']}&state={answer['state']}"))

    login.run(watch)
    assert login.session is not None
    assert answers[0].status_code == 303
    assert answers[0].headers["Location"].startswith("/result/")


def test_rfc9700_4_12_a_redirected_token_request_goes_nowhere(login: Login) -> None:
    with CellsServer() as elsewhere:
        redirect = Fault(status=307, headers={"Location": f"{elsewhere.site}/oidc/oauth2/token"})
        login.server.fault("exchange", redirect)
        login.run()
        assert elsewhere.requests == []
    assert login.error is not None
    assert (login.error.exit_code, login.error.code) == (9, "redirected")


def test_rfc9700_4_14_refresh_tokens_rotate_and_only_their_owner_can_read_them(login: Login) -> None:
    login.run()
    assert login.session is not None
    for _ in range(3):
        login.session.token(refresh_now=True)
    used = [request.form["refresh_token"] for request in requests_of(login.server, "refresh")]
    assert len(set(used)) == 3
    path = ProfileStore(login.config_dir).path(login.stored[0])
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    with open(path, encoding="utf-8") as file:
        assert [json.load(file)["token"]["refresh_token"]] == login.server.refresh_tokens()


def test_rfc9700_4_14_logging_out_revokes_what_the_server_holds(login: Login) -> None:
    login.run()
    assert log_out(ProfileStore(login.config_dir), login.stored[0]) == ""
    assert login.server.refresh_tokens() == login.server.access_tokens() == []
    assert login.stored == NOTHING_STORED


def test_rfc9700_4_14_a_new_login_revokes_the_session_it_replaces(login: Login) -> None:
    login.run()
    again = Login(login.server, login.config_dir, {"force": True}).run()
    assert again.session is not None
    assert len(login.server.refresh_tokens()) == 1


def test_rfc9700_4_16_no_page_of_others_may_frame_ours(login: Login) -> None:
    answers: list[httpx.Response] = []

    def visit(login: Login) -> None:
        answers.append(login.get("?code=forged&state=x"))
        login.sign_in()

    login.run(visit)
    assert "frame-ancestors 'none'" in answers[0].headers["Content-Security-Policy"]
    assert answers[0].headers["X-Frame-Options"] == "DENY"


# Secrets, in whatever is shown of a login that fails

FAILING: dict[str, Behaviour | tuple[str, Fault]] = {
    "refused": Behaviour(consent=True),
    "a wrong iss": Behaviour(iss="wrong"),
    "a wrong nonce": Behaviour(nonce="wrong"),
    "a wrong signature": Behaviour(id_token_fault="signature"),
    "another audience": Behaviour(id_token_fault="aud"),
    "no access token": ("exchange", Fault(edit=lambda answer: {**answer, "access_token": ""})),
    "a redirect": ("exchange", Fault(status=307, headers={"Location": "https://evil.example/"})),
    "an oversized answer": ("exchange", Fault(padding=2 << 20)),
    "keys that are none": ("jwks", Fault(status=404, times=None)),
    "a code that is refused": ("exchange", Fault(status=400, body='{"error": "invalid_grant"}')),
}


@pytest.mark.parametrize("how", FAILING.values(), ids=FAILING)
def test_no_failure_of_a_login_shows_a_secret_in_its_words_its_events_or_its_traceback(
    login: Login, how: Behaviour | tuple[str, Fault]
) -> None:
    if isinstance(how, Behaviour):
        login.server.behaviour = how
    else:
        login.server.fault(*how)
    login.run(lambda login: login.pages.append(login.server.sign_in(login.url, consent="deny")))
    assert login.error is not None
    assert leaks(login.error, login.visible_secrets) == []
    told = [event.to_dict() for event in login.events] + [login.pages[0].text]
    assert not [secret for secret in login.visible_secrets if secret in repr(told)]
    assert login.stored == NOTHING_STORED
