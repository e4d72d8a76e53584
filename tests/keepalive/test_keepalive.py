"""When the keep-alive does something, and what a run of it leaves behind."""

from __future__ import annotations

import json
import math
import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from examples import NOW, PROFILE, UPTIME
from hypothesis import given
from hypothesis import strategies as st
from kept_alive import KeptAlive, rest_session
from moved_clock import MovedClock
from sessions import age_session, make_session, read_session, store_session, write_session

from cells_loopback.errors import (
    CellsLoopbackError,
    LoginRequiredError,
    ServerUnavailableError,
    StoreError,
    UntrustedServerError,
)
from cells_loopback.keepalive.keepalive import AHEAD
from cells_loopback.keepalive.policy import (
    DAILY,
    DAY,
    HOUR,
    RETRY_FIRST,
    RETRY_LONGEST,
    SHORTEST_REST,
    Watched,
    next_try_at,
    note_outcome,
    pause_after,
    renewal_due_in,
    rest_before_renewal,
    watch,
    worst_exit_code,
)
from cells_loopback.keepalive.services import PERIOD_HOURS, SPREAD_MINUTES
from cells_loopback.keepalive.state import Record, State, StateFile
from cells_loopback.store.profiles import Settings
from cells_loopback.testing import Behaviour, CellsServer, Fault

if TYPE_CHECKING:
    from pathlib import Path

WATCHED = watch(PROFILE)
REFRESH_TOKEN_AT = NOW - 3 * DAY
BUSY = Fault(status=503, headers={"Retry-After": "60"}, times=None)

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=30)
instants = st.floats(0, 4e9)
lives = st.floats(0, 400 * DAY)


# -- when a renewal is due


@given(names, instants)
def test_a_refresh_token_rests_for_about_a_day_until_its_life_is_known(name: str, at: float) -> None:
    session = replace(WATCHED, name=name, refresh_token_at=at)
    assert DAILY[0] <= rest_before_renewal(session) <= DAILY[1]


@given(names, instants, lives)
def test_a_life_known_to_be_short_shortens_the_rest_so_that_two_renewals_may_be_missed(
    name: str, at: float, life: float
) -> None:
    rest = rest_before_renewal(replace(WATCHED, name=name, refresh_token_at=at, lifetime=life))
    assert SHORTEST_REST <= rest <= DAILY[1]
    assert rest <= max(life / 3, SHORTEST_REST)


@given(names, instants)
def test_a_life_of_two_days_survives_a_run_that_is_missed_by_a_quarter_of_a_day(name: str, at: float) -> None:
    session = replace(WATCHED, name=name, refresh_token_at=at)
    assert rest_before_renewal(session) + AHEAD + DAY / 4 < 2 * DAY


def test_the_rest_is_the_same_whenever_it_is_asked_for_and_another_for_each_profile_and_token() -> None:
    sessions = [
        replace(WATCHED, name=f"p{number}", refresh_token_at=NOW + later)
        for number in range(50)
        for later in (0, 1)
    ]
    rests = [rest_before_renewal(session) for session in sessions]
    assert rests == [rest_before_renewal(session) for session in sessions]
    assert len(set(rests)) == len(rests)
    assert max(rests) - min(rests) > 7 * HOUR


@pytest.mark.parametrize(
    ("wall_later", "uptime_later", "is_due"),
    [
        pytest.param(19 * HOUR, 19 * HOUR, False, id="not yet"),
        pytest.param(28 * HOUR, 28 * HOUR, True, id="at last"),
        pytest.param(30 * DAY, HOUR, True, id="after a month of suspend that the uptime slept through"),
        pytest.param(-5 * HOUR, 28 * HOUR, True, id="the wall clock was set back"),
        pytest.param(28 * HOUR, -UPTIME, True, id="after a restart"),
        pytest.param(-400 * DAY, -UPTIME, True, id="after a restart with a clock that knows nothing"),
        pytest.param(HOUR, -UPTIME, False, id="just restarted"),
    ],
)
def test_age_counts_by_both_clocks(wall_later: float, uptime_later: float, is_due: bool) -> None:
    assert (renewal_due_in(WATCHED, NOW + wall_later, UPTIME + uptime_later) <= 0) == is_due


@pytest.mark.parametrize(
    ("session", "record", "due_in"),
    [
        pytest.param(WATCHED, Record(), rest_before_renewal(WATCHED), id="renewable: when its rest is over"),
        pytest.param(
            WATCHED,
            Record(tried_at=NOW, retry_at=NOW + 2 * DAY),
            2 * DAY,
            id="failed: not before the pause is over",
        ),
        pytest.param(
            WATCHED,
            Record(tried_at=NOW + 1, retry_at=NOW + 365 * DAY),
            rest_before_renewal(WATCHED),
            id="a pause from a time to come: the clock was set back",
        ),
        pytest.param(replace(WATCHED, renewable=False), Record(), None, id="not renewable: never"),
        pytest.param(
            Watched("work", (0, 0, 0), problem=StoreError("damaged")), Record(), 0, id="unreadable: at once"
        ),
        pytest.param(
            Watched("work", (0, 0, 0), problem=StoreError("damaged")),
            Record(tried_at=NOW, retry_at=NOW + 900),
            900,
            id="still unreadable: again after a pause",
        ),
        pytest.param(
            replace(WATCHED, has_ended=True, relogin="notify"), Record(), 0, id="ended: tell the person"
        ),
        pytest.param(
            replace(WATCHED, has_ended=True, relogin="notify"),
            Record(notified_of=NOW, notified_at=NOW),
            None,
            id="ended and told: it is the person's turn",
        ),
        pytest.param(replace(WATCHED, has_ended=True, relogin="never"), Record(), None, id="ended, never"),
    ],
)
def test_each_kind_of_session_has_its_next_moment(
    session: Watched, record: Record, due_in: float | None
) -> None:
    due = next_try_at(session, record, NOW, UPTIME)
    assert due == (None if due_in is None else pytest.approx(NOW + due_in))


# -- after a failure


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_double_from_a_quarter_of_an_hour_to_three_hours_with_jitter(
    failures: int, drawn: float
) -> None:
    span = min(RETRY_FIRST * 2 ** min(failures - 1, 20), RETRY_LONGEST)
    assert span / 2 <= pause_after(failures, drawn) <= span
    assert (RETRY_FIRST, RETRY_LONGEST) == (15 * 60, 3 * HOUR)


@given(st.floats(0, 1), st.floats(0, 1e9))
def test_the_server_may_ask_for_more_patience_but_not_for_all_of_it(drawn: float, wish: float) -> None:
    pause = pause_after(1, drawn, wish)
    assert min(wish, RETRY_LONGEST) <= pause <= RETRY_LONGEST


def test_a_failure_is_remembered_until_it_goes_well_again() -> None:
    down = ServerUnavailableError("down", retry_after=7200)
    once = note_outcome("work", Record(), down, NOW, REFRESH_TOKEN_AT)
    failed = note_outcome("work", once, down, NOW + 7200, REFRESH_TOKEN_AT)
    assert (failed.exit_code, failed.message, failed.failures) == (7, "down", 2)
    assert failed.retry_at == NOW + 14400
    well = note_outcome("work", failed, None, NOW + 14400, REFRESH_TOKEN_AT)
    assert well == Record(tried_at=NOW + 14400)


def test_what_one_refresh_token_failed_with_is_not_held_against_the_next() -> None:
    told = Record(notified_at=NOW - DAY, notified_of=REFRESH_TOKEN_AT)
    failed = note_outcome("work", told, LoginRequiredError("ended"), NOW, REFRESH_TOKEN_AT)
    assert failed.about(REFRESH_TOKEN_AT) == failed
    assert failed.about(REFRESH_TOKEN_AT + 60) == told
    again = note_outcome("work", failed, StoreError("full"), NOW + 70, REFRESH_TOKEN_AT + 60)
    assert again.failures == 1

    ended = replace(WATCHED, has_ended=True, relogin="notify")
    pausing = next_try_at(ended, replace(failed, tried_of=ended.refresh_token_at), NOW + 1, UPTIME + 1)
    assert pausing is not None
    assert pausing > NOW + 1
    assert next_try_at(ended, failed, NOW + 1, UPTIME + 1) == NOW + 1


@pytest.mark.parametrize(
    ("exit_codes", "worst"),
    [
        (set(), 0),
        ({0}, 0),
        ({0, 7}, 7),
        ({4, 7}, 4),
        ({8, 4, 7}, 8),
        ({8, 9, 0}, 9),
        ({5, 7}, 5),
    ],
)
def test_a_run_ends_with_what_must_be_mended_first(exit_codes: set[int], worst: int) -> None:
    assert worst_exit_code(exit_codes) == worst


def test_a_run_does_what_is_due_before_the_next_one_has_surely_begun() -> None:
    assert AHEAD == PERIOD_HOURS * HOUR + SPREAD_MINUTES * 60


# -- the state on the disk


def test_the_state_is_private_and_comes_back_as_it_was_written(tmp_path: Path) -> None:
    file = StateFile(str(tmp_path / "config"))
    with file.change() as state:
        state.last_run, state.next_run = NOW, None
        state.records["work"] = Record(NOW, NOW - 1, 7, "down", 3, *(NOW + later for later in range(1, 6)))
        state.records["other"] = Record(tried_at=NOW)
        written = State(state.last_run, state.next_run, dict(state.records))
    assert file.read() == written
    assert stat.S_IMODE((tmp_path / "config" / "keepalive.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no JSON",
        "[]",
        "{}",
        '{"version": 2}',
        '{"version": 1, "profiles": []}',
        '{"version": 1, "profiles": {"a": 1}}',
        '{"version": 1, "profiles": {"a": {"tried_at": "now"}}}',
        '{"version": 1, "profiles": {"a": {"tried_at": NaN}}}',
        '{"version": 1, "profiles": {"a": {"failures": Infinity}}}',
        '{"version": 1, "profiles": {}, "last_run": true}',
        "[" * 100_000,
    ],
)
def test_a_state_that_cannot_be_understood_counts_as_empty(content: str, tmp_path: Path) -> None:
    path = tmp_path / "keepalive.json"
    path.write_text(content)
    path.chmod(0o600)
    assert StateFile(str(tmp_path)).read() == State()


def test_what_fails_while_the_state_is_changed_changes_nothing(tmp_path: Path) -> None:
    file = StateFile(str(tmp_path))
    with pytest.raises(ZeroDivisionError), file.change() as state:
        state.last_run = 1 / 0
    assert file.read() == State()


# -- runs


@pytest.fixture
def kept(tmp_path: Path) -> KeptAlive:
    return KeptAlive(tmp_path)


def test_a_session_that_has_rested_enough_is_renewed_once(
    server: CellsServer, tmp_path: Path, kept: KeptAlive
) -> None:
    store_session(server, tmp_path)
    rest_session(tmp_path, DAILY[1])
    assert (kept.run_once(), kept.run_once()) == (0, 0)
    assert server.count("refresh") == 1
    assert kept.said == ["work: renewed"]
    assert read_session(tmp_path).tokens.access_token.reveal() in server.access_tokens()
    state = kept.state.read()
    assert state.record("work").exit_code == 0
    assert state.last_run is not None


def test_a_session_in_use_is_left_alone(server: CellsServer, tmp_path: Path, kept: KeptAlive) -> None:
    store_session(server, tmp_path)
    age_session(tmp_path, HOUR)
    assert kept.run_once() == 0
    assert server.count("refresh") == 0


def test_a_session_without_a_refresh_token_is_nobodys_business(
    server: CellsServer, tmp_path: Path, kept: KeptAlive
) -> None:
    profile = make_session(server)
    write_session(tmp_path, replace(profile, tokens=replace(profile.tokens, refresh_token=None)))
    age_session(tmp_path, 400 * DAY)
    assert kept.run_once() == 0
    assert (kept.said, kept.desktop.shown) == ([], [])


def test_a_server_that_is_down_is_tried_again_later_and_the_session_stays(
    server: CellsServer, tmp_path: Path, kept: KeptAlive, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = MovedClock(monkeypatch, server)
    store_session(server, tmp_path)
    rest_session(tmp_path, DAILY[1])
    server.fault("/oidc/*", BUSY)
    assert kept.run_once() == 7
    record = kept.state.read().record("work")
    assert (record.exit_code, record.failures) == (7, 1)
    assert kept.desktop.shown == []
    server.clear_faults()
    clock.advance(PERIOD_HOURS * HOUR)
    assert kept.run_once() == 0
    assert kept.state.read().record("work").failures == 0


def test_a_server_that_is_down_is_asked_for_one_profile_and_not_for_each(
    server: CellsServer, tmp_path: Path, kept: KeptAlive
) -> None:
    for name in ("a", "b", "c"):
        store_session(server, tmp_path, name)
        rest_session(tmp_path, DAILY[1], name)
    server.fault("/oidc/*", BUSY)
    assert kept.run_once() == 7
    assert server.count("refresh") == 1
    assert {record.exit_code for record in kept.state.read().records.values()} == {7}


def test_a_run_that_cannot_be_noted_is_no_success(kept: KeptAlive, tmp_path: Path) -> None:
    (tmp_path / "keepalive.json.lock").mkdir()
    assert kept.run_once() == 8
    assert "keepalive.json.lock" in kept.said[0]


def test_one_profile_that_cannot_be_read_does_not_keep_the_others_from_their_renewal(
    server: CellsServer, tmp_path: Path, kept: KeptAlive
) -> None:
    store_session(server, tmp_path, "a")
    store_session(server, tmp_path, "b")
    rest_session(tmp_path, DAILY[1], "b")
    (tmp_path / "profiles" / "a.json").write_text("{}")
    assert kept.run_once() == 8
    assert server.count("refresh") == 1
    assert kept.state.read().record("a").exit_code == 8


def test_a_server_that_cannot_be_trusted_any_more_is_said(tmp_path: Path, kept: KeptAlive) -> None:
    with CellsServer(tls=True) as server:
        store_session(server, tmp_path, settings=Settings())
        profile = rest_session(tmp_path, DAILY[1])
        assert kept.run_once() == UntrustedServerError.exit_code
    assert "certificate" in kept.state.read().record(profile.name).message


def test_profiles_that_are_gone_are_forgotten(server: CellsServer, tmp_path: Path, kept: KeptAlive) -> None:
    store_session(server, tmp_path)
    rest_session(tmp_path, DAILY[1])
    kept.run_once()
    os.unlink(kept.store.path("work"))
    kept.run_once()
    assert kept.state.read().records == {}


def test_only_the_named_profile_is_looked_after(server: CellsServer, tmp_path: Path, kept: KeptAlive) -> None:
    for name in ("a", "b"):
        store_session(server, tmp_path, name)
        rest_session(tmp_path, DAILY[1], name)
    assert kept.keepalive(only="b").run_once() == 0
    assert kept.said == ["b: renewed"]
    assert kept.keepalive(only="gone").run_once() == 0


def test_a_renewal_never_changes_the_default_profile(
    server: CellsServer, tmp_path: Path, kept: KeptAlive
) -> None:
    for name in ("first", "second"):
        store_session(server, tmp_path, name)
    rest_session(tmp_path, DAILY[1], "second")
    before = (tmp_path / "config.toml").read_bytes()
    kept.run_once()
    assert (tmp_path / "config.toml").read_bytes() == before


def test_no_keyring_is_woken_before_a_renewal_is_due(
    server: CellsServer, tmp_path: Path, kept: KeptAlive
) -> None:
    # The secrets of this one lie in a keyring that was never asked to hold them.
    document = json.loads(store_session_file(server, tmp_path).read_text())
    document["settings"]["store"] = "keyring"
    for name in ("access_token", "refresh_token"):
        del document["token"][name]
    store_session_file(server, tmp_path).write_text(json.dumps(document))
    assert kept.run_once() == 0
    assert kept.said == []


def store_session_file(server: CellsServer, config_dir: Path) -> Path:
    path = config_dir / "profiles" / "work.json"
    if not path.exists():
        store_session(server, config_dir)
    return path


class Awake(BaseException):
    """Ends a resident run."""


class Naps:
    """A sleeper that notes until when it was to sleep, and lets something happen meanwhile."""

    def __init__(self, *happenings: object) -> None:
        self.until: list[float] = []
        self._happenings = list(happenings)

    def sleep(self, until: float) -> None:
        self.until.append(until)
        if not self._happenings:
            raise Awake
        happen = self._happenings.pop(0)
        assert callable(happen)
        happen()

    def close(self) -> None:
        """Nothing was lent."""


def test_a_resident_run_sleeps_until_the_first_session_is_due_and_no_longer_than_a_day(
    server: CellsServer, tmp_path: Path, kept: KeptAlive, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = MovedClock(monkeypatch, server)
    naps = Naps(
        lambda: store_session(server, tmp_path, "new"), lambda: rest_session(tmp_path, 19 * HOUR, "new")
    )
    kept.store.prepare()
    with pytest.raises(Awake):
        kept.keepalive().run(naps)
    nothing, fresh, nearly_due = (until - clock.wall() for until in naps.until)
    assert nothing == pytest.approx(DAY, abs=60)
    assert 20 * HOUR - 60 <= fresh <= DAY
    assert HOUR - 60 <= nearly_due <= 9 * HOUR
    assert server.count("refresh") == 0


def test_a_resident_run_goes_on_where_its_own_state_cannot_be_written(
    server: CellsServer, tmp_path: Path, kept: KeptAlive, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = MovedClock(monkeypatch, server)
    store_session(server, tmp_path)
    rest_session(tmp_path, DAILY[1])
    server.fault("/oidc/*", BUSY)
    (tmp_path / "keepalive.json.lock").mkdir()
    naps = Naps()
    with pytest.raises(Awake):
        kept.keepalive().run(naps)
    assert any("keepalive.json.lock" in line for line in kept.said)
    assert naps.until[0] - clock.wall() > RETRY_FIRST / 2 - 60, "the pause is kept in mind"


def test_a_resident_run_that_has_ended_leaves_no_next_run_behind(kept: KeptAlive) -> None:
    kept.store.prepare()
    planned: list[float | None] = []
    with pytest.raises(Awake):
        kept.keepalive().run(Naps(lambda: planned.append(kept.state.read().next_run)))
    assert planned != [None]
    assert kept.state.read().next_run is None


def test_a_session_whose_tokens_live_for_less_than_a_day_is_lost_once_and_then_kept(
    tmp_path: Path, kept: KeptAlive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the lost session has learned goes over to the next one, and that is renewed in time."""
    from cells_loopback.session.forecast import start_renewals

    with CellsServer(behaviour=Behaviour(refresh_token_lifetime=12 * HOUR)) as server:
        clock = MovedClock(monkeypatch, server)
        store_session(server, tmp_path)
        refused = 0
        for _ in range(2 * 24 // PERIOD_HOURS):
            clock.advance(PERIOD_HOURS * HOUR)
            if kept.run_once() == LoginRequiredError.exit_code:
                refused += 1
                known = read_session(tmp_path).renewals
                write_session(
                    tmp_path, replace(make_session(server), renewals=start_renewals(known, clock.wall()))
                )
        assert refused == 1
        assert server.count("refresh", 200) >= 3


def test_nothing_of_a_failure_is_forgotten_by_an_error_that_carries_no_wish() -> None:
    for error in (StoreError("full"), CellsLoopbackError("defect"), LoginRequiredError("ended")):
        record = note_outcome("work", Record(), error, NOW, REFRESH_TOKEN_AT)
        assert record.retry_at is not None
        assert math.isfinite(record.retry_at)
        assert record.exit_code == error.exit_code
