"""A session gives out a valid token at once, and sees what other processes do within a second."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import pickle
import signal
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sessions import age_session, read_session, store_session

from cells_loopback import NotLoggedInError, Session, StoreError, UsageError
from cells_loopback.clock import uptime, wall
from cells_loopback.errors import LoginRequiredError
from cells_loopback.secret import Secret
from cells_loopback.session import renewal
from cells_loopback.session.logout import log_out
from cells_loopback.session.renewal import StoredTokens
from cells_loopback.session.session import GivenToken, parse_given_token
from cells_loopback.store.lock import FileLock
from cells_loopback.store.profiles import ProfileStore
from cells_loopback.testing import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cells_loopback.testing import CellsServer


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    return tmp_path / "config"


def load(config_dir: Path, name: str | None = None) -> Session:
    return Session.load(name, config_dir=str(config_dir))


def access_token(config_dir: Path, name: str = "work") -> str:
    return read_session(config_dir, name).tokens.access_token.reveal()


class TestLoading:
    def test_the_default_session_or_a_named_one(
        self, server: CellsServer, config_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store_session(server, config_dir)
        store_session(server, config_dir, "home")
        assert load(config_dir).profile == "work"
        assert load(config_dir, "home").profile == "home"
        monkeypatch.setenv("CELLS_LOOPBACK_PROFILE", "home")
        assert load(config_dir).profile == "home"
        monkeypatch.setenv("CELLS_LOOPBACK_CONFIG_DIR", str(config_dir))
        assert Session.load().access_token() == access_token(config_dir, "home")

    def test_it_knows_its_site_and_its_user(self, server: CellsServer, config_dir: Path) -> None:
        store_session(server, config_dir)
        session = load(config_dir)
        assert session.site == server.site
        assert session.user is not None
        assert session.user.name == "alice"
        assert session.stored == read_session(config_dir)

    def test_there_may_be_none(self, config_dir: Path) -> None:
        with pytest.raises(NotLoggedInError) as raised:
            load(config_dir)
        assert raised.value.exit_code == 3
        with pytest.raises(NotLoggedInError):
            load(config_dir, "work")
        with pytest.raises(UsageError):
            load(config_dir, "../work")

    def test_a_damaged_one_is_told(self, server: CellsServer, config_dir: Path) -> None:
        store_session(server, config_dir)
        (config_dir / "profiles" / "work.json").write_text("{", encoding="utf-8")
        with pytest.raises(StoreError) as raised:
            load(config_dir)
        assert raised.value.exit_code == 8


class TestGivenToken:
    """``CELLS_LOOPBACK_TOKEN``: this token, and no store at all."""

    @pytest.fixture(autouse=True)
    def given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CELLS_LOOPBACK_TOKEN", "a-given-token")
        monkeypatch.setenv("CELLS_SITE", "https://files.example.com/")

    def test_it_is_used_and_no_store_is_touched(self, tmp_path: Path) -> None:
        session = load(tmp_path / "missing")
        assert session.access_token() == "a-given-token"
        assert asyncio.run(session.access_token_async()) == "a-given-token"
        assert session.site == "https://files.example.com"
        assert (session.profile, session.user) == (None, None)
        assert not (tmp_path / "missing").exists()
        with pytest.raises(NotLoggedInError, match="CELLS_LOOPBACK_TOKEN"):
            _ = session.stored

    def test_a_named_profile_comes_first(self, server: CellsServer, config_dir: Path) -> None:
        store_session(server, config_dir)
        assert load(config_dir, "work").access_token() == access_token(config_dir)

    def test_it_cannot_be_renewed(self, config_dir: Path) -> None:
        session = load(config_dir)
        assert session.token(min_valid=1e9).access_token == Secret("a-given-token")
        forced: list[dict[str, Any]] = [{"refresh_now": True}, {"rejected": Secret("a-given-token")}]
        for options in forced:
            with pytest.raises(LoginRequiredError) as raised:
                session.token(**options)
            assert (raised.value.exit_code, raised.value.code) == (4, "not_renewable")
            assert raised.value.message == "the token in CELLS_LOOPBACK_TOKEN cannot be renewed"
            assert raised.value.hint == ("put a new one into CELLS_LOOPBACK_TOKEN, or unset it and log in")
        assert session.token(rejected=Secret("another")).access_token == Secret("a-given-token")

    def test_without_a_site_only_the_site_is_missing(
        self, config_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("CELLS_SITE")
        session = load(config_dir)
        assert session.access_token() == "a-given-token"
        with pytest.raises(UsageError, match="not for which site") as raised:
            _ = session.site
        assert "CELLS_SITE" in raised.value.hint

    @pytest.mark.parametrize("text", ["", " ", "two words", "ü", "a\0b", "a\nb"])
    def test_what_can_be_no_token_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError) as raised:
            parse_given_token(text)
        assert raised.value.hint
        assert raised.value.message == (
            "that is no access token: it is empty or holds a space or a special character"
        )

    def test_space_around_it_is_not_part_of_it(self) -> None:
        assert parse_given_token(" !token~\n") == Secret("!token~")

    def test_who_holds_the_lock_of_a_profile_is_given_it_too(self, config_dir: Path) -> None:
        lock = FileLock(str(config_dir / "work.lock"))
        assert load(config_dir).renew_holding(lock).access_token == Secret("a-given-token")


class TestAccessToken:
    @pytest.fixture
    def session(self, server: CellsServer, config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
        assert renewal.LOOK_AGAIN == 1.0
        monkeypatch.setattr(renewal, "LOOK_AGAIN", 0.2)
        store_session(server, config_dir)
        session = load(config_dir)
        session.access_token()
        return session

    def test_the_disk_is_not_looked_at_on_each_call(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks = count_calls(monkeypatch, ProfileStore, "stamp")
        reads = count_calls(monkeypatch, ProfileStore, "read")
        began = time.monotonic()
        for _ in range(10_000):
            session.access_token()
        assert len(looks) <= 1 + (time.monotonic() - began) / renewal.LOOK_AGAIN
        assert reads == []

    def test_a_renewal_by_another_process_is_seen_in_time(
        self, server: CellsServer, config_dir: Path, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = session.access_token()
        load(config_dir).token(refresh_now=True)
        new = access_token(config_dir)
        ask_until(session, new)
        assert new != old
        assert server.count("refresh") == 1

    def test_a_logout_by_another_process_is_seen_in_time(self, config_dir: Path, session: Session) -> None:
        log_out(ProfileStore(str(config_dir)), "work")
        with pytest.raises(NotLoggedInError):
            ask_until(session, "anything else")

    def test_an_end_that_comes_sooner_is_not_slept_through(self, session: Session) -> None:
        assert isinstance(session._source, StoredTokens)
        now = uptime()
        tokens = replace(
            session.stored.tokens,
            lifetime=600.0,
            renew_early=0.0,
            obtained_at=wall() - 539.95,
            obtained_uptime=now - 539.95,
        )
        assert session._source.fresh_until(tokens) == pytest.approx(now + 0.05, abs=0.04)

    def test_a_renewal_elsewhere_holds_up_nobody_whose_token_is_valid(self, session: Session) -> None:
        source = session._source
        assert isinstance(source, StoredTokens)
        results: list[str] = []
        with source._renewing:
            threads = [
                threading.Thread(target=lambda: results.append(session.access_token())) for _ in range(32)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        assert len(results) == 32

    def test_a_loop_is_left_free_while_a_renewal_runs(
        self, server: CellsServer, config_dir: Path, session: Session
    ) -> None:
        age_session(config_dir, 600)
        hold = threading.Event()
        server.fault("refresh", Fault(hold=hold))
        session._fresh = (Secret(""), float("-inf"))

        async def main() -> str:
            asked = asyncio.ensure_future(session.access_token_async())
            await asyncio.to_thread(server.wait_for, "refresh", 1)
            hold.set()  # said by this very loop, while the token is waited for
            return await asked

        assert asyncio.run(main()) == access_token(config_dir)

    def test_a_token_that_does_not_live_as_long_as_asked_is_renewed(
        self, server: CellsServer, config_dir: Path, session: Session
    ) -> None:
        old = session.token(min_valid=300)
        assert session.token(min_valid=550) == old
        age_session(config_dir, 200)
        session = load(config_dir)
        assert session.token(min_valid=300).access_token == old.access_token
        assert session.token(min_valid=500).access_token != old.access_token
        assert server.count("refresh") == 1

    @pytest.mark.parametrize(("min_valid", "refreshes"), [(None, 0), (300, 0), (500, 1)])
    def test_who_holds_the_lock_renews_with_it_and_gives_it_back(
        self, server: CellsServer, config_dir: Path, session: Session, min_valid: float | None, refreshes: int
    ) -> None:
        age_session(config_dir, 200)
        lock = ProfileStore(str(config_dir)).lock("work")
        assert lock.try_acquire()
        tokens = load(config_dir).renew_holding(lock, min_valid)
        assert tokens.access_token.reveal() == access_token(config_dir)
        assert server.count("refresh") == refreshes
        assert ProfileStore(str(config_dir)).lock("work").try_acquire()

    def test_fresh_token_never_waits(self, server: CellsServer, config_dir: Path, session: Session) -> None:
        assert session.fresh_token() == Secret(access_token(config_dir))
        assert load(config_dir).fresh_token() is None


def ask_until(session: Session, token: str) -> None:
    """Ask again and again until this token comes."""
    deadline = time.monotonic() + 10
    while session.access_token() != token:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def count_calls(monkeypatch: pytest.MonkeyPatch, place: type, name: str) -> list[None]:
    calls: list[None] = []
    original: Callable[..., Any] = getattr(place, name)

    def counted(*arguments: Any) -> Any:
        calls.append(None)
        return original(*arguments)

    monkeypatch.setattr(place, name, counted)
    return calls


class TestManners:
    def test_a_program_keeps_its_loop_its_logging_and_its_signal_handlers(
        self, server: CellsServer, config_dir: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        store_session(server, config_dir)
        age_session(config_dir, 600)

        def surroundings() -> tuple[object, ...]:
            handlers = [signal.getsignal(number) for number in signal.valid_signals() if number < 32]
            loggers = (
                logging.root.handlers[:],
                logging.root.level,
                logging.getLogger("cells_loopback").handlers[:],
            )
            return handlers, loggers, os.environ.copy(), sys.excepthook, threading.excepthook, os.getcwd()

        before = surroundings()
        session = load(config_dir)
        session.access_token()
        asyncio.run(session.access_token_async())
        assert surroundings() == before
        assert capfd.readouterr() == ("", "")

    def test_it_shows_no_secret(self, server: CellsServer, config_dir: Path) -> None:
        store_session(server, config_dir)
        session = load(config_dir)
        session.access_token()
        for thing in (session, session.stored, session.token(), session.auth, session._source):
            for text in (repr(thing), str(thing)):
                assert access_token(config_dir) not in text

    @pytest.mark.parametrize("carry", [pickle.dumps, copy.deepcopy], ids=["pickled", "copied"])
    def test_its_secrets_do_not_leave_the_process(
        self, server: CellsServer, config_dir: Path, carry: Callable[[object], object]
    ) -> None:
        store_session(server, config_dir)
        with pytest.raises(TypeError):
            carry(load(config_dir).stored)

    def test_every_kind_of_source_is_a_source(self) -> None:
        given = GivenToken("files.example.com", Secret("token"))
        assert Session(given).token().access_token == Secret("token")
        assert given.site == "https://files.example.com"
