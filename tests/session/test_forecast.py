"""When a session will need a person, from what is known and what this session has seen itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from examples import NOW, PROFILE, TOKENS

from cells_loopback.session.forecast import (
    ASSUMED_LIFETIME,
    DAY,
    WARNING_SPAN,
    Forecast,
    estimate_refresh_lifetime,
    forecast,
    start_renewals,
)
from cells_loopback.store.profiles import Renewals

if TYPE_CHECKING:
    from cells_loopback.store.profiles import Profile


def with_renewals(**changes: float) -> Profile:
    return replace(PROFILE, renewals=replace(PROFILE.renewals, **changes))


@pytest.mark.parametrize(
    ("longest", "refused", "estimate"),
    [
        pytest.param(0, None, 30, id="nothing seen: the shortest that servers are set to"),
        pytest.param(10, None, 30, id="a short rest survived says nothing"),
        pytest.param(45, None, 45, id="a long one says it lives that long"),
        pytest.param(0, 20, 20, id="refused after 20 days"),
        pytest.param(10, 20, 20, id="survived 10, refused after 20"),
        pytest.param(10, 60, 30, id="refused after 60 says no more than what is assumed"),
        pytest.param(40, 60, 40, id="between 40 and 60: what is sure"),
        pytest.param(20, 10, 30, id="refused after less than was survived: it was revoked, no rule in that"),
        pytest.param(40, 10, 40, id="the same, and a long rest was survived"),
        pytest.param(10, 10, 30, id="the same rest survived and refused: no rule in that"),
    ],
)
def test_the_life_of_a_refresh_token_is_learned(
    longest: float, refused: float | None, estimate: float
) -> None:
    renewals = Renewals(longest_rest=longest * DAY, refused_rest=None if refused is None else refused * DAY)
    assert estimate_refresh_lifetime(renewals) == estimate * DAY


def test_what_is_assumed_is_the_shorter_of_the_two_known_settings() -> None:
    assert ASSUMED_LIFETIME == 30 * DAY


def test_a_session_lives_as_long_as_its_refresh_token_from_its_last_renewal_on() -> None:
    session = with_renewals(refresh_token_at=NOW - 10 * DAY)
    assert forecast(session, NOW) == Forecast(False, NOW + 20 * DAY)


@pytest.mark.parametrize(
    ("days_left", "needs_person"),
    [(2.01, False), (2, True), (1, True), (0, True), (-100, True)],
)
def test_a_person_is_asked_for_two_days_before_the_end(days_left: float, needs_person: bool) -> None:
    assert WARNING_SPAN == 2 * DAY
    session = with_renewals(refresh_token_at=NOW)
    now = NOW + ASSUMED_LIFETIME - days_left * DAY
    assert forecast(session, now) == Forecast(needs_person, NOW + ASSUMED_LIFETIME)


def test_a_session_whose_life_is_known_to_be_short_is_not_always_about_to_end() -> None:
    session = with_renewals(refresh_token_at=NOW, refused_rest=2 * DAY)
    assert forecast(session, NOW + 1.4 * DAY) == Forecast(False, NOW + 2 * DAY)
    assert forecast(session, NOW + 1.5 * DAY) == Forecast(True, NOW + 2 * DAY)


@pytest.mark.parametrize(
    ("refused", "remembered"),
    [
        pytest.param(2 * DAY, 2 * DAY, id="its life ended"),
        pytest.param(600, None, id="so early it was revoked: no rule in that"),
        pytest.param(None, None, id="never"),
    ],
)
def test_a_new_login_remembers_what_the_session_before_has_learned(
    refused: float | None, remembered: float | None
) -> None:
    known = Renewals(1, 2, rejected_at=3, longest_rest=DAY, refused_rest=refused)
    assert start_renewals(known, NOW) == Renewals(
        NOW, NOW, rejected_at=None, longest_rest=DAY, refused_rest=remembered
    )


def test_a_first_login_has_nothing_to_remember() -> None:
    assert start_renewals(None, NOW) == Renewals(NOW, NOW)


def test_a_session_that_was_refused_needs_a_person_now() -> None:
    assert forecast(with_renewals(rejected_at=NOW - 5), NOW) == Forecast(True, NOW)


@pytest.mark.parametrize(("age", "needs_person"), [(0, False), (598, False), (599, True), (9999, True)])
def test_a_session_without_a_refresh_token_ends_with_its_token(age: float, needs_person: bool) -> None:
    session = replace(PROFILE, tokens=replace(TOKENS, refresh_token=None))
    assert forecast(session, NOW + age) == Forecast(needs_person, NOW + 599)


def test_the_end_of_a_personal_access_token_cannot_be_seen_from_here() -> None:
    session = replace(PROFILE, tokens=replace(TOKENS, refresh_token=None, lifetime=None))
    assert forecast(session, NOW + 1000 * DAY) == Forecast(False, None)
