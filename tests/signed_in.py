"""A login by the installed command, the person played over HTTP: no browser, and over in a second."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from program import finish

if TYPE_CHECKING:
    from program import Program

    from cells_loopback.testing import CellsServer


def log_in(program: Program, server: CellsServer, profile: str, *options: str) -> None:
    """Log in to a running server and keep the session under a profile's name."""
    command = ("login", server.site, "--json", "--no-browser", "--client-id", "cells-sync", "-p", profile)
    process = program.start(*command, *options)
    assert process.stdout is not None
    line = process.stdout.readline()
    event = json.loads(line) if line else {}
    if "url" in event:
        server.sign_in(event["url"])
    done = finish(process)
    assert done.returncode == 0, line + done.stdout + done.stderr
