"""What people type becomes one spelling of a site, and a discovery document is believed only about it."""

from __future__ import annotations

import dataclasses
from typing import Any
from urllib.parse import urlsplit

import pytest
from examples import METADATA, SITE
from hypothesis import given
from hypothesis import strategies as st

from cells_loopback.errors import LoginFailedError, UntrustedServerError, UsageError
from cells_loopback.protocol.site import (
    Site,
    is_loopback_host,
    not_a_cells_server,
    origin_of,
    parse_metadata,
    parse_site,
    same_issuer,
)

FILES = Site("https", "files.example.com", 443)

LONGEST_NAME = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])

# (what is typed, the site it means)
TYPED = {
    "a host": ("files.example.com", FILES),
    "a URL": ("https://files.example.com", FILES),
    "a trailing slash": ("https://files.example.com/", FILES),
    "several": ("https://files.example.com///", FILES),
    "a host and a slash": ("files.example.com/", FILES),
    "the issuer": ("https://files.example.com/oidc", FILES),
    "the issuer with its slash": ("https://files.example.com/oidc/", FILES),
    "a host and the issuer's path": ("files.example.com/oidc/", FILES),
    "the discovery URL": ("https://files.example.com/oidc/.well-known/openid-configuration", FILES),
    "the discovery URL without a scheme": ("files.example.com/oidc/.well-known/openid-configuration", FILES),
    "upper case": ("HTTPS://FILES.Example.COM", FILES),
    "spaces around": ("  files.example.com\t\n", FILES),
    "the root's dot": ("files.example.com.", FILES),
    "the scheme's own port": ("https://files.example.com:443", FILES),
    "a port": ("files.example.com:8443", Site("https", "files.example.com", 8443)),
    "a port and a path": ("files.example.com:8443/oidc", Site("https", "files.example.com", 8443)),
    "the last port": ("files.example.com:65535", Site("https", "files.example.com", 65535)),
    "http": ("http://files.example.com", Site("http", "files.example.com", 80)),
    "http with the port of https": ("http://files.example.com:443", Site("http", "files.example.com", 443)),
    "a bare name": ("cells", Site("https", "cells", 443)),
    "localhost and a port": ("localhost:8080", Site("https", "localhost", 8080)),
    "a default install": ("https://localhost:8080", Site("https", "localhost", 8080)),
    "IPv4": ("192.0.2.7", Site("https", "192.0.2.7", 443)),
    "IPv4 and a port": ("127.0.0.1:8080", Site("https", "127.0.0.1", 8080)),
    "IPv6 in brackets": ("https://[2001:db8::1]", Site("https", "2001:db8::1", 443)),
    "IPv6 and a port": ("https://[2001:db8::1]:8443/", Site("https", "2001:db8::1", 8443)),
    "IPv6 without a scheme": ("[2001:db8::1]:8443", Site("https", "2001:db8::1", 8443)),
    "bare IPv6": ("2001:db8::1", Site("https", "2001:db8::1", 443)),
    "bare IPv6 and a path": ("2001:db8::1/oidc", Site("https", "2001:db8::1", 443)),
    "IPv6 in its long spelling": ("[2001:0DB8:0:0:0:0:0:1]", Site("https", "2001:db8::1", 443)),
    "IPv6 loopback": ("::1", Site("https", "::1", 443)),
    "an IDN": ("bücher.example", Site("https", "xn--bcher-kva.example", 443)),
    "an IDN in upper case": ("BÜCHER.example", Site("https", "xn--bcher-kva.example", 443)),
    "its A-labels": ("xn--bcher-kva.example", Site("https", "xn--bcher-kva.example", 443)),
    "an ideographic dot": ("文件。example", Site("https", "xn--5nqy36c.example", 443)),
    "an underscore, as containers are named": ("cells_dev", Site("https", "cells_dev", 443)),
    "a label of 63": ("a" * 63 + ".example", Site("https", "a" * 63 + ".example", 443)),
    "a name of 253": (LONGEST_NAME, Site("https", LONGEST_NAME, 443)),
}


@pytest.mark.parametrize(("typed", "site"), TYPED.values(), ids=TYPED)
def test_a_site_in_any_of_its_forms(typed: str, site: Site) -> None:
    assert parse_site(typed) == site


NOT_A_SITE = {
    "nothing": "",
    "spaces": "   ",
    "a space within": "files example.com",
    "a newline within": "files.example.com\nevil.example",
    "a tab within": "files\t.example.com",
    "an escape": "files.example.com\x1b[31m",
    "DEL": "files\x7f.example.com",
    "a backslash": "https:\\\\files.example.com",
    "a backslash before a host": "https://evil.example\\@files.example.com",
    "another scheme": "ftp://files.example.com",
    "javascript": "javascript://alert(1)",
    "a file": "file:///etc/passwd",
    "no scheme": "://files.example.com",
    "no host": "https://",
    "no host but a path": "https:///oidc",
    "a port alone": ":8080",
    "a user": "alice@files.example.com",
    "a user and a password": "https://alice:secret@files.example.com",
    "an empty user": "https://@files.example.com",
    "a query": "https://files.example.com?x=1",
    "an empty query": "https://files.example.com/?",
    "a fragment": "https://files.example.com/#/login",
    "an empty fragment": "files.example.com#",
    "a path": "https://files.example.com/io/folder",
    "a path that goes on": "https://files.example.com/oidcX",
    "a path in upper case": "https://files.example.com/OIDC",
    "a path that climbs": "https://files.example.com/oidc/..",
    "port 0": "files.example.com:0",
    "port 65536": "files.example.com:65536",
    "a negative port": "files.example.com:-1",
    "a port in words": "files.example.com:https",
    "an empty port": "https://files.example.com:",
    "an empty port and a path": "https://files.example.com:/oidc",
    "an empty label": "files..example.com",
    "only a dot": ".",
    "a hyphen in front": "-files.example.com",
    "a hyphen at the end of a label": "files-.example.com",
    "a label of 64": "a" * 64 + ".example",
    "a name of 254": LONGEST_NAME + "d",
    "a percent": "files%2eexample.com",
    "a star": "*.example.com",
    "an IPv4 address out of range": "256.0.0.1",
    "a short IPv4 address": "127.1",
    "an IPv4 address as one number": "2130706433",
    "an IPv6 address that is none": "[2001:db8:::1]",
    "an IPv6 address without its bracket": "[2001:db8::1",
    "an IPv6 address with a zone": "[fe80::1%25eth0]",
    "a bare IPv6 address with a zone": "fe80::1%eth0",
    "a name in brackets": "[files.example.com]",
    "an IPv6 address with half a bracket": "2001:db8::1]",
    "an IPv6 address with more behind it": "https://[2001:db8::1]files.example.com",
    "an IPv6 address with more before it": "https://files.example.com[2001:db8::1]:8443",
    "an IDN that is none": "xn--\u0378.example",
    "an invisible character": "files\u200b\u200d.example.com\u200b-",
    "a fraction slash that becomes one": "files.example.com\u2100evil.example",
    "an email address": "mailto:alice@files.example.com",
}


@pytest.mark.parametrize("typed", NOT_A_SITE.values(), ids=NOT_A_SITE)
def test_anything_else_is_wrong_usage_and_a_right_form_is_shown(typed: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_site(typed)
    assert caught.value.exit_code == 2
    assert caught.value.hint == "give a site like files.example.com or https://files.example.com:8443"


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("files example.com", "it holds a space, a backslash or a control character"),
        ("files\x7f.example.com", "it holds a space, a backslash or a control character"),
        ("https:\\\\files.example.com", "it holds a space, a backslash or a control character"),
        ("https://files.example.com:65536", "Port out of range 0-65535"),
        ("FTP://files.example.com", "the scheme ftp is neither https nor http"),
        ("files.example.com?x", "it has a query or a fragment"),
        ("files.example.com#", "it has a query or a fragment"),
        ("https://files.example.com/io/", "Cells lives at the root of a host, not at /io/"),
        ("files.example.com:0", "the port is missing or 0"),
        ("files.example.com:", "the port is missing or 0"),
        ("https:///oidc", "it has no host"),
        ("fe80::1%eth0", "an address with a zone is not supported"),
        ("files..example.com", "the host name is not valid"),
        ("127.1", "the IPv4 address is not valid"),
        ("xn--\u0378.example", "the international host name is not valid"),
    ],
)
def test_the_reason_is_told(typed: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_site(typed)
    assert caught.value.message == f"{typed!r} is not a site: {reason}"


@pytest.mark.parametrize(
    ("typed", "message"),
    [("", "the site is empty"), ("a:b@files.example.com", "the site holds a user name or a password")],
)
def test_what_is_empty_or_secret_is_not_repeated(typed: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_site(typed)
    assert caught.value.message == message


@pytest.mark.parametrize("rest", ["", ":port", "/folder", "[", "?x=1"])
def test_a_password_in_the_site_is_not_repeated(rest: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_site("https://alice:open-sesame@files.example.com" + rest)
    assert "open-sesame" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    "typed", ["x" * 100_000, "9" * 100_000 + ":x", "x:" + "9" * 100_000, "a/" + "b" * 100_000]
)
def test_a_very_long_site_is_not_repeated_in_full(typed: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_site(typed)
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("site", "authority", "url"),
    [
        (FILES, "files.example.com", "https://files.example.com"),
        (Site("https", "files.example.com", 80), "files.example.com:80", "https://files.example.com:80"),
        (Site("http", "localhost", 80), "localhost", "http://localhost"),
        (Site("http", "localhost", 8080), "localhost:8080", "http://localhost:8080"),
        (Site("https", "2001:db8::1", 443), "[2001:db8::1]", "https://[2001:db8::1]"),
        (Site("https", "2001:db8::1", 8443), "[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
    ],
    ids=str,
)
def test_a_site_is_written_without_the_port_that_goes_without_saying(
    site: Site, authority: str, url: str
) -> None:
    assert site.authority == authority
    assert site.url == str(site) == url
    assert site.discovery_url == url + "/oidc/.well-known/openid-configuration"


@given(st.text(max_size=80) | st.text("https:/.[]@?#%-_ab1", max_size=40))
def test_any_text_is_a_site_or_wrong_usage(typed: str) -> None:
    try:
        site = parse_site(typed)
    except UsageError:
        return
    assert parse_site(site.url) == site
    assert origin_of(site.url) == site.url
    assert site.scheme in {"https", "http"}
    assert 0 < site.port < 65536
    assert site.host.isascii()
    assert site.host == site.host.lower()


@given(
    st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]([a-z0-9-]{0,8}[a-z0-9])?){0,3}", fullmatch=True)
)
def test_every_host_name_is_a_site(host: str) -> None:
    assert parse_site(host) == Site("https", host, 443)


@given(st.ip_addresses(v=6).map(str), st.integers(1, 65535))
def test_every_ipv6_address_is_a_site(address: str, port: int) -> None:
    site = parse_site(f"http://[{address}]:{port}")
    assert (site.host, site.port) == (address, port)
    assert parse_site(address).host == address


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("cells.localhost", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("notlocalhost", False),
        ("localhost.example.com", False),
        ("128.0.0.1", False),
        ("126.255.255.255", False),
        ("127.0.0.1.example.com", False),
        ("127.0.0.256", False),
        ("127.0.0", False),
        ("127.0.0." + "1" * 5000, False),
        pytest.param("127.0.0.²", False, id="odd digits"),
        ("0.0.0.0", False),
        ("::", False),
        ("::2", False),
        ("", False),
    ],
    ids=lambda value: f"{value!s:.20}",
)
def test_only_this_machine_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback_host(host) is expected


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://files.example.com/oidc/oauth2/token", "https://files.example.com"),
        ("HTTPS://Files.Example.Com:443/x", "https://files.example.com"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("https://[2001:db8::1]:8443/x?y#z", "https://[2001:db8::1]:8443"),
        ("https://files.example.com@evil.example/", "https://evil.example"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    "url", ["", "files.example.com", "ftp://files.example.com", "https://", "//files.example.com", "data:,x"]
)
def test_what_is_no_web_address_has_no_origin(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        origin_of(url)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://files.example.com/oidc", "https://files.example.com/oidc/", True),
        ("https://FILES.example.com:443/oidc", "https://files.example.com/oidc", True),
        ("https://files.example.com/oidc", "https://files.example.com/OIDC", False),
        ("https://files.example.com/oidc", "https://files.example.com", False),
        ("https://files.example.com/oidc", "http://files.example.com/oidc", False),
        ("https://files.example.com/oidc", "https://files.example.com:8443/oidc", False),
        ("https://files.example.com/oidc", "https://files.example.com.evil.example/oidc", False),
        ("not a URL", "not a URL", True),
        ("not a URL", "https://files.example.com/oidc", False),
        ("https://[", "https://files.example.com/oidc", False),
    ],
)
def test_issuers_are_compared_without_their_last_slash(one: str, other: str, same: bool) -> None:
    assert same_issuer(one, other) is same
    assert same_issuer(other, one) is same


def document(**changes: Any) -> dict[str, Any]:
    """A discovery document as Cells publishes it; None takes a member out."""
    members = {**dataclasses.asdict(METADATA), **changes}
    members["response_types_supported"] = ["code"]
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in members.items()
        if value is not None
    }


def test_a_discovery_document_becomes_metadata() -> None:
    assert parse_metadata(document(), SITE) == METADATA


@pytest.mark.parametrize("issuer", ["https://files.example.com/oidc", "https://files.example.com/oidc/"])
def test_the_issuer_is_kept_as_the_release_writes_it(issuer: str) -> None:
    assert parse_metadata(document(issuer=issuer), SITE).issuer == issuer


@pytest.mark.parametrize("name", ["jwks_uri", "revocation_endpoint", "userinfo_endpoint"])
def test_an_optional_endpoint_may_be_missing(name: str) -> None:
    assert getattr(parse_metadata(document(**{name: None}), SITE), name) is None


def test_userinfo_is_where_the_document_says() -> None:
    plain_hydra = "https://files.example.com/oidc/userinfo"
    assert parse_metadata(document(userinfo_endpoint=plain_hydra), SITE).userinfo_endpoint == plain_hydra


def test_missing_lists_have_the_defaults_of_the_standard() -> None:
    lists = (
        "token_endpoint_auth_methods_supported",
        "code_challenge_methods_supported",
        "id_token_signing_alg_values_supported",
    )
    metadata = parse_metadata(document(**dict.fromkeys(lists)), SITE)
    assert metadata.token_endpoint_auth_methods_supported == ()
    assert metadata.code_challenge_methods_supported == ()
    assert metadata.id_token_signing_alg_values_supported == ("RS256",)


@pytest.mark.parametrize("value", [True, False, None, "true", 1])
def test_only_true_promises_an_iss_parameter(value: object) -> None:
    metadata = parse_metadata(document(authorization_response_iss_parameter_supported=value), SITE)
    assert metadata.authorization_response_iss_parameter_supported is (value is True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"issuer": None}, "its discovery document names no issuer"),
        ({"token_endpoint": None}, "its discovery document names no token_endpoint"),
        ({"jwks_uri": 7}, "its discovery document names no jwks_uri"),
        ({"authorization_endpoint": "/auth"}, "its authorization_endpoint is not a URL"),
    ],
)
def test_what_the_document_lacks_is_told(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(LoginFailedError) as caught:
        parse_metadata(document(**changes), SITE)
    assert caught.value.message == f"https://files.example.com is not a Cells server: {reason}"


NO_DOCUMENT = {
    "empty": {},
    "no issuer": document(issuer=None),
    "an empty issuer": document(issuer=""),
    "an issuer that is a number": document(issuer=7),
    "no authorization endpoint": document(authorization_endpoint=None),
    "no token endpoint": document(token_endpoint=None),
    "an endpoint that is a list": document(token_endpoint=["https://files.example.com/oidc/oauth2/token"]),
    "an endpoint that is empty": document(token_endpoint=""),
    "an endpoint that is a path": document(token_endpoint="/oidc/oauth2/token"),
    "an endpoint of another scheme": document(token_endpoint="ftp://files.example.com/"),
    "an endpoint whose port is none": document(token_endpoint="https://files.example.com:port/"),
    "an optional endpoint that is a number": document(jwks_uri=7),
    "another server's document": {"current_user_url": "https://api.example.com/user"},
}


@pytest.mark.parametrize("members", NO_DOCUMENT.values(), ids=NO_DOCUMENT)
def test_what_is_no_discovery_document_is_no_cells_server(members: dict[str, Any]) -> None:
    with pytest.raises(LoginFailedError) as caught:
        parse_metadata(members, SITE)
    assert (caught.value.exit_code, caught.value.code) == (5, "not_a_cells_server")
    assert "https://files.example.com is not a Cells server" in caught.value.message


FOREIGN_ISSUERS = {
    "another host": "https://evil.example/oidc/",
    "the site's root": "https://files.example.com/",
    "another path": "https://files.example.com/auth/",
    "http": "http://files.example.com/oidc/",
    "another port": "https://files.example.com:8443/oidc/",
    "a longer host": "https://files.example.com.evil.example/oidc/",
    "a query": "https://files.example.com/oidc/?tenant=1",
    "a fragment": "https://files.example.com/oidc/#x",
    "a user": "https://user@files.example.com/oidc/",
    "no URL": "cells",
    "a host that cannot be": "https://[/oidc/",
    "an internal name": "https://cells:8080/oidc/",
}


@pytest.mark.parametrize("issuer", FOREIGN_ISSUERS.values(), ids=FOREIGN_ISSUERS)
def test_another_issuer_is_not_trusted(issuer: str) -> None:
    with pytest.raises(UntrustedServerError) as caught:
        parse_metadata(document(issuer=issuer), SITE)
    assert (caught.value.exit_code, caught.value.code) == (9, "issuer_mismatch")
    assert caught.value.message == f"https://files.example.com says that its issuer is {issuer}"


def test_the_hint_names_the_site_that_the_person_may_have_meant() -> None:
    with pytest.raises(UntrustedServerError) as caught:
        parse_metadata(document(issuer="https://cells.example.com/oidc/"), SITE)
    assert caught.value.hint == (
        "if https://cells.example.com is the server you mean, log in there:"
        " cells-loopback login https://cells.example.com"
    )


@pytest.mark.parametrize("issuer", ["https://files.example.com/auth/", "cells", "https://[/oidc/"])
def test_where_no_other_site_is_meant_the_hint_says_what_the_issuer_should_be(issuer: str) -> None:
    with pytest.raises(UntrustedServerError) as caught:
        parse_metadata(document(issuer=issuer), SITE)
    assert caught.value.hint == (
        "ask the server's administrator: its issuer should be https://files.example.com/oidc/"
    )


def test_an_issuer_of_any_length_gives_a_short_message() -> None:
    with pytest.raises(UntrustedServerError) as caught:
        parse_metadata(document(issuer="https://evil.example/" + "x" * 100_000), SITE)
    assert len(caught.value.message) < 400


FOREIGN_ENDPOINTS = {
    "another host": "https://evil.example/oidc/oauth2/token",
    "a host below": "https://evil.files.example.com/oidc/oauth2/token",
    "http": "http://files.example.com/oidc/oauth2/token",
    "another port": "https://files.example.com:8443/oidc/oauth2/token",
    "our host as a user": "https://files.example.com@evil.example/oidc/oauth2/token",
    "our host as a user and password": "https://files.example.com:443@evil.example/oidc/oauth2/token",
    "a fragment": "https://files.example.com/oidc/oauth2/token#x",
    "a newline": "https://files.example.com/oidc/oauth2/token\r\nX-Evil: 1",
    "an umlaut": "https://files.example.com/oidc/oauth2/tök",
    "an override of the writing direction": "https://files.example.com/oidc/\u202eoauth2/token",
    "a space": "https://files.example.com/oidc/oauth2/ token",
    "a user": "https://user:password@files.example.com/oidc/oauth2/token",
    "a backslash": "https://files.example.com\\@evil.example/oidc/oauth2/token",
}
ENDPOINTS = [
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "revocation_endpoint",
    "userinfo_endpoint",
]


@pytest.mark.parametrize("name", ENDPOINTS)
@pytest.mark.parametrize("url", FOREIGN_ENDPOINTS.values(), ids=FOREIGN_ENDPOINTS)
def test_no_endpoint_of_another_origin_is_used(name: str, url: str) -> None:
    with pytest.raises(UntrustedServerError) as caught:
        parse_metadata(document(**{name: url}), SITE)
    assert (caught.value.exit_code, caught.value.code) == (9, "foreign_endpoint")
    origin = origin_of(url)
    fault = "is not a plain address" if origin == SITE.url else f"is of another origin: {origin}"
    assert caught.value.message == f"the {name} that https://files.example.com names {fault}"
    assert caught.value.hint == (
        "ask the server's administrator: its external URL is set wrong, or somebody is in between"
    )


def test_an_endpoint_is_used_as_the_server_spells_it() -> None:
    spelled = "https://FILES.example.com:443/oidc/oauth2/token?realm=x"
    assert parse_metadata(document(token_endpoint=spelled), SITE).token_endpoint == spelled


MEMBERS = st.sampled_from(list(document())) | st.text(max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=60)
    | st.sampled_from([*FOREIGN_ENDPOINTS.values(), *FOREIGN_ISSUERS.values()]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(MEMBERS, VALUES, max_size=6), st.booleans())
def test_any_document_is_judged_and_what_is_accepted_stays_at_the_site(
    members: dict[str, Any], is_completed: bool
) -> None:
    try:
        metadata = parse_metadata({**document(), **members} if is_completed else members, SITE)
    except (LoginFailedError, UntrustedServerError):
        return
    assert same_issuer(metadata.issuer, SITE.url + "/oidc")
    for name in ENDPOINTS:
        url = getattr(metadata, name)
        if url is not None:
            assert urlsplit(url).hostname == SITE.host
            assert urlsplit(url).scheme == "https"
            assert "@" not in urlsplit(url).netloc


def test_the_error_for_a_site_without_cells_names_it() -> None:
    error = not_a_cells_server(SITE, "it answers 404")
    assert error.message == "https://files.example.com is not a Cells server: it answers 404"
    assert error.hint == "check the address; it is the one that opens Cells in a browser"
