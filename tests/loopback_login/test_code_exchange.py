"""From the server's answer to a saved profile: each step alone, against the embedded server."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from examples import PROFILE, SITE, TOKENS, USER
from sessions import make_session, read_session, write_session

from cells_loopback.errors import LoginFailedError, ServerUnavailableError, StoreError, UntrustedServerError
from cells_loopback.http.endpoints import fetch_metadata
from cells_loopback.http.transport import SiteClient
from cells_loopback.http.trust import Trust
from cells_loopback.loopback_login.code_exchange import (
    CodeExchange,
    refuse_other_user,
    revoke_replaced,
    save_profile,
)
from cells_loopback.loopback_login.options import LoginOptions, plan_login
from cells_loopback.protocol.authorization import start_authorization
from cells_loopback.protocol.client import out_of_band_redirect_uri
from cells_loopback.protocol.site import parse_site
from cells_loopback.session.logout import log_out
from cells_loopback.store.keyring_store import split_secrets
from cells_loopback.store.preferences import read_default_profile
from cells_loopback.store.profiles import ProfileStore, User
from cells_loopback.testing import Behaviour, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cells_loopback.loopback_login.options import LoginPlan
    from cells_loopback.protocol.authorization import AuthorizationRequest, AuthorizationResponse
    from cells_loopback.protocol.site import ServerMetadata
    from cells_loopback.store.profiles import Profile
    from cells_loopback.testing import CellsServer


class Desk:
    """The plan of one login to a server, and what the person was told."""

    def __init__(self, server: CellsServer, store: ProfileStore, **options: Any) -> None:
        self.server, self.store = server, store
        self.plan: LoginPlan = plan_login(LoginOptions(site=server.site, profile="work", **options), store)
        with SiteClient(self.plan.site, Trust()) as client:
            self.metadata: ServerMetadata = fetch_metadata(client)
        self.notices: list[str] = []

    @contextmanager
    def exchange(self, metadata: ServerMetadata | None = None) -> Iterator[CodeExchange]:
        arguments = (self.plan, self.store, metadata or self.metadata, self.notices.append)
        with CodeExchange(*arguments, remembered=metadata is not None) as exchange:
            yield exchange

    def request(self) -> AuthorizationRequest:
        uri = out_of_band_redirect_uri(self.plan.site)
        with_pkce = self.plan.settings.pkce != "off"
        return start_authorization(self.metadata, self.plan.client, uri, with_pkce=with_pkce)

    def answer(self, request: AuthorizationRequest | None = None) -> AuthorizationResponse:
        request = request or self.request()
        page = self.server.sign_in(request.url)
        return request.validate_response(dict(parse_qsl(urlsplit(page.url).query)))

    def stored(self) -> Profile:
        return self.store.read("work")


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(str(tmp_path / "config"))


@pytest.fixture
def desk(server: CellsServer, store: ProfileStore) -> Desk:
    return Desk(server, store)


def test_a_login_is_exchange_identify_save(desk: Desk, server: CellsServer) -> None:
    with desk.exchange() as exchange:
        assert exchange.exchange(desk.answer()) is True
        assert exchange.missing_scope() == ""
        exchange.identify()
        exchange.save()
    profile = desk.stored()
    assert (exchange.user.name, profile.user.sub) == ("alice", server.user.uuid)
    assert server.is_live_access_token(profile.tokens.access_token.reveal())
    assert (profile.pkce_binding, profile.redirect_uri) == ("bound", None)  # no loopback one was used
    assert profile.renewals.logged_in_at > 0
    assert desk.notices == []


def test_what_comes_next_waits_for_what_comes_first(desk: Desk) -> None:
    with desk.exchange() as exchange, pytest.raises(RuntimeError, match="exchange comes first"):
        exchange.identify()


def test_keys_are_fetched_while_the_person_types_and_not_again(desk: Desk, server: CellsServer) -> None:
    with desk.exchange() as exchange:
        server.wait_for("jwks")
        exchange.exchange(desk.answer())
        exchange.identify()
    assert server.count("jwks") == 1


def test_keys_that_could_not_be_fetched_then_are_fetched_later(desk: Desk, server: CellsServer) -> None:
    server.fault("jwks", Fault(status=404))
    with desk.exchange() as exchange:
        exchange.exchange(desk.answer())
        exchange.identify()
    assert server.count("jwks") == 2


@pytest.mark.parametrize("kind", ["foreign", "unbound"])
def test_a_login_without_pkce_is_recorded_as_what_it_is(
    server: CellsServer, store: ProfileStore, kind: Any
) -> None:
    server.behaviour = Behaviour(pkce=kind, nonce="dropped")
    desk = Desk(server, store)
    with desk.exchange() as exchange:
        request = desk.request()
        if not exchange.exchange(desk.answer(request)):
            second = exchange.restart_without_pkce(request)
            assert second.code_verifier is None
            assert {second.state, second.nonce}.isdisjoint({request.state, request.nonce})
            assert exchange.exchange(desk.answer(second)) is True
        exchange.identify()
        exchange.save()
    assert desk.stored().pkce_binding == kind
    assert len(desk.notices) == 1


def test_what_another_profile_of_the_site_has_seen_counts_and_a_damaged_one_does_not_matter(
    server: CellsServer, store: ProfileStore
) -> None:
    config_dir = Path(store.config_dir)
    write_session(config_dir, make_session(server, "bound"))
    write_session(config_dir, replace(PROFILE, name="elsewhere"))
    write_session(config_dir, replace(PROFILE, name="damaged"))
    Path(store.path("damaged")).write_text("{")
    server.behaviour = Behaviour(pkce="unbound")
    desk = Desk(server, store)
    with desk.exchange() as exchange, pytest.raises(UntrustedServerError) as caught:
        exchange.exchange(desk.answer())
    assert (caught.value.exit_code, caught.value.code) == (9, "pkce_downgrade")


def test_what_a_profile_has_seen_counts_although_its_keyring_does_not_answer(
    server: CellsServer, store: ProfileStore
) -> None:
    write_session(Path(store.config_dir), make_session(server, "bound"))
    path = Path(store.path("bound"))
    document, _ = split_secrets(json.loads(path.read_text()))
    document["settings"]["store"] = "keyring"
    path.write_text(json.dumps(document))
    server.behaviour = Behaviour(pkce="unbound")
    desk = Desk(server, store)
    with desk.exchange() as exchange, pytest.raises(UntrustedServerError):
        exchange.exchange(desk.answer())


def test_what_a_session_has_seen_counts_after_its_logout(server: CellsServer, store: ProfileStore) -> None:
    write_session(Path(store.config_dir), make_session(server, pkce_binding="bound"))
    server.fault("revoke", Fault(status=500))
    assert "not revoked" in log_out(store, "work")
    assert store.names() == []
    server.behaviour = Behaviour(pkce="unbound")
    desk = Desk(server, store)
    with desk.exchange() as exchange, pytest.raises(UntrustedServerError) as caught:
        exchange.exchange(desk.answer())
    assert caught.value.code == "pkce_downgrade"
    assert "--pkce off" in caught.value.hint


def test_a_memory_that_cannot_be_written_does_not_keep_a_session(
    server: CellsServer, store: ProfileStore
) -> None:
    write_session(Path(store.config_dir), make_session(server, pkce_binding="bound"))
    (Path(store.config_dir) / "pkce.json").mkdir()
    assert "binds PKCE is not remembered" in log_out(store, "work")
    assert store.names() == []


def test_remembered_metadata_give_way_to_what_the_server_says_now(desk: Desk, server: CellsServer) -> None:
    old = replace(desk.metadata, token_endpoint=f"{server.site}/oidc/moved", jwks_uri=None)
    with desk.exchange(old) as exchange:
        exchange.exchange(desk.answer())
        exchange.identify()
        exchange.save()
    assert desk.stored().metadata == desk.metadata


def test_a_server_that_changed_its_issuer_since_is_noticed_before_the_code_is_sent(
    desk: Desk, server: CellsServer
) -> None:
    answer = desk.answer()
    server.behaviour = Behaviour(issuer="https://elsewhere.example/oidc/")
    with desk.exchange(desk.metadata) as exchange, pytest.raises(UntrustedServerError) as caught:
        exchange.exchange(answer)
    assert caught.value.code == "issuer_mismatch"
    assert server.count("exchange") == 0


@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        ("openid email profile pydio offline", ""),
        ("offline pydio profile email openid more", ""),
        ("openid offline", "email profile pydio"),
        ("openid email profile pydio offline_access", "offline"),
    ],
)
def test_words_of_the_scope_that_were_not_granted(
    server: CellsServer, store: ProfileStore, granted: str, missing: str
) -> None:
    server.behaviour = Behaviour(granted_scope=granted)
    desk = Desk(server, store)
    with desk.exchange() as exchange:
        exchange.exchange(desk.answer())
        assert exchange.missing_scope() == missing


def test_a_refresh_token_that_was_promised_and_did_not_come_is_missing(
    desk: Desk, server: CellsServer
) -> None:
    server.fault("exchange", Fault(edit=lambda answer: {**answer, "refresh_token": None}))
    with desk.exchange() as exchange:
        exchange.exchange(desk.answer())
        assert exchange.missing_scope() == "a refresh token"


# What is refused or not stored is revoked


def test_a_session_that_cannot_be_stored_is_revoked(
    desk: Desk, server: CellsServer, store: ProfileStore
) -> None:
    Path(store.config_dir).mkdir(mode=0o700)
    Path(store.directory).write_text("in the way")
    with desk.exchange() as exchange:
        exchange.exchange(desk.answer())
        exchange.identify()
        with pytest.raises(StoreError):
            exchange.save()
    assert server.refresh_tokens() == []


def test_a_session_that_is_stored_is_kept_though_the_default_cannot_be_chosen(
    desk: Desk, server: CellsServer, store: ProfileStore
) -> None:
    with desk.exchange() as exchange:
        exchange.exchange(desk.answer())
        exchange.identify()
        Path(store.config_dir).mkdir(mode=0o700)
        (Path(store.config_dir) / "config.toml").mkdir()
        exchange.save()
    token = desk.stored().tokens.refresh_token
    assert token is not None
    assert server.refresh_tokens() == [token.reveal()]
    (notice,) = desk.notices
    assert notice.startswith("work was not made the default profile: ")


def test_the_session_of_somebody_else_is_revoked(server: CellsServer, store: ProfileStore) -> None:
    bobs = replace(make_session(server), user=User("another-sub", "bob"))
    write_session(Path(store.config_dir), bobs)
    desk = Desk(server, store)
    before = server.refresh_tokens()
    with desk.exchange() as exchange:
        exchange.exchange(desk.answer())
        with pytest.raises(LoginFailedError) as caught:
            exchange.identify()
    assert (caught.value.exit_code, caught.value.code) == (5, "other_user")
    assert server.refresh_tokens() == before


def replaced_by(server: CellsServer, **changes: Any) -> bool:
    """Whether a stored session with ``changes`` is revoked when another has taken its place."""
    old = make_session(server, **changes)
    with SiteClient(parse_site(server.site), Trust()) as client:
        revoke_replaced(client, old.metadata, old)
    return server.count("revoke") == 1


def test_the_session_that_was_replaced_is_revoked(server: CellsServer) -> None:
    assert replaced_by(server)
    assert server.refresh_tokens() == []


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"site": SITE}, id="of-another-site"),
        pytest.param({"tokens": replace(TOKENS, refresh_token=None)}, id="without-a-refresh-token"),
        pytest.param({"renewals": replace(PROFILE.renewals, rejected_at=1.0)}, id="dead-already"),
    ],
)
def test_nothing_is_sent_for_a_session(server: CellsServer, changes: dict[str, Any]) -> None:
    assert not replaced_by(server, **changes)


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_does_not_revoke_does_not_matter(server: CellsServer, status: int) -> None:
    server.fault("revoke", Fault(status=status))
    assert replaced_by(server)


def test_a_revocation_takes_a_bounded_time(server: CellsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cells_loopback.loopback_login.code_exchange.REVOCATION_TIMEOUT", 0.1)
    answer = threading.Event()
    server.fault("revoke", Fault(hold=answer))
    started = time.monotonic()
    assert replaced_by(server)
    assert time.monotonic() - started < 5
    answer.set()


# Whose profile it is


@pytest.mark.parametrize(
    ("known", "came", "same"),
    [
        pytest.param(USER, USER, True, id="the-same"),
        pytest.param(USER, User(USER.sub, "renamed"), True, id="renamed"),
        pytest.param(USER, User("another", "alice"), False, id="the-same-name-of-another"),
        pytest.param(USER, User("", "alice"), True, id="only-the-name"),
        pytest.param(USER, User("", "bob"), False, id="only-another-name"),
        pytest.param(USER, User(), False, id="nobody-knows-who"),
        pytest.param(User("", "alice"), USER, True, id="only-the-name-was-known"),
        pytest.param(User("", "bob"), USER, False, id="only-another-name-was-known"),
        pytest.param(User(), USER, True, id="nobody-was-known"),
    ],
)
def test_two_users_are_told_apart(desk: Desk, known: User, came: User, same: bool) -> None:
    plan = replace(desk.plan, known=replace(PROFILE, user=known))
    refuse_other_user(replace(plan, force=True), came)
    refuse_other_user(replace(plan, known=None), came)
    if same:
        refuse_other_user(plan, came)
        return
    with pytest.raises(LoginFailedError) as caught:
        refuse_other_user(plan, came)
    assert "--force" in caught.value.hint


# The profile on the disk


def test_members_of_a_newer_version_and_what_was_learned_stay(
    server: CellsServer, store: ProfileStore
) -> None:
    renewals = replace(PROFILE.renewals, longest_rest=1000.0, rejected_at=2.0)
    write_session(Path(store.config_dir), make_session(server, renewals=renewals))
    path = Path(store.path("work"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "from_the_future": {"x": 1}}))
    desk = Desk(server, store)
    with desk.exchange() as exchange:
        exchange.exchange(desk.answer())
        exchange.identify()
        exchange.save()
    profile = desk.stored()
    assert json.loads(path.read_text())["from_the_future"] == {"x": 1}
    assert (profile.renewals.longest_rest, profile.renewals.rejected_at) == (1000.0, None)


@pytest.mark.parametrize(("pkce", "kept"), [("off", "bound"), ("auto", "bound")])
def test_that_a_site_has_bound_is_never_forgotten(
    server: CellsServer, store: ProfileStore, pkce: Any, kept: str
) -> None:
    write_session(Path(store.config_dir), make_session(server))
    desk = Desk(server, store, pkce=pkce)
    with desk.exchange() as exchange:
        exchange.exchange(desk.answer())
        exchange.identify()
        exchange.save()
    assert desk.stored().pkce_binding == kept


def test_saving_returns_what_was_there_and_mends_what_was_damaged(store: ProfileStore) -> None:
    profile = replace(PROFILE, name="work")
    assert save_profile(store, profile) is None
    assert save_profile(store, profile) == profile
    Path(store.path("work")).write_text("{")
    assert save_profile(store, profile) is None
    assert read_session(Path(store.config_dir)) == profile


def test_the_first_profile_becomes_the_default_and_no_other(server: CellsServer, store: ProfileStore) -> None:
    for name in ("first", "second"):
        desk = Desk(server, store)
        desk.plan = replace(desk.plan, name=name)
        with desk.exchange() as exchange:
            exchange.exchange(desk.answer())
            exchange.identify()
            exchange.save()
    assert read_default_profile(store.config_dir) == "first"


def test_a_server_that_fails_is_asked_again_and_given_up_in_time(
    desk: Desk, server: CellsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cells_loopback.http.transport.draw_pause", lambda *_: 0.0)
    server.fault("exchange", Fault(status=502, times=2))
    with desk.exchange() as exchange:
        assert exchange.exchange(desk.answer()) is True
    server.fault("exchange", Fault(status=503, headers={"Retry-After": "3600"}, times=None))
    monkeypatch.undo()
    with desk.exchange() as exchange, pytest.raises(ServerUnavailableError) as caught:
        exchange.exchange(desk.answer())
    assert caught.value.exit_code == 7
    assert "3600" in caught.value.message


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(status=502, body="<html>", processed=True), "status_502"),
        (Fault(status=200, body="<html>", processed=True), "status_200"),
        (Fault(drop="after"), "connection_lost"),
    ],
)
def test_a_code_that_a_lost_answer_has_used_up_is_not_what_failed(
    desk: Desk, server: CellsServer, monkeypatch: pytest.MonkeyPatch, fault: Fault, code: str
) -> None:
    monkeypatch.setattr("cells_loopback.http.transport.draw_pause", lambda *_: 0.0)
    server.fault("exchange", fault)
    with desk.exchange() as exchange, pytest.raises(ServerUnavailableError) as caught:
        exchange.exchange(desk.answer())
    assert (caught.value.exit_code, caught.value.code) == (7, code)
    assert server.count("exchange") == 2
