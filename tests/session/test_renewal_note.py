"""What a renewal leaves for those who come after it is read as it was left, or not at all."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from examples import NOW
from hypothesis import given
from hypothesis import strategies as st

from cells_loopback.errors import ServerUnavailableError
from cells_loopback.session import renewal_note
from cells_loopback.session.renewal_note import (
    Failure,
    RenewalNote,
    read_note,
    timestamp,
    write_failure,
    write_note,
    write_running,
)
from cells_loopback.store.lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAILURE = Failure(NOW, "it is down", "try again later", "status_503", answer_lost=True)


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal_note, "wall", lambda: NOW)


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[FileLock]:
    with FileLock(str(tmp_path / "work.lock")) as lock:
        yield lock


@pytest.mark.parametrize(
    "note",
    [
        RenewalNote(),
        RenewalNote("process 77, renewing since 2026-01-01T00:00:00Z"),
        RenewalNote(failure=FAILURE),
        RenewalNote("an answer to a renewal was lost", FAILURE),
    ],
    ids=["nothing", "an open end", "a failure", "both"],
)
def test_a_note_is_read_as_it_was_left(lock: FileLock, note: RenewalNote) -> None:
    write_note(lock, note)
    assert read_note(lock) == note


def test_the_first_line_is_for_people(lock: FileLock) -> None:
    write_note(lock, RenewalNote("process 77", FAILURE))
    assert lock.read_note().splitlines()[0] == "process 77"


def test_a_running_renewal_is_named_with_its_process_and_its_time(lock: FileLock) -> None:
    write_running(lock)
    assert lock.read_note() == f"process {os.getpid()}, renewing since 2027-01-15T08:00:00Z"
    assert timestamp() == "2027-01-15T08:00:00Z"


@pytest.mark.parametrize("answer_lost", [True, False])
def test_a_failure_is_left_beside_the_open_end(lock: FileLock, answer_lost: bool) -> None:
    error = ServerUnavailableError("it is down", hint="later", code="status_503", answer_lost=answer_lost)
    write_failure(lock, RenewalNote("process 77", FAILURE), error)
    assert read_note(lock) == RenewalNote(
        "process 77", Failure(NOW, "it is down", "later", "status_503", answer_lost)
    )


OTHER_NOTES = {
    "no JSON": "{",
    "a list": "[]",
    "a number": "7",
    "null": "null",
    "a text": '"at"',
    "a member missing": '{"at": 1, "message": "", "hint": "", "code": ""}',
    "no time": '{"at": null, "message": "", "hint": "", "code": "", "answer_lost": true}',
    "words for a time": '{"at": "now", "message": "", "hint": "", "code": "", "answer_lost": true}',
}


@pytest.mark.parametrize("text", OTHER_NOTES.values(), ids=OTHER_NOTES)
def test_a_failure_that_cannot_be_read_is_none_and_the_open_end_stays(lock: FileLock, text: str) -> None:
    lock.write_note(f" process 77 \n{text}")
    assert read_note(lock) == RenewalNote("process 77")


def test_only_true_says_that_an_answer_was_lost(lock: FileLock) -> None:
    lock.write_note('\n{"at": "7", "message": 1, "hint": 2, "code": 3, "answer_lost": 1}')
    assert read_note(lock) == RenewalNote(failure=Failure(7.0, "1", "2", "3", answer_lost=False))


@given(st.text(max_size=60))
def test_any_note_is_read(text: str) -> None:
    class AnyNote(FileLock):
        def read_note(self) -> str:
            return text

    note = read_note(AnyNote(os.devnull))
    assert "\n" not in note.open_end


# Who shares a failure


@pytest.mark.parametrize(
    ("wanted_since", "failed_at"),
    [
        pytest.param(NOW - 5, NOW - 3, id="failed while it was waited for"),
        pytest.param(NOW, NOW, id="at the same moment"),
    ],
)
def test_a_failure_is_shared_by_those_who_wanted_the_result_of_that_renewal(
    wanted_since: float, failed_at: float
) -> None:
    note = RenewalNote(failure=Failure(failed_at, "it is down", "later", "status_503", answer_lost=True))
    with pytest.raises(ServerUnavailableError) as caught:
        note.raise_shared_failure(wanted_since)
    error = caught.value
    assert (error.message, error.hint, error.code) == ("it is down", "later", "status_503")
    assert error.answer_lost


@pytest.mark.parametrize(
    "note",
    [
        pytest.param(RenewalNote("process 77"), id="nothing failed"),
        pytest.param(RenewalNote(failure=replace(FAILURE, at=NOW - 0.1)), id="before: ask the server anew"),
        pytest.param(RenewalNote(failure=replace(FAILURE, at=NOW + 0.1)), id="to come: the clock was set"),
    ],
)
def test_whoever_comes_later_asks_the_server_anew(note: RenewalNote) -> None:
    note.raise_shared_failure(NOW)
