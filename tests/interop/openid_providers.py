"""OpenID providers that others wrote, started on loopback: each a folder of `providers`, each its own family.

Every provider comes from its own registry by name and exact version, once, into ``build/interop`` of the
checkout. It reads its configuration from stdin and ends when its stdin does, so none outlives its test.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from requires import require_program

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(os.path.dirname(os.path.dirname(HERE)), "build", "interop")
START_TIMEOUT = 30.0
# As it was before any test: package managers keep their caches in the real home.
ENVIRONMENT = dict(os.environ)


@dataclass(frozen=True)
class Kind:
    """One provider: the folder it is described in, how it is installed and how it is started.

    Both commands run in its own directory below `BUILD`.
    """

    name: str
    programs: tuple[str, ...]
    install: tuple[str, ...]
    start: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


OIDC_PROVIDER = Kind(
    "oidc-provider",
    ("node", "npm"),
    (
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--no-package-lock",
        "--ignore-scripts",
        "--loglevel=error",
    ),
    ("node", "server.mjs"),
)
"""The certified provider of the Node.js world. ``iss`` in the answer, consent pages, PKCE by policy."""

FOSITE = Kind("fosite", ("go",), ("go", "build", "-mod=mod", "-o", "provider", "."), ("./provider",))
"""ORY's library inside Cells, behind Cells' endpoints: its own wordings for lost PKCE data and for reuse."""

DJANGO = Kind(
    "django-oauth-toolkit",
    (),
    (sys.executable, "-m", "pip", "install", "--quiet", "--target", "packages", "-r", "requirements.txt"),
    (sys.executable, "django_site.py"),
    (("PYTHONPATH", "packages"),),
)
"""The provider of the Django world, oauthlib underneath: other paths, no revocation endpoint published."""


@dataclass(frozen=True)
class RegisteredClient:
    """A client as the provider's administrator registers it; public without a secret."""

    client_id: str
    redirect_uris: tuple[str, ...]
    client_secret: str = ""


@dataclass(frozen=True)
class RunningProvider:
    """A provider that listens."""

    site: str
    user: str
    password: str

    def requests(self, endpoint: str = "") -> list[dict[str, Any]]:
        """Return what came to the token endpoints so far, or to the one whose path ends like this.

        A request is listed before it is answered.
        """
        with urllib.request.urlopen(f"{self.site}/requests", timeout=10) as answer:
            records: list[dict[str, Any]] = json.load(answer)
        return [record for record in records if record["endpoint"].rstrip("/").endswith(endpoint)]

    def refreshes(self) -> list[dict[str, Any]]:
        """Return the refresh requests so far."""
        return [record for record in self.requests() if record["grant_type"] == "refresh_token"]


@contextmanager
def run_provider(
    kind: Kind,
    *clients: RegisteredClient,
    pkce: str = "optional",
    access_token: str = "opaque",
    access_token_seconds: int = 600,
    client_auth_methods: tuple[str, ...] = ("none", "client_secret_basic", "client_secret_post"),
) -> Iterator[RunningProvider]:
    """Run a provider with one user and these clients.

    ``pkce`` is ``required`` or ``optional``; fosite also knows ``unbound`` and ``foreign``, the two ways
    in which Cells loses a challenge. ``access_token`` is ``opaque`` or, but for Django, ``jwt``.
    """
    config = {
        "user": {
            "login": "alice",
            "password": "correct horse",
            "email": "alice@example.com",
            "sub": "0f1d6c1e-5a0b-4b57-9a51-3c8f6f0a7f11",
        },
        "clients": [_describe_client(client) for client in clients],
        "pkce": pkce,
        "access_token": access_token,
        "access_token_seconds": access_token_seconds,
        "client_auth_methods": client_auth_methods,
    }
    directory = _install(kind)
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            kind.start,
            cwd=directory,
            env={**ENVIRONMENT, **dict(kind.environment)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        ) as process,
    ):
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(config).encode() + b"\n")
            process.stdin.flush()
            yield RunningProvider(_read_site(process), "alice", "correct horse")
        except ProviderNotStartedError:
            stderr.seek(0)
            pytest.fail(f"{kind.name} did not start:\n{stderr.read().decode(errors='replace')}")
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


class ProviderNotStartedError(Exception):
    """A provider ended, or said nothing in time, instead of listening."""


def _describe_client(client: RegisteredClient) -> dict[str, Any]:
    described: dict[str, Any] = {"client_id": client.client_id, "redirect_uris": client.redirect_uris}
    if client.client_secret:
        described["client_secret"] = client.client_secret
    return described


def _read_site(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(START_TIMEOUT):
            process.kill()
            raise ProviderNotStartedError
    line = process.stdout.readline()
    if not line:
        raise ProviderNotStartedError
    site: str = json.loads(line)["site"]
    return site


def _install(kind: Kind) -> str:
    """Return the directory in which the provider is ready to start, installed now if it is not there yet.

    Processes of one test run wait for each other. What is there is complete: it got its name last.
    """
    for program in kind.programs:
        require_program(program)
    source = os.path.join(HERE, "providers", kind.name)
    directory = os.path.join(BUILD, f"{kind.name}-{_fingerprint(kind, source)}")
    os.makedirs(BUILD, exist_ok=True)
    with open(os.path.join(BUILD, f"{kind.name}.lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(directory):
            unfinished = directory + ".new"
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(source, unfinished)
            done = subprocess.run(
                kind.install,
                cwd=unfinished,
                env=ENVIRONMENT,
                capture_output=True,
                text=True,
                check=False,
                timeout=500,
            )
            if done.returncode:
                pytest.fail(f"{kind.name} cannot be installed:\n{done.stdout}{done.stderr}")
            os.rename(unfinished, directory)
    return directory


def _fingerprint(kind: Kind, source: str) -> str:
    # The command too: it names the interpreter, where it is for one that packages are installed.
    digest = hashlib.sha256(repr(kind.install).encode())
    for name in sorted(os.listdir(source)):
        path = os.path.join(source, name)
        if os.path.isfile(path):
            with open(path, "rb") as file:
                digest.update(name.encode() + b"\0" + file.read())
    return digest.hexdigest()[:12]
