"""The request log: what really happened, for tests to ask."""

from __future__ import annotations

import threading
import time
import urllib.parse
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS = {
    ("GET", "/oidc/.well-known/openid-configuration"): "discovery",
    ("GET", "/oidc/.well-known/jwks.json"): "jwks",
    ("GET", "/oidc/oauth2/auth"): "authorize",
    ("GET", "/login"): "login-page",
    ("POST", "/login"): "login",
    ("POST", "/consent"): "consent",
    ("POST", "/oidc/oauth2/revoke"): "revoke",
    ("GET", "/oidc/oauth2/userinfo"): "userinfo",
    ("GET", "/oidc/userinfo"): "userinfo",
    ("GET", "/oauth2/oob"): "oob",
}
_BUCKETS = {"io", "data"}
_GRANTS = {"authorization_code": "exchange", "refresh_token": "refresh"}


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it arrived; `status` is None until it is answered, and stays None if it never is.

    `time` is when it came, in Unix seconds, and `seconds` is how long the answer took to be made.

    `kind` is one of ``discovery``, ``jwks``, ``authorize``, ``login-page``, ``login`` (the form was
    submitted), ``consent``, ``exchange``, ``refresh``, ``token`` (any other grant), ``revoke``,
    ``userinfo``, ``oob``, ``rest``, ``s3`` and ``other``. The fields that may hold secrets stay out of
    the ``repr``.
    """

    kind: str
    method: str
    path: str
    query: dict[str, str] = field(repr=False)
    form: dict[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    time: float
    client_id: str = ""
    status: int | None = None
    seconds: float | None = None

    @property
    def authorization(self) -> str:
        """The Authorization header, or nothing."""
        return self.headers.get("Authorization", "")


class RequestLog:
    """Requests in the order of their arrival."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._requests: list[RecordedRequest] = []

    def begin(self, request: RecordedRequest) -> int:
        """Note a request and return its number."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
            return len(self._requests) - 1

    def finish(self, number: int, status: int) -> None:
        """Note how a request was answered."""
        with self._changed:
            if number < len(self._requests):
                request = self._requests[number]
                self._requests[number] = replace(request, status=status, seconds=time.time() - request.time)
            self._changed.notify_all()

    def snapshot(self) -> list[RecordedRequest]:
        """Return a copy of the log."""
        with self._changed:
            return list(self._requests)

    def count(self, kind: str, status: int | None = None) -> int:
        """Return how many requests of a kind have arrived, or were answered with that status."""
        return sum(request.kind == kind and status in {None, request.status} for request in self.snapshot())

    def wait_for(self, kind: str, count: int, timeout: float) -> bool:
        """Wait until that many requests of a kind have arrived; False when they did not come in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.count(kind) >= count, timeout)


def describe_request(
    method: str, path: str, query: Mapping[str, str], form: Mapping[str, str], headers: Mapping[str, str]
) -> RecordedRequest:
    """Return the record of a request that has just arrived."""
    return RecordedRequest(
        kind=_find_kind(method, path, query, form, headers),
        method=method,
        path=path,
        query=dict(query),
        form=dict(form),
        headers=headers,
        time=time.time(),
        client_id=form.get("client_id") or query.get("client_id", ""),
    )


def parse_form(text: str) -> dict[str, str]:
    """Return the fields of an ``application/x-www-form-urlencoded`` body."""
    return dict(urllib.parse.parse_qsl(text, keep_blank_values=True))


def _find_kind(
    method: str, path: str, query: Mapping[str, str], form: Mapping[str, str], headers: Mapping[str, str]
) -> str:
    if path == "/oidc/oauth2/token":
        return _GRANTS.get(form.get("grant_type", ""), "token")
    if kind := _KINDS.get((method, path)):
        return kind
    if path.startswith("/a/"):
        return "rest"
    signed = headers.get("Authorization", "").startswith("AWS4-") or "X-Amz-Signature" in query
    return "s3" if signed or path.strip("/").partition("/")[0] in _BUCKETS else "other"
