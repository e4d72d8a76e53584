from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from program import Program
from signed_in import log_in

from cells_loopback.early_credentials import answer_credentials
from cells_loopback.testing import CellsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = Program(tmp_path_factory.mktemp("desk"))
    with CellsServer() as server:
        log_in(program, server, "me")
        yield program


@pytest.fixture
def answer(program: Program, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str | None]:
    """Return a function that changes the stored token and gives the early answer."""
    monkeypatch.setenv("CELLS_LOOPBACK_CONFIG_DIR", str(program.config_dir))
    path = program.profile_path("me")
    before = path.read_text()

    def run(*arguments: str, **token: Any) -> str | None:
        document = json.loads(before)
        document["token"].update(token)
        path.write_text(json.dumps(document))
        try:
            return answer_credentials(arguments)
        finally:
            path.write_text(before)

    return run


@pytest.mark.parametrize("arguments", [(), ("--profile", "me"), ("-p", "me")])
def test_the_early_answer_is_that_of_the_command(
    program: Program, answer: Callable[..., str | None], arguments: tuple[str, ...]
) -> None:
    early = answer(*arguments)
    assert early is not None
    late = json.loads(program.output("-q", *arguments, "s3", "credentials"))
    document = json.loads(early)
    assert list(document) == list(late)
    ends = [
        datetime.fromisoformat(each.pop("Expiration").replace("Z", "+00:00")) for each in (document, late)
    ]
    assert abs(ends[0] - ends[1]) < timedelta(seconds=2)
    assert document == late


def test_a_token_without_a_known_end_has_no_expiration(answer: Callable[..., str | None]) -> None:
    assert "Expiration" not in json.loads(answer(lifetime=None) or "")


def test_the_config_directory_can_be_named(
    program: Program, answer: Callable[..., str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CELLS_LOOPBACK_CONFIG_DIR")
    assert answer("--profile", "me") is None
    assert answer("--config-dir", str(program.config_dir), "--profile", "me")


@pytest.mark.parametrize(
    ("arguments", "token"),
    [
        (("--verbose",), {}),
        (("--verbose", "x"), {}),
        (("--profile", ""), {}),
        (("--profile", "nobody"), {}),
        ((), {"access_token": 'a"b'}),
        ((), {"access_token": "a\\b"}),
        ((), {"access_token": None}),
        ((), {"lifetime": 60, "obtained_at": 1.0}),
        ((), {"lifetime": "soon"}),
        ((), {"lifetime": 1e300}),
    ],
)
def test_anything_unusual_is_left_to_the_command(
    answer: Callable[..., str | None], arguments: tuple[str, ...], token: dict[str, Any]
) -> None:
    assert answer(*arguments, **token) is None


@pytest.mark.parametrize("content", ["", "[" * 100_000, '{"version": 1'], ids=["nothing", "nested", "half"])
def test_a_damaged_file_is_left_to_the_command(
    program: Program, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setenv("CELLS_LOOPBACK_CONFIG_DIR", str(program.config_dir))
    path = program.profile_path("me")
    before = path.read_text()
    path.write_text(content)
    try:
        assert answer_credentials(()) is None
    finally:
        path.write_text(before)


def test_a_token_handed_in_is_left_to_the_command(
    answer: Callable[..., str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLS_LOOPBACK_TOKEN", "TOKEN")
    assert answer() is None
