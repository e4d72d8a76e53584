"""What is written is what is read, also what a later version has added; and no document is believed."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from examples import METADATA, NOW, PROFILE, SITE, TOKENS, UPTIME
from hypothesis import given
from hypothesis import strategies as st

from cells_loopback.errors import CellsLoopbackError
from cells_loopback.protocol.client import ClientRegistration, RedirectURI
from cells_loopback.protocol.tokens import TokenSet
from cells_loopback.secret import Secret
from cells_loopback.store.profile_document import (
    Profile,
    Renewals,
    Settings,
    User,
    decode_profile,
    encode_profile,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
WORD = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
SECRET = WORD.map(Secret)
SECONDS = st.floats(-1e10, 1e10)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)

CLIENTS = st.builds(
    ClientRegistration,
    client_id=TEXT,
    redirect_uris=st.lists(
        st.builds(
            RedirectURI,
            host=st.sampled_from(["localhost", "127.0.0.1", "::1"]),
            ports=st.tuples(st.integers(1, 60_000), st.integers(1, 40)).map(
                lambda p: range(p[0], p[0] + p[1])
            ),
            path=st.sampled_from(["", "/", "/servers/callback"]),
        ),
        max_size=3,
    ).map(tuple),
    client_secret=st.none() | TEXT.filter(bool).map(Secret),
    scope=WORD,
)
TOKEN_SETS = st.builds(
    TokenSet,
    access_token=SECRET,
    token_type=st.just("Bearer"),
    scope=TEXT,
    lifetime=st.none() | st.floats(1, 1e9),
    obtained_at=SECONDS,
    obtained_uptime=SECONDS,
    clock_offset=SECONDS,
    refresh_token=st.none() | SECRET,
    renew_early=st.floats(0, 30),
)
PROFILES = st.builds(
    Profile,
    name=st.just("work"),
    site=st.just(SITE),
    client=CLIENTS,
    metadata=st.just(METADATA),
    user=st.builds(User, sub=TEXT, name=TEXT, claims=st.dictionaries(TEXT, JSON, max_size=4)),
    tokens=TOKEN_SETS,
    redirect_uri=st.none() | WORD,
    pkce_binding=st.sampled_from([None, "bound", "unbound", "foreign", "off"]),
    settings=st.builds(
        Settings,
        pkce=st.sampled_from(["auto", "required", "off"]),
        relogin=st.sampled_from(["notify", "browser", "headless", "never"]),
        store=st.sampled_from(["file", "keyring"]),
        insecure=st.booleans(),
        ca_bundle=st.none() | WORD,
        browser=st.none() | WORD,
        app_name=st.none() | WORD,
    ),
    renewals=st.builds(
        Renewals,
        logged_in_at=SECONDS,
        refresh_token_at=SECONDS,
        rejected_at=st.none() | SECONDS,
        longest_rest=SECONDS,
        refused_rest=st.none() | SECONDS,
    ),
)


def through_the_file(document: dict[str, Any]) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(json.dumps(document, ensure_ascii=False).encode())
    return decoded


@given(PROFILES)
def test_what_is_written_is_what_is_read(profile: Profile) -> None:
    assert decode_profile("work", through_the_file(encode_profile(profile))) == profile


SECTIONS = [None, "user", "client", "metadata", "token", "settings", "renewals"]


@given(
    st.dictionaries(st.sampled_from(SECTIONS), st.dictionaries(WORD.map("later_{}".format), JSON, max_size=3))
)
def test_what_a_later_version_has_added_is_kept(added: dict[str | None, dict[str, Any]]) -> None:
    document = encode_profile(PROFILE)
    for section, members in added.items():
        if section is None:
            document |= members
        else:
            document[section] = {**document[section], **members}
    written = encode_profile(decode_profile(PROFILE.name, through_the_file(document)))
    assert through_the_file(written) == through_the_file(document)


def test_a_renewal_keeps_what_a_later_version_has_added() -> None:
    document = encode_profile(PROFILE)
    document["token"]["binding_key"] = "x"
    profile = decode_profile(PROFILE.name, document)
    renewed = replace(profile, tokens=replace(TOKENS, access_token=Secret("ory_at_2")))
    written = encode_profile(renewed)["token"]
    assert (written["access_token"], written["binding_key"]) == ("ory_at_2", "x")


def test_the_document_is_the_one_that_is_documented() -> None:
    document = encode_profile(PROFILE)
    assert (document["version"], document["site"]) == (1, "https://files.example.com")
    assert document["client"] == {
        "client_id": "cells-client",
        "client_secret": None,
        "scope": "openid email profile pydio offline",
        "redirect_uris": ["http://localhost:3000/servers/callback"],
        "redirect_uri": "http://localhost:3000/servers/callback",
    }
    assert document["token"] == {
        "access_token": "ory_at_the-access-token",
        "token_type": "Bearer",
        "expires_at": NOW + 599,
        "refresh_token": "ory_rt_the-refresh-token",
        "scope": "openid email profile pydio offline",
        "lifetime": 599.0,
        "obtained_at": NOW,
        "obtained_uptime": UPTIME,
        "clock_offset": 0.0,
        "renew_early": 0.0,
    }


def test_the_id_token_is_not_kept() -> None:
    profile = replace(PROFILE, tokens=replace(TOKENS, id_token=Secret("eyJ.eyJ.c2ln")))
    assert "eyJ.eyJ.c2ln" not in json.dumps(encode_profile(profile))


def test_what_an_earlier_version_did_not_write_has_its_default() -> None:
    document = through_the_file(encode_profile(PROFILE))
    document |= {"user": {}, "settings": {}, "renewals": {}}
    del document["pkce_binding"]
    for section, name in (
        ("client", "client_secret"),
        ("client", "redirect_uri"),
        ("token", "refresh_token"),
    ):
        del document[section][name]
    assert decode_profile(PROFILE.name, document) == replace(
        PROFILE,
        user=User(),
        tokens=replace(TOKENS, refresh_token=None),
        redirect_uri=None,
        pkce_binding=None,
        settings=Settings(),
        renewals=Renewals(),
    )


def test_a_token_is_any_printable_ascii() -> None:
    tokens = replace(TOKENS, access_token=Secret('!"~'), refresh_token=Secret("~!"))
    assert decode_profile(PROFILE.name, encode_profile(replace(PROFILE, tokens=tokens))).tokens == tokens


DAMAGED: dict[str, tuple[str, Any]] = {
    "no site": ("site", ...),
    "a site that is none": ("site", "ftp://x"),
    "a site that is a number": ("site", 7),
    "another server's site": ("site", "https://evil.example"),
    "no token": ("token", ...),
    "a token that is a text": ("token", "ory_at_x"),
    "no access token": ("token.access_token", ...),
    "an empty access token": ("token.access_token", ""),
    "an access token that is a list": ("token.access_token", ["x"]),
    "a line break in the access token": ("token.access_token", "a\nb"),
    "a lone surrogate in the refresh token": ("token.refresh_token", "\udcff"),
    "a lifetime in words": ("token.lifetime", "an hour"),
    "a lifetime that is true": ("token.lifetime", True),
    "a time that is not a number": ("token.obtained_at", float("nan")),
    "a time that is infinite": ("token.obtained_at", float("inf")),
    "a time beyond every float": ("token.obtained_at", 10**400),
    "an offset that is null": ("token.clock_offset", None),
    "a refresh token that is a number": ("token.refresh_token", 7),
    "no client": ("client", ...),
    "a client that is a list": ("client", []),
    "a client id that is a number": ("client.client_id", 7),
    "redirect URIs that are a number": ("client.redirect_uris", 7),
    "a redirect URI elsewhere": ("client.redirect_uris", ["http://evil.example/cb"]),
    "a redirect URI that is a number": ("client.redirect_uris", [7]),
    "no metadata": ("metadata", ...),
    "an endpoint of another origin": ("metadata.token_endpoint", "https://evil.example/token"),
    "another issuer": ("metadata.issuer", "https://evil.example/oidc"),
    "a user that is a text": ("user", "alice"),
    "a name that is a number": ("user.name", 7),
    "claims that are a list": ("user.claims", ["x"]),
    "a policy of tomorrow": ("settings.pkce", "sometimes"),
    "a policy that is a list": ("settings.relogin", ["notify"]),
    "insecure in words": ("settings.insecure", "no"),
    "a browser that is a list": ("settings.browser", ["firefox"]),
    "a binding of tomorrow": ("pkce_binding", "half"),
    "a binding that is a list": ("pkce_binding", ["bound"]),
    "renewals that are null": ("renewals", None),
    "a rest that is null": ("renewals.longest_rest", None),
    "a renewal in words": ("renewals.refresh_token_at", "yesterday"),
}


@pytest.mark.parametrize(("place", "value"), DAMAGED.values(), ids=DAMAGED)
def test_a_document_with_one_damage_is_refused(place: str, value: Any) -> None:
    document = copy.deepcopy(encode_profile(PROFILE))
    *sections, name = place.split(".")
    holder = document
    for section in sections:
        holder = holder[section]
    if value is ...:
        del holder[name]
    else:
        holder[name] = value
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError, OverflowError, CellsLoopbackError)):
        decode_profile(PROFILE.name, document)
