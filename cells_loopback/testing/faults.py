"""Faults that can be switched on: what proxies, networks, overload and attackers do to answers."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp.typedefs import Handler

    from .traffic import RecordedRequest

_CHUNK = 65536


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to go wrong, for `times` requests (None is for good) after the first `skip` ones.

    In the order in which they act on a request:

    - `delay`: seconds before anything happens; `hold`: wait for this event, set by the test.
    - ``drop="before"``: the connection is cut and nothing was processed.
    - with a `status` the request is answered with it, `headers` and `body`, and not processed,
      unless `processed` says so. Without one it is processed, and `edit` may change its JSON answer.
    - `answer_delay`, `answer_hold`: the same between the processing and the answer.
    - ``drop="after"``: it was processed, and the connection is cut without an answer.
    - `padding`: that many bytes of white space follow the body, in a stream without a length.
    - `drip`: the answer comes byte by byte, so many seconds apart.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | str = b""
    times: int | None = 1
    skip: int = 0
    delay: float = 0
    hold: threading.Event | None = None
    processed: bool = False
    edit: Callable[[Any], object] | None = None
    answer_delay: float = 0
    answer_hold: threading.Event | None = None
    drop: Literal["before", "after"] | None = None
    padding: int = 0
    drip: float = 0


class FaultBook:
    """The faults that are switched on; the oldest that fits a request acts on it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[tuple[str, Fault, list[int]]] = []

    def add(self, where: str, fault: Fault) -> None:
        """Switch a fault on for a path (with wild cards), or for a kind of request."""
        with self._lock:
            self._faults.append((where, fault, [0]))

    def clear(self) -> None:
        """Switch all faults off."""
        with self._lock:
            self._faults.clear()

    def take(self, request: RecordedRequest) -> Fault | None:
        """Return the fault that acts on this request, and count it."""
        with self._lock:
            for where, fault, seen in self._faults:
                if not _fits(where, request):
                    continue
                if fault.times is not None and seen[0] >= fault.skip + fault.times:
                    continue
                seen[0] += 1
                if seen[0] > fault.skip:
                    return fault
        return None


async def serve_with_fault(fault: Fault, request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request as the fault says."""
    await _wait(fault.delay, fault.hold)
    if fault.drop == "before":
        return _cut(request)
    answer: web.StreamResponse | None = None
    if fault.status is None or fault.processed or fault.drop == "after":
        answer = await handler(request)
    await _wait(fault.answer_delay, fault.answer_hold)
    if fault.drop == "after":
        return _cut(request)
    if answer is None or fault.status is not None:
        body = fault.body.encode() if isinstance(fault.body, str) else fault.body
        answer = web.Response(status=fault.status or 200, headers=fault.headers, body=body)
    if fault.edit is not None and isinstance(answer, web.Response):
        answer.body = json.dumps(fault.edit(json.loads(_body(answer)))).encode()
    if (fault.padding or fault.drip) and isinstance(answer, web.Response):
        return await _send_slowly(request, answer, fault)
    return answer


def _fits(where: str, request: RecordedRequest) -> bool:
    if where.startswith("/") or "*" in where:
        return fnmatch.fnmatchcase(request.path, where)
    return where == request.kind


async def _wait(delay: float, event: threading.Event | None) -> None:
    if delay:
        await asyncio.sleep(delay)
    while event is not None and not event.is_set():  # noqa: ASYNC110  another thread sets it
        await asyncio.sleep(0.005)


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _body(answer: web.Response) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else b""


async def _send_slowly(request: web.Request, answer: web.Response, fault: Fault) -> web.StreamResponse:
    stream = web.StreamResponse(status=answer.status, headers=answer.headers)
    stream.headers.popall("Content-Length", None)
    await stream.prepare(request)
    body = _body(answer)
    if fault.drip:
        for position in range(len(body)):
            await stream.write(body[position : position + 1])
            await asyncio.sleep(fault.drip)
    else:
        await stream.write(body)
    for start in range(0, fault.padding, _CHUNK):
        await stream.write(b" " * min(_CHUNK, fault.padding - start))
        await asyncio.sleep(fault.drip)
    await stream.write_eof()
    return stream
