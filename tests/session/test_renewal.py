"""A session stays alive: one refresh at a time, on the disk before it is seen, its failures told apart."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from examples import NOW, PROFILE, TOKENS, UPTIME
from sessions import age_session, aged, read_session, store_session, write_session

from cells_loopback.clock import uptime, wall
from cells_loopback.errors import (
    CellsLoopbackError,
    LoginFailedError,
    LoginRequiredError,
    NotLoggedInError,
    ServerUnavailableError,
    StoreError,
    UntrustedServerError,
)
from cells_loopback.http import transport
from cells_loopback.http.endpoints import refresh
from cells_loopback.http.transport import SiteClient
from cells_loopback.http.trust import Trust
from cells_loopback.session import renewal
from cells_loopback.session.logout import log_out
from cells_loopback.session.renewal import StoredTokens
from cells_loopback.session.renewal_note import RenewalNote, write_failure
from cells_loopback.store.private_file import Replacement
from cells_loopback.store.profile_document import encode_profile
from cells_loopback.store.profiles import ProfileStore, Settings
from cells_loopback.testing import Behaviour, CellsServer, Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cells_loopback.protocol.tokens import TokenSet
    from cells_loopback.store.profiles import Profile

HTML = "<html><h1>502 Bad Gateway</h1></html>"
NEVER = {"Retry-After": "86400"}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "BACKOFF_BASE", 0.01)
    monkeypatch.setattr(transport, "RETRY_TIMEOUT", 0.3)


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    return tmp_path / "config"


@pytest.fixture
def store(config_dir: Path) -> ProfileStore:
    return ProfileStore(str(config_dir))


def load(store: ProfileStore, name: str = "work") -> StoredTokens:
    return StoredTokens(store, store.read(name))


@pytest.fixture
def expired(server: CellsServer, config_dir: Path, store: ProfileStore) -> StoredTokens:
    """A session whose access token has just ended, here and on the server."""
    store_session(server, config_dir)
    age_session(config_dir, 600)
    server.expire_access_tokens()
    return load(store)


def outcome(tokens: StoredTokens, **options: Any) -> TokenSet | CellsLoopbackError:
    try:
        return tokens.token(**options)
    except CellsLoopbackError as error:
        return error


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """Return what ``work`` returns in that many threads at once."""
    results: list[Any] = []
    ready = threading.Barrier(count)

    def run() -> None:
        ready.wait(30)
        results.append(work())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


class TestRenewing:
    def test_a_valid_token_costs_no_request(
        self, server: CellsServer, config_dir: Path, store: ProfileStore
    ) -> None:
        profile = store_session(server, config_dir)
        assert load(store).token() == profile.tokens
        assert server.count("refresh") == 0

    def test_an_expired_one_is_renewed_and_stored(
        self, server: CellsServer, config_dir: Path, expired: StoredTokens
    ) -> None:
        tokens = expired.token()
        assert server.access_tokens() == [tokens.access_token.reveal()]
        stored = read_session(config_dir)
        assert stored.tokens == tokens == expired.profile.tokens
        assert stored.tokens.refresh_token is not None
        assert server.refresh_tokens() == [stored.tokens.refresh_token.reveal()]
        assert expired.token() == tokens
        assert server.count("refresh") == 1

    def test_the_new_refresh_token_is_on_the_disk_before_anybody_sees_the_new_access_token(
        self, server: CellsServer, config_dir: Path, expired: StoredTokens, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen_while_flushing: list[str] = []
        flush, old = os.fsync, read_session(config_dir).tokens.access_token.reveal()

        def look(descriptor: int) -> None:
            flush(descriptor)
            seen_while_flushing.append(expired.profile.tokens.access_token.reveal())

        monkeypatch.setattr(os, "fsync", look)
        new = expired.token().access_token.reveal()
        assert set(seen_while_flushing) == {old}
        assert new != old

    @pytest.mark.parametrize(
        ("age", "options", "is_renewed"),
        [
            (0, {}, False),
            (500, {}, False),
            (545, {}, True),
            (545, {"min_valid": 30}, False),
            (575, {"min_valid": 30}, True),
            (290, {"min_valid": 300}, False),
            (310, {"min_valid": 300}, True),
            (0, {"min_valid": 1e6}, True),
            (590, {"min_valid": 0}, False),
            (0, {"refresh_now": True}, True),
            (0, {"rejected": "another token"}, False),
        ],
    )
    def test_it_is_renewed_when_it_has_to_be_and_not_before(
        self,
        server: CellsServer,
        config_dir: Path,
        store: ProfileStore,
        age: float,
        options: dict[str, Any],
        is_renewed: bool,
    ) -> None:
        store_session(server, config_dir)
        profile = read_session(config_dir)
        write_session(config_dir, aged(replace(profile, tokens=replace(profile.tokens, renew_early=0)), age))
        load(store).token(**options)
        assert server.count("refresh") == int(is_renewed)

    def test_a_token_that_the_server_refused_is_renewed_once(
        self, server: CellsServer, config_dir: Path, store: ProfileStore
    ) -> None:
        refused = store_session(server, config_dir).tokens.access_token
        source = load(store)
        results = in_threads(8, lambda: source.token(rejected=refused))
        assert server.count("refresh") == 1
        assert {result.access_token.reveal() for result in results} == set(server.access_tokens()[1:])

    def test_a_session_goes_on_for_as_long_as_it_is_used(
        self, server: CellsServer, config_dir: Path, expired: StoredTokens
    ) -> None:
        seen = set()
        for number in range(5):
            seen.add(expired.token().access_token.reveal())
            assert server.count("refresh") == number + 1
            age_session(config_dir, 600)
        assert len(seen) == 5

    def test_a_profile_that_another_process_has_renewed_is_read_again(
        self, server: CellsServer, config_dir: Path, store: ProfileStore, expired: StoredTokens
    ) -> None:
        mine, other = expired, load(store)
        assert other.token() == mine.token()
        assert server.count("refresh") == 1

    def test_an_old_profile_in_memory_is_never_renewed_with(
        self, server: CellsServer, config_dir: Path, store: ProfileStore, expired: StoredTokens
    ) -> None:
        old = read_session(config_dir)
        new = expired.token()
        late = StoredTokens(store, old)
        # As if the file had been replaced between our read and our look at its stamp.
        late._seen = (old, store.stamp("work"))
        assert late.token() == new
        assert server.count("refresh") == 1

    def test_what_the_renewals_tell_about_the_refresh_tokens_life_is_kept(
        self, server: CellsServer, config_dir: Path, store: ProfileStore, expired: StoredTokens
    ) -> None:
        profile = read_session(config_dir)
        long_ago = replace(profile.renewals, refresh_token_at=profile.renewals.refresh_token_at - 86400)
        write_session(config_dir, replace(profile, renewals=long_ago))
        expired.token()
        renewals = read_session(config_dir).renewals
        assert renewals.longest_rest == pytest.approx(86400, abs=60)
        assert renewals.refresh_token_at == pytest.approx(profile.renewals.refresh_token_at, abs=60)
        assert renewals.logged_in_at == profile.renewals.logged_in_at


@pytest.mark.parametrize(
    ("lifetime", "left", "renew_early", "seconds"),
    [
        pytest.param(600.0, 300.0, 0.0, 1.0, id="valid for long: until the next look"),
        pytest.param(600.0, 60.5, 0.0, 0.5, id="due sooner"),
        pytest.param(600.0, 90.5, 30.0, 0.5, id="due sooner by its jitter"),
        pytest.param(None, 0.0, 0.0, 1.0, id="a life unknown: until the next look"),
    ],
)
def test_tokens_are_given_out_until_the_next_look_or_until_they_are_due(
    monkeypatch: pytest.MonkeyPatch,
    store: ProfileStore,
    lifetime: float | None,
    left: float,
    renew_early: float,
    seconds: float,
) -> None:
    age = (lifetime or 0.0) - left
    monkeypatch.setattr(renewal, "wall", lambda: NOW + age)
    monkeypatch.setattr(renewal, "uptime", lambda: UPTIME + age)
    tokens = replace(TOKENS, lifetime=lifetime, renew_early=renew_early)
    assert StoredTokens(store, PROFILE).fresh_until(tokens) == pytest.approx(UPTIME + age + seconds)


class TestOneAtATime:
    def test_threads_of_one_session(self, server: CellsServer, expired: StoredTokens) -> None:
        results = in_threads(50, expired.token)
        assert {result.access_token.reveal() for result in results} == set(server.access_tokens())
        assert (len(results), server.count("refresh")) == (50, 1)

    def test_threads_of_many_sessions(
        self, server: CellsServer, store: ProfileStore, expired: StoredTokens
    ) -> None:
        results = in_threads(16, lambda: load(store).token())
        assert {result.access_token.reveal() for result in results} == set(server.access_tokens())
        assert server.count("refresh") == 1

    def test_a_failure_is_shared_by_those_who_waited_for_it(
        self, server: CellsServer, store: ProfileStore, expired: StoredTokens
    ) -> None:
        server.fault("refresh", Fault(status=503, headers=NEVER, times=None, delay=0.3))
        others = load(store)
        results = in_threads(8, lambda: outcome(expired)) + in_threads(8, lambda: outcome(others))
        assert [type(result) for result in results] == [ServerUnavailableError] * 16
        assert {result.message for result in results} == {
            f"{server.site} is failing: it answers 503 and asks to wait 86400 s"
        }
        assert server.count("refresh") == 2  # the second eight came later

    @pytest.mark.parametrize("has_waited_before", [False, True])
    def test_who_waits_learns_of_a_failure_while_the_lock_is_still_held(
        self, server: CellsServer, store: ProfileStore, expired: StoredTokens, has_waited_before: bool
    ) -> None:
        wanted = store.lock("work")
        with store.lock("work") as lock, ThreadPoolExecutor() as pool:
            waiter = (
                pool.submit(expired.renew_holding, wanted)
                if has_waited_before
                else pool.submit(expired.token)
            )
            while not waiter.done():
                write_failure(lock, RenewalNote(), ServerUnavailableError("it is failing"))
                time.sleep(0.01)
            with pytest.raises(ServerUnavailableError, match="it is failing"):
                waiter.result()
        assert server.count("refresh") == 0

    def test_the_next_call_asks_the_server_anew(self, server: CellsServer, expired: StoredTokens) -> None:
        server.fault("refresh", Fault(status=503, headers=NEVER))
        with pytest.raises(ServerUnavailableError):
            expired.token()
        assert expired.token().access_token.reveal() in server.access_tokens()

    def test_logging_out_meanwhile_ends_the_wait(
        self, server: CellsServer, store: ProfileStore, expired: StoredTokens
    ) -> None:
        lock = store.lock("work")
        assert lock.acquire()
        results: list[object] = []
        waiter = threading.Thread(target=lambda: results.append(outcome(expired)))
        waiter.start()
        store.remove("work", lock)
        lock.release()
        waiter.join(30)
        assert [type(result) for result in results] == [NotLoggedInError]
        assert server.count("refresh") == 0


ANSWERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "no refresh token": lambda answer: {**answer, "refresh_token": None},
    "no id token": lambda answer: without(answer, "id_token"),
    "an id token that is none": lambda answer: {**answer, "id_token": "nonsense"},
    "no expires_in": lambda answer: without(answer, "expires_in"),
    "expires_in a string": lambda answer: {**answer, "expires_in": "599"},
    "expires_in a float": lambda answer: {**answer, "expires_in": 599.25},
    "expires_in a float in a string": lambda answer: {**answer, "expires_in": "599.25"},
    "expires_in null": lambda answer: {**answer, "expires_in": None},
    "expires_in nonsense": lambda answer: {**answer, "expires_in": "ten minutes"},
    "expires_in zero": lambda answer: {**answer, "expires_in": 0},
    "token_type in another case": lambda answer: {**answer, "token_type": "BeArEr"},
    "no token_type": lambda answer: without(answer, "token_type"),
    "another scope": lambda answer: {**answer, "scope": "openid"},
    "no scope": lambda answer: without(answer, "scope"),
    "scope a list": lambda answer: {**answer, "scope": ["openid", "offline"]},
    "scope with a lone surrogate": lambda answer: {**answer, "scope": "openid \ud83d"},
    "extra members": lambda answer: {**answer, "x": {"y": [None]}, "error": None, "version": 9},
}


def without(answer: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != name}


class TestAnswers:
    @pytest.mark.parametrize("edit", ANSWERS.values(), ids=ANSWERS)
    def test_whatever_servers_give_the_session_goes_on(
        self,
        server: CellsServer,
        config_dir: Path,
        expired: StoredTokens,
        edit: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        if edit is ANSWERS["no refresh token"]:
            server.behaviour = Behaviour(refresh_omits=("refresh_token",))
        server.fault("refresh", Fault(edit=edit, times=None))
        for number in range(3):
            tokens = expired.token()
            assert server.access_tokens()[-1] == tokens.access_token.reveal()
            assert read_session(config_dir).tokens == tokens
            assert tokens.token_type == "Bearer"
            assert expired.token() == tokens
            assert server.count("refresh", 200) == number + 1
            server.expire_access_tokens()
            age_session(config_dir, 600)

    def test_a_renewable_token_of_unknown_life_is_taken_to_live_ten_minutes(
        self, server: CellsServer, config_dir: Path, expired: StoredTokens
    ) -> None:
        server.behaviour = Behaviour(expires_in="absent")
        assert expired.token().lifetime == 600
        age_session(config_dir, 500)
        expired.token()
        assert server.count("refresh") == 1
        age_session(config_dir, 100)
        expired.token()
        assert server.count("refresh") == 2

    @pytest.mark.parametrize(
        "edit",
        [
            lambda answer: without(answer, "access_token"),
            lambda answer: {**answer, "access_token": "with a space"},
            lambda answer: {**answer, "access_token": 7},
            lambda answer: {**answer, "token_type": "DPoP"},
        ],
        ids=["no access token", "a broken one", "a number", "of a type we cannot use"],
    )
    def test_of_an_answer_without_a_usable_access_token_the_refresh_token_is_kept(
        self,
        server: CellsServer,
        config_dir: Path,
        expired: StoredTokens,
        edit: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        server.fault("refresh", Fault(edit=edit))
        with pytest.raises(UntrustedServerError, match="without a usable access token") as raised:
            expired.token()
        assert raised.value.exit_code == 9
        kept = read_session(config_dir).tokens.refresh_token
        assert kept is not None
        assert server.refresh_tokens() == [kept.reveal()]
        assert expired.token().access_token.reveal() in server.access_tokens()

    def test_an_answer_without_any_token_is_told_honestly(
        self, server: CellsServer, config_dir: Path, expired: StoredTokens
    ) -> None:
        server.fault("refresh", Fault(edit=lambda answer: {"hello": "world"}))
        with pytest.raises(UntrustedServerError):
            expired.token()
        with pytest.raises(LoginRequiredError, match=r"already used.*could not be used at 20\d\d-"):
            expired.token()


UNAVAILABLE = {
    "503": Fault(status=503),
    "503 with a page": Fault(status=503, body=HTML),
    "429": Fault(status=429),
    "500": Fault(status=500, body='{"error": "server_error"}'),
    "502 of a proxy": Fault(status=502, body=HTML),
    "504 of a proxy": Fault(status=504, body=HTML),
    "408": Fault(status=408),
    "a server still starting": Fault(status=404, body=HTML),
    "a portal": Fault(status=200, body=HTML),
    "server_error in the standard's words": Fault(status=400, body='{"error": "server_error"}'),
    "temporarily_unavailable": Fault(status=400, body='{"error": "temporarily_unavailable"}'),
    "a 401 that is no token endpoint's": Fault(status=401, body=HTML),
    "cut before it was processed": Fault(drop="before"),
}

REFUSED = {
    "invalid_client": LoginFailedError,
    "unauthorized_client": LoginFailedError,
    "invalid_request": LoginFailedError,
    "unsupported_grant_type": LoginFailedError,
    "invalid_scope": LoginFailedError,
    "access_denied": LoginFailedError,
    "an_error_of_the_future": LoginFailedError,
    "invalid_grant": LoginRequiredError,
    "token_inactive": LoginRequiredError,
}


class TestFailures:
    @pytest.mark.parametrize("fault", UNAVAILABLE.values(), ids=UNAVAILABLE)
    def test_a_server_that_fails_is_tried_again_and_nothing_is_lost(
        self, server: CellsServer, expired: StoredTokens, fault: Fault, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(transport, "RETRY_TIMEOUT", 20)
        server.fault("refresh", replace(fault, times=2))
        assert expired.token().access_token.reveal() in server.access_tokens()
        assert server.count("refresh") == 3

    @pytest.mark.parametrize("fault", UNAVAILABLE.values(), ids=UNAVAILABLE)
    def test_one_that_goes_on_failing_is_told_and_the_session_is_kept(
        self, server: CellsServer, config_dir: Path, store: ProfileStore, expired: StoredTokens, fault: Fault
    ) -> None:
        before = read_bytes(store)
        server.fault("refresh", replace(fault, times=None))
        with pytest.raises(ServerUnavailableError) as raised:
            expired.token()
        assert raised.value.exit_code == 7
        assert raised.value.hint
        assert read_bytes(store) == before
        assert server.count("refresh") > 2
        server.clear_faults()
        assert later(store).token().access_token.reveal() in server.access_tokens()

    def test_a_server_that_is_gone_is_told_and_the_session_is_kept(
        self, config_dir: Path, store: ProfileStore
    ) -> None:
        with CellsServer() as server:
            store_session(server, config_dir)
        age_session(config_dir, 600)
        before = read_bytes(store)
        with pytest.raises(ServerUnavailableError, match="refuses connections") as raised:
            load(store).token()
        assert raised.value.code == "refused"
        assert read_bytes(store) == before

    def test_retry_after_is_obeyed(self, server: CellsServer, expired: StoredTokens) -> None:
        server.fault("refresh", Fault(status=503, headers={"Retry-After": "1"}))
        with pytest.raises(ServerUnavailableError, match="asks to wait 1 s"):  # longer than we may wait
            expired.token()
        assert server.count("refresh") == 1

    @pytest.mark.parametrize(("error", "kind"), REFUSED.items())
    def test_a_refusal_is_final_and_told_by_what_can_be_done(
        self,
        server: CellsServer,
        config_dir: Path,
        store: ProfileStore,
        expired: StoredTokens,
        error: str,
        kind: type[CellsLoopbackError],
    ) -> None:
        before = read_session(config_dir)
        body = json.dumps({"error": error, "error_description": "Words of the server."})
        server.fault("refresh", Fault(status=400, body=body, times=None))
        with pytest.raises(kind, match=re.escape("Words of the server.")) as raised:
            expired.token()
        assert server.count("refresh") == 1
        after = read_session(config_dir)
        assert after.tokens == before.tokens
        if kind is LoginFailedError:
            assert raised.value.exit_code == 5
            assert after == before
        else:
            assert raised.value.exit_code == 4
            assert raised.value.hint == "log in again: cells-loopback login --profile work"
            assert after.needs_login

    def test_a_redirected_refresh_is_not_followed(
        self, server: CellsServer, config_dir: Path, store: ProfileStore, expired: StoredTokens
    ) -> None:
        before = read_bytes(store)
        elsewhere = {"Location": f"{server.site}/oidc/oauth2/token/"}
        server.fault("refresh", Fault(status=307, headers=elsewhere, times=None))
        with pytest.raises(UntrustedServerError, match="redirect") as raised:
            expired.token()
        assert raised.value.exit_code == 9
        assert server.count("refresh") == 1
        assert read_bytes(store) == before

    def test_a_certificate_that_is_not_trusted_gets_no_token(
        self, config_dir: Path, store: ProfileStore
    ) -> None:
        with CellsServer(tls=True) as server:
            profile = store_session(server, config_dir)
            write_session(config_dir, aged(replace(profile, settings=Settings()), 600))
            before = read_bytes(store)
            with pytest.raises(UntrustedServerError, match="not trusted"):
                load(store).token()
            assert read_bytes(store) == before
            assert server.count("refresh") == 0
            # Whoever mends the certificate goes on with the same session.
            write_session(config_dir, aged(profile, 600))
            assert load(store).token().access_token.reveal() in server.access_tokens()

    def test_a_server_that_does_not_answer_in_time(
        self, server: CellsServer, expired: StoredTokens, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(transport, "REQUEST_TIMEOUT", 0.3)
        hold = threading.Event()
        server.fault("refresh", Fault(hold=hold, times=None))
        with pytest.raises(ServerUnavailableError, match="in time; nobody knows whether"):
            expired.token()
        hold.set()


class TestRejected:
    def test_a_refused_session_is_not_asked_for_again(
        self, server: CellsServer, store: ProfileStore, expired: StoredTokens
    ) -> None:
        server.revoke_sessions()
        for source in (expired, expired, load(store)):
            with pytest.raises(LoginRequiredError) as raised:
                source.token()
            assert raised.value.code == "refresh_rejected"
            assert raised.value.hint == "log in again: cells-loopback login --profile work"
        assert raised.value.message == "the server no longer renews the session of work"
        assert server.count("refresh") == 1

    def test_all_who_wait_for_a_refusal_are_told_of_it(
        self, server: CellsServer, store: ProfileStore, expired: StoredTokens
    ) -> None:
        server.revoke_sessions()
        results = in_threads(8, lambda: outcome(load(store)))
        assert [type(result) for result in results] == [LoginRequiredError] * 8
        assert server.count("refresh") == 1

    @pytest.mark.parametrize(
        ("before", "after"),
        [(None, 86400), (3600.0, 3600), (200_000.0, 86400)],
        ids=["first", "longer", "shorter"],
    )
    def test_the_shortest_rest_that_was_refused_is_kept(
        self,
        server: CellsServer,
        config_dir: Path,
        store: ProfileStore,
        expired: StoredTokens,
        before: float | None,
        after: float,
    ) -> None:
        profile = read_session(config_dir)
        rested = replace(profile.renewals, refresh_token_at=wall() - 86400, refused_rest=before)
        write_session(config_dir, replace(profile, renewals=rested))
        server.revoke_sessions()
        assert isinstance(outcome(load(store)), LoginRequiredError)
        renewals = read_session(config_dir).renewals
        assert renewals.refused_rest == pytest.approx(after, abs=60)
        assert renewals.rejected_at == pytest.approx(wall(), abs=60)

    def test_a_session_without_refresh_token_ends_with_its_token(
        self, server: CellsServer, config_dir: Path, store: ProfileStore
    ) -> None:
        profile = store_session(server, config_dir)
        write_session(config_dir, replace(profile, tokens=replace(profile.tokens, refresh_token=None)))
        assert load(store).token().access_token == profile.tokens.access_token
        age_session(config_dir, 600)
        with pytest.raises(LoginRequiredError) as raised:
            load(store).token()
        assert raised.value.code == "not_renewable"
        assert raised.value.message == "the session of work cannot be renewed: it has no refresh token"
        assert raised.value.hint == "log in again: cells-loopback login --profile work"
        assert server.count("refresh") == 0

    @pytest.mark.parametrize("age", [0, 560], ids=["new", "with half a minute left"])
    def test_where_locks_do_not_reach_the_store_is_looked_at_again(
        self, server: CellsServer, config_dir: Path, store: ProfileStore, expired: StoredTokens, age: float
    ) -> None:
        hold = threading.Event()
        server.fault("refresh", Fault(hold=hold))
        results: list[object] = []
        waiter = threading.Thread(target=lambda: results.append(outcome(expired)))
        waiter.start()
        server.wait_for("refresh", 1)
        other = renew_without_lock(config_dir, age)
        hold.set()
        waiter.join(30)
        assert results == [other.tokens]
        assert read_session(config_dir) == other

    def test_what_another_has_stored_meanwhile_is_renewed_where_it_has_ended_too(
        self, server: CellsServer, config_dir: Path, store: ProfileStore, expired: StoredTokens
    ) -> None:
        hold = threading.Event()
        server.fault("refresh", Fault(hold=hold, status=400, body='{"error": "invalid_grant"}'))
        results: list[object] = []
        waiter = threading.Thread(target=lambda: results.append(outcome(expired)))
        waiter.start()
        server.wait_for("refresh", 1)
        other = renew_without_lock(config_dir, 600)
        hold.set()
        waiter.join(30)
        assert results == [read_session(config_dir).tokens]
        assert results != [other.tokens]
        assert server.count("refresh") == 3

    def test_a_lost_answer_is_told_honestly(
        self, server: CellsServer, config_dir: Path, store: ProfileStore, expired: StoredTokens
    ) -> None:
        server.fault("refresh", Fault(drop="after"))
        with pytest.raises(LoginRequiredError, match="answer to the renewal just before was lost") as raised:
            expired.token()
        assert raised.value.exit_code == 4
        assert server.count("refresh") == 2

    def test_an_answer_lost_to_an_earlier_process_is_told_honestly(
        self, server: CellsServer, store: ProfileStore, expired: StoredTokens, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(transport, "RETRY_TIMEOUT", 0)
        server.fault("refresh", Fault(drop="after"))
        with pytest.raises(ServerUnavailableError, match="nobody knows whether") as raised:
            expired.token()
        assert raised.value.answer_lost
        assert raised.value.hint == (
            "try again later: the stored session is kept, and the next renewal will tell"
        )
        with pytest.raises(LoginRequiredError, match=r"an answer to a renewal was lost at 20\d\d-.*Z\)"):
            later(store).token()

    def test_a_process_that_was_killed_meanwhile_is_named(
        self, server: CellsServer, store: ProfileStore, expired: StoredTokens
    ) -> None:
        with store.lock("work") as lock:
            lock.write_note("process 77, renewing since 2026-01-01T00:00:00Z")
        server.revoke_sessions()
        with pytest.raises(LoginRequiredError, match=r"cut off before its answer was stored: process 77"):
            expired.token()

    def test_a_note_that_proved_wrong_is_forgotten(
        self, server: CellsServer, config_dir: Path, store: ProfileStore, expired: StoredTokens
    ) -> None:
        with store.lock("work") as lock:
            lock.write_note("process 77, renewing since 2026-01-01T00:00:00Z")
        expired.token()
        age_session(config_dir, 600)
        server.revoke_sessions()
        with pytest.raises(LoginRequiredError) as raised:
            load(store).token()
        assert "77" not in raised.value.message

    def test_a_failure_that_spent_nothing_leaves_no_note(
        self, server: CellsServer, store: ProfileStore, expired: StoredTokens
    ) -> None:
        server.fault("refresh", Fault(status=400, body='{"error": "invalid_client"}'))
        with pytest.raises(LoginFailedError):
            expired.token()
        server.revoke_sessions()
        with pytest.raises(LoginRequiredError) as raised:
            expired.token()
        assert "cut off" not in raised.value.message


class TestEarly:
    """A renewal that only this token's jitter asks for must not hold anybody up."""

    @pytest.fixture
    def early(self, server: CellsServer, config_dir: Path, store: ProfileStore) -> Profile:
        profile = store_session(server, config_dir)
        due = aged(replace(profile, tokens=replace(profile.tokens, renew_early=20.0)), 529)
        write_session(config_dir, due)
        return due

    def test_it_renews(self, server: CellsServer, store: ProfileStore, early: Profile) -> None:
        assert load(store).token() != early.tokens
        assert server.count("refresh") == 1

    @pytest.mark.parametrize("holding", [False, True], ids=["token", "with the lock in hand"])
    @pytest.mark.parametrize(
        ("fault", "requests"),
        [
            (Fault(status=503, times=None), 1),
            (Fault(drop="before", times=None), 1),
            (Fault(status=400, body='{"error": "invalid_grant"}'), 1),
        ],
        ids=["failing", "cut", "refused"],
    )
    def test_one_that_fails_gives_the_token_that_is_still_good(
        self,
        server: CellsServer,
        store: ProfileStore,
        early: Profile,
        fault: Fault,
        requests: int,
        holding: bool,
    ) -> None:
        server.fault("refresh", fault)
        source = load(store)
        if holding:
            lock = store.lock("work")
            lock.acquire()
            assert source.renew_holding(lock) == early.tokens
        else:
            assert source.token() == early.tokens
        assert server.count("refresh") == requests
        assert store.lock("work").try_acquire()

    def test_a_full_disk_gives_the_token_that_is_still_good(
        self, server: CellsServer, store: ProfileStore, early: Profile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(name: str) -> None:
            raise StoreError("no space left")

        monkeypatch.setattr(store, "replacement", fail)
        assert load(store).token() == early.tokens
        assert server.count("refresh") == 0

    def test_what_the_caller_asks_for_is_not_early(
        self, server: CellsServer, store: ProfileStore, early: Profile
    ) -> None:
        server.fault("refresh", Fault(status=503, headers=NEVER, times=None))
        with pytest.raises(ServerUnavailableError):
            load(store).token(min_valid=100)
        lock = store.lock("work")
        lock.acquire()
        with pytest.raises(ServerUnavailableError):
            load(store).renew_holding(lock, 100)


class TestHolding:
    """For the warm path, which hands over the lock that it waited for."""

    def test_it_renews_and_gives_the_lock_back(
        self, server: CellsServer, config_dir: Path, store: ProfileStore, expired: StoredTokens
    ) -> None:
        lock = store.lock("work")
        lock.acquire()
        assert expired.renew_holding(lock) == read_session(config_dir).tokens
        assert server.count("refresh") == 1
        assert store.lock("work").try_acquire()

    def test_it_decides_anew(self, server: CellsServer, config_dir: Path, store: ProfileStore) -> None:
        profile = store_session(server, config_dir)
        lock = store.lock("work")
        lock.acquire()
        assert load(store).renew_holding(lock) == profile.tokens
        assert server.count("refresh") == 0
        assert store.lock("work").try_acquire()

    def test_a_failure_gives_the_lock_back_too(
        self, server: CellsServer, store: ProfileStore, expired: StoredTokens
    ) -> None:
        server.revoke_sessions()
        lock = store.lock("work")
        lock.acquire()
        with pytest.raises(LoginRequiredError):
            expired.renew_holding(lock)
        assert store.lock("work").try_acquire()


class TestDisk:
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
    def test_without_room_for_the_answer_it_is_not_asked_for(
        self,
        server: CellsServer,
        store: ProfileStore,
        expired: StoredTokens,
        number: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        before = read_bytes(store)

        def fail(descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(StoreError) as raised:
                expired.token()
        assert raised.value.exit_code == 8
        assert server.count("refresh") == 0
        assert read_bytes(store) == before
        assert expired.token().access_token.reveal() in server.access_tokens()

    def test_a_disk_that_fails_for_a_while_is_tried_again(
        self, server: CellsServer, config_dir: Path, expired: StoredTokens, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failures = fail_to_rename(monkeypatch, 2)
        assert expired.token() == read_session(config_dir).tokens
        assert failures == []
        assert server.count("refresh") == 1

    def test_a_session_that_cannot_be_written_is_kept_in_memory_and_told(
        self, server: CellsServer, config_dir: Path, expired: StoredTokens, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(renewal, "WRITE_TIMEOUT", 0.05)
        with monkeypatch.context() as patch:
            fail_to_rename(patch, 1000)
            for _ in range(2):
                with pytest.raises(StoreError, match="was renewed but could not be stored") as raised:
                    expired.token()
                assert (raised.value.exit_code, raised.value.code) == (8, "unwritten")
        tokens = expired.token()
        assert tokens == read_session(config_dir).tokens
        assert server.access_tokens() == [tokens.access_token.reveal()]
        assert server.count("refresh") == 1

    def test_what_could_not_be_written_at_all_is_written_by_the_next_call(
        self, server: CellsServer, config_dir: Path, expired: StoredTokens, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(renewal, "WRITE_TIMEOUT", 0.05)

        def fail(replacement: Replacement, content: bytes) -> None:
            raise StoreError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(Replacement, "commit", fail)
            with pytest.raises(StoreError) as raised:
                expired.token()
        assert raised.value.message == "the session was renewed but could not be stored: the disk is full"
        assert raised.value.hint == "the stored refresh token is spent now: mend the disk, then log in again"
        assert expired.token() == read_session(config_dir).tokens
        assert server.access_tokens() == [expired.token().access_token.reveal()]
        assert server.count("refresh") == 1

    def test_what_could_not_be_renamed_is_found_by_the_next_process(
        self, server: CellsServer, store: ProfileStore, expired: StoredTokens, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(renewal, "WRITE_TIMEOUT", 0.05)
        with monkeypatch.context() as patch:
            fail_to_rename(patch, 1000)
            with pytest.raises(StoreError):
                expired.token()
        tokens = load(store).token()
        assert server.access_tokens() == [tokens.access_token.reveal()]
        assert server.count("refresh") == 1
        assert expired.token() == tokens

    def test_another_login_meanwhile_is_not_written_over(
        self, server: CellsServer, config_dir: Path, expired: StoredTokens, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(renewal, "WRITE_TIMEOUT", 0.05)
        with monkeypatch.context() as patch:
            fail_to_rename(patch, 1000)
            with pytest.raises(StoreError):
                expired.token()
        anew = store_session(server, config_dir)
        assert expired.token() == anew.tokens
        assert read_session(config_dir) == anew

    def test_a_session_that_was_logged_out_meanwhile_does_not_come_back(
        self, store: ProfileStore, expired: StoredTokens, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(renewal, "WRITE_TIMEOUT", 0.05)
        with monkeypatch.context() as patch:
            fail_to_rename(patch, 1000)
            with pytest.raises(StoreError):
                expired.token()
        log_out(store, "work")
        with pytest.raises(NotLoggedInError):
            expired.token()
        assert store.names() == []
        assert not [name for name in os.listdir(store.directory) if name.endswith(".tmp")]

    def test_a_stored_session_with_odd_members_is_renewed_with_them(
        self, server: CellsServer, config_dir: Path, expired: StoredTokens
    ) -> None:
        profile = read_session(config_dir)
        write_session(config_dir, replace(profile, unknown={"plugin": {"colour": "blue"}}))
        expired.token()
        assert read_session(config_dir).unknown == {"plugin": {"colour": "blue"}}


class TestClocks:
    """The age of a token is judged by two clocks of our own, and by none of the server's."""

    @pytest.fixture
    def session(self, server: CellsServer, config_dir: Path, store: ProfileStore) -> StoredTokens:
        store_session(server, config_dir)
        return load(store)

    @pytest.mark.parametrize(
        ("wall_moved", "uptime_moved", "is_renewed"),
        [
            pytest.param(300, 300, False, id="five minutes later"),
            pytest.param(600, 600, True, id="ten minutes later"),
            pytest.param(28800, 28800, True, id="after a suspend"),
            pytest.param(28800, 1, True, id="after a suspend that the uptime clock slept through"),
            pytest.param(-7200, 300, False, id="five minutes, the clock set back by two hours"),
            pytest.param(-7200, 600, True, id="ten minutes, the clock set back by two hours"),
            pytest.param(7200, 300, True, id="the clock set ahead by two hours: renewed too early"),
            pytest.param(300, -1e9, False, id="five minutes, with a restart"),
            pytest.param(600, -1e9, True, id="ten minutes, with a restart"),
            pytest.param(-7200, -1e9, True, id="a restart and a clock set back: nobody knows"),
        ],
    )
    def test_clocks_that_are_set_and_machines_that_sleep(
        self,
        server: CellsServer,
        session: StoredTokens,
        wall_moved: float,
        uptime_moved: float,
        is_renewed: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        now, now_uptime = wall(), uptime()
        for module in (renewal, transport):
            monkeypatch.setattr(module, "wall", lambda: now + wall_moved)
            monkeypatch.setattr(module, "uptime", lambda: now_uptime + uptime_moved)
        tokens = session.token()
        assert server.count("refresh") == int(is_renewed)
        assert session.token() == tokens  # judged by the new readings it is fresh
        assert server.count("refresh") == int(is_renewed)

    @pytest.mark.parametrize("offset", [-7200, 7200, -86400 * 365])
    def test_a_server_whose_clock_is_hours_off_changes_nothing(
        self, server: CellsServer, config_dir: Path, expired: StoredTokens, offset: float
    ) -> None:
        server.behaviour = Behaviour(clock_offset=offset)
        tokens = expired.token()
        assert expired.token() == tokens
        assert server.count("refresh") == 1
        assert tokens.expires_at == pytest.approx(server.now() + 599, abs=5)

    def test_machines_that_got_their_tokens_together_come_back_apart(
        self, server: CellsServer, config_dir: Path, expired: StoredTokens
    ) -> None:
        drawn = set()
        for _ in range(5):
            drawn.add(expired.token().renew_early)
            age_session(config_dir, 600)
        assert len(drawn) == 5
        assert all(0 <= early <= 30 for early in drawn)


class TestSecrets:
    def test_no_failure_shows_any(
        self,
        server: CellsServer,
        config_dir: Path,
        store: ProfileStore,
        expired: StoredTokens,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        spent = read_session(config_dir).tokens.refresh_token
        assert spent is not None
        echo = json.dumps({"error": "invalid_grant", "error_description": f"{spent.reveal()} is spent"})
        texts: list[str] = []
        for fault in (
            Fault(status=502, body=HTML, times=2),
            Fault(status=200, body=f"<p>{spent.reveal()}</p>", times=None),
            Fault(status=400, body=echo),
        ):
            server.clear_faults()
            server.fault("refresh", fault)
            error = outcome(later(store))
            texts += [str(error), repr(error), getattr(error, "hint", "")]
        texts += [record.getMessage() for record in caplog.records]
        texts += [store.lock("work").read_note()]
        assert texts
        for secret in server.secrets():
            assert not [text for text in texts if secret in text]


def read_bytes(store: ProfileStore) -> bytes:
    with open(store.path("work"), "rb") as file:
        return file.read()


def later(store: ProfileStore) -> StoredTokens:
    """Return the session as a process sees it that comes when the last failure is no longer shared."""
    lock = store.lock("work")
    with lock:
        text = lock.read_note()
        lock.write_note(re.sub(r'"at": [0-9.]+', '"at": 1.0', text))
    return load(store)


def renew_without_lock(config_dir: Path, seconds_ago: float = 0) -> Profile:
    """Renew as another machine does that shares the home directory but no locks."""
    profile = read_session(config_dir)
    with SiteClient(profile.site, Trust()) as client:
        tokens = refresh(client, profile.metadata, profile.client, profile.tokens)
    renewed = aged(replace(profile, tokens=replace(tokens, id_token=None)), seconds_ago)
    store = ProfileStore(str(config_dir))
    path = store.path(profile.name)
    with open(path + ".other", "w", encoding="utf-8") as file:
        json.dump(encode_profile(renewed), file)
    os.chmod(path + ".other", 0o600)
    os.replace(path + ".other", path)
    return renewed


def fail_to_rename(monkeypatch: pytest.MonkeyPatch, times: int) -> list[None]:
    """Let the next renames fail; the list that is returned is empty when they have."""
    left = [None] * times
    rename = os.replace

    def fail(source: str, target: str) -> None:
        if left:
            left.pop()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail)
    return left
