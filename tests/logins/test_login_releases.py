"""One login to every known release, through the installed command; PKCE has a table of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from own_network import OWN_NETWORK
from releases import RELEASES
from requires import thorough

if TYPE_CHECKING:
    from desktop import Desktop
    from program import Program
    from releases import Release

    from cells_loopback.testing import CellsServer

pytestmark = OWN_NETWORK

OTHER_RELEASES = [release for release in RELEASES if not release.name.startswith("pkce-")]


@pytest.mark.parametrize("release", OTHER_RELEASES, ids=lambda release: release.name)
@thorough
def test_a_person_logs_in_and_has_a_token_that_is_renewed(
    server: CellsServer, program: Program, desktop: Desktop, release: Release
) -> None:
    server.behaviour = release.behaviour
    login = desktop.log_in(program, server)

    assert login.exit_code == 0, login.stderr
    assert "You are logged in" in login.shown
    profile = program.read_profile(urlsplit(server.site).netloc)
    assert profile["user"]["name"] == "alice"
    assert profile["token"]["access_token"] in server.access_tokens()
    renewed = program.output("token", "--refresh").strip()
    assert renewed != profile["token"]["access_token"]
    assert server.is_live_access_token(renewed)
