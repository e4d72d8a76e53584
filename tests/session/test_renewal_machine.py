"""Whatever happens in whatever order: no refresh token is used twice, and no session is lost that lives.

Unless, in both cases, the answer to a renewal was lost on its way or died with its process before it
was written: the one loss that nobody can prevent.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from cut_off import STEPS, CutOff
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from requires import THOROUGH
from sessions import age_session, read_session, store_session

from cells_loopback.errors import CellsLoopbackError
from cells_loopback.http import transport
from cells_loopback.session.logout import log_out
from cells_loopback.session.renewal import StoredTokens
from cells_loopback.store.private_file import temporary_path
from cells_loopback.store.profiles import ProfileStore
from cells_loopback.testing import CellsServer, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cells_loopback.testing import RecordedRequest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks and signals of POSIX")


class Sessions(RuleBasedStateMachine):
    """One profile, one long-lived process (this one), any number of others that come and go."""

    def __init__(self, server: CellsServer, cut_off: CutOff, config_dir: Path) -> None:
        super().__init__()
        self.server, self.cut_off, self.config_dir = server, cut_off, config_dir
        self.store = ProfileStore(str(config_dir))
        self.ours: StoredTokens
        self.is_logged_in = False
        self.is_answer_lost = False
        self.is_revoked = False
        self.first_request = 0

    # What people do

    @initialize()
    def first_login(self) -> None:
        if self.store.exists("work"):
            log_out(self.store, "work")
        self.log_in()

    @precondition(lambda self: not self.is_logged_in)
    @rule()
    def log_in(self) -> None:
        self.server.clear_faults()
        store_session(self.server, self.config_dir)
        self.ours = StoredTokens(self.store, self.store.read("work"))
        self.is_logged_in = True
        self.is_answer_lost = self.is_revoked = False
        self.first_request = len(self.server.requests)

    @precondition(lambda self: self.is_logged_in)
    @rule()
    def log_out(self) -> None:
        self.server.clear_faults()
        log_out(self.store, "work")
        self.is_logged_in = False

    # What time and servers do

    @precondition(lambda self: self.is_logged_in)
    @rule()
    def expire(self) -> None:
        self.server.expire_access_tokens()
        age_session(self.config_dir, 600)

    @precondition(lambda self: self.is_logged_in)
    @rule()
    def revoke(self) -> None:
        self.server.revoke_sessions()
        self.is_revoked = True

    @rule(status=st.sampled_from([429, 500, 502, 503, 504]))
    def fail_next(self, status: int) -> None:
        self.server.clear_faults()
        self.server.fault("refresh", Fault(status=status, headers={"Retry-After": "86400"}))

    @rule()
    def cut_next_before_it_is_processed(self) -> None:
        self.server.clear_faults()
        self.server.fault("refresh", Fault(drop="before"))

    @rule()
    def lose_next_answer(self) -> None:
        self.server.clear_faults()
        self.server.fault("refresh", Fault(drop="after"))

    # What processes do

    @rule(forced=st.booleans())
    def use_ours(self, forced: bool) -> None:
        before = self.processed()
        try:
            token = self.ours.token(refresh_now=forced).access_token.reveal()
        except CellsLoopbackError as error:
            self.judge_failure(error.exit_code)
        else:
            self.judge_token(token)
        self.note_lost_answers(before)

    @precondition(lambda self: self.is_logged_in)
    @rule()
    def use_ours_after_a_401(self) -> None:
        before = self.processed()
        try:
            rejected = self.ours.profile.tokens.access_token
            self.judge_token(self.ours.token(rejected=rejected).access_token.reveal())
        except CellsLoopbackError as error:
            self.judge_failure(error.exit_code)
        self.note_lost_answers(before)

    @rule()
    def use_another(self) -> None:
        before = self.processed()
        code = self.cut_off.renew()
        self.note_lost_answers(before)
        if code == 0:
            self.judge_token(read_session(self.config_dir).tokens.access_token.reveal())
        else:
            self.judge_failure(code)

    @precondition(lambda self: self.is_logged_in)
    @rule(step=st.sampled_from(STEPS))
    def kill_another(self, step: str) -> None:
        self.expire()
        before = self.processed()
        self.cut_off.renew(step, signal.SIGKILL)
        self.note_lost_answers(before)  # with the process, or on the way to it before

    @precondition(lambda self: self.is_logged_in)
    @rule(step=st.sampled_from(STEPS), number=st.sampled_from([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
    def interrupt_another(self, step: str, number: signal.Signals) -> None:
        self.expire()
        before = self.processed()
        self.cut_off.renew(step, number)
        self.note_lost_answers(before)

    # What must hold

    @invariant()
    def the_file_is_whole(self) -> None:
        if self.is_logged_in:
            assert read_session(self.config_dir).name == "work"

    @invariant()
    def no_refresh_token_is_used_twice(self) -> None:
        if self.is_answer_lost:
            return
        spent = [request.form["refresh_token"] for request in self.refreshes() if request.status == 200]
        used = [
            request.form["refresh_token"]
            for request in self.refreshes()
            if request.status == 400 and not self.is_revoked
        ]
        assert len(spent) == len(set(spent))
        assert used == []

    @invariant()
    def no_session_is_lost_that_the_server_honours(self) -> None:
        if self.is_logged_in and not self.is_answer_lost and not self.is_revoked:
            assert self.held_refresh_tokens() & set(self.server.refresh_tokens())

    # Helpers

    def refreshes(self) -> list[RecordedRequest]:
        """Return the refresh requests of the present session."""
        requests = self.server.requests[self.first_request :]
        return [request for request in requests if request.kind == "refresh"]

    def processed(self) -> int:
        """Return how many refresh tokens have been made."""
        return sum(secret.startswith("ory_rt_") for secret in self.server.secrets())

    def note_lost_answers(self, before: int) -> None:
        """Note that the server has renewed and the answer never came."""
        answered = self.held_refresh_tokens()
        made = [secret for secret in self.server.secrets() if secret.startswith("ory_rt_")][before:]
        if made and not answered.intersection(made):
            self.is_answer_lost = True

    def held_refresh_tokens(self) -> set[str]:
        """Return the refresh tokens on the disk: the stored one, and one that waits to be put in place."""
        held: set[str] = set()
        path = self.store.path("work")
        for place in (path, temporary_path(path)):
            try:
                with open(place, "rb") as file:
                    held.add(json.loads(file.read().rstrip(b"\0"))["token"]["refresh_token"])
            except (OSError, ValueError):
                continue
        return held

    def judge_token(self, token: str) -> None:
        """A token was given out: it is the stored session's, and it is live unless the server revoked it."""
        assert self.is_logged_in
        if not self.is_revoked and not self.is_answer_lost:
            assert self.server.is_live_access_token(token)

    def judge_failure(self, code: int) -> None:
        """None was given out: there must be a reason."""
        if code == 3:
            assert not self.is_logged_in
        elif code == 4:
            assert self.is_revoked or self.is_answer_lost or self.was_answer_lost()
            self.log_in()  # as the person then does
        else:
            assert code == 7

    def was_answer_lost(self) -> bool:
        """Whether the server's log has a refresh that was carried out and never answered."""
        return any(request.status is None for request in self.refreshes())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Sessions]]:
    monkeypatch.setattr(transport, "BACKOFF_BASE", 0.01)
    monkeypatch.setattr(transport, "BACKOFF_CAP", 0.01)
    config_dir = tmp_path / "config"
    cut_off = CutOff(config_dir)
    with CellsServer() as server:

        class Here(Sessions):
            def __init__(self) -> None:
                super().__init__(server, cut_off, config_dir)

        yield Here
    cut_off.close()


def test_sessions(machine: type[Sessions]) -> None:
    effort = settings(
        max_examples=100 if THOROUGH else 12,
        stateful_step_count=15,
        deadline=None,
        phases=[Phase.generate],  # a story of fifteen steps is read faster than it is shortened
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    run_state_machine_as_test(machine, settings=effort)
