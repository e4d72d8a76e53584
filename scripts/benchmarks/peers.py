"""What the program is compared with: each prints a token that is valid and stored in its own way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from typing import TYPE_CHECKING

from .commands import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("msal", "google-auth-oauthlib", "requests-oauth2client")
TOKEN = "a-cached-token"

# Each of the scripts below stores a token when it is given "store", and prints the stored one without.
_MSAL = """
import base64, json, sys, msal
class NoNetwork:  # the authority's own description, which msal fetches whenever it starts
    status_code, headers = 200, {}
    members = "issuer", "authorization_endpoint", "token_endpoint", "device_authorization_endpoint"
    text = json.dumps(dict.fromkeys(members, "https://login.microsoftonline.com/t/any"))
    def get(self, *_, **__): return self
    def raise_for_status(self): pass
    def close(self): pass
cache = msal.SerializableTokenCache()
if sys.argv[2:]:
    info = base64.urlsafe_b64encode(json.dumps({"uid": "u", "utid": "t"}).encode()).decode().rstrip("=")
    cache.add({"client_id": "c", "scope": ["s"], "environment": "login.microsoftonline.com",
               "token_endpoint": "https://login.microsoftonline.com/t/token", "response":
               {"access_token": "a-cached-token", "token_type": "Bearer", "expires_in": 864000,
                "client_info": info, "refresh_token": "r"}})
    open(sys.argv[1], "w").write(cache.serialize())
cache.deserialize(open(sys.argv[1]).read())
app = msal.PublicClientApplication("c", authority="https://login.microsoftonline.com/t", token_cache=cache,
                                   instance_discovery=False, http_client=NoNetwork())
print(app.acquire_token_silent(["s"], account=app.get_accounts()[0])["access_token"])
"""
_GOOGLE = """
import json, os.path, sys
from google.auth.transport.requests import Request
from google.oauth2.credentials import Credentials
from google_auth_oauthlib.flow import InstalledAppFlow
if sys.argv[2:]:
    open(sys.argv[1], "w").write(json.dumps({"token": "a-cached-token", "refresh_token": "r",
        "client_id": "c", "client_secret": "s", "expiry": "2999-01-01T00:00:00Z"}))
credentials = Credentials.from_authorized_user_file(sys.argv[1], ["s"])
if not credentials.valid:
    credentials.refresh(Request())
print(credentials.token)
"""
_REQUESTS = """
import sys
from requests_oauth2client import BearerToken, TokenSerializer
if sys.argv[2:]:
    token = BearerToken("a-cached-token", expires_in=864000, refresh_token="r")
    open(sys.argv[1], "wb").write(TokenSerializer().dumps(token))
token = TokenSerializer().loads(open(sys.argv[1], "rb").read())
print(token.access_token if not token.is_expired() else "")
"""
_SCRIPTS = {"msal": _MSAL, "google-auth-oauthlib": _GOOGLE, "requests-oauth2client": _REQUESTS}


def prepare_peers(directory: str, environment: str, agent: Command | str) -> tuple[list[Command], list[str]]:
    """Return the commands of those that are there, and why others are not."""
    commands: list[Command] = []
    missing: list[str] = []
    for attempt in (*_python_peers(directory, environment), _gh(directory), agent):
        if isinstance(attempt, str):
            missing.append(attempt)
            continue
        try:
            printed = attempt.run().strip()
        except (OSError, RuntimeError) as error:
            missing.append(f"{attempt.name}: {error}")
            continue
        if printed:
            commands.append(attempt)
    return commands, missing


def _python_peers(directory: str, environment: str) -> Iterator[Command | str]:
    python = os.path.join(environment, "bin", "python")
    try:
        if not os.path.exists(python):
            venv.create(environment, with_pip=True)
        install = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        subprocess.run([*install, *PACKAGES], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        yield f"{', '.join(PACKAGES)}: cannot be installed ({error})"
        return
    for name, code in _SCRIPTS.items():
        script = os.path.join(directory, f"print-{name}.py")
        with open(script, "w", encoding="utf-8") as file:
            file.write(code)
        store = os.path.join(directory, f"{name}.store")
        stored = subprocess.run([python, script, store, "store"], capture_output=True, text=True, check=False)
        if stored.stdout.strip() != TOKEN:
            yield f"{name}: {stored.stderr.strip()[-200:]}"
            continue
        yield Command(f"{name} {_version(python, name)}, a cached token", (python, script, store))


def _version(python: str, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _gh(directory: str) -> Command | str:
    if shutil.which("gh") is None:
        return "gh: not installed"
    with open(os.path.join(directory, "hosts.yml"), "w", encoding="utf-8") as file:
        file.write(f"github.com:\n    user: alice\n    oauth_token: {TOKEN}\n    git_protocol: https\n")
    version = subprocess.run(["gh", "--version"], capture_output=True, text=True, check=True).stdout.split()[
        2
    ]
    return Command(f"gh {version} auth token", ("gh", "auth", "token"), {"GH_CONFIG_DIR": directory})


def base_python(environment: str) -> Command:
    """Return the empty process of the peers' own environment."""
    python = os.path.join(environment, "bin", "python") if os.path.isdir(environment) else sys.executable
    return Command("python -c pass beside the peers", (python, "-c", "pass"))
