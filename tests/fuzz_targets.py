"""Everything that reads what somebody else has written: inputs for it, and what must hold for all of them.

`test_fuzz` tries a few inputs of each target, `scripts/fuzz` as many as there is time for. A check
returns, or raises for an input that ends in an unforeseen error, or gets further than it may.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from examples import METADATA, NOW, PROFILE, REQUEST, RESPONSE, SITE, TOKENS, UPTIME
from fuzz_inputs import (
    DEEP,
    JSON_OBJECTS,
    JSON_VALUES,
    TEXTS,
    changed,
    damaged,
    files_like,
    joined,
    replies_like,
)
from fuzz_sockets import CALLBACK_PATH, STATE, answering_server, waiting_login
from hypothesis import strategies as st
from signatures import ALGORITHMS, encode, encode_json, make_signer, sign_with_hmac

from cells_loopback import __main__ as warm_path
from cells_loopback.cli.status import describe
from cells_loopback.clock import uptime, wall
from cells_loopback.errors import CellsLoopbackError, StoreError, UntrustedServerError, UsageError
from cells_loopback.http.answers import judge_metadata, parse_date, parse_retry_after
from cells_loopback.http.endpoints import (
    ask_rest_api,
    exchange,
    fetch_key_set,
    fetch_userinfo,
    refresh,
    revoke,
)
from cells_loopback.http.transport import SiteClient
from cells_loopback.loopback_login.options import check_scope
from cells_loopback.loopback_login.pasted import parse_callback_address
from cells_loopback.protocol.client import CELLS_CLIENT, parse_redirect_uri
from cells_loopback.protocol.id_token import validate_id_token
from cells_loopback.protocol.site import origin_of, parse_site
from cells_loopback.secret import Secret
from cells_loopback.store import snapshot
from cells_loopback.store.preferences import read_default_profile, read_login_options
from cells_loopback.store.profile_document import encode_profile
from cells_loopback.store.profiles import ProfileStore, check_profile_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from fuzz_inputs import (
        Reply,
    )
    from hypothesis.strategies import SearchStrategy

    from cells_loopback.http.answers import Answer
    from cells_loopback.protocol.tokens import TokenSet

Check = Callable[[Any], None]

TOO_LONG = 10.0
"""Seconds for one input: far more than any takes, far less than a hang."""


@dataclass(frozen=True)
class Target:
    """One reader: ``opened`` gives its check, with whatever the check needs around it."""

    name: str
    inputs: SearchStrategy[Any]
    opened: Callable[[], AbstractContextManager[Check]]


OURS = [
    secret.reveal()
    for secret in (RESPONSE.code, REQUEST.code_verifier, TOKENS.access_token, TOKENS.refresh_token)
    if secret is not None
]


def check_error(error: CellsLoopbackError) -> None:
    """An error for a person: of a known kind, bounded, with no secret of ours in it."""
    assert 2 <= error.exit_code <= 9
    assert len(error.message) < 2000
    assert len(error.hint) < 2000
    assert not [secret for secret in OURS if secret in error.message + error.hint]


# The callback's raw bytes

HEAD_PIECES = st.sampled_from(
    [
        *(b"GET ", b"POST ", b"OPTIONS ", b"/", CALLBACK_PATH.encode(), b"?", b"code=", b"state=", b"error="),
        *(STATE[:-1].encode(), STATE.swapcase().encode(), f"{STATE[:-1]}%00".encode(), b"&", b"%ff", b"#"),
        *(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/9.9\r\n", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b": "),
        *(b"Host: {host}\r\n", b"Host: localhost\r\n", b"Host: evil.example\r\n", b"Host:"),
        *(b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n"),
        *(b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", b"Connection: upgrade\r\n"),
        *(b"Origin: null\r\n", b"Sec-Fetch-Dest: image\r\n", b"Cookie: a=b\r\n", b"\x00", b"\x16\x03\x01"),
        *(b"a" * 9000, b"0\r\n\r\n", b"http://{host}", b"//", b";", b"..", b"%2e"),
    ]
)
REQUESTS = joined(HEAD_PIECES, 8).map(
    lambda query: b"GET " + CALLBACK_PATH.encode() + b"?" + query + b" HTTP/1.1\r\nHost: {host}\r\n\r\n"
)
CALLBACK_BYTES = st.lists(REQUESTS | joined(HEAD_PIECES, 8) | st.binary(max_size=60), min_size=1, max_size=4)


# The server's answers

ANSWER_PIECES = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 503 \r\n", b"HTTP/2 200\r\n"),
        *(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 99999 X\r\n", b"HTTP/1.1 -1 X\r\n", b"ICY 200 OK\r\n"),
        *(b"HTTP/1.1 301 X\r\n", b"Location: http://[\r\n", b"Location: https://evil.example/\r\n"),
        *(b"Content-Length: 5\r\n", b"Content-Length: -5\r\n", b"Content-Length: 99999999999\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Content-Encoding: gzip\r\n"),
        *(b"Content-Encoding: deflate\r\n", b"Content-Encoding: br\r\n", b"Retry-After: \xb2\r\n"),
        *(b"Date: \xff\r\n", b"Set-Cookie: a=b\r\n", b": \r\n", b" folded\r\n", b"\r\n", b"\n", b"\x00"),
        *(b"5\r\nhello\r\n", b"0\r\n\r\n", b"ffffffffffffffffff\r\n", b"{}", b"hello", b"a" * 70_000),
        *(b"\x1f\x8b\x08\x00", b"x\x9c", b"SSH-2.0-OpenSSH\r\n", b"\x15\x03\x01\x00\x02\x02\x0a"),
    ]
)
DISCOVERY = {**json.loads(json.dumps(asdict(METADATA))), "response_types_supported": ["code"]}
ANSWER_BYTES = joined(ANSWER_PIECES, 10) | files_like(DISCOVERY).map(
    lambda body: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
)
TOKEN_ANSWER = {
    "access_token": "ory_at_new",
    "token_type": "bearer",
    "expires_in": 599,
    "scope": "openid offline",
    "refresh_token": "ory_rt_new",
    "id_token": "eyJ.eyJ.c2ln",
}
ERROR_ANSWER = {
    "error": "invalid_grant",
    "error_description": "The PKCE code challenge did not match the code verifier.",
    "error_hint": "Unable to find initial PKCE data tied to this request",
    "status_code": 400,
}


class OneAnswer(SiteClient):
    """A client whose every request gets the same answer; nothing is sent."""

    def __init__(self, answer: Answer) -> None:
        self.site = SITE
        self._answer = answer

    def get(self, url: str, *, bearer: Secret | None = None) -> Answer:
        assert origin_of(url) == SITE.url
        return self._answer

    def post_form(self, url: str, form: Mapping[str, str | Secret], authorization: Secret | None) -> Answer:
        assert origin_of(url) == SITE.url
        return self._answer


def check_token_answer(reply: Reply) -> None:
    client = OneAnswer(reply.answer())
    requests: tuple[Callable[[], TokenSet], ...] = (
        lambda: exchange(client, RESPONSE),
        lambda: refresh(client, METADATA, CELLS_CLIENT, TOKENS),
    )
    for send in requests:
        try:
            tokens = send()
        except CellsLoopbackError as error:
            check_error(error)
        else:
            assert 200 <= reply.status < 300
            assert json.loads(reply.body)["access_token"] == tokens.access_token.reveal()
            _check_tokens(tokens)


def _check_tokens(tokens: TokenSet) -> None:
    """Tokens that were accepted can be stored, shown and used."""
    profile = replace(PROFILE, tokens=tokens)
    written = json.loads(json.dumps(encode_profile(profile)))
    assert written["token"]["access_token"].isascii()
    assert "***" not in json.dumps(describe(profile, is_default=True))
    assert tokens.is_fresh(0, NOW, UPTIME)


def check_other_answers(reply: Reply) -> None:
    client = OneAnswer(reply.answer())
    requests: tuple[Callable[[], object], ...] = (
        lambda: revoke(client, METADATA, CELLS_CLIENT, TOKENS.access_token),
        lambda: fetch_userinfo(client, METADATA, TOKENS.access_token),
        lambda: fetch_key_set(client, METADATA),
        lambda: ask_rest_api(client, TOKENS.access_token),
    )
    for send in requests:
        try:
            send()
        except CellsLoopbackError as error:
            check_error(error)


def check_discovery(reply: Reply) -> None:
    try:
        metadata = judge_metadata(SITE, reply.answer())
    except CellsLoopbackError as error:
        check_error(error)
        return
    assert reply.status == 200
    for name, value in asdict(metadata).items():
        if value is not None and name.endswith(("_endpoint", "_uri", "issuer")):
            assert origin_of(value) == SITE.url


# The ID token

SIGNER = make_signer()
CLAIMS = {
    "iss": METADATA.issuer,
    "sub": "4f6b0d4e-8a4c-4d8e-9a53-0b1f5d3c7a10",
    "aud": ["cells-client"],
    "iat": int(NOW),
    "exp": int(NOW) + 3600,
    "nonce": REQUEST.nonce.reveal(),
    "name": "alice",
}
HEADER = {"alg": "RS256", "kid": SIGNER.kid, "typ": "JWT"}
KEY_SET = {"keys": [SIGNER.jwk, make_signer("ES256").jwk]}
TOKEN = SIGNER.sign(CLAIMS)


class Presented(NamedTuple):
    """An ID token and the key set to judge it by; ``is_signed`` when the server has signed just this."""

    id_token: str
    key_set: Any
    is_signed: bool


ALGORITHM_NAMES = st.sampled_from([*ALGORITHMS, "none", "None", "HS256", "EdDSA", "dir", "RS1", ""])
HEADERS = changed(HEADER) | ALGORITHM_NAMES.map(lambda name: {**HEADER, "alg": name}) | JSON_VALUES
KEY_SETS = st.just(KEY_SET) | changed(KEY_SET) | JSON_OBJECTS


def _forge(header: Any, claims: Any, signature: bytes) -> str:
    return f"{encode_json(header)}.{encode_json(claims)}.{encode(signature)}"


def _forge_with_public_key(header: Any) -> str:
    return sign_with_hmac(SIGNER.public_pem, CLAIMS, header if isinstance(header, dict) else {})


def _sign_under(header: Any) -> str:
    return SIGNER.sign_text(f"{encode_json(header)}.{encode_json(CLAIMS)}")


UNSIGNED = (
    st.builds(_forge, HEADERS, st.just(CLAIMS) | changed(CLAIMS), st.binary(max_size=300))
    | HEADERS.map(_forge_with_public_key)
    | damaged(st.just(TOKEN.encode())).map(lambda data: data.decode("latin-1"))
    | TEXTS
)
PRESENTED = (
    st.builds(Presented, UNSIGNED, KEY_SETS, st.just(False))
    | st.builds(Presented, (changed(CLAIMS) | JSON_VALUES).map(SIGNER.sign), KEY_SETS, st.just(True))
    | st.builds(Presented, HEADERS.map(_sign_under), KEY_SETS, st.just(True))
)


def check_id_token(presented: Presented) -> None:
    try:
        claims = validate_id_token(
            Secret(presented.id_token),
            presented.key_set,
            issuer=METADATA.issuer,
            client_id="cells-client",
            nonce=REQUEST.nonce,
            access_token=TOKENS.access_token,
            now=NOW,
        )
    except UntrustedServerError as error:
        check_error(error)
        return
    assert presented.is_signed or presented.id_token == TOKEN, "a token that nobody signed was accepted"
    assert claims.all["iss"].rstrip("/") == METADATA.issuer.rstrip("/")
    assert claims.all["exp"] > NOW - 200
    assert claims.all.get("nonce") in {None, CLAIMS["nonce"]}


# The files

PROFILE_DOCUMENT = encode_profile(
    replace(PROFILE, tokens=replace(TOKENS, obtained_at=wall(), obtained_uptime=uptime(), lifetime=86400.0))
)
CONFIG_PIECES = st.sampled_from(
    [
        *('default_profile = "work"\n', "default_profile = 'work'\n", 'default_profile = ""\n'),
        *("default_profile = 7\n", 'default_profile="work"\n', ' default_profile = "work"\n'),
        *(
            '"default_profile" = "work"\n',
            'default_profile = "w\\u006frk"\n',
            'default_profile = """work"""\n',
        ),
        *("[login]\n", "timeout = 60\n", 'pkce = "off"\n', "browser = 7\n", "x = [\n", "]\n", "# comment\n"),
        *("\n", '"', "'''", '"""', "\r\n", "\x00", "=", "ü"),
    ]
)
CONFIG_FILES = (
    st.lists(CONFIG_PIECES | st.text(max_size=6), max_size=6).map(
        lambda parts: "".join(parts).encode("utf-8", "replace")
    )
    | st.binary()
    | DEEP.map(lambda data: b"x = " + data)
)


@contextmanager
def profile_file() -> Iterator[Check]:
    """A profile's file: a session that can be shown and used, or damaged and left as it is."""
    with tempfile.TemporaryDirectory() as directory:
        store = ProfileStore(directory)
        store.prepare()
        path = store.path("work")

        def check(content: bytes) -> None:
            _write(path, content)
            quick = _quickly(lambda: _token_of(path))
            try:
                profile = store.read("work")
            except StoreError as error:
                check_error(error)
                # The warm path looks at nothing but the token: damage elsewhere does not concern it.
                assert quick is None or quick == json.loads(content)["token"]["access_token"]
            else:
                json.dumps([describe(profile, is_default=False), encode_profile(profile)])
                if quick is not None:
                    assert quick == profile.tokens.access_token.reveal()
                    assert profile.tokens.is_fresh(None, wall(), uptime())
            with open(path, "rb") as file:
                assert file.read() == content

        yield check


@contextmanager
def config_file() -> Iterator[Check]:
    """The preferences; where the warm path understands them it understands the same."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "config.toml")

        def check(content: bytes) -> None:
            _write(path, content)
            quick = _quickly(lambda: snapshot.find_profile_path(directory, None))
            try:
                chosen = read_default_profile(directory)
                json.dumps(read_login_options(directory))
            except StoreError as error:
                check_error(error)
                return
            assert quick in {None, f"{directory}/profiles/{chosen}.json"}

        yield check


def _write(path: str, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


def _token_of(path: str) -> str | None:
    document = warm_path._fresh_document(path, None)
    return None if document is None else str(document["token"]["access_token"])


def _quickly(read: Callable[[], str | None]) -> str | None:
    """What the warm path finds, None when it leaves the answer to the ordinary modules."""
    try:
        return read()
    except snapshot.NOT_PLAIN:
        return None


# What people type and paste

TYPED_PIECES = st.sampled_from(
    [
        *("http", "https", "://", "localhost", "127.0.0.1", "[::1]", ":", "[", "]", "@", "/", "?", "#", "%"),
        *("3000", "65536", "-", "oidc", ".well-known", ".", "\\", " ", "ü", "code=", "state=", "&", "\x00"),
        *(REQUEST.redirect_uri, REQUEST.state.reveal(), "xn--", "\u200d", "²", "9" * 5000),
    ]
)
TYPED = TEXTS | st.lists(TYPED_PIECES | st.text(max_size=4), max_size=10).map("".join)


def check_typed(text: str) -> None:
    readers: tuple[Callable[[str], object], ...] = (
        *(parse_site, parse_redirect_uri, check_scope, check_profile_name),
    )
    for read in readers:
        try:
            read(text)
        except UsageError as error:
            check_error(error)
    if parse_callback_address(text, REQUEST.redirect_uri) is not None:
        assert text.strip().startswith(REQUEST.redirect_uri + "?")
    parse_retry_after(text, NOW)
    parse_date(text)


TARGETS = (
    Target("callback's raw bytes", CALLBACK_BYTES, waiting_login),
    Target("answer's raw bytes", ANSWER_BYTES, lambda: answering_server(check_error)),
    Target("token answer", replies_like(TOKEN_ANSWER, ERROR_ANSWER), lambda: nullcontext(check_token_answer)),
    Target("discovery document", replies_like(DISCOVERY), lambda: nullcontext(check_discovery)),
    Target(
        "revocation, userinfo, keys",
        replies_like(ERROR_ANSWER, CLAIMS, KEY_SET),
        lambda: nullcontext(check_other_answers),
    ),
    Target("ID token and its header", PRESENTED, lambda: nullcontext(check_id_token)),
    Target("profile file", files_like(PROFILE_DOCUMENT), profile_file),
    Target("config file", CONFIG_FILES, config_file),
    Target("typed and pasted text", TYPED, lambda: nullcontext(check_typed)),
)
