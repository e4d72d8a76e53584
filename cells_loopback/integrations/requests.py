"""For requests: ``requests.get(url, auth=session.requests_auth())``. Needs nothing of requests itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cells_loopback.protocol.site import has_origin, origin_of
from cells_loopback.secret import Secret

if TYPE_CHECKING:
    from cells_loopback.protocol.tokens import TokenSource

_UNAUTHORIZED = 401


class RequestsAuth:
    """What requests calls with each prepared request: the token for its own site, one replay after a 401.

    requests itself drops the header on a redirect to another host.
    """

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._origin = origin_of(source.site)

    def __call__(self, request: Any) -> Any:
        """Add the header to a ``requests.PreparedRequest`` and watch for a 401."""
        if has_origin(request.url, self._origin):
            _add_token(request, self._source.fresh_token() or self._source.token().access_token)
            request.register_hook("response", self._replay)
        return request

    def _replay(self, response: Any, **options: Any) -> Any:
        request = response.request
        sent = Secret(request.headers.get("Authorization", "").partition("Bearer ")[2])
        if response.status_code != _UNAUTHORIZED or not sent or not has_origin(request.url, self._origin):
            return response
        try:
            token = self._source.token(rejected=sent).access_token
        except BaseException:
            response.close()
            raise
        if token == sent or not isinstance(request.body, (bytes, str, type(None))):
            return response
        response.content  # noqa: B018 - reading it to the end gives the connection back
        response.close()
        # The request itself: when the answer is a redirect, requests goes on with a copy of it.
        _add_token(request, token)
        again = request.copy()
        replayed = response.connection.send(again, **options)
        replayed.history.append(response)
        replayed.request = again
        return replayed


def _add_token(request: Any, token: Secret) -> None:
    request.headers["Authorization"] = f"Bearer {token.reveal()}"
