"""There is one error for each thing that a person or a script can do next."""

from __future__ import annotations

import inspect

import pytest

from cells_loopback import errors
from cells_loopback.errors import CellsLoopbackError, ServerUnavailableError, StoreError, without_frames

KINDS: list[type[CellsLoopbackError]] = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, CellsLoopbackError)
]

# The table of exit codes in the README; 0 is no error, 128 and more are signals.
EXIT_CODES = {
    "CellsLoopbackError": 1,
    "UsageError": 2,
    "NotLoggedInError": 3,
    "LoginRequiredError": 4,
    "LoginFailedError": 5,
    "LoginTimeoutError": 6,
    "ServerUnavailableError": 7,
    "StoreError": 8,
    "UntrustedServerError": 9,
}


def test_each_exit_code_has_its_error() -> None:
    assert {kind.__name__: kind.exit_code for kind in KINDS} == EXIT_CODES


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_says_what_happened_and_what_to_do(kind: type[CellsLoopbackError]) -> None:
    error = kind("the disk is full", hint="free some space")
    assert str(error) == error.message == "the disk is full"
    assert error.hint == "free some space"
    assert isinstance(error, CellsLoopbackError)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_has_a_word_for_programs_unless_it_is_given_another(kind: type[CellsLoopbackError]) -> None:
    word = kind("x").code
    assert word
    assert word.replace("_", "").isalpha()
    assert word.islower()
    assert kind("x", code="another").code == "another"


def test_no_two_kinds_share_their_word() -> None:
    words = [kind.default_code for kind in KINDS]
    assert len(set(words)) == len(words)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    for name, exit_code in EXIT_CODES.items():
        line = next(line for line in errors.__doc__.splitlines() if f" {name} " in f" {line} ")
        assert f" {exit_code}  " in line


def test_an_unavailable_server_may_say_when_to_come_back_and_whether_the_answer_was_lost() -> None:
    plain = ServerUnavailableError("down")
    assert (plain.retry_after, plain.answer_lost) == (None, False)
    told = ServerUnavailableError("down", retry_after=7.0, answer_lost=True)
    assert (told.retry_after, told.answer_lost) == (7.0, True)


def test_the_hint_may_be_missing() -> None:
    assert StoreError("x").hint == ""


def test_an_error_leaves_work_on_secrets_without_the_frames_that_hold_them() -> None:
    def work() -> None:
        secret = "ory_at_x"
        try:
            int(secret)
        except ValueError as error:
            raise StoreError("damaged") from error

    with pytest.raises(StoreError) as caught:
        without_frames(work)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    names = [entry.frame.code.name for entry in caught.traceback]
    assert names[-1] == "without_frames"


def test_work_that_succeeds_returns_its_result_and_other_errors_pass() -> None:
    assert without_frames(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        without_frames(lambda: 1 // 0)
