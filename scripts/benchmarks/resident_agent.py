"""oidc-agent with a session at the embedded server: a daemon that answers with the token in its memory."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cells_loopback.testing import Client

from .commands import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .desk import Desk

ACCOUNT = "bench"
_CALLBACKS = "http://localhost:[3636-3666]/servers/callback"
_SECRET = "of-the-bench"  # oidc-agent knows no client without one


@contextmanager
def resident_agent(desk: Desk) -> Iterator[Command | str]:
    """Start an agent and give it a session; yield the call that asks it, or why there is none."""
    if shutil.which("oidc-agent") is None:
        yield "oidc-token: oidc-agent is not installed"
        return
    home = desk.config_dir("agent-home")
    os.mkdir(home, 0o700)
    environment = {"HOME": home, "OIDC_CONFIG_DIR": home}
    started = _run(["oidc-agent"], environment)
    environment["OIDC_SOCK"] = _find(r"OIDC_SOCK=([^;]+)", started)
    try:
        yield _add_account(desk, environment)
    except subprocess.CalledProcessError as error:
        yield f"oidc-token: {error}"
    finally:
        os.kill(int(_find(r"OIDCD_PID=(\d+)", started)), signal.SIGTERM)


def _add_account(desk: Desk, environment: dict[str, str]) -> Command:
    desk.server.add_client(Client(ACCOUNT, (_CALLBACKS,), _SECRET))
    options = ("--client-id", ACCOUNT, "--redirect-uri", _CALLBACKS)
    desk.log_in("agent", *options, CELLS_LOOPBACK_CLIENT_SECRET=_SECRET)
    refresh_token = json.loads(desk.read_profile("agent"))["token"]["refresh_token"]
    generate = [
        "oidc-gen", ACCOUNT, "--no-save", "--prompt=none", "--confirm-default", "--pw-cmd=echo x",
        f"--issuer={desk.server.site}/oidc/", f"--cp={desk.server.ca_file}", f"--client-id={ACCOUNT}",
        f"--client-secret={_SECRET}", "--scope=openid offline", "--rt-env",
        f"--redirect-uri={_CALLBACKS.replace('[3636-3666]', '3636')}",
    ]  # fmt: skip
    _run(generate, {**environment, "OIDC_REFRESH_TOKEN": refresh_token})
    version = _run(["oidc-token", "--version"], environment).split()[-1]
    return Command(f"oidc-token {version}, a resident agent", ("oidc-token", ACCOUNT), environment)


def _run(call: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(
        call,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError("oidc-agent does not say where it is")
    return found[1]
