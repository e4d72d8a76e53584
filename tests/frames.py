"""What a traceback with the values of variables would show, as rich and pytest print it."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

_OURS = "cells_loopback"


def visible_texts(error: BaseException) -> Iterator[str]:
    """Yield where and what: the words of an error and of what it came from, and each variable on the way.

    The frames of the test itself are left out: it knows the secrets.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield f"{type(one).__name__}: {one!s} {one.args!r} {vars(one)!r}"
        for frame, line in traceback.walk_tb(one.__traceback__):
            if "/tests/" not in frame.f_code.co_filename:
                yield from _variables(frame, line)
        waiting += [one.__cause__, one.__context__]


def _variables(frame: FrameType, line: int) -> Iterator[str]:
    place = f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}"
    for name, value in frame.f_locals.items():
        try:
            shown = repr(value)
        except Exception as error:  # noqa: BLE001 - another package's own repr
            shown = repr(error)
        yield f"{place}: {name} = {shown}"


def leaks(error: BaseException, secrets: Iterable[str]) -> list[str]:
    """Return each place in which a secret could be read."""
    known = [secret for secret in secrets if secret]
    return [text[:300] for text in visible_texts(error) for secret in known if secret in text]
