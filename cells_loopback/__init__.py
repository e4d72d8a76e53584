"""Log in to Pydio Cells from a shell or a program, and stay logged in.

The public names are imported at first use: ``import cells_loopback`` alone loads none of aiohttp,
httpx, joserfc and keyring.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cells_loopback.errors import (
        CellsLoopbackError,
        LoginFailedError,
        LoginRequiredError,
        LoginTimeoutError,
        NotLoggedInError,
        ServerUnavailableError,
        StoreError,
        UntrustedServerError,
        UsageError,
    )
    from cells_loopback.events import Event
    from cells_loopback.library import login, login_sync
    from cells_loopback.session.session import Session

_HOMES = {
    "CellsLoopbackError": "errors",
    "Event": "events",
    "LoginFailedError": "errors",
    "LoginRequiredError": "errors",
    "LoginTimeoutError": "errors",
    "NotLoggedInError": "errors",
    "ServerUnavailableError": "errors",
    "Session": "session.session",
    "StoreError": "errors",
    "UntrustedServerError": "errors",
    "UsageError": "errors",
    "login": "library",
    "login_sync": "library",
}

__all__ = [
    "CellsLoopbackError",
    "Event",
    "LoginFailedError",
    "LoginRequiredError",
    "LoginTimeoutError",
    "NotLoggedInError",
    "ServerUnavailableError",
    "Session",
    "StoreError",
    "UntrustedServerError",
    "UsageError",
    "login",
    "login_sync",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
