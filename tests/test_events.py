"""The events of a login are the contract with the programs that follow it: names, members, no secret."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cells_loopback import events
from cells_loopback.clock import format_time
from cells_loopback.events import Event, format_optional_time

KINDS: list[type[Event]] = [
    kind
    for _, kind in inspect.getmembers(events, inspect.isclass)
    if issubclass(kind, Event) and kind is not Event
]

# Word for word what the README promises; "event" and "time" are in all of them.
MEMBERS = {
    "authorization_url": {"url", "redirect_uri", "expires_at"},
    "browser_opened": set(),
    "browser_failed": {"reason"},
    "callback_rejected": {"reason"},
    "callback_received": set(),
    "token_received": set(),
    "logged_in": {"profile", "site", "user", "expires_at", "renewable"},
    "error": {"code", "message", "hint", "exit_code"},
}


def make(kind: type[Event], **changes: Any) -> Event:
    values: dict[str, Any] = {
        field.name: f"a {field.name}" for field in dataclasses.fields(kind) if field.name != "time"
    }
    return kind(**{**values, **changes})


def test_the_events_are_those_of_the_contract() -> None:
    found = {kind.event: {field.name for field in dataclasses.fields(kind)} - {"time"} for kind in KINDS}
    assert found == MEMBERS


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.event)
def test_an_event_becomes_one_json_object(kind: type[Event]) -> None:
    event = make(kind)
    members = event.to_dict()
    assert list(members)[:2] == ["event", "time"]
    assert set(members) == {"event", "time", *MEMBERS[kind.event]}
    assert json.loads(json.dumps(members)) == members
    assert "\n" not in json.dumps(members)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.event)
def test_an_event_says_when_it_was(kind: type[Event]) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", make(kind).time)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.event)
def test_an_event_cannot_be_changed_afterwards(kind: type[Event]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make(kind).time = "never"  # type: ignore[misc]  # that it cannot be is the point


def test_no_event_has_room_for_a_secret() -> None:
    names = {name for members in MEMBERS.values() for name in members}
    assert not [name for name in names if re.search(r"token|secret|verifier|nonce|state|password", name)]


def test_a_session_of_unknown_end_says_null() -> None:
    event = events.LoggedIn(
        profile="p", site="https://files.example.com", user="alice", expires_at=None, renewable=False
    )
    assert event.to_dict()["expires_at"] is None
    assert event.to_dict()["renewable"] is False


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_800_000_000, "2027-01-15T08:00:00Z"),
        (1_800_000_000.999, "2027-01-15T08:00:00Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
    ],
)
def test_a_time_is_rfc_3339_in_utc(seconds: float, text: str) -> None:
    assert format_time(seconds) == format_optional_time(seconds) == text


def test_no_time_is_none() -> None:
    assert format_optional_time(None) is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_time_that_a_server_made_up_is_a_time(seconds: float) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", format_time(seconds))
