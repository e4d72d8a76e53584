"""For httpx: ``httpx.Client(base_url=session.site, auth=session.auth)``, and the same for ``AsyncClient``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from cells_loopback.integrations.loop_tokens import LoopTokens
from cells_loopback.protocol.site import has_origin, origin_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from cells_loopback.protocol.tokens import TokenSource
    from cells_loopback.secret import Secret


class SessionAuth(httpx.Auth):
    """Sends the token to its own site, renews it in time, and renews once more after a 401.

    A request to another origin, be it by redirect, goes out without the token. A request whose body is
    a stream that cannot be sent twice is not repeated: its 401 reaches the caller, the renewed token
    serves the next request. Raises what `Session.access_token` raises.
    """

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._tokens = LoopTokens(source)
        self._origin = origin_of(source.site)

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Authenticate one request of a sync client."""
        if not self._is_ours(request):
            yield request
            return
        token = self._source.fresh_token() or self._source.token().access_token
        response = yield _with_token(request, token)
        if _refuses(response, token):
            renewed = self._source.token(rejected=token).access_token
            if _is_replayable(request):
                yield _with_token(request, renewed)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Authenticate one request of an async client; a renewal runs in a thread."""
        if not self._is_ours(request):
            yield request
            return
        token = await self._tokens.access_token()
        response = yield _with_token(request, token)
        if _refuses(response, token):
            renewed = await self._tokens.access_token(rejected=token)
            if _is_replayable(request):
                yield _with_token(request, renewed)

    def _is_ours(self, request: httpx.Request) -> bool:
        return has_origin(str(request.url), self._origin)


def _with_token(request: httpx.Request, token: Secret) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token.reveal()}"
    return request


def _refuses(response: httpx.Response, token: Secret) -> bool:
    # A client that follows redirects shows the last answer only: a 401 may come from where no token went.
    sent = response.request.headers.get("Authorization")
    return response.status_code == httpx.codes.UNAUTHORIZED and sent == f"Bearer {token.reveal()}"


def _is_replayable(request: httpx.Request) -> bool:
    # httpx.ByteStream is what a body in memory becomes; a multipart body reads its files again.
    stream = request.stream
    return isinstance(stream, httpx.ByteStream) or type(stream).__name__ == "MultipartStream"
