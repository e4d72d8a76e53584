"""What the server has issued: login requests, codes, sessions and their tokens, and which of it is alive.

A *session* is what began with one code: every token that descends from it. Each method takes the lock,
so tests may call them from any thread.
"""

from __future__ import annotations

import secrets
import threading
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .accounts import User
    from .behaviour import Behaviour
    from .clock import ServerClock
    from .pkce import PkceData


@dataclass(frozen=True)
class AuthorizationRequest:
    """A valid authorization request (RFC 6749 §4.1.1), on its way through login and consent."""

    challenge: str
    """The name under which the login page knows the request, Hydra's ``login_challenge``."""
    client_id: str
    redirect_uri: str
    scope: str
    state: str = field(repr=False)
    nonce: str = field(repr=False)
    code_challenge: str
    code_challenge_method: str
    expires_at: float


@dataclass
class Session:
    """One login, until it is revoked; `nonce` is what its ID tokens carry."""

    id: str
    client_id: str
    user: User
    scope: str
    nonce: str = field(repr=False)
    auth_time: float
    revoked: bool = False

    def has_scope(self, *words: str) -> bool:
        """Tell whether one of these words was granted."""
        return bool(set(words) & set(self.scope.split()))


@dataclass
class Code:
    """An authorization code; `pkce` is what fosite keeps with it, `used` whether it was exchanged."""

    value: str = field(repr=False)
    redirect_uri: str
    session: Session
    pkce: PkceData | None = field(repr=False)
    expires_at: float
    used: bool = False


@dataclass
class AccessToken:
    """An access token."""

    value: str = field(repr=False)
    session: Session
    expires_at: float
    revoked: bool = False


@dataclass
class RefreshToken:
    """A refresh token, good for one use."""

    value: str = field(repr=False)
    session: Session
    expires_at: float
    used: bool = False


@dataclass
class PersonalAccessToken:
    """A token that an administrator or the user made; it never refreshes."""

    value: str = field(repr=False)
    user: User
    expires_at: float


class Grants:
    """Everything issued, in memory."""

    def __init__(self, clock: ServerClock, behaviour: Callable[[], Behaviour]) -> None:
        self._lock = threading.RLock()
        self._clock = clock
        self._behaviour = behaviour
        self._secrets: list[str] = []
        self._requests: dict[str, AuthorizationRequest] = {}
        self._codes: dict[str, Code] = {}
        self._access_tokens: dict[str, AccessToken] = {}
        self._refresh_tokens: dict[str, RefreshToken] = {}
        self._personal_access_tokens: dict[str, PersonalAccessToken] = {}
        self._web_sessions: dict[str, tuple[User, float]] = {}

    # Secrets

    def remember_secret(self, secret: str) -> str:
        """Note something that must never show up anywhere else, and return it."""
        with self._lock:
            self._secrets.append(secret)
        return secret

    def secrets(self) -> list[str]:
        """Return every secret this server ever issued or was sent."""
        with self._lock:
            return list(dict.fromkeys(self._secrets))

    # Logging in

    def add_request(self, request: AuthorizationRequest) -> None:
        """Keep a request while the person logs in."""
        with self._lock:
            self._requests[request.challenge] = request

    def find_request(self, challenge: str) -> AuthorizationRequest | None:
        """Return the request of this name, unless it has expired."""
        with self._lock:
            request = self._requests.get(challenge)
        return request if request and request.expires_at > self._clock.now() else None

    def start_web_session(self, user: User) -> str:
        """Return the cookie of a new web session."""
        cookie = self.remember_secret(secrets.token_urlsafe(32))
        with self._lock:
            expires_at = self._clock.now() + self._behaviour().web_session_lifetime
            self._web_sessions[cookie] = (user, expires_at)
        return cookie

    def find_web_session(self, cookie: str) -> User | None:
        """Return who is logged in with this cookie."""
        with self._lock:
            user, expires_at = self._web_sessions.get(cookie, (None, 0.0))
        return user if expires_at > self._clock.now() else None

    def end_web_sessions(self) -> None:
        """Log every browser out."""
        with self._lock:
            self._web_sessions.clear()

    # Codes and sessions

    def issue_code(self, request: AuthorizationRequest, user: User, pkce: PkceData | None) -> Code:
        """Return the code that answers a request, and forget the request."""
        behaviour, now = self._behaviour(), self._clock.now()
        nonce = {"kept": request.nonce, "dropped": "", "wrong": secrets.token_urlsafe(32)}[behaviour.nonce]
        scope = request.scope if behaviour.granted_scope is None else behaviour.granted_scope
        session = Session(str(uuid.uuid4()), request.client_id, user, scope, nonce, now)
        code = Code(
            self._make_token("ac"), request.redirect_uri, session, pkce, now + behaviour.code_lifetime
        )
        with self._lock:
            self._requests.pop(request.challenge, None)
            self._codes[code.value] = code
        return code

    def find_code(self, value: str) -> Code | None:
        """Return a code, used and expired ones too."""
        with self._lock:
            return self._codes.get(value)

    # Tokens

    def issue_access_token(self, session: Session, value: str = "") -> AccessToken:
        """Return a new access token of a session; `value` is the JWT where tokens are JWTs."""
        expires_at = self._clock.now() + self._behaviour().access_token_lifetime
        token = AccessToken(
            self.remember_secret(value) if value else self._make_token("at"), session, expires_at
        )
        with self._lock:
            self._access_tokens[token.value] = token
        return token

    def issue_refresh_token(self, session: Session) -> RefreshToken:
        """Return a new refresh token of a session."""
        expires_at = self._clock.now() + self._behaviour().refresh_token_lifetime
        token = RefreshToken(self._make_token("rt"), session, expires_at)
        with self._lock:
            self._refresh_tokens[token.value] = token
        return token

    def find_refresh_token(self, value: str) -> RefreshToken | None:
        """Return a refresh token, used, revoked and expired ones too."""
        with self._lock:
            return self._refresh_tokens.get(value)

    def find_live_access_token(self, value: str) -> AccessToken | None:
        """Return an access token that is neither expired nor revoked."""
        with self._lock:
            token = self._access_tokens.get(value)
        return token if token and self._is_live(token) else None

    def find_session_of(self, value: str) -> Session | None:
        """Return the session that an access or refresh token belongs to, for its revocation."""
        with self._lock:
            token = self._refresh_tokens.get(value) or self._access_tokens.get(value)
        return token.session if token else None

    def add_personal_access_token(self, user: User, lifetime: float) -> str:
        """Return a new personal access token."""
        value = self.remember_secret(secrets.token_urlsafe(32))
        with self._lock:
            expires_at = self._clock.now() + lifetime
            self._personal_access_tokens[value] = PersonalAccessToken(value, user, expires_at)
        return value

    def find_bearer(self, value: str) -> User | None:
        """Return whose bearer token this is, access token or personal access token, if it is live."""
        if token := self.find_live_access_token(value):
            return token.session.user
        with self._lock:
            personal = self._personal_access_tokens.get(value)
        return personal.user if personal and personal.expires_at > self._clock.now() else None

    def live_access_tokens(self) -> list[str]:
        """Return the access tokens that the server would accept now, oldest first."""
        with self._lock:
            return [token.value for token in self._access_tokens.values() if self._is_live(token)]

    def live_refresh_tokens(self) -> list[str]:
        """Return the refresh tokens that the server would accept now, oldest first."""
        with self._lock:
            return [
                token.value
                for token in self._refresh_tokens.values()
                if not (token.used or token.session.revoked) and token.expires_at > self._clock.now()
            ]

    # Ends

    def revoke_access_tokens_of(self, session: Session) -> None:
        """Let a session's access tokens die while it lives on."""
        with self._lock:
            for token in self._access_tokens.values():
                token.revoked |= token.session is session

    def revoke_sessions(self, user_name: str | None = None) -> None:
        """End every session, or every one of one user."""
        with self._lock:
            for code in self._codes.values():
                code.session.revoked |= user_name in {None, code.session.user.name}

    def expire_access_tokens(self) -> None:
        """Let every access token expire now."""
        with self._lock:
            _expire(self._access_tokens.values(), self._clock.now())

    def expire_refresh_tokens(self) -> None:
        """Let every refresh token expire now."""
        with self._lock:
            _expire(self._refresh_tokens.values(), self._clock.now())

    def revoke_personal_access_tokens(self) -> None:
        """Forget every personal access token."""
        with self._lock:
            self._personal_access_tokens.clear()

    def _is_live(self, token: AccessToken) -> bool:
        return not (token.revoked or token.session.revoked) and token.expires_at > self._clock.now()

    def _make_token(self, kind: str) -> str:
        value = f"{secrets.token_urlsafe(32)}.{secrets.token_urlsafe(32)}"
        if self._behaviour().tokens != "two-part":
            value = f"ory_{kind}_{value}"
        return self.remember_secret(value)


def _expire(tokens: Iterable[AccessToken | RefreshToken], now: float) -> None:
    for token in tokens:
        token.expires_at = min(token.expires_at, now)
