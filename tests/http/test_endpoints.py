"""Each request of the protocol, against a server on a real socket: what is sent, how the answer is judged."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from frames import leaks

from cells_loopback.errors import (
    CellsLoopbackError,
    LoginFailedError,
    LoginRequiredError,
    ServerUnavailableError,
    UntrustedServerError,
)
from cells_loopback.http.endpoints import (
    ExchangeFailedError,
    RefreshRejectedError,
    ask_rest_api,
    exchange,
    fetch_key_set,
    fetch_metadata,
    fetch_userinfo,
    refresh,
    revoke,
)
from cells_loopback.http.transport import SiteClient
from cells_loopback.http.trust import Trust
from cells_loopback.protocol.authorization import start_authorization
from cells_loopback.protocol.client import (
    CELLS_CLIENT,
    ClientRegistration,
    out_of_band_redirect_uri,
    parse_redirect_uri,
)
from cells_loopback.protocol.site import parse_site
from cells_loopback.secret import Secret
from cells_loopback.testing import Behaviour, CellsServer, Fault
from cells_loopback.testing import Client as RegisteredClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cells_loopback.protocol.authorization import AuthorizationResponse
    from cells_loopback.protocol.site import ServerMetadata
    from cells_loopback.protocol.tokens import TokenSet

CONFIDENTIAL = ClientRegistration(
    "own-client", (parse_redirect_uri("http://127.0.0.1:0/cb"),), Secret("pass:word+ü"), CELLS_CLIENT.scope
)


@pytest.fixture
def client(server: CellsServer) -> Iterator[SiteClient]:
    with SiteClient(parse_site(server.site), Trust()) as client:
        yield client


@pytest.fixture
def metadata(client: SiteClient) -> ServerMetadata:
    return fetch_metadata(client)


def authorized(
    server: CellsServer,
    metadata: ServerMetadata,
    registration: ClientRegistration = CELLS_CLIENT,
    *,
    with_pkce: bool = True,
) -> AuthorizationResponse:
    """A person has logged in, and the code has come back."""
    redirect_uri = out_of_band_redirect_uri(parse_site(server.site))
    request = start_authorization(metadata, registration, redirect_uri, with_pkce=with_pkce)
    page = server.sign_in(request.url)
    return request.validate_response(dict(parse_qsl(urlsplit(page.url).query)))


@pytest.fixture
def response(server: CellsServer, metadata: ServerMetadata) -> AuthorizationResponse:
    return authorized(server, metadata)


@pytest.fixture
def tokens(client: SiteClient, response: AuthorizationResponse) -> TokenSet:
    return exchange(client, response)


def secrets_of(server: CellsServer) -> list[str]:
    return [secret for secret in server.secrets() if len(secret) > 8]


def fails(server: CellsServer, action: Callable[[], object]) -> CellsLoopbackError:
    """The error of an action; neither its words nor its traceback shows a secret."""
    with pytest.raises(CellsLoopbackError) as caught:
        action()
    assert leaks(caught.value, secrets_of(server)) == []
    return caught.value


# Discovery


def test_the_metadata_is_the_servers(server: CellsServer, metadata: ServerMetadata) -> None:
    assert metadata.issuer == f"{server.site}/oidc/"
    assert metadata.token_endpoint == f"{server.site}/oidc/oauth2/token"
    assert metadata.userinfo_endpoint == f"{server.site}/oidc/oauth2/userinfo"


PAGES: dict[str, tuple[dict[str, Any], int, str]] = {
    "HTML": ({"status": 200, "body": "<html>Welcome</html>"}, 5, "not_a_cells_server"),
    "nothing": ({"status": 200}, 5, "not_a_cells_server"),
    "other JSON": ({"status": 200, "body": '{"hello": "world"}'}, 5, "not_a_cells_server"),
    "a list": ({"status": 200, "body": "[]"}, 5, "not_a_cells_server"),
    "404": ({"status": 404, "body": "not found"}, 5, "not_a_cells_server"),
    "401": ({"status": 401}, 5, "not_a_cells_server"),
    "204": ({"status": 204}, 5, "not_a_cells_server"),
    "a redirect to another host": (
        {"status": 302, "headers": {"Location": "https://cells.example.com/"}},
        5,
        "redirected",
    ),
    "a redirect within": ({"status": 301, "headers": {"Location": "/login"}}, 5, "not_a_cells_server"),
    "a redirect to nowhere": ({"status": 307}, 5, "not_a_cells_server"),
    "a redirect that is no address": (
        {"status": 302, "headers": {"Location": "http://["}},
        5,
        "not_a_cells_server",
    ),
    "500": ({"status": 500}, 7, "status_500"),
    "502 from a proxy": ({"status": 502, "body": "<html>Bad Gateway</html>"}, 7, "status_502"),
    "503": ({"status": 503}, 7, "status_503"),
    "429": ({"status": 429}, 7, "status_429"),
    "cut off": ({"drop": "before"}, 7, "connection_lost"),
}


@pytest.mark.parametrize(("fault", "exit_code", "code"), PAGES.values(), ids=PAGES)
def test_what_is_no_discovery_document_is_told_for_what_it_is(
    server: CellsServer, client: SiteClient, fault: dict[str, Any], exit_code: int, code: str
) -> None:
    server.fault("discovery", Fault(**fault))
    error = fails(server, lambda: fetch_metadata(client))
    assert (error.exit_code, error.code) == (exit_code, code)
    assert error.hint


def test_the_hint_names_where_a_redirect_leads(server: CellsServer, client: SiteClient) -> None:
    server.fault("discovery", Fault(status=302, headers={"Location": "https://cells.example.com/login?x=y"}))
    error = fails(server, lambda: fetch_metadata(client))
    assert error.hint.endswith("cells-loopback login https://cells.example.com")


def test_a_port_of_https_that_is_spoken_to_in_plain_http_is_told_as_that(
    server: CellsServer, client: SiteClient
) -> None:
    words = "Client sent an HTTP request to an HTTPS server."
    server.fault("discovery", Fault(status=400, body=words))
    error = fails(server, lambda: fetch_metadata(client))
    assert (error.exit_code, error.code) == (5, "not_a_cells_server")
    assert error.hint.endswith("cells-loopback login https" + server.site.removeprefix("http"))


def test_an_issuer_of_another_host_is_not_trusted(server: CellsServer, client: SiteClient) -> None:
    server.behaviour = Behaviour(issuer="https://evil.example/oidc/")
    assert fails(server, lambda: fetch_metadata(client)).exit_code == 9


def test_an_endpoint_of_another_origin_is_not_trusted(server: CellsServer, client: SiteClient) -> None:
    server.behaviour = Behaviour(discovery={"token_endpoint": "https://evil.example/token"})
    assert fails(server, lambda: fetch_metadata(client)).code == "foreign_endpoint"


def test_a_failing_server_may_say_when_to_come_back(server: CellsServer, client: SiteClient) -> None:
    server.fault("discovery", Fault(status=503, headers={"Retry-After": "17"}))
    error = fails(server, lambda: fetch_metadata(client))
    assert isinstance(error, ServerUnavailableError)
    assert error.retry_after == 17
    assert "17 s" in error.message


# Keys


def test_the_keys_are_the_servers(client: SiteClient, metadata: ServerMetadata) -> None:
    assert fetch_key_set(client, metadata)["keys"][0]["kty"] == "RSA"


@pytest.mark.parametrize(
    ("fault", "exit_code"),
    [
        (Fault(status=404), 9),
        (Fault(status=200, body="<html>"), 9),
        (Fault(status=302, headers={"Location": "https://evil.example/jwks"}), 9),
        (Fault(status=503), 7),
    ],
    ids=["404", "HTML", "a redirect", "503"],
)
def test_without_keys_nothing_can_be_checked(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata, fault: Fault, exit_code: int
) -> None:
    server.fault("jwks", fault)
    assert fails(server, lambda: fetch_key_set(client, metadata)).exit_code == exit_code


def test_a_server_that_publishes_no_keys_is_not_trusted(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata
) -> None:
    error = fails(server, lambda: fetch_key_set(client, replace(metadata, jwks_uri=None)))
    assert error.code == "no_keys"


# Exchange


def test_the_exchange_sends_code_verifier_and_client_in_the_body(
    server: CellsServer, client: SiteClient, response: AuthorizationResponse
) -> None:
    tokens = exchange(client, response)
    request = next(request for request in server.requests if request.kind == "exchange")
    assert response.request.code_verifier is not None
    assert request.form == {
        "grant_type": "authorization_code",
        "code": response.code.reveal(),
        "redirect_uri": response.request.redirect_uri,
        "code_verifier": response.request.code_verifier.reveal(),
        "client_id": "cells-client",
    }
    assert request.authorization == ""
    assert request.query == {}
    assert tokens.access_token.reveal() in server.access_tokens()
    assert tokens.renewable
    assert tokens.id_token is not None


def test_without_verifier_is_without_verifier(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata
) -> None:
    server.behaviour = Behaviour(pkce="unbound", nonce="dropped")
    exchange(client, authorized(server, metadata), with_verifier=False)
    request = next(request for request in server.requests if request.kind == "exchange")
    assert "code_verifier" not in request.form


def test_a_confidential_client_authenticates_by_the_header_and_not_in_the_body(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata
) -> None:
    server.add_client(RegisteredClient("own-client", ("{site}/oauth2/oob",), "pass:word+ü"))
    exchange(client, authorized(server, metadata, CONFIDENTIAL))
    request = next(request for request in server.requests if request.kind == "exchange")
    assert request.status == 200
    assert request.authorization.startswith("Basic ")
    assert "client_id" not in request.form
    assert "client_secret" not in request.form


def test_a_confidential_client_authenticates_in_the_body_where_the_metadata_says_so(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata
) -> None:
    own = RegisteredClient(
        "own-client",
        ("{site}/oauth2/oob",),
        "pass:word+ü",
        token_endpoint_auth_method="client_secret_post",
    )
    server.add_client(own)
    metadata = replace(metadata, token_endpoint_auth_methods_supported=("client_secret_post",))
    exchange(client, authorized(server, metadata, CONFIDENTIAL))
    request = next(request for request in server.requests if request.kind == "exchange")
    assert (request.status, request.authorization) == (200, "")
    assert request.form["client_secret"] == "pass:word+ü"


def test_a_wrong_client_secret_is_a_refusal_in_the_servers_words(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata
) -> None:
    server.add_client(RegisteredClient("own-client", ("{site}/oauth2/oob",), "another"))
    response = authorized(server, metadata, CONFIDENTIAL)
    error = fails(server, lambda: exchange(client, response))
    assert isinstance(error, ExchangeFailedError)
    assert "invalid_client" in error.message
    assert "--client-secret-file FILE" in error.hint
    assert error.pkce_failure is None


def test_a_refusal_with_the_status_of_a_success_is_one(
    server: CellsServer, client: SiteClient, response: AuthorizationResponse
) -> None:
    server.fault(
        "exchange", Fault(status=200, body='{"error": "invalid_grant", "error_description": "spent"}')
    )
    error = fails(server, lambda: exchange(client, response))
    assert (type(error), error.exit_code) == (ExchangeFailedError, 5)
    assert "spent" in error.message


def test_a_code_works_once(server: CellsServer, client: SiteClient, response: AuthorizationResponse) -> None:
    exchange(client, response)
    error = fails(server, lambda: exchange(client, response))
    assert isinstance(error, ExchangeFailedError)
    assert (error.exit_code, error.code, error.pkce_failure) == (5, "exchange_failed", None)


@pytest.mark.parametrize(
    ("behaviour", "failure"),
    [
        (Behaviour(pkce="unbound"), "unbound"),
        (Behaviour(pkce="unbound", error_format="error-hint"), "unbound"),
        (Behaviour(pkce="unbound-old-wording"), "unbound"),
        (Behaviour(pkce="unbound-old-wording", error_format="error-hint", error_details=True), "unbound"),
        (Behaviour(pkce="foreign"), "foreign"),
        (Behaviour(pkce="foreign", error_format="error-hint"), "foreign"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.pkce}-{value.error_format}",
)
def test_how_pkce_failed_is_told(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata, behaviour: Behaviour, failure: str
) -> None:
    server.behaviour = behaviour
    response = authorized(server, metadata)
    error = fails(server, lambda: exchange(client, response))
    assert isinstance(error, ExchangeFailedError)
    assert error.pkce_failure == failure


def edited(**members: object) -> Fault:
    """The right answer with some members changed; None takes one out."""
    return Fault(
        edit=lambda answer: {
            name: value for name, value in {**answer, **members}.items() if value is not None
        }
    )


ANSWERS: dict[str, tuple[Fault, int, str]] = {
    "no access token": (edited(access_token=None), 9, "token_response_invalid"),
    "an access token with a line break": (edited(access_token="a\r\nb"), 9, "token_response_invalid"),
    "another token type": (edited(token_type="mac"), 9, "token_response_invalid"),
    "an error beside the token": (edited(error="server_error"), 7, "server_error"),
    "an empty object": (Fault(status=200, body="{}"), 9, "token_response_invalid"),
    "a list": (Fault(status=200, body="[]"), 7, "status_200"),
    "HTML": (Fault(status=200, body="<html>"), 7, "status_200"),
    "nothing": (Fault(status=200), 7, "status_200"),
    "404 of a server that is starting": (Fault(status=404, body="404 page not found"), 7, "status_404"),
    "403 of a portal": (Fault(status=403, body="<html>"), 7, "status_403"),
    "403 of a proxy in JSON": (Fault(status=403, body='{"message": "no"}'), 7, "status_403"),
    "502": (Fault(status=502, body="<html>"), 7, "status_502"),
    "503": (Fault(status=503), 7, "status_503"),
    "504": (Fault(status=504), 7, "status_504"),
    "520, as gateways make up, in JSON": (Fault(status=520, body='{"error": "x"}'), 7, "status_520"),
    "500 in JSON": (Fault(status=500, body='{"error": "server_error"}'), 7, "status_500"),
    "400 with server_error": (Fault(status=400, body='{"error": "server_error"}'), 7, "server_error"),
    "400 with temporarily_unavailable": (
        Fault(status=400, body='{"error": "temporarily_unavailable"}'),
        7,
        "server_error",
    ),
    "an error that is a list": (Fault(status=400, body='{"error": ["x"]}'), 7, "status_400"),
    "a redirect": (Fault(status=307, headers={"Location": "https://evil.example/"}), 9, "redirected"),
    "a redirect within": (Fault(status=308, headers={"Location": "/oidc/oauth2/token"}), 9, "redirected"),
    "cut off before": (Fault(drop="before"), 7, "connection_lost"),
    "cut off after": (Fault(drop="after"), 7, "connection_lost"),
    "too large": (Fault(padding=2 << 20), 9, "answer_too_large"),
}


@pytest.mark.parametrize(("fault", "exit_code", "code"), ANSWERS.values(), ids=ANSWERS)
def test_every_answer_to_an_exchange_is_judged(
    server: CellsServer,
    client: SiteClient,
    response: AuthorizationResponse,
    fault: Fault,
    exit_code: int,
    code: str,
) -> None:
    server.fault("exchange", fault)
    error = fails(server, lambda: exchange(client, response))
    assert (error.exit_code, error.code) == (exit_code, code)


@pytest.mark.parametrize(("fault", "exit_code", "code"), ANSWERS.values(), ids=ANSWERS)
def test_every_answer_to_a_refresh_is_judged(
    server: CellsServer,
    client: SiteClient,
    metadata: ServerMetadata,
    tokens: TokenSet,
    fault: Fault,
    exit_code: int,
    code: str,
) -> None:
    server.fault("refresh", fault)
    error = fails(server, lambda: refresh(client, metadata, CELLS_CLIENT, tokens))
    assert (error.exit_code, error.code) == (exit_code, code)


def test_no_secret_that_the_server_repeats_is_told(
    server: CellsServer, client: SiteClient, response: AuthorizationResponse
) -> None:
    assert response.request.code_verifier is not None
    ours = (response.code.reveal(), response.request.code_verifier.reveal())
    for error in ("invalid_grant", "server_error"):
        body = json.dumps({"error": error, "error_description": " and ".join(ours), "error_hint": ours[0]})
        server.fault("exchange", Fault(status=400, body=body))
        caught = fails(server, lambda: exchange(client, response))
        assert "*** and ***" in caught.message
        assert not [secret for secret in ours if secret in caught.message + caught.hint]


# Refresh


def test_a_refresh_rotates_both_tokens(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata, tokens: TokenSet
) -> None:
    new = refresh(client, metadata, CELLS_CLIENT, tokens)
    assert new.access_token != tokens.access_token
    assert new.refresh_token != tokens.refresh_token
    assert new.refresh_token is not None
    assert server.refresh_tokens() == [new.refresh_token.reveal()]
    request = next(request for request in server.requests if request.kind == "refresh")
    assert set(request.form) == {"grant_type", "refresh_token", "client_id"}
    assert request.authorization == ""


def test_a_renewed_session_is_not_thrown_away_for_the_status_it_came_with(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata, tokens: TokenSet
) -> None:
    body = '{"access_token": "new", "refresh_token": "next", "token_type": "bearer"}'
    server.fault("refresh", Fault(status=201, body=body))
    new = refresh(client, metadata, CELLS_CLIENT, tokens)
    assert (new.access_token, new.refresh_token) == (Secret("new"), Secret("next"))


def test_a_refresh_that_keeps_the_refresh_token_carries_it_over(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata, tokens: TokenSet
) -> None:
    server.behaviour = Behaviour(refresh_omits=("refresh_token", "scope", "id_token"))
    new = refresh(client, metadata, CELLS_CLIENT, tokens)
    assert (new.refresh_token, new.scope) == (tokens.refresh_token, tokens.scope)


@pytest.mark.parametrize("reuse", ["already-used", "token-inactive"])
@pytest.mark.parametrize("error_format", ["hint-in-description", "error-hint"])
def test_a_spent_refresh_token_is_rejected_in_every_wording(
    server: CellsServer,
    client: SiteClient,
    metadata: ServerMetadata,
    tokens: TokenSet,
    reuse: Any,
    error_format: Any,
) -> None:
    server.behaviour = Behaviour(refresh_reuse=reuse, error_format=error_format)
    refresh(client, metadata, CELLS_CLIENT, tokens)
    error = fails(server, lambda: refresh(client, metadata, CELLS_CLIENT, tokens))
    assert isinstance(error, RefreshRejectedError)
    assert error.exit_code == 4


def test_an_expired_refresh_token_is_rejected(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata, tokens: TokenSet
) -> None:
    server.expire_refresh_tokens()
    assert isinstance(
        fails(server, lambda: refresh(client, metadata, CELLS_CLIENT, tokens)), RefreshRejectedError
    )


def test_any_other_refusal_keeps_the_session(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata, tokens: TokenSet
) -> None:
    server.fault("refresh", Fault(status=401, body='{"error": "invalid_client"}'))
    error = fails(server, lambda: refresh(client, metadata, CELLS_CLIENT, tokens))
    assert not isinstance(error, RefreshRejectedError)
    assert (error.exit_code, error.code) == (5, "refresh_refused")
    assert "kept" in error.hint


def test_without_a_refresh_token_nothing_is_asked(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata, tokens: TokenSet
) -> None:
    with pytest.raises(LoginRequiredError):
        refresh(client, metadata, CELLS_CLIENT, replace(tokens, refresh_token=None))
    assert server.count("refresh") == 0


LOST = [
    Fault(drop="after"),
    Fault(status=204),
    Fault(status=502),
    Fault(status=524),
    Fault(status=200, body="<html>"),
]


@pytest.mark.parametrize("fault", LOST)
def test_a_lost_answer_to_a_refresh_is_told_as_such(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata, tokens: TokenSet, fault: Fault
) -> None:
    server.fault("refresh", fault)
    error = fails(server, lambda: refresh(client, metadata, CELLS_CLIENT, tokens))
    assert isinstance(error, ServerUnavailableError)
    assert error.answer_lost


# Revocation


def test_a_revoked_session_is_over(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata, tokens: TokenSet
) -> None:
    assert tokens.refresh_token is not None
    assert revoke(client, metadata, CELLS_CLIENT, tokens.refresh_token)
    assert server.refresh_tokens() == []
    request = next(request for request in server.requests if request.kind == "revoke")
    assert request.form == {"token": tokens.refresh_token.reveal(), "client_id": "cells-client"}


def test_a_server_that_cannot_revoke_says_so(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata, tokens: TokenSet
) -> None:
    assert not revoke(client, replace(metadata, revocation_endpoint=None), CELLS_CLIENT, tokens.access_token)
    assert server.count("revoke") == 0


@pytest.mark.parametrize(
    ("fault", "exit_code"),
    [
        (Fault(status=400, body='{"error": "unsupported_token_type"}'), 5),
        (Fault(status=404, body="not found"), 5),
        (Fault(status=503), 7),
        (Fault(status=302, headers={"Location": "https://evil.example/"}), 9),
    ],
    ids=["400", "404", "503", "a redirect"],
)
def test_what_was_not_revoked_is_told(
    server: CellsServer,
    client: SiteClient,
    metadata: ServerMetadata,
    tokens: TokenSet,
    fault: Fault,
    exit_code: int,
) -> None:
    server.fault("revoke", fault)
    error = fails(server, lambda: revoke(client, metadata, CELLS_CLIENT, tokens.access_token))
    assert error.exit_code == exit_code


# Userinfo and the REST API


def test_userinfo_tells_the_claims(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata, tokens: TokenSet
) -> None:
    claims = fetch_userinfo(client, metadata, tokens.access_token)
    assert claims is not None
    assert (claims["sub"], claims["name"]) == (server.user.uuid, "alice")


@pytest.mark.parametrize("status", [401, 403, 302, 404])
def test_userinfo_that_is_refused_is_none(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata, tokens: TokenSet, status: int
) -> None:
    server.fault("userinfo", Fault(status=status))
    assert fetch_userinfo(client, metadata, tokens.access_token) is None


def test_userinfo_of_a_failing_server_is_an_error(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata, tokens: TokenSet
) -> None:
    server.fault("userinfo", Fault(status=503))
    error = fails(server, lambda: fetch_userinfo(client, metadata, tokens.access_token))
    assert error.exit_code == 7


def test_the_rest_api_tells_whose_token_it_is(
    server: CellsServer, client: SiteClient, tokens: TokenSet
) -> None:
    assert ask_rest_api(client, tokens.access_token) in {"alice", ""}
    assert ask_rest_api(client, Secret("nobody-issued-this")) is None


@pytest.mark.parametrize(
    "body",
    [
        "<user " * 170_000,
        "<user id=" * 110_000,
        '<user id="' + "x" * 1_000_000,
        "<user " + "a" * 1_000_000,
        "<user " + "id= " * 250_000,
    ],
    ids=["tags", "attributes", "a long name", "a long tag", "a tag of attributes"],
)
def test_no_page_of_the_rest_api_takes_long_to_read(
    server: CellsServer, client: SiteClient, tokens: TokenSet, body: str
) -> None:
    server.fault("/a/frontend/state", Fault(status=200, body=body))
    began = time.monotonic()
    assert ask_rest_api(client, tokens.access_token) in {"", None}
    assert time.monotonic() - began < 10


# Everywhere


def test_no_token_of_a_site_is_ever_sent_to_another(
    server: CellsServer, client: SiteClient, metadata: ServerMetadata, tokens: TokenSet
) -> None:
    with CellsServer() as elsewhere:
        redirect = Fault(status=307, headers={"Location": f"{elsewhere.site}/stolen"}, times=None)
        for kind in ("userinfo", "refresh", "revoke", "rest", "jwks", "discovery"):
            server.fault(kind, redirect)
        for ask in (
            lambda: fetch_metadata(client),
            lambda: fetch_key_set(client, metadata),
            lambda: refresh(client, metadata, CELLS_CLIENT, tokens),
            lambda: revoke(client, metadata, CELLS_CLIENT, tokens.access_token),
        ):
            with pytest.raises((UntrustedServerError, LoginFailedError)):
                ask()
        assert fetch_userinfo(client, metadata, tokens.access_token) is None
        assert ask_rest_api(client, tokens.access_token) is None
        assert elsewhere.requests == []
