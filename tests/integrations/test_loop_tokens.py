"""The tasks of a loop ask once for what they all wait for."""

from __future__ import annotations

import asyncio
import gc
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from examples import TOKENS

from cells_loopback.errors import ServerUnavailableError
from cells_loopback.integrations.loop_tokens import LoopTokens
from cells_loopback.secret import Secret

if TYPE_CHECKING:
    from cells_loopback.protocol.tokens import TokenSet


class Source:
    """A source whose answer comes when the test lets it go."""

    site = "https://files.example.com"

    def __init__(self) -> None:
        self.asked: list[Secret | None] = []
        self.may_answer = threading.Event()
        self.fresh: Secret | None = None
        self.error: Exception | None = None

    def fresh_token(self) -> Secret | None:
        return self.fresh

    def token(self, *, min_valid: float | None = None, rejected: Secret | None = None) -> TokenSet:
        self.asked.append(rejected)
        assert self.may_answer.wait(30)
        if self.error is not None:
            raise self.error
        return replace(TOKENS, access_token=Secret(f"token-{len(self.asked)}"))


@pytest.fixture
def source() -> Source:
    return Source()


async def let_ask(source: Source, count: int = 1) -> None:
    while len(source.asked) < count:  # noqa: ASYNC110 - another thread asks
        await asyncio.sleep(0.001)


def test_a_fresh_token_is_given_at_once(source: Source) -> None:
    source.fresh = Secret("fresh")
    tokens = LoopTokens(source)
    assert asyncio.run(tokens.access_token()) == Secret("fresh")
    assert asyncio.run(tokens.access_token(rejected=Secret("older"))) == Secret("fresh")
    assert source.asked == []


def test_many_tasks_ask_one_question(source: Source) -> None:
    async def main() -> list[Secret]:
        tokens = LoopTokens(source)
        tasks = [asyncio.ensure_future(tokens.access_token(rejected=Secret("old"))) for _ in range(200)]
        await let_ask(source)
        source.may_answer.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == [Secret("token-1")] * 200
    assert source.asked == [Secret("old")]


def test_another_rejected_token_is_another_question(source: Source) -> None:
    source.may_answer.set()
    source.fresh = Secret("newer")

    async def main() -> None:
        tokens = LoopTokens(source)
        questions = [tokens.access_token(rejected=Secret(token)) for token in ("newer", "old")]
        assert [*await asyncio.gather(*questions)] == [Secret("token-1"), Secret("newer")]

    asyncio.run(main())


def test_one_failure_is_told_to_all_and_the_next_question_is_a_new_one(source: Source) -> None:
    source.error = ServerUnavailableError("it is down")
    source.may_answer.set()

    async def main() -> None:
        tokens = LoopTokens(source)
        outcomes = await asyncio.gather(*(tokens.access_token() for _ in range(50)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ServerUnavailableError}
        assert len(source.asked) == 1
        source.error = None
        assert await tokens.access_token() == Secret("token-2")

    asyncio.run(main())


def test_whoever_is_cancelled_leaves_the_others_waiting(source: Source) -> None:
    async def main() -> None:
        tokens = LoopTokens(source)
        first, second = (asyncio.ensure_future(tokens.access_token()) for _ in range(2))
        await let_ask(source)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        source.may_answer.set()
        assert await second == Secret("token-1")

    asyncio.run(main())


def test_a_failure_that_nobody_waits_for_is_no_warning(source: Source) -> None:
    source.error = ServerUnavailableError("it is down")
    complaints: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        tokens = LoopTokens(source)
        only = asyncio.ensure_future(tokens.access_token())
        await let_ask(source)
        only.cancel()
        with pytest.raises(asyncio.CancelledError):
            await only
        source.may_answer.set()
        await asyncio.sleep(0.05)

    asyncio.run(main())
    gc.collect()
    assert complaints == []


def test_each_loop_asks_for_itself(source: Source) -> None:
    source.may_answer.set()
    tokens = LoopTokens(source)
    answers = [asyncio.run(tokens.access_token()).reveal() for _ in range(3)]
    assert answers == ["token-1", "token-2", "token-3"]
