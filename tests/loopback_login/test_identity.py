"""Who logged in: told by the ID Token, by userinfo, or by the REST API, in this order of trust."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from cells_loopback.errors import LoginFailedError, ServerUnavailableError, UntrustedServerError
from cells_loopback.http.endpoints import exchange, fetch_key_set, fetch_metadata
from cells_loopback.http.transport import SiteClient
from cells_loopback.http.trust import Trust
from cells_loopback.loopback_login.identity import check_personal_token, identify_user, user_from_claims
from cells_loopback.protocol.authorization import start_authorization
from cells_loopback.protocol.client import CELLS_CLIENT, out_of_band_redirect_uri
from cells_loopback.protocol.site import parse_site
from cells_loopback.secret import Secret
from cells_loopback.store.profiles import User
from cells_loopback.testing import Behaviour, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cells_loopback.testing import CellsServer


@pytest.fixture
def client(server: CellsServer) -> Iterator[SiteClient]:
    with SiteClient(parse_site(server.site), Trust()) as client:
        yield client


def identify(server: CellsServer, client: SiteClient, key_set: Any = None, **changes: Any) -> User:
    """Log in over HTTP and return who that was; ``changes`` are other fields of the tokens."""
    metadata = fetch_metadata(client)
    uri = out_of_band_redirect_uri(client.site)
    request = start_authorization(metadata, CELLS_CLIENT, uri, with_pkce=True)
    page = server.sign_in(request.url)
    response = request.validate_response(dict(parse_qsl(urlsplit(page.url).query)))
    tokens = replace(exchange(client, response), **changes)
    return identify_user(client, request, tokens, lambda: key_set)


def test_the_id_token_tells(server: CellsServer, client: SiteClient) -> None:
    user = identify(server, client)
    assert (user.sub, user.name, user.claims["email"]) == (server.user.uuid, "alice", "alice@example.com")
    assert (server.count("jwks"), server.count("userinfo")) == (1, 0)


def test_keys_fetched_before_are_used(server: CellsServer, client: SiteClient) -> None:
    keys = fetch_key_set(client, fetch_metadata(client))
    assert identify(server, client, keys).name == "alice"
    assert server.count("jwks") == 1


def test_keys_rotated_since_are_fetched_once_more(server: CellsServer, client: SiteClient) -> None:
    keys = fetch_key_set(client, fetch_metadata(client))
    server.rotate_signing_key(retire=True)
    assert identify(server, client, keys).name == "alice"
    assert server.count("jwks") == 2


def test_a_signature_that_no_key_verifies_is_not_tried_a_third_time(
    server: CellsServer, client: SiteClient
) -> None:
    keys = fetch_key_set(client, fetch_metadata(client))
    server.behaviour = Behaviour(id_token_fault="signature")
    with pytest.raises(UntrustedServerError):
        identify(server, client, keys)
    assert server.count("jwks") == 2


def test_another_fault_asks_for_no_other_keys(server: CellsServer, client: SiteClient) -> None:
    keys = fetch_key_set(client, fetch_metadata(client))
    server.behaviour = Behaviour(id_token_fault="aud")
    with pytest.raises(UntrustedServerError):
        identify(server, client, keys)
    assert server.count("jwks") == 1


@pytest.mark.parametrize("id_token", ["", "x", "a.b.c", "{}", "\u00e4"])
def test_whatever_stands_in_its_place_is_judged(
    server: CellsServer, client: SiteClient, id_token: str
) -> None:
    with pytest.raises(UntrustedServerError):
        identify(server, client, id_token=Secret(id_token))


def test_an_hour_of_difference_between_the_clocks_is_no_fault(
    server: CellsServer, client: SiteClient
) -> None:
    server.behaviour = Behaviour(clock_offset=-3600, id_token_lifetime=300)
    assert identify(server, client).name == "alice"


def test_without_an_id_token_userinfo_tells(server: CellsServer, client: SiteClient) -> None:
    user = identify(server, client, id_token=None)
    assert (user.sub, user.name) == (server.user.uuid, "alice")
    assert server.count("userinfo") == 1


def test_a_server_that_tells_neither_leaves_it_open(server: CellsServer, client: SiteClient) -> None:
    server.fault("userinfo", Fault(status=403))
    assert identify(server, client, id_token=None) == User()


def test_a_failing_userinfo_is_a_failing_server(server: CellsServer, client: SiteClient) -> None:
    server.fault("userinfo", Fault(status=503))
    with pytest.raises(ServerUnavailableError):
        identify(server, client, id_token=None)


NAMELESS = Behaviour(id_token_claims={"name": None, "email": None})


def test_a_nameless_id_token_is_completed_by_userinfo(server: CellsServer, client: SiteClient) -> None:
    server.behaviour = NAMELESS
    assert identify(server, client).name == "alice"


def test_userinfo_of_somebody_else_completes_nothing(server: CellsServer, client: SiteClient) -> None:
    """OpenID Connect Core §5.3.2."""
    server.behaviour = NAMELESS
    server.fault("userinfo", Fault(edit=lambda claims: {**claims, "sub": "mallory", "name": "mallory"}))
    user = identify(server, client)
    assert (user.sub, user.name) == (server.user.uuid, server.user.uuid)


@pytest.mark.parametrize(
    ("claims", "sub", "name"),
    [
        ({"sub": "1", "name": "alice"}, "1", "alice"),
        ({"sub": "1", "preferred_username": "alice"}, "1", "alice"),
        ({"sub": "1", "email": "a@example.com"}, "1", "a@example.com"),
        ({"sub": "1"}, "1", "1"),
        ({"sub": 1, "name": ["alice"]}, "", ""),
        ({}, "", ""),
    ],
)
def test_claims_of_any_kind_make_a_user(claims: dict[str, Any], sub: str, name: str) -> None:
    assert user_from_claims(claims) == User(sub, name, claims)


# Personal access tokens


def check(server: CellsServer, client: SiteClient, token: str) -> User:
    return check_personal_token(client, fetch_metadata(client), Secret(token))


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_the_rest_api_tells_whose_token_it_is(server: CellsServer, client: SiteClient, name: str) -> None:
    user = check(server, client, server.add_personal_access_token(name))
    assert user == User(name=name, claims={"name": name})


def test_a_token_that_nobody_knows_is_refused(server: CellsServer, client: SiteClient) -> None:
    with pytest.raises(LoginFailedError) as caught:
        check(server, client, "no-such-token")
    assert (caught.value.exit_code, caught.value.code) == (5, "token_refused")
    assert "no-such-token" not in caught.value.message + caught.value.hint
