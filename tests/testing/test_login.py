"""The embedded server up to the redirect: requests judged, people logged in, codes on their way."""

from __future__ import annotations

import dataclasses
import urllib.parse
from typing import TYPE_CHECKING

import pytest
from bare_client import REDIRECT_URI, SCOPE, STATE, BareClient, read_redirect

from cells_loopback.testing import (
    SHIPPED_CLIENTS,
    Behaviour,
    Browser,
    Client,
    ErrorAnswer,
)

if TYPE_CHECKING:
    from cells_loopback.testing import (
        CellsServer,
    )


@pytest.fixture
def client(server: CellsServer) -> BareClient:
    return BareClient(server)


def behave(server: CellsServer, **changes: object) -> None:
    server.behaviour = dataclasses.replace(server.behaviour, **changes)


def test_a_person_logs_in_and_the_code_comes_back_with_the_state(client: BareClient) -> None:
    assert sorted(client.authorize()) == ["code", "state"]
    assert client.authorize()["state"] == STATE


def test_a_live_web_session_skips_the_form(server: CellsServer, client: BareClient) -> None:
    client.authorize()
    client.authorize()
    assert (server.count("authorize"), server.count("login")) == (2, 1)


def test_a_browser_that_was_logged_out_sees_the_form_again(server: CellsServer, client: BareClient) -> None:
    client.authorize()
    server.end_web_sessions()
    client.authorize()
    assert server.count("login") == 2


def test_a_web_session_ends_by_itself(server: CellsServer, client: BareClient) -> None:
    client.authorize()
    server.advance(server.behaviour.web_session_lifetime + 1)
    client.authorize()
    assert server.count("login") == 2


def test_two_browsers_are_two_people(server: CellsServer, client: BareClient) -> None:
    first, second = Browser(), Browser()
    url = client.authorization_url()
    server.sign_in(url, "alice", browser=first)
    server.sign_in(url, "bob", browser=second)
    assert server.count("login") == 2
    tokens = client.exchange(read_redirect(second.open(url))["code"]).json
    assert client.get("/oidc/oauth2/userinfo", tokens["access_token"]).json["name"] == "bob"


def test_a_wrong_password_stays_on_the_page(server: CellsServer, client: BareClient) -> None:
    page = server.sign_in(client.authorization_url(), "alice", "wrong")
    assert page.url == f"{server.site}/login"
    assert page.status == 403
    assert "Wrong user name or password." in page.text
    assert 'value="alice"' in page.text


def test_what_was_typed_is_escaped(server: CellsServer, client: BareClient) -> None:
    page = server.sign_in(client.authorization_url(), '"><script>alert(1)</script>', "wrong")
    assert "<script>alert" not in page.text


@pytest.mark.parametrize("length", [7, 8])
def test_a_state_needs_eight_characters(client: BareClient, length: int) -> None:
    redirect = client.authorize(state="s" * length)
    assert redirect["state"] == "s" * length
    assert ("code" in redirect) == (length == 8)
    assert length == 8 or redirect["error"] == "invalid_state"


@pytest.mark.parametrize("length", [7, 8])
def test_a_nonce_needs_eight_characters(client: BareClient, length: int) -> None:
    redirect = client.authorize(nonce="n" * length)
    assert ("code" in redirect) == (length == 8)
    assert length == 8 or redirect["error"] == "insufficient_entropy"


def test_a_nonce_and_a_challenge_are_not_needed(client: BareClient) -> None:
    assert "code" in client.authorize(nonce="", code_challenge="", code_challenge_method="")


@pytest.mark.parametrize("state", ["a+b/c=dd", "a&b=cdefg", "%41%42%43"])
def test_the_state_is_not_encoded_and_comes_back_broken(
    server: CellsServer, client: BareClient, state: str
) -> None:
    page = server.sign_in(client.authorization_url(state=state))
    assert page.url.endswith("&state=" + state)
    assert read_redirect(page)["state"] != state


def test_a_redirect_uri_with_a_query_breaks(server: CellsServer) -> None:
    server.add_client(Client("queried", ("cellsauth://callback?x=1",)))
    client = BareClient(server, "queried", "cellsauth://callback?x=1")
    assert server.sign_in(client.authorization_url()).url.startswith("cellsauth://callback?x=1?code=")


def test_a_state_cannot_split_the_header(server: CellsServer, client: BareClient) -> None:
    page = server.sign_in(client.authorization_url(state="12345678\r\nX-Evil: yes"))
    assert page.url.endswith("&state=12345678X-Evil: yes")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"scope": "openid root"}, "invalid_scope"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge_method": "S512"}, "invalid_request"),
    ],
)
def test_a_wrong_request_comes_back_with_hydras_error(
    client: BareClient, changes: dict[str, str], error: str
) -> None:
    redirect = client.authorize(**changes)
    assert redirect["error"] == error
    assert redirect["error_description"]
    assert redirect["state"] == STATE


def test_errors_are_encoded_and_carry_a_hint(server: CellsServer, client: BareClient) -> None:
    behave(server, authorization_error=ErrorAnswer("server_error", "A & B\x1b[31m = ü", "a hint"))
    redirect = client.authorize()
    assert redirect["error_description"] == "A & B\x1b[31m = ü"
    assert redirect["error_hint"] == "a hint"


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"},
        {"redirect_uri": "cellsauth://callback/"},
        {"redirect_uri": "http://localhost:3001/servers/callback"},
        {"redirect_uri": ""},
    ],
)
def test_nothing_is_redirected_to_an_unregistered_address(
    server: CellsServer, client: BareClient, changes: dict[str, str]
) -> None:
    page = server.sign_in(client.authorization_url(**changes))
    assert page.url.startswith(server.site)
    assert page.status in {400, 401}


def test_the_login_request_expires_after_30_minutes(server: CellsServer, client: BareClient) -> None:
    browser = Browser()
    page = browser.open(client.authorization_url())
    server.advance(1801)
    late = browser.sign_in(page.url, "alice", "open-sesame")
    assert late.status == 400
    assert "expired" in late.text


def test_the_consent_page_allows(server: CellsServer, client: BareClient) -> None:
    behave(server, consent=True)
    assert "code" in client.authorize()
    assert "code" in client.authorize()
    assert (server.count("login"), server.count("consent")) == (1, 2)


def test_refused_consent_comes_back_as_access_denied(server: CellsServer, client: BareClient) -> None:
    behave(server, consent=True)
    redirect = read_redirect(server.sign_in(client.authorization_url(), consent="deny"))
    assert redirect["error"] == "access_denied"
    assert redirect["state"] == STATE
    assert "error_description" in redirect
    assert "error_hint" in redirect


def test_consent_needs_the_web_session(server: CellsServer, client: BareClient) -> None:
    behave(server, consent=True)
    challenge = Browser().open(client.authorization_url()).url.partition("login_challenge=")[2]
    page = Browser().open(f"{server.site}/consent", {"login_challenge": challenge, "consent": "allow"})
    assert "Password" in page.text


@pytest.mark.parametrize(
    ("iss", "expected"), [("right", "{site}/oidc/"), ("wrong", "https://elsewhere.example/oidc/")]
)
def test_iss_is_in_the_redirect_where_the_release_has_it(
    server: CellsServer, client: BareClient, iss: str, expected: str
) -> None:
    behave(server, iss=iss)
    assert client.authorize()["iss"] == expected.format(site=server.site)


def test_the_scope_is_in_the_redirect_where_the_release_has_it(
    server: CellsServer, client: BareClient
) -> None:
    behave(server, scope_in_redirect=True)
    assert client.authorize()["scope"] == SCOPE


def test_a_redirect_by_script_goes_to_the_same_place(server: CellsServer, client: BareClient) -> None:
    behave(server, redirect_by="script")
    redirect = client.authorize(state="</script><!--")
    assert redirect["state"] == "</script><!--"


def test_the_copy_paste_page_shows_the_code(server: CellsServer) -> None:
    client = BareClient(server, "cells-client", f"{server.site}/oauth2/oob")
    page = server.sign_in(client.authorization_url())
    code = urllib.parse.parse_qs(urllib.parse.urlsplit(page.url).query)["code"][0]
    assert f'<code id="code">{code}</code>' in page.text
    assert client.exchange(code).status == 200


def test_the_copy_paste_page_shows_an_error(server: CellsServer) -> None:
    assert "access_denied" in Browser().open(f"{server.site}/oauth2/oob?error=access_denied").text


@pytest.mark.parametrize(
    ("client_id", "redirect_uri", "matches"),
    [
        ("cells-client", "http://localhost:3000/servers/callback", True),
        ("cells-client", "http://127.0.0.1:3000/servers/callback", False),
        ("cells-client", "http://localhost:3000/servers/callback/", False),
        ("cells-client", "http://LOCALHOST:3000/servers/callback", False),
        ("cells-client", "https://cells.example/oauth2/oob", True),
        ("cells-client", "https://cells.example/oauth2/oob2", False),
        ("cells-sync", "http://localhost:3000/servers/callback", True),
        ("cells-sync", "http://localhost:3635/servers/callback", False),
        ("cells-sync", "http://localhost:3636/servers/callback", True),
        ("cells-sync", "http://localhost:3666/servers/callback", True),
        ("cells-sync", "http://localhost:3667/servers/callback", False),
        ("cells-sync", "http://localhost:03640/servers/callback", False),
        ("cells-sync", "http://localhost:[3636-3666]/servers/callback", True),
        ("cells-sync", "http://127.0.0.1:3640/servers/callback", False),
        ("cells-mobile", "cellsauth://callback", True),
        ("cells-mobile", "cellsauth://callback?x", False),
    ],
)
def test_redirect_uris_of_the_shipped_clients(client_id: str, redirect_uri: str, matches: bool) -> None:
    client = {client.client_id: client for client in SHIPPED_CLIENTS}[client_id]
    assert client.allows_redirect_uri(redirect_uri, "https://cells.example") is matches


@pytest.mark.parametrize(
    ("registered", "requested", "matches"),
    [
        ("http://127.0.0.1/cb", "http://127.0.0.1:5/cb", True),
        ("http://127.0.0.1:9/cb", "http://127.0.0.1:5/cb", True),
        ("http://[::1]/cb", "http://[::1]:65535/cb", True),
        ("http://127.0.0.1/cb", "http://[::1]:5/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:5/cb2", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:5/cb?x=1", False),
        ("http://127.0.0.1/cb", "https://127.0.0.1:5/cb", False),
        ("http://127.0.0.1/cb", "http://me@127.0.0.1:5/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:5/cb#x", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:http/cb", False),
        ("http://localhost/cb", "http://localhost:5/cb", False),
        ("http://127.0.0.2/cb", "http://127.0.0.2:5/cb", False),
    ],
)
def test_only_a_loopback_address_matches_any_port(registered: str, requested: str, matches: bool) -> None:
    assert Client("some", (registered,)).allows_redirect_uri(requested, "") is matches


def test_a_behaviour_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="pkce is 'unbond'"):
        Behaviour(pkce="unbond")


def test_pages_allow_a_form_to_lead_away_and_nothing_else(client: BareClient) -> None:
    answer = client.get("/login?login_challenge=none")
    assert answer.status == 400
    policy = client.get("/").headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "form-action" not in policy
    assert REDIRECT_URI not in answer.text
