"""A login is decided before anything is opened: what was typed, else what the profile remembers."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest
from examples import PROFILE, TOKENS
from sessions import write_session

from cells_loopback.errors import LoginFailedError, StoreError, UsageError
from cells_loopback.loopback_login.opening import may_stand
from cells_loopback.loopback_login.options import LoginOptions, LoginPlan, check_scope, plan_login
from cells_loopback.protocol.client import CELLS_CLIENT, CELLS_SYNC, ClientRegistration, parse_redirect_uri
from cells_loopback.protocol.site import ServerMetadata, Site, parse_site
from cells_loopback.secret import Secret
from cells_loopback.store.profiles import ProfileStore, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from cells_loopback.store.profiles import Profile

OWN = ClientRegistration(
    "own-client", (parse_redirect_uri("http://127.0.0.1:0/cb"),), Secret("open-sesame"), "openid offline"
)
CUSTOM = Settings(
    pkce="required",
    relogin="never",
    insecure=True,
    ca_bundle="/etc/ca.pem",
    browser="firefox",
    app_name="Sync",
)


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(str(tmp_path / "config"))


def at_site(url: str, name: str, **changes: Any) -> Profile:
    site = parse_site(url)
    metadata = ServerMetadata(
        issuer=f"{site.url}/oidc/",
        authorization_endpoint=f"{site.url}/oidc/oauth2/auth",
        token_endpoint=f"{site.url}/oidc/oauth2/token",
    )
    return replace(PROFILE, name=name, site=site, metadata=metadata, **changes)


def stored(store: ProfileStore, profile: Profile) -> Profile:
    from pathlib import Path

    write_session(Path(store.config_dir), profile)
    return store.read(profile.name)


def plan(store: ProfileStore, site: str | None = None, **options: Any) -> LoginPlan:
    return plan_login(LoginOptions(site=site, **options), store)


@pytest.mark.parametrize(
    "option",
    [{"pkce": "Required"}, {"store": "disk"}, {"relogin": ""}, {"timeout": -1.0}, {"timeout": math.nan}],
    ids=str,
)
def test_a_value_that_no_option_has_is_wrong_usage(store: ProfileStore, option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="cannot be"):
        plan_login(LoginOptions(site="files.example.com", **option), store)


def test_a_client_secret_that_is_no_text_is_not_sent(store: ProfileStore) -> None:
    with pytest.raises(UsageError, match="not text") as caught:
        plan(store, "files.example.com", client_secret=Secret("p\udcffss"))
    assert "ss" not in caught.value.message.removeprefix("the client secret")


def test_one_address_is_no_sequence_of_redirect_uris(store: ProfileStore) -> None:
    with pytest.raises(UsageError) as caught:
        plan(store, "files.example.com", client_id="own", redirect_uris="http://localhost:3000/cb")
    assert "('http://localhost:3000/cb',)" in caught.value.hint


def test_a_first_login_has_the_defaults(store: ProfileStore) -> None:
    assert plan(store, "files.example.com") == LoginPlan(
        name="files.example.com",
        site=Site("https", "files.example.com", 443),
        scheme_is_open=False,
        client=CELLS_CLIENT,
        settings=Settings(),
        known=None,
    )


@pytest.mark.parametrize(
    ("site", "name"),
    [
        ("files.example.com", "files.example.com"),
        ("https://Files.Example.com/oidc/", "files.example.com"),
        ("files.example.com:8443", "files.example.com:8443"),
        ("localhost:8080", "localhost:8080"),
        ("http://localhost", "localhost"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
    ],
)
def test_a_profile_is_named_after_its_site(store: ProfileStore, site: str, name: str) -> None:
    assert plan(store, site).name == name


def test_a_profile_may_have_another_name(store: ProfileStore) -> None:
    assert plan(store, "files.example.com", profile="work").name == "work"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "CON", "x" * 101, "a b", "nul.txt"])
def test_a_name_that_cannot_be_a_files_is_wrong_usage(store: ProfileStore, name: str) -> None:
    with pytest.raises(UsageError):
        plan(store, "files.example.com", profile=name)


@pytest.mark.parametrize(
    ("site", "is_open"),
    [
        ("localhost:8080", True),
        ("127.0.0.1", True),
        ("[::1]:8080", True),
        ("cells.localhost", True),
        ("https://localhost:8080", False),
        ("http://localhost:8080", False),
        ("files.example.com", False),
        ("192.168.1.2", False),
    ],
)
def test_only_a_loopback_host_without_a_scheme_may_turn_out_to_be_http(
    store: ProfileStore, site: str, is_open: bool
) -> None:
    assert plan(store, site).scheme_is_open is is_open


def test_the_site_that_answered_takes_the_place_of_the_one_typed(store: ProfileStore) -> None:
    answered = Site("http", "localhost", 8080)
    assert plan(store, "localhost:8080").on_site(answered).site == answered


def test_without_a_site_nobody_knows_where_to_before_the_first_login(store: ProfileStore) -> None:
    with pytest.raises(UsageError) as caught:
        plan(store)
    assert "cells-loopback login files.example.com" in caught.value.hint


def test_without_a_site_a_profile_must_be_there(store: ProfileStore) -> None:
    with pytest.raises(Exception, match="there is no profile 'work'") as caught:
        plan(store, profile="work")
    assert getattr(caught.value, "exit_code", None) == 3


def test_without_a_site_the_default_profile_is_logged_in_to_again(store: ProfileStore) -> None:
    profile = stored(store, at_site("https://files.example.com", "work"))
    decided = plan(store)
    assert (decided.name, decided.site, decided.known) == ("work", profile.site, profile)


def test_the_variable_chooses_among_profiles(store: ProfileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(store, at_site("https://files.example.com", "work"))
    stored(store, at_site("https://home.example.com", "home"))
    monkeypatch.setenv("CELLS_LOOPBACK_PROFILE", "home")
    assert plan(store).site.host == "home.example.com"


def test_everything_that_the_profile_remembers_is_used_again(store: ProfileStore) -> None:
    stored(store, at_site("https://files.example.com", "work", client=OWN, settings=CUSTOM))
    decided = plan(store, profile="work")
    assert decided.client == OWN
    assert decided.settings == CUSTOM
    assert (decided.trust.ca_bundle, decided.trust.insecure) == ("/etc/ca.pem", True)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("pkce", "off"),
        ("relogin", "headless"),
        ("browser", "chromium"),
        ("app_name", "Other"),
        ("insecure", False),
    ],
)
def test_what_is_typed_comes_before_what_is_remembered(store: ProfileStore, option: str, value: Any) -> None:
    stored(store, at_site("https://files.example.com", "work", settings=CUSTOM))
    assert plan(store, profile="work", **{option: value}).settings == replace(CUSTOM, **{option: value})


def test_certificates_to_trust_end_the_trust_in_everybody(store: ProfileStore) -> None:
    stored(store, at_site("https://files.example.com", "work", settings=CUSTOM))
    settings = plan(store, profile="work", ca_bundle="/srv/ca.pem").settings
    assert settings == replace(CUSTOM, ca_bundle="/srv/ca.pem", insecure=False)


def test_every_setting_can_be_typed() -> None:
    assert {field.name for field in fields(Settings)} <= {field.name for field in fields(LoginOptions)}


def test_a_profile_of_another_site_is_not_taken_over(store: ProfileStore) -> None:
    stored(store, at_site("https://files.example.com", "work"))
    with pytest.raises(LoginFailedError) as caught:
        plan(store, "home.example.com", profile="work")
    assert (caught.value.exit_code, caught.value.code) == (5, "profile_of_other_site")


@pytest.mark.parametrize("site", ["http://files.example.com", "files.example.com:8443", "files.example.org"])
def test_another_scheme_port_or_host_is_another_site(store: ProfileStore, site: str) -> None:
    stored(store, at_site("https://files.example.com", "work"))
    with pytest.raises(LoginFailedError):
        plan(store, site, profile="work")


@pytest.mark.parametrize(
    ("remembered", "typed"),
    [
        ("http://localhost:8080", "localhost:8080"),
        ("https://localhost:8080", "localhost:8080"),
        ("http://localhost", "localhost"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
    ],
)
def test_a_local_site_typed_without_its_scheme_is_the_one_remembered(
    store: ProfileStore, remembered: str, typed: str
) -> None:
    site = parse_site(remembered)
    stored(store, at_site(remembered, site.authority))
    decided = plan(store, typed)
    assert decided.site == site
    assert not decided.scheme_is_open


def test_a_damaged_profile_is_not_overwritten_unseen(store: ProfileStore) -> None:
    stored(store, at_site("https://files.example.com", "files.example.com"))
    with open(store.path("files.example.com"), "w", encoding="utf-8") as file:
        file.write("{")
    with pytest.raises(StoreError):
        plan(store, "files.example.com")


@pytest.mark.parametrize("client", [CELLS_CLIENT, CELLS_SYNC], ids=lambda client: client.client_id)
def test_a_shipped_client_comes_with_its_redirect_uris(
    store: ProfileStore, client: ClientRegistration
) -> None:
    assert plan(store, "files.example.com", client_id=client.client_id).client == client


def test_another_client_has_the_usual_redirect_uri_unless_told(store: ProfileStore) -> None:
    client = plan(store, "files.example.com", client_id="own-client").client
    assert client == replace(CELLS_CLIENT, client_id="own-client")


def test_a_confidential_client_is_typed_whole(store: ProfileStore) -> None:
    decided = plan(
        store,
        "files.example.com",
        client_id="own-client",
        client_secret=Secret("open-sesame"),
        redirect_uris=("http://127.0.0.1:0/cb",),
        scope="openid  offline",
    )
    assert decided.client == OWN


def test_redirect_uris_keep_their_order(store: ProfileStore) -> None:
    uris = ("http://localhost:[3636-3666]/servers/callback", "http://localhost:3000/servers/callback")
    client = plan(store, "files.example.com", redirect_uris=uris).client
    assert [str(uri) for uri in client.redirect_uris] == list(uris)


def test_the_same_client_typed_again_is_the_remembered_one_with_its_secret(store: ProfileStore) -> None:
    stored(store, at_site("https://files.example.com", "work", client=OWN))
    assert plan(store, profile="work", client_id="own-client").client == OWN


def test_another_client_typed_does_not_get_the_remembered_secret(store: ProfileStore) -> None:
    stored(store, at_site("https://files.example.com", "work", client=OWN))
    assert plan(store, profile="work", client_id="another").client.client_secret is None


def test_a_new_secret_for_the_remembered_client(store: ProfileStore) -> None:
    stored(store, at_site("https://files.example.com", "work", client=OWN))
    decided = plan(store, profile="work", client_secret=Secret("new"))
    assert decided.client == replace(OWN, client_secret=Secret("new"))


def test_a_secret_for_a_client_that_has_none_is_wrong_usage_and_not_repeated(store: ProfileStore) -> None:
    with pytest.raises(UsageError) as caught:
        plan(store, "files.example.com", client_secret=Secret("open-sesame"))
    assert "--client-id" in caught.value.hint
    assert "open-sesame" not in caught.value.message + caught.value.hint


def test_a_session_from_a_personal_access_token_can_be_logged_in_to_in_the_browser(
    store: ProfileStore,
) -> None:
    tokens = replace(TOKENS, refresh_token=None, lifetime=None, scope="")
    given = at_site("https://files.example.com", "work", client=ClientRegistration("", ()), tokens=tokens)
    stored(store, given)
    assert plan(store, profile="work").client == CELLS_CLIENT


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({}, False),
        ({"browser": "firefox", "pkce": "off", "insecure": True}, False),
        ({"scope": OWN.scope, "redirect_uris": ("http://127.0.0.1:0/cb",)}, False),
        ({"client_id": "x"}, True),
        ({"client_secret": Secret("x")}, True),
        ({"redirect_uris": ("http://localhost:3000/cb",)}, True),
        ({"scope": "openid"}, True),
    ],
    ids=str,
)
def test_what_asks_for_another_session_than_the_stored_one(
    store: ProfileStore, options: dict[str, Any], changes: bool
) -> None:
    stored(store, at_site("https://files.example.com", "work", client=OWN))
    given = {"profile": "work", "client_id": OWN.client_id, "client_secret": OWN.client_secret, **options}
    assert may_stand(plan(store, **given), LoginOptions(**given)) is not changes


def test_a_given_token_is_kept_unless_a_client_is_named(store: ProfileStore) -> None:
    stored(store, at_site("https://files.example.com", "work", client=ClientRegistration("", ())))
    assert may_stand(plan(store, profile="work"), LoginOptions(profile="work"))
    named = {"profile": "work", "client_id": "cells-client"}
    assert not may_stand(plan(store, **named), LoginOptions(**named))


@pytest.mark.parametrize("client_id", ["", "a\nb", "über"])
def test_a_client_has_a_name_of_printable_ascii(store: ProfileStore, client_id: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(store, "files.example.com", client_id=client_id)
    assert "--client-id ID" in caught.value.hint


@pytest.mark.parametrize(
    ("typed", "scope"),
    [
        ("openid", "openid"),
        ("openid offline", "openid offline"),
        ("  openid \t offline\n", "openid offline"),
        ("https://example.com/read!", "https://example.com/read!"),
        ("!#[]~", "!#[]~"),
    ],
)
def test_a_scope_is_words(typed: str, scope: str) -> None:
    assert check_scope(typed) == scope


@pytest.mark.parametrize(
    "typed", ["", "   ", 'a"b', "a\\b", "ä", "a\x00b", "a\x7f", "openid \u200b", "\udcff"]
)
def test_a_scope_of_other_characters_is_wrong_usage(typed: str) -> None:
    """RFC 6749 §3.3."""
    with pytest.raises(UsageError):
        check_scope(typed)
