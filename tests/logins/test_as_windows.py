"""Every command does without what only POSIX has. What Windows itself does then is not tried here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cells_loopback.testing import CellsServer

pytestmark = [
    pytest.mark.xdist_group("port 3000"),
    pytest.mark.skipif(sys.platform != "linux", reason="Linux pretends to be Windows"),
]

AS_WINDOWS = Path(__file__).parent.parent / "as_windows.py"
COMMANDS = (
    "token", "token --refresh", "whoami", "list", "status", "s3 credentials", "doctor",
    "api -X HEAD /a/frontend/state", "keepalive run --once", "logout",
)  # fmt: skip


def test_a_session_from_its_login_to_its_logout(tmp_path: Path, server: CellsServer) -> None:
    browser = tmp_path / "browser.exe"
    browser.write_text(
        f"#!{sys.executable}\nimport sys\nfrom cells_loopback.testing import Browser\n"
        f"Browser().sign_in(sys.argv[1], {server.user.name!r}, {server.user.password!r})\n"
    )
    browser.chmod(0o700)
    login = f"login {server.site} --browser {browser}"
    done = subprocess.run(
        [sys.executable, AS_WINDOWS, login, *COMMANDS],
        env={**os.environ, "CELLS_LOOPBACK_CONFIG_DIR": str(tmp_path / "config"), "PATHEXT": ".exe"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second, name, *_ = done.stdout.splitlines()
    assert first != second
    assert name == server.user.name
    assert server.count("refresh") == 1
    assert server.count("revoke")
    assert [*(tmp_path / "config" / "profiles").glob("*.json")] == []
