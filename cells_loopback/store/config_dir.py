"""Where everything is kept: ``CONFIG_DIR``, which is ``platformdirs.user_config_dir("cells-loopback")``.

Light on purpose: importing platformdirs costs 1.7 times an empty Python process, more than the warm
path may cost in all. So the plain case of its rule for Linux is written out here, and a test holds the
two together.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

APP_NAME = "cells-loopback"


def find_config_dir(explicit: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """Return the config directory as an absolute path.

    ``--config-dir`` comes first, then ``CELLS_LOOPBACK_CONFIG_DIR``, then the platform's own place.
    Raises `StoreError` when it cannot be told.
    """
    chosen = explicit or environ.get("CELLS_LOOPBACK_CONFIG_DIR")
    if chosen:
        try:
            return os.path.abspath(os.path.expanduser(chosen))
        except FileNotFoundError:
            from cells_loopback.errors import StoreError

            raise StoreError(
                f"{chosen} is below a directory that no longer exists, the current one",
                hint="change to one that does, or give an absolute path",
            ) from None
    if sys.platform == "linux" and environ is os.environ:
        xdg, home = environ.get("XDG_CONFIG_HOME", ""), environ.get("HOME", "")
        if xdg.startswith("/") and "~" not in xdg and xdg == xdg.strip():
            return os.path.join(xdg, APP_NAME)
        if not xdg and home.startswith("/") and home.strip("/"):
            return os.path.join(home.rstrip("/"), ".config", APP_NAME)
    import platformdirs

    try:
        return platformdirs.user_config_dir(APP_NAME)
    except RuntimeError:  # platformdirs knows no home directory
        from cells_loopback.errors import StoreError

        raise StoreError(
            "it is not known where your home directory is", hint="set HOME, or CELLS_LOOPBACK_CONFIG_DIR"
        ) from None
