"""How old a token is when one of two clocks may be wrong, and from when on it is renewed."""

from __future__ import annotations

import math
import time

import pytest
from examples import NOW, UPTIME
from hypothesis import given
from hypothesis import strategies as st

from cells_loopback import clock
from cells_loopback.clock import MIN_VALID, attainable, measure_age, renewal_threshold, uptime, wall

HOUR = 3600.0


@pytest.mark.parametrize(
    ("wall_later", "uptime_later", "age"),
    [
        pytest.param(0, 0, 0, id="at once"),
        pytest.param(100, 100, 100, id="both clocks agree"),
        pytest.param(8 * HOUR, 8 * HOUR, 8 * HOUR, id="after a suspend, both count it"),
        pytest.param(8 * HOUR, 1, 8 * HOUR, id="after a suspend that the uptime clock slept through"),
        pytest.param(1, 8 * HOUR, 8 * HOUR, id="the wall clock was set back while we slept"),
        pytest.param(
            100 + 5 * HOUR, 100, 100 + 5 * HOUR, id="the wall clock was set ahead: renewed too early"
        ),
        pytest.param(100 - 5 * HOUR, 100, 100, id="the wall clock was set back by hours"),
        pytest.param(100, -40_000, 100, id="after a restart the wall clock tells"),
        pytest.param(-5 * HOUR, -40_000, math.inf, id="after a restart with a clock set back nobody knows"),
        pytest.param(-2, 0, 0, id="a clock being disciplined is not a clock being changed"),
        pytest.param(-2.1, 5, 5, id="one step more is"),
        pytest.param(-2, -1, 0, id="disciplined, and just restarted"),
        pytest.param(-2.1, -1, math.inf, id="set back, and just restarted"),
        pytest.param(-5 * HOUR, 0, 0, id="set back at once, and not restarted"),
    ],
)
def test_the_greater_age_counts(wall_later: float, uptime_later: float, age: float) -> None:
    assert measure_age(NOW, UPTIME, NOW + wall_later, UPTIME + uptime_later) == pytest.approx(age)


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_an_age_is_never_negative_and_never_less_than_a_steady_clock_says(
    wall_later: float, uptime_later: float
) -> None:
    age = measure_age(NOW, UPTIME, NOW + wall_later, UPTIME + uptime_later)
    assert age >= 0
    assert age >= min(uptime_later, 1e9) - 0.01


@pytest.mark.parametrize(
    ("min_valid", "lifetime", "renew_early", "threshold"),
    [
        pytest.param(None, 600, 0, 60, id="by default a minute"),
        pytest.param(None, 600, 30, 90, id="with this token's jitter"),
        pytest.param(None, 120, 0, 60, id="a short token from its half"),
        pytest.param(None, 119, 0, 59.5, id="a shorter one too"),
        pytest.param(None, 10, 30, 5, id="the jitter never asks for more than half"),
        pytest.param(0, 600, 30, 0, id="nothing asked, nothing wanted"),
        pytest.param(300, 600, 30, 300, id="the jitter does not override the caller"),
        pytest.param(599.9, 600, 0, 599.9, id="just possible"),
        pytest.param(86400, 600, 0, 86400, id="not possible: each time"),
    ],
)
def test_a_token_is_renewed_below_this_many_seconds(
    min_valid: float | None, lifetime: float, renew_early: float, threshold: float
) -> None:
    assert renewal_threshold(min_valid, lifetime, renew_early) == threshold


@given(st.floats(1, 1e6), st.floats(0, 30))
def test_a_new_token_is_never_due_already_unless_more_was_asked_for(
    lifetime: float, renew_early: float
) -> None:
    assert renewal_threshold(None, lifetime, renew_early) < lifetime


@pytest.mark.parametrize(("min_valid", "threshold"), [(599.9, 599.9), (600, 300), (86400, 300)])
def test_what_a_token_never_lives_is_half_of_its_life(min_valid: float, threshold: float) -> None:
    assert attainable(min_valid, 600) == threshold


def test_the_default_is_a_minute() -> None:
    assert MIN_VALID == 60


def test_the_uptime_clock_runs_with_the_monotonic_one() -> None:
    began, monotonic = uptime(), time.monotonic()
    while time.monotonic() - monotonic < 0.02:
        pass
    assert 0.02 <= uptime() - began < 5


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux has this clock")
def test_the_uptime_clock_of_linux_counts_the_time_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 8 * HOUR}.get)
    assert uptime() == 8 * HOUR


def test_where_no_such_clock_is_the_monotonic_one_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_UPTIME", None)
    monkeypatch.setattr(time, "monotonic", lambda: 8 * HOUR)
    assert uptime() == 8 * HOUR


def test_the_wall_clock_is_the_systems() -> None:
    assert abs(wall() - time.time()) < 5
