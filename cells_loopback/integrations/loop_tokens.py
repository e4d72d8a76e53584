"""Tokens for the tasks of an event loop: what has to wait runs in a thread, once for all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from cells_loopback.protocol.tokens import TokenSet, TokenSource
    from cells_loopback.secret import Secret


class LoopTokens:
    """A `TokenSource` to be awaited; may be shared by several event loops.

    A thousand tasks whose token has ended ask one question, not one each of a pool of a few threads: in
    a busy loop each of those takes several turns of the interpreter's lock.
    """

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._questions: WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[Secret | None, asyncio.Task[TokenSet]]
        ] = WeakKeyDictionary()

    async def access_token(self, *, rejected: Secret | None = None) -> Secret:
        """Return a valid access token; ``rejected`` and what is raised are those of `TokenSource.token`."""
        token = self._source.fresh_token()
        if token is not None and token != rejected:
            return token
        questions = self._questions.setdefault(asyncio.get_running_loop(), {})
        question = questions.get(rejected)
        if question is None:
            question = asyncio.ensure_future(asyncio.to_thread(self._source.token, rejected=rejected))
            questions[rejected] = question
            question.add_done_callback(lambda done: _forget(questions, rejected, done))
        # Whoever is cancelled gives up its own waiting, not that of the others. (A shielded question that
        # nobody waits for any more would have its failure logged, since Python 3.14.)
        await asyncio.wait([question])
        return question.result().access_token


def _forget(
    questions: dict[Secret | None, asyncio.Task[TokenSet]],
    rejected: Secret | None,
    done: asyncio.Task[TokenSet],
) -> None:
    del questions[rejected]
    if not done.cancelled():
        done.exception()  # looked at, in case that nobody waits for it any more
