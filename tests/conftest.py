"""Every test starts in a clean environment: nobody's session, proxy, browser or home directory."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from own_network import network_with_free_ports

from cells_loopback.testing import CellsServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PREFIXES = ("CELLS_", "XDG_", "AWS_")
_NAMES = {
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "PYTHONUNBUFFERED", "BROWSER", "NO_COLOR", "FORCE_COLOR", "SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY",
}  # fmt: skip

# A shell that starts us in the background, or nohup, ignores these, and every child would inherit that.
for _name in ("SIGINT", "SIGHUP"):
    _number = getattr(signal, _name, None)
    if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _name == "SIGINT" else signal.SIG_DFL)

# The machine is shared and noisy: an example that is slow to draw says nothing about the code. In CI the
# examples are the same each time, as newer hypothesis has it by itself: what fails there is in the change.
settings.register_profile(
    "shared",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("shared")


def pytest_configure(config: pytest.Config) -> None:
    if sys.version_info < (3, 11):
        # The asyncio of 3.10 calls a TLS connection unclosed whenever the peer was the first to close it.
        ignored = "ignore:unclosed transport <asyncio.sslproto:ResourceWarning"
        config.addinivalue_line("filterwarnings", ignored)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        mine = name.startswith("CELLS_LOOPBACK_TESTS_")
        if not mine and (name.startswith(_PREFIXES) or name.upper() in _NAMES):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(home))


@pytest.fixture
def network() -> Iterator[None]:
    """Have port 3000 to oneself; everything that the test starts is in the same network."""
    with network_with_free_ports():
        yield


@pytest.fixture
def server() -> Iterator[CellsServer]:
    with CellsServer() as running:
        yield running
