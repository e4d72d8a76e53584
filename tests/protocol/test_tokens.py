"""What a token answer gives, how long it lives, and what a refresh carries over."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from examples import NOW, TOKENS, UPTIME
from hypothesis import given
from hypothesis import strategies as st

from cells_loopback.clock import uptime, wall
from cells_loopback.protocol.tokens import (
    RequestTime,
    TokenSet,
    assume_lifetime,
    carry_over,
    given_tokens,
    parse_token_response,
)
from cells_loopback.secret import Secret

SENT = RequestTime(NOW, UPTIME)
SCOPE = "openid email profile pydio offline"
TEN_YEARS = 10 * 365 * 86400.0


def answer(**changes: Any) -> dict[str, Any]:
    """A token answer as Cells gives it; None takes a member out."""
    members = {
        "access_token": "ory_at_c0ffee",
        "token_type": "bearer",
        "expires_in": 599,
        "scope": SCOPE,
        "refresh_token": "ory_rt_c0ffee",
        "id_token": "eyJ.eyJ.c2ln",
        **changes,
    }
    return {name: value for name, value in members.items() if value is not None}


def parsed(jitter: float = 0.0, time: RequestTime = SENT, **changes: Any) -> TokenSet:
    tokens = parse_token_response(answer(**changes), SCOPE, time, jitter)
    assert tokens is not None
    return tokens


def test_a_token_answer_is_read() -> None:
    assert parsed() == TokenSet(
        access_token=Secret("ory_at_c0ffee"),
        token_type="Bearer",
        scope=SCOPE,
        lifetime=599.0,
        obtained_at=NOW,
        obtained_uptime=UPTIME,
        refresh_token=Secret("ory_rt_c0ffee"),
        id_token=Secret("eyJ.eyJ.c2ln"),
    )


@pytest.mark.parametrize("token_type", ["bearer", "Bearer", "BEARER", None])
def test_the_token_type_is_matched_without_regard_to_case(token_type: str | None) -> None:
    assert parsed(token_type=token_type).token_type == "Bearer"


def test_a_token_type_of_null_is_none_at_all() -> None:
    assert parse_token_response({"access_token": "ory_at_c0ffee", "token_type": None}, SCOPE, SENT, 0.0)


NO_TOKENS: dict[str, dict[str, Any]] = {
    "no access token": {"access_token": None},
    "an empty access token": {"access_token": ""},
    "an access token that is a number": {"access_token": 7},
    "an access token that is a list": {"access_token": ["x"]},
    "a space in the access token": {"access_token": "a b"},
    "a line break in the access token": {"access_token": "a\r\nX-Evil: 1"},
    "an access token that is not ASCII": {"access_token": "tökén"},
    "a lone surrogate in the access token": {"access_token": "a\udcff"},
    "DEL in the access token": {"access_token": "a\x7f"},
    "another token type": {"token_type": "mac"},
    "a proof-of-possession token": {"token_type": "DPoP"},
    "a token type that is a number": {"token_type": 7},
    "an empty token type": {"token_type": ""},
}


@pytest.mark.parametrize("changes", NO_TOKENS.values(), ids=NO_TOKENS)
def test_an_answer_that_cannot_be_used_is_none(changes: dict[str, Any]) -> None:
    assert parse_token_response(answer(**changes), SCOPE, SENT, 0.0) is None


@pytest.mark.parametrize("token", ["!", "~", "a.b-c_d", "ory_at_" + "x" * 8000, "eyJ.eyJ.sig"])
def test_a_token_is_any_printable_ascii(token: str) -> None:
    """RFC 6749 Appendix A.12."""
    assert parsed(access_token=token).access_token.reveal() == token


@pytest.mark.parametrize("value", [None, "", 7, ["x"], "a b", "a\nb", {}])
def test_without_a_usable_refresh_token_the_session_is_not_renewable(value: object) -> None:
    tokens = parsed(refresh_token=value)
    assert tokens.refresh_token is None
    assert not tokens.renewable


@pytest.mark.parametrize("value", [None, ""])
def test_there_may_be_no_id_token(value: object) -> None:
    assert parsed(id_token=value).id_token is None


@pytest.mark.parametrize("value", ["x", "eyJ .eyJ.c2ln", "ü", 7, ["x"], {"sub": "alice"}])
def test_an_id_token_of_any_kind_is_one_to_be_judged(value: object) -> None:
    assert parsed(id_token=value).id_token == Secret(str(value))


LIFETIMES = {
    "a number": (599, 599.0),
    "a string": ("599", 599.0),
    "a float": (599.5, 599.5),
    "a float in a string": ("599.5", 599.5),
    "an hour": (3600, 3600.0),
    "one second": (1, 1.0),
    "very long": (10**12, TEN_YEARS),
    "longer than a float": (10**400, None),
    "infinite": (math.inf, TEN_YEARS),
    "missing": (None, None),
    "zero": (0, None),
    "negative": (-1, None),
    "not a number": (math.nan, None),
    "true": (True, None),
    "words": ("ten minutes", None),
    "empty": ("", None),
    "a list": ([599], None),
}


@pytest.mark.parametrize(("expires_in", "lifetime"), LIFETIMES.values(), ids=LIFETIMES)
def test_the_lifetime_is_read_however_it_is_written(expires_in: object, lifetime: float | None) -> None:
    tokens = parsed(expires_in=expires_in)
    assert tokens.lifetime == lifetime
    assert tokens.expires_at == (None if lifetime is None else NOW + lifetime)


SCOPES = {
    "as asked": (SCOPE, SCOPE),
    "less": ("openid offline", "openid offline"),
    "missing: as asked": (None, SCOPE),
    "empty: as asked": ("", SCOPE),
    "spaces": ("  openid   offline ", "openid offline"),
    "a list": (["openid", "offline"], "openid offline"),
    "an empty list": ([], SCOPE),
    "a list of other things": (["openid", 7], SCOPE),
    "another type": (7, SCOPE),
}


@pytest.mark.parametrize(("scope", "granted"), SCOPES.values(), ids=SCOPES)
def test_a_missing_scope_means_the_one_that_was_asked_for(scope: object, granted: str) -> None:
    """RFC 6749 §5.1."""
    assert parsed(scope=scope).scope == granted


@pytest.mark.parametrize(
    ("lifetime", "jitter", "early"),
    [
        (600, 0.0, 0.0),
        (600, 1.0, 30.0),
        (600, 0.5, 15.0),
        (600, 0.123456, 3.704),
        (100, 1.0, 5.0),
        (86400, 1.0, 30.0),
        (None, 1.0, 0.0),
    ],
)
def test_each_token_is_renewed_a_little_earlier_than_the_next(
    lifetime: float | None, jitter: float, early: float
) -> None:
    assert parsed(jitter, expires_in=lifetime).renew_early == early


@pytest.mark.parametrize(
    ("server_date", "offset"),
    [
        pytest.param(None, 0.0, id="no Date"),
        pytest.param(NOW, 0.0, id="the same"),
        pytest.param(NOW + 4.9, 0.0, id="within the header's precision"),
        pytest.param(NOW - 4.9, 0.0, id="within it, behind"),
        pytest.param(NOW + 5, 5.0, id="beyond it"),
        pytest.param(NOW + 7200, 7200.0, id="two hours ahead"),
        pytest.param(NOW - 7200, -7200.0, id="two hours behind"),
    ],
)
def test_the_end_is_told_by_the_servers_clock(server_date: float | None, offset: float) -> None:
    tokens = parsed(time=RequestTime(NOW, UPTIME, server_date))
    assert tokens.clock_offset == offset
    assert tokens.expires_at == NOW + offset + 599


def test_a_clock_that_is_hours_wrong_does_not_change_how_long_the_token_lives() -> None:
    tokens = parsed(time=RequestTime(NOW, UPTIME, NOW + 7200))
    assert tokens.seconds_left(NOW + 99, UPTIME + 99) == 500


@pytest.mark.parametrize(
    ("min_valid", "age", "is_fresh"),
    [
        pytest.param(None, 0, True, id="new"),
        pytest.param(None, 538.9, True, id="just over a minute left"),
        pytest.param(None, 539, False, id="a minute left"),
        pytest.param(None, 599, False, id="ended"),
        pytest.param(0, 598.9, True, id="nothing asked, a moment left"),
        pytest.param(0, 599, False, id="nothing asked, ended"),
        pytest.param(-10, 599, False, id="less than nothing asked, ended"),
        pytest.param(300, 298.9, True, id="five minutes asked and left"),
        pytest.param(300, 299, False, id="five minutes asked, not quite left"),
        pytest.param(3600, 0, False, id="an hour asked, and never left"),
    ],
)
def test_a_token_is_given_out_while_it_lives_long_enough(
    min_valid: float | None, age: float, is_fresh: bool
) -> None:
    assert TOKENS.is_fresh(min_valid, NOW + age, UPTIME + age) is is_fresh


def test_a_token_after_a_suspend_is_as_old_as_the_night_was_long() -> None:
    assert not TOKENS.is_fresh(0, NOW + 8 * 3600, UPTIME + 1)
    assert not TOKENS.is_fresh(0, NOW + 1, UPTIME + 8 * 3600)


@pytest.mark.parametrize("min_valid", [None, 0, 1e9])
def test_a_token_of_unknown_life_is_given_out_until_the_server_refuses_it(min_valid: float | None) -> None:
    tokens = replace(TOKENS, lifetime=None)
    assert tokens.is_fresh(min_valid, NOW + 1e9, UPTIME + 1e9)
    assert tokens.expires_at is None


def test_a_refresh_that_omits_the_refresh_token_keeps_the_old_one() -> None:
    new = replace(TOKENS, access_token=Secret("ory_at_2"), refresh_token=None)
    assert carry_over(TOKENS, new) == replace(TOKENS, access_token=Secret("ory_at_2"))


def test_a_refresh_that_brings_a_refresh_token_replaces_the_old_one() -> None:
    new = replace(TOKENS, access_token=Secret("ory_at_2"), refresh_token=Secret("ory_rt_2"))
    assert carry_over(TOKENS, new) == new


def test_a_token_from_outside_has_a_life_unknown_and_no_renewal() -> None:
    tokens = given_tokens(Secret("pat"))
    assert (tokens.token_type, tokens.scope, tokens.renewable) == ("Bearer", "", False)
    assert (tokens.access_token, tokens.lifetime, tokens.renewable) == (Secret("pat"), None, False)
    assert tokens.obtained_at == pytest.approx(wall(), abs=60)
    assert tokens.obtained_uptime == pytest.approx(uptime(), abs=60)


@pytest.mark.parametrize(
    ("lifetime", "refresh_token", "assumed"),
    [
        pytest.param(None, "ory_rt", 600.0, id="unknown: the default of Cells"),
        pytest.param(None, None, None, id="unknown, and nothing can renew it"),
        pytest.param(30.0, "ory_rt", 30.0, id="told"),
        pytest.param(30.0, None, 30.0, id="told, and nothing can renew it"),
    ],
)
def test_a_renewable_token_of_unknown_life_is_taken_to_live_as_long_as_by_default(
    lifetime: float | None, refresh_token: str | None, assumed: float | None
) -> None:
    tokens = replace(TOKENS, lifetime=lifetime, refresh_token=refresh_token and Secret(refresh_token))
    assert assume_lifetime(tokens) == replace(tokens, lifetime=assumed)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(list(answer())) | st.text(max_size=9), JSON_VALUES),
    st.booleans(),
    st.floats(0, 1),
)
def test_any_answer_is_read_or_refused(members: dict[str, Any], is_completed: bool, jitter: float) -> None:
    document = json.loads(json.dumps(answer(**members) if is_completed else members))
    tokens = parse_token_response(document, SCOPE, SENT, jitter)
    if tokens is None:
        return
    for secret in (tokens.access_token, tokens.refresh_token):
        assert secret is None or (secret.reveal().isascii() and secret.reveal().isprintable())
    assert tokens.lifetime is None or 0 < tokens.lifetime <= TEN_YEARS
    assert 0 <= tokens.renew_early <= 30
    assert tokens.is_fresh(0, NOW, UPTIME)
    assert isinstance(tokens.scope, str)
