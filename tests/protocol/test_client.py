"""Which client we are, where we may be called back, and how we prove to be it."""

from __future__ import annotations

import base64
from dataclasses import replace
from urllib.parse import unquote_plus, urlsplit

import pytest
from examples import METADATA, SITE
from hypothesis import given
from hypothesis import strategies as st

from cells_loopback.errors import UsageError
from cells_loopback.protocol.client import (
    CELLS_CLIENT,
    CELLS_SYNC,
    DEFAULT_SCOPE,
    ClientRegistration,
    RedirectURI,
    authenticate_client,
    out_of_band_client,
    out_of_band_redirect_uri,
    parse_redirect_uri,
)
from cells_loopback.protocol.site import is_loopback_host
from cells_loopback.secret import Secret

CALLBACK = "/servers/callback"

REDIRECT_URIS = {
    "as registered": ("http://localhost:3000/servers/callback", "localhost", range(3000, 3001), CALLBACK),
    "an IPv4 address": ("http://127.0.0.1:3000/servers/callback", "127.0.0.1", range(3000, 3001), CALLBACK),
    "another of the machine's": ("http://127.1.2.3:3000/cb", "127.1.2.3", range(3000, 3001), "/cb"),
    "an IPv6 address": ("http://[::1]:3000/servers/callback", "::1", range(3000, 3001), CALLBACK),
    "a range": ("http://localhost:[3636-3666]/servers/callback", "localhost", range(3636, 3667), CALLBACK),
    "a range on IPv6": ("http://[::1]:[3636-3666]/cb", "::1", range(3636, 3667), "/cb"),
    "all ports": ("http://127.0.0.1:[1-65535]/cb", "127.0.0.1", range(1, 65536), "/cb"),
    "any free port": ("http://127.0.0.1:0/cb", "127.0.0.1", range(1), "/cb"),
    "the last port": ("http://localhost:65535/cb", "localhost", range(65535, 65536), "/cb"),
    "no port": ("http://localhost/cb", "localhost", range(80, 81), "/cb"),
    "port 80": ("http://localhost:80/cb", "localhost", range(80, 81), "/cb"),
    "the root": ("http://localhost:3000/", "localhost", range(3000, 3001), "/"),
    "no path": ("http://localhost:3000", "localhost", range(3000, 3001), ""),
    "a range without a path": ("http://localhost:[3000-3001]", "localhost", range(3000, 3002), ""),
    "upper case in the path": ("http://localhost:3000/A/b", "localhost", range(3000, 3001), "/A/b"),
    "a percent in the path": ("http://localhost:3000/a%20b", "localhost", range(3000, 3001), "/a%20b"),
}


@pytest.mark.parametrize(("text", "host", "ports", "path"), REDIRECT_URIS.values(), ids=REDIRECT_URIS)
def test_a_redirect_uri_is_read(text: str, host: str, ports: range, path: str) -> None:
    redirect_uri = parse_redirect_uri(text)
    assert (redirect_uri.host, redirect_uri.ports, redirect_uri.path) == (host, ports, path)


@pytest.mark.parametrize("text", [case[0] for case in REDIRECT_URIS.values()], ids=REDIRECT_URIS)
def test_a_redirect_uri_is_written_as_registered_because_servers_compare_the_text(text: str) -> None:
    assert str(parse_redirect_uri(text)) == text


def test_a_range_of_one_port_is_that_port() -> None:
    assert str(parse_redirect_uri("http://localhost:[3000-3000]/cb")) == "http://localhost:3000/cb"


def test_upper_case_is_the_same_host() -> None:
    assert parse_redirect_uri("http://LOCALHOST:3000/cb").host == "localhost"


@pytest.mark.parametrize(
    ("text", "port", "sent"),
    [
        ("http://localhost:[3636-3666]/cb", 3640, "http://localhost:3640/cb"),
        ("http://127.0.0.1:0/cb", 40001, "http://127.0.0.1:40001/cb"),
        ("http://[::1]:0/cb", 40001, "http://[::1]:40001/cb"),
        ("http://localhost/cb", 80, "http://localhost/cb"),
        ("http://localhost:80/cb", 80, "http://localhost:80/cb"),
    ],
)
def test_what_is_sent_names_the_port_that_was_bound(text: str, port: int, sent: str) -> None:
    assert parse_redirect_uri(text).on_port(port) == sent


NO_REDIRECT_URIS = {
    "nothing": "",
    "a word": "callback",
    "https": "https://localhost:3000/cb",
    "an app's own scheme": "cellsauth://callback",
    "another machine": "http://files.example.com:3000/cb",
    "every address": "http://0.0.0.0:3000/cb",
    "every IPv6 address": "http://[::]:3000/cb",
    "a private network": "http://192.168.1.2:3000/cb",
    "a name that looks like ours": "http://localhost.example.com:3000/cb",
    "a name below localhost": "http://cells.localhost:3000/cb",
    "an address that goes on": "http://127.0.0.1.example.com:3000/cb",
    "odd digits": "http://127.0.0.²:3000/cb",
    "a user": "http://user@localhost:3000/cb",
    "our host as a user": "http://localhost:3000@evil.example/cb",
    "a query, which Cells breaks": "http://localhost:3000/cb?a=b",
    "an empty query": "http://localhost:3000/cb?",
    "a fragment": "http://localhost:3000/cb#a",
    "port 65536": "http://localhost:65536/cb",
    "a negative port": "http://localhost:-1/cb",
    "a port in words": "http://localhost:http/cb",
    "a range backwards": "http://localhost:[3666-3636]/cb",
    "a range from 0": "http://localhost:[0-10]/cb",
    "a range to 65536": "http://localhost:[65000-65536]/cb",
    "half a range": "http://localhost:[3636-]/cb",
    "a range without its end": "http://localhost:[3636-3666/cb",
    "a range and more": "http://localhost:[3636-3666]1/cb",
    "two ranges": "http://localhost:[1-2]:[3-4]/cb",
    "a range with a query": "http://localhost:[3636-3666]/cb?a=b",
    "a range on another machine": "http://files.example.com:[3636-3666]/cb",
    "a range and then a line": "http://localhost:[3636-3666]/cb\nx",
    "a space in the path": "http://localhost:3000/a b",
    "an umlaut in the path": "http://localhost:3000/ä",
    "an angle bracket": "http://localhost:3000/<script>",
    "a backslash": "http://localhost:3000\\@evil.example/cb",
    "the bracket of an address open": "http://[::1:3000/cb",
}


@pytest.mark.parametrize("text", NO_REDIRECT_URIS.values(), ids=NO_REDIRECT_URIS)
def test_what_cannot_be_received_here_is_wrong_usage_and_a_right_form_is_shown(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_redirect_uri(text)
    assert caught.value.hint == (
        "give it as registered, e.g. http://localhost:3000/servers/callback"
        " or http://localhost:[3636-3666]/servers/callback"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://files.example.com/cb", "it must be http:// on localhost, 127.0.0.1 or [::1]"),
        ("http://localhost:3000/cb?a=b", "it must have no query and no fragment"),
        ("http://localhost:3000/a b", "its path holds a character that must be percent-encoded"),
        ("http://localhost:3000/a/../cb", "a browser takes the dots out of its path, and ends elsewhere"),
        ("http://localhost:3000/%2E/cb", "a browser takes the dots out of its path, and ends elsewhere"),
        ("http://localhost:[9-1]/cb", "its ports are not between 1 and 65535, first to last"),
        ("http://localhost:99999/cb", "Port out of range 0-65535"),
    ],
)
def test_the_reason_is_told(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_redirect_uri(text)
    assert caught.value.message == f"{text!r} cannot be the redirect URI: {reason}"


PIECES = st.sampled_from(
    [
        "http://",
        "localhost",
        "127.0.0.1",
        "[::1]",
        ":",
        "[",
        "]",
        "-",
        "0",
        "3000",
        "65536",
        "/",
        "cb",
        "?",
        "#",
        "@",
    ]
)


@given(st.text(max_size=60) | st.lists(PIECES, max_size=12).map("".join))
def test_any_text_is_a_redirect_uri_or_wrong_usage(text: str) -> None:
    try:
        redirect_uri = parse_redirect_uri(text)
    except UsageError:
        return
    assert is_loopback_host(redirect_uri.host)
    assert len(redirect_uri.ports) >= 1
    assert 0 <= redirect_uri.ports[0] <= redirect_uri.ports[-1] <= 65535
    assert parse_redirect_uri(str(redirect_uri)) == redirect_uri
    sent = urlsplit(redirect_uri.on_port(redirect_uri.ports[-1]))
    assert (sent.scheme, sent.hostname, sent.query) == ("http", redirect_uri.host, "")


@given(
    st.sampled_from(["localhost", "127.0.0.1", "[::1]"]),
    st.lists(st.integers(1, 65535), min_size=2, max_size=2),
)
def test_every_range_of_ports_is_read(host: str, ends: list[int]) -> None:
    first, last = sorted(ends)
    parsed = parse_redirect_uri(f"http://{host}:[{first}-{last}]/cb")
    assert parsed.ports == range(first, last + 1)
    assert parsed.on_port(last) == f"http://{host}:{last}/cb"


def test_the_clients_that_cells_ships_with() -> None:
    assert CELLS_CLIENT.client_id == "cells-client"
    assert [str(uri) for uri in CELLS_CLIENT.redirect_uris] == ["http://localhost:3000/servers/callback"]
    assert CELLS_SYNC.client_id == "cells-sync"
    assert [str(uri) for uri in CELLS_SYNC.redirect_uris] == [
        "http://localhost:3000/servers/callback",
        "http://localhost:[3636-3666]/servers/callback",
    ]
    for client in (CELLS_CLIENT, CELLS_SYNC):
        assert client.is_public
        assert client.scope == DEFAULT_SCOPE == "openid email profile pydio offline"


def test_the_sync_client_has_32_ports_tried_in_order() -> None:
    assert [port for _, port in CELLS_SYNC.candidates()] == [3000, *range(3636, 3667)]


def test_each_candidate_comes_with_its_redirect_uri() -> None:
    first, second = parse_redirect_uri("http://127.0.0.1:0/a"), parse_redirect_uri("http://localhost:[7-8]/b")
    client = ClientRegistration("c", (first, second))
    assert list(client.candidates()) == [(first, 0), (second, 7), (second, 8)]


def test_a_secret_makes_a_client_confidential() -> None:
    assert not replace(CELLS_CLIENT, client_secret=Secret("x")).is_public


@pytest.mark.parametrize(
    ("scope", "asks"),
    [
        (DEFAULT_SCOPE, True),
        ("openid offline_access", True),
        ("offline", True),
        ("openid", False),
        ("openid offlines", False),
        ("", False),
    ],
)
def test_a_refresh_token_is_asked_for_by_one_of_two_words(scope: str, asks: bool) -> None:
    assert replace(CELLS_CLIENT, scope=scope).asks_for_refresh_token is asks


def test_the_servers_own_page_is_below_the_site() -> None:
    assert out_of_band_redirect_uri(SITE) == "https://files.example.com/oauth2/oob"


CONFIDENTIAL = replace(CELLS_CLIENT, client_id="cells-curl", client_secret=Secret("password"))


def test_the_sync_client_is_not_known_on_that_page() -> None:
    own = ClientRegistration("own", ())
    assert out_of_band_client(replace(CELLS_SYNC, scope="openid")) == replace(CELLS_CLIENT, scope="openid")
    assert (out_of_band_client(CELLS_CLIENT), out_of_band_client(own)) == (CELLS_CLIENT, own)


def test_a_public_client_names_itself_in_the_body_and_sends_no_header() -> None:
    authentication = authenticate_client(CELLS_CLIENT, METADATA)
    assert authentication.form == {"client_id": "cells-client"}
    assert authentication.header is None


METHODS = {
    "not said: Basic, the standard's default": ((), True),
    "Basic only": (("client_secret_basic",), True),
    "both: Basic": (("client_secret_post", "client_secret_basic", "none"), True),
    "body only": (("client_secret_post",), False),
    "body or nothing": (("client_secret_post", "none"), False),
    "something of tomorrow": (("private_key_jwt",), True),
}


@pytest.mark.parametrize(("methods", "by_header"), METHODS.values(), ids=METHODS)
def test_a_confidential_client_authenticates_as_the_server_can(
    methods: tuple[str, ...], by_header: bool
) -> None:
    metadata = replace(METADATA, token_endpoint_auth_methods_supported=methods)
    authentication = authenticate_client(CONFIDENTIAL, metadata)
    form = {name: _plain(value) for name, value in authentication.form.items()}
    if by_header:
        assert authentication.header == Secret("Basic Y2VsbHMtY3VybDpwYXNzd29yZA==")
        assert form == {}
    else:
        assert authentication.header is None
        assert form == {"client_id": "cells-curl", "client_secret": "password"}


def _plain(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


@given(st.text(min_size=1), st.text())
def test_both_halves_are_form_encoded_before_basic(client_id: str, client_secret: str) -> None:
    """RFC 6749 §2.3.1: what holds a colon, a percent, a plus or an umlaut arrives as it is."""
    client = replace(CONFIDENTIAL, client_id=client_id, client_secret=Secret(client_secret))
    header = authenticate_client(client, METADATA).header
    assert header is not None
    scheme, _, encoded = header.reveal().partition(" ")
    name, colon, password = base64.b64decode(encoded).decode("ascii").partition(":")
    assert (scheme, colon) == ("Basic", ":")
    assert (unquote_plus(name), unquote_plus(password)) == (client_id, client_secret)


def test_no_authentication_prints_its_secret() -> None:
    for methods in (("client_secret_post",), ("client_secret_basic",)):
        metadata = replace(METADATA, token_endpoint_auth_methods_supported=methods)
        told = repr(authenticate_client(CONFIDENTIAL, metadata))
        assert "password" not in told
        assert "Y2VsbHMtY3VybDpwYXNzd29yZA" not in told


def test_a_redirect_uri_is_a_value() -> None:
    assert parse_redirect_uri("http://localhost:3000/cb") == RedirectURI(
        "localhost", range(3000, 3001), "/cb"
    )
