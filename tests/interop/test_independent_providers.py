"""Logins through Chromium to providers that others wrote: what holds there is no agreement with ourselves."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from chromium import ChromiumPerson
from openid_providers import DJANGO, FOSITE, OIDC_PROVIDER, RegisteredClient, run_provider
from program import Program, finish
from requires import thorough

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from chromium import ChromiumReport
    from openid_providers import Kind, RunningProvider

REDIRECT_URIS = tuple(f"http://localhost:{port}/servers/callback" for port in (3000, *range(3636, 3667)))
RANGE = "http://localhost:[3636-3666]/servers/callback"  # which leaves port 3000 to its own tests
SECRET = "pass word+/&%=:"  # what the form encoding inside the Basic header is about
CELLS_SYNC = RegisteredClient("cells-sync", REDIRECT_URIS)
CELLS_CURL = RegisteredClient("cells-curl", REDIRECT_URIS, SECRET)
SYNC = ("--client-id", "cells-sync", "--redirect-uri", RANGE)
CURL = ("--client-id", "cells-curl", "--redirect-uri", RANGE)

# One worker for all: the login of a provider serves several tests.
pytestmark = [pytest.mark.xdist_group("interop"), thorough]


@dataclass(frozen=True)
class Peer:
    """A running provider, a person with a browser, and that person's command."""

    kind: Kind
    provider: RunningProvider
    person: ChromiumPerson
    program: Program

    @property
    def name(self) -> str:
        """The profile's default name."""
        return urlsplit(self.provider.site).netloc

    def with_new_person(self, directory: Path) -> Peer:
        """Return the same provider with somebody who has never been there."""
        person = ChromiumPerson(directory, self.provider.user, self.provider.password)
        return replace(self, person=person, program=Program(directory))

    def log_in(
        self,
        *options: str,
        client: tuple[str, ...] = SYNC,
        environment: dict[str, str] | None = None,
        browser: tuple[str, ...] = (),
    ) -> tuple[subprocess.CompletedProcess[str], ChromiumReport]:
        """Log in; return how the command ended and what the person saw."""
        person = self.person.browser(*browser)
        done = self.program.run(
            "-vv", "login", self.provider.site, *client, *person, *options, environment=environment
        )
        return done, self.person.report()

    def log_in_well(self, *options: str) -> ChromiumReport:
        """Log in, which must succeed; return what the person saw."""
        done, report = self.log_in(*options)
        assert done.returncode == 0, f"{done.stderr}\n{report}"
        return report

    def profile(self) -> dict[str, Any]:
        """Read the session's file."""
        return self.program.read_profile(self.name)

    def ask_userinfo(self, access_token: str) -> int:
        """Ask the provider what it thinks of a token; return the status."""
        url = self.profile()["metadata"]["userinfo_endpoint"]
        return send(urllib.request.Request(url, headers={"Authorization": f"Bearer {access_token}"}))

    def refresh_elsewhere(self, refresh_token: str) -> int:
        """Use a refresh token as a thief would; return the status."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": "cells-sync"}
        endpoint = self.profile()["metadata"]["token_endpoint"]
        return send(urllib.request.Request(endpoint, urlencode(form).encode()))


def send(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            status: int = answer.status
    except urllib.error.HTTPError as error:
        with error:
            status = error.code
    return status


@contextmanager
def run_peer(directory: Path, kind: Kind, **options: Any) -> Iterator[Peer]:
    with run_provider(kind, CELLS_SYNC, CELLS_CURL, **options) as provider:
        person = ChromiumPerson(directory, provider.user, provider.password)
        yield Peer(kind, provider, person, Program(directory))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Peer]]:
    """Start a provider as one test needs it."""
    with ExitStack() as stack:
        yield lambda kind, **options: stack.enter_context(run_peer(tmp_path, kind, **options))


@pytest.fixture(scope="module", params=[OIDC_PROVIDER, FOSITE, DJANGO], ids=lambda kind: kind.name)
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """Each provider in turn, PKCE required."""
    kind: Kind = request.param
    with run_peer(tmp_path_factory.mktemp(kind.name), kind, pkce="required") as running:
        yield running


@dataclass(frozen=True)
class Login:
    """A login that is done, and its session, which lives as long as nobody harms it."""

    peer: Peer
    command: subprocess.CompletedProcess[str]
    report: ChromiumReport


@pytest.fixture(scope="module")
def login(peer: Peer) -> Login:
    return Login(peer, *peer.log_in("--pkce", "required"))


def test_browser_terminal_profile_and_provider_agree_that_somebody_is_logged_in(login: Login) -> None:
    peer, command, report = login.peer, login.command, login.report

    assert (command.returncode, command.stdout) == (0, "")
    assert f"logged in to {peer.provider.site} as" in command.stderr
    assert "PKCE" not in command.stderr
    assert "You are logged in" in report.text
    assert not any("code=" in place for place in (report.url, *report.history))
    assert peer.profile()["pkce_binding"] == "bound"
    assert peer.ask_userinfo(peer.program.output("token").strip()) == 200


def test_the_id_token_tells_who_logged_in(login: Login) -> None:
    claims = json.loads(login.peer.program.output("whoami", "--json"))

    assert claims["sub"] == login.peer.profile()["user"]["sub"] != ""
    assert claims["aud"] in ("cells-sync", ["cells-sync"])
    assert claims["nonce"]
    assert login.peer.program.output("whoami").strip() == claims.get("name", claims["sub"])


def test_the_answer_names_its_issuer_where_the_provider_promises_to(login: Login) -> None:
    metadata = login.peer.profile()["metadata"]
    callbacks = [url for url in login.report.requests if urlsplit(url).path == "/servers/callback"]
    answer = parse_qs(urlsplit(callbacks[-1]).query)

    promised = metadata["authorization_response_iss_parameter_supported"]
    assert promised == (login.peer.kind in (OIDC_PROVIDER, DJANGO))
    assert answer.get("iss") == ([metadata["issuer"]] if promised else None)


def test_many_processes_share_one_refresh_and_the_session_survives_reuse_detection(login: Login) -> None:
    peer = login.peer
    earlier = len(peer.provider.refreshes())
    old = let_token_grow_old(peer)

    processes = [peer.program.start("token") for _ in range(8)]
    tokens = {finish(process).stdout.strip() for process in processes}

    assert len(tokens) == 1
    assert old not in tokens
    assert [record["status"] for record in peer.provider.refreshes()[earlier:]] == [200]
    assert peer.ask_userinfo(peer.program.output("token", "--refresh").strip()) == 200


def let_token_grow_old(peer: Peer) -> str:
    """Make the session's file say that its token was obtained long ago; return that token."""
    profile = peer.profile()
    profile["token"]["obtained_at"] -= profile["token"]["lifetime"]
    peer.program.profile_path(peer.name).write_text(json.dumps(profile), encoding="utf-8")
    token: str = profile["token"]["access_token"]
    return token


def test_a_refresh_token_used_by_somebody_else_ends_the_session_and_is_said_once(
    peer: Peer, tmp_path: Path
) -> None:
    peer = peer.with_new_person(tmp_path)
    peer.log_in_well()
    stolen = peer.profile()["token"]["refresh_token"]
    peer.program.output("token", "--refresh")
    assert peer.refresh_elsewhere(stolen) == 400

    done = peer.program.run("token", "--refresh")
    asked = len(peer.provider.refreshes())

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.splitlines()[-1] == f"hint: log in again: cells-loopback login --profile {peer.name}"
    assert peer.program.run("token", "--refresh").returncode == 4
    assert len(peer.provider.refreshes()) == asked, "what was refused is not asked again"


def test_a_login_again_needs_no_password_and_its_session_outlives_the_one_it_replaces(
    peer: Peer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if peer.kind is OIDC_PROVIDER:
        reason = "one grant for all logins in a browser: revoking the replaced session ends the new one too"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    peer = peer.with_new_person(tmp_path)
    assert "log in" in peer.log_in_well().clicks
    assert "log in" not in peer.log_in_well("--force").clicks

    assert peer.ask_userinfo(peer.program.output("token", "--refresh").strip()) == 200


def test_a_logout_revokes_where_the_provider_has_a_revocation_endpoint_and_says_where_not(
    peer: Peer, tmp_path: Path
) -> None:
    peer = peer.with_new_person(tmp_path)
    peer.log_in_well()
    profile = peer.profile()
    path = peer.program.profile_path(peer.name)

    done = peer.program.run("logout")
    assert done.returncode == 0
    assert not path.exists()

    path.write_text(json.dumps(profile), encoding="utf-8")  # for the endpoints' addresses only
    revocable = profile["metadata"]["revocation_endpoint"] is not None
    assert revocable == (peer.kind is not DJANGO)
    assert ("has no revocation endpoint" in done.stderr) == (not revocable)
    assert peer.ask_userinfo(profile["token"]["access_token"]) == (401 if revocable else 200)
    assert peer.refresh_elsewhere(profile["token"]["refresh_token"]) == (400 if revocable else 200)


def test_a_login_without_pkce_where_it_is_required_fails_in_the_words_of_the_provider(
    peer: Peer, tmp_path: Path
) -> None:
    done, report = peer.with_new_person(tmp_path).log_in("--pkce", "off")

    assert "The login failed" in report.text
    # Django's promises `iss` and leaves it out of errors; the words of an error with our state harm nobody.
    assert done.returncode == 5
    assert "invalid_request" in done.stderr
    assert "invalid_request" in report.text


@pytest.mark.parametrize(
    ("kind", "methods", "authentication"),
    [
        pytest.param(kind, methods, authentication, id=f"{kind.name}-{authentication}")
        for kind, methods, authentication in (
            (OIDC_PROVIDER, ("none", "client_secret_basic"), "client_secret_basic"),
            (OIDC_PROVIDER, ("none", "client_secret_post"), "client_secret_post"),
            (FOSITE, (), "client_secret_basic"),
            (DJANGO, (), "client_secret_basic"),
        )
    ],
)
def test_a_confidential_client_authenticates_each_request_and_its_secret_stays_unseen(
    kind: Kind,
    methods: tuple[str, ...],
    authentication: str,
    start: Callable[..., Peer],
    tmp_path: Path,
) -> None:
    peer = start(kind, client_auth_methods=methods)
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET + "\n", encoding="utf-8")

    done, report = peer.log_in("--client-secret-file", str(secret_file), client=CURL)
    assert done.returncode == 0, done.stderr
    peer.program.output("token", "--refresh")
    out = peer.program.run("-vv", "logout")

    requests = peer.provider.requests()
    assert {record["status"] for record in requests} == {200}
    assert {record["authentication"] for record in requests} == {authentication}
    assert [record["grant_type"] for record in requests[:2]] == ["authorization_code", "refresh_token"]
    assert not any(SECRET in text for text in (done.stderr, out.stderr, report.text, *report.requests))


def test_a_wrong_client_secret_is_a_failed_login(start: Callable[..., Peer]) -> None:
    peer = start(FOSITE)
    done, report = peer.log_in(client=CURL, environment={"CELLS_LOOPBACK_CLIENT_SECRET": "another"})

    assert done.returncode == 5
    assert "invalid_client" in done.stderr
    assert "The login failed" in report.text


@pytest.mark.parametrize("kind", [OIDC_PROVIDER, FOSITE], ids=lambda kind: kind.name)
def test_access_tokens_that_are_jwts_are_tokens_like_others(kind: Kind, start: Callable[..., Peer]) -> None:
    peer = start(kind, access_token="jwt")
    peer.log_in_well()
    first, second = peer.program.output("token"), peer.program.output("token", "--refresh")

    assert first != second
    assert first.count(".") == second.count(".") == 2
    assert peer.program.output("whoami") == "alice\n"
    assert peer.program.run("logout").returncode == 0


def test_a_token_that_lives_for_seconds_is_renewed_when_they_are_over(start: Callable[..., Peer]) -> None:
    peer = start(FOSITE, access_token_seconds=4)
    peer.log_in_well()
    first = peer.profile()["token"]["access_token"]

    while peer.ask_userinfo(first) == 200:
        time.sleep(0.1)
    second = peer.program.output("token").strip()

    assert second != first
    assert peer.ask_userinfo(second) == 200
    assert [record["status"] for record in peer.provider.refreshes()] == [200]


@pytest.mark.parametrize("binding", ["unbound", "foreign"])
def test_the_pkce_that_fosite_loses_is_recognised_by_its_own_words(
    binding: str, start: Callable[..., Peer]
) -> None:
    peer = start(FOSITE, pkce=binding)

    strict, refusal = peer.log_in("--pkce", "required")
    assert strict.returncode == 9
    assert "The login failed" in refusal.text
    assert not peer.program.profile_path(peer.name).exists()

    done, report = peer.log_in()
    assert done.returncode == 0, done.stderr
    assert "warning: " in done.stderr
    assert "You are logged in" in report.text
    assert peer.profile()["pkce_binding"] == binding
    assert "nonce" not in peer.profile()["user"]["claims"]
    exchanges = [(record["code_verifier"], record["status"]) for record in peer.provider.requests("/token")]
    assert exchanges == [(True, 400), (True, 400), (False, 200)]


def test_a_person_who_does_not_consent_has_refused_the_login(start: Callable[..., Peer]) -> None:
    done, report = start(OIDC_PROVIDER).log_in(browser=("--decline",))

    assert done.returncode == 5
    assert "the login was refused: access_denied: End-User aborted interaction" in done.stderr
    assert "The login failed" in report.text


def test_a_scope_that_was_not_granted_is_said_and_the_session_is_not_renewable(
    start: Callable[..., Peer],
) -> None:
    # OpenID Connect Core §11: offline_access counts only where prompt=consent asked for it too.
    peer = start(OIDC_PROVIDER)
    done, _ = peer.log_in("--scope", "openid offline_access")
    (session,) = json.loads(peer.program.run("status", "--json").stdout)

    assert done.returncode == 0
    assert "the server granted less than was asked: without offline_access" in done.stderr
    assert not session["renewable"]
    assert peer.program.run("token", "--refresh").returncode == 4
