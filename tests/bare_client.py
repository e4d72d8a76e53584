"""A bare OAuth client in the standard library: it judges nothing, so that a test can look at every answer.

Its redirect URI is ``cellsauth://callback``, at which the embedded browser simply stops: no listener.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cells_loopback.testing import CellsServer, Page

REDIRECT_URI = "cellsauth://callback"
VERIFIER = "an-unguessable-verifier-of-43-characters-or-more"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
STATE = "a-state-that-is-long-enough"
NONCE = "a-nonce-that-is-long-enough"
SCOPE = "openid email profile pydio offline"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: object) -> None:
        return None


@dataclass
class BareClient:
    server: CellsServer
    client_id: str = "cells-mobile"
    redirect_uri: str = REDIRECT_URI
    headers: dict[str, str] = field(default_factory=dict)

    def authorization_url(self, **changes: str) -> str:
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": SCOPE,
            "state": STATE,
            "nonce": NONCE,
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        query |= changes
        wanted = {name: value for name, value in query.items() if value}
        return f"{self.server.site}/oidc/oauth2/auth?{urllib.parse.urlencode(wanted)}"

    def authorize(self, **changes: str) -> dict[str, str]:
        """Log in as a person would, and return the parameters of the redirect."""
        return read_redirect(self.server.sign_in(self.authorization_url(**changes)))

    def exchange(self, code: str, **changes: str) -> Answer:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "client_id": self.client_id,
            "code_verifier": VERIFIER,
        }
        form |= changes
        return self.post("/oidc/oauth2/token", {name: value for name, value in form.items() if value})

    def log_in(self, **changes: str) -> dict[str, Any]:
        """Return the token answer of a whole login."""
        answer = self.exchange(self.authorize(**changes)["code"])
        assert answer.status == 200, answer.text
        tokens: dict[str, Any] = answer.json
        return tokens

    def refresh(self, refresh_token: str, **changes: str) -> Answer:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": self.client_id}
        return self.post("/oidc/oauth2/token", form | changes)

    def revoke(self, token: str, **changes: str) -> Answer:
        return self.post("/oidc/oauth2/revoke", {"token": token, "client_id": self.client_id, **changes})

    def post(self, path: str, form: Mapping[str, str]) -> Answer:
        return self._send("POST", path, urllib.parse.urlencode(form).encode(), self.headers)

    def get(self, path: str, token: str = "", method: str = "GET", body: bytes | None = None) -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self._send(method, path, body, headers)

    def _send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        request = urllib.request.Request(self.server.site + path, body, dict(headers), method=method)
        # Trusting nobody, for plain http: the system's authorities take as long to read as a server to start.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.server.ca_file:
            context = ssl.create_default_context(cafile=self.server.ca_file)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirects()
        )
        try:
            with opener.open(request, timeout=20) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())


def read_redirect(page: Page) -> dict[str, str]:
    """Return the query of the address that the browser ended at."""
    assert page.url.startswith(REDIRECT_URI), page.text
    return dict(urllib.parse.parse_qsl(page.url.partition("?")[2], keep_blank_values=True))
