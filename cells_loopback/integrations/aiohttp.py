"""For aiohttp: ``aiohttp.ClientSession(session.site, middlewares=(session.aiohttp_middleware(),))``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp.payload import BytesPayload

from cells_loopback.integrations.loop_tokens import LoopTokens
from cells_loopback.protocol.site import has_origin, origin_of

if TYPE_CHECKING:
    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

    from cells_loopback.protocol.tokens import TokenSource

_UNAUTHORIZED = 401


class SessionMiddleware:
    """A client middleware: sends the token to its own site, renews it in time and once more after a 401.

    A request to another origin, be it by redirect, goes out without the token. A body that cannot be
    sent twice is not: its 401 reaches the caller.
    """

    def __init__(self, source: TokenSource) -> None:
        self._tokens = LoopTokens(source)
        self._origin = origin_of(source.site)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send one request, and once more with a renewed token when the server answers 401."""
        if not has_origin(str(request.url), self._origin):
            return await handler(request)
        token = await self._tokens.access_token()
        request.headers["Authorization"] = f"Bearer {token.reveal()}"
        response = await handler(request)
        if response.status != _UNAUTHORIZED:
            return response
        try:
            renewed = await self._tokens.access_token(rejected=token)
        except BaseException:
            response.close()
            raise
        if request.body and not isinstance(request.body, BytesPayload):
            return response
        response.release()
        request.headers["Authorization"] = f"Bearer {renewed.reveal()}"
        return await handler(request)
