"""Stored sessions for tests that need one and not the login that makes it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from cells_loopback.clock import wall
from cells_loopback.http.endpoints import exchange, fetch_metadata
from cells_loopback.http.transport import SiteClient
from cells_loopback.http.trust import Trust
from cells_loopback.protocol.authorization import start_authorization
from cells_loopback.protocol.client import CELLS_CLIENT, out_of_band_redirect_uri
from cells_loopback.protocol.site import parse_site
from cells_loopback.store.preferences import write_default_profile
from cells_loopback.store.private_file import temporary_path
from cells_loopback.store.profiles import Profile, ProfileStore, Renewals, Settings, User

if TYPE_CHECKING:
    from pathlib import Path

    from cells_loopback.testing import CellsServer


def make_session(server: CellsServer, name: str = "work", **changes: Any) -> Profile:
    """Log in over HTTP, the person's part included, and return the profile; nothing is stored.

    ``changes`` are fields of the `Profile`.
    """
    site = parse_site(server.site)
    with SiteClient(site, Trust(ca_bundle=server.ca_file)) as client:
        metadata = fetch_metadata(client)
        redirect_uri = out_of_band_redirect_uri(site)
        with_pkce = server.behaviour.pkce == "bound"
        request = start_authorization(metadata, CELLS_CLIENT, redirect_uri, with_pkce=with_pkce)
        page = server.sign_in(request.url)
        tokens = exchange(client, request.validate_response(dict(parse_qsl(urlsplit(page.url).query))))
    now = wall()
    profile = Profile(
        name=name,
        site=site,
        client=CELLS_CLIENT,
        metadata=metadata,
        user=User(sub=server.user.uuid, name=server.user.name),
        tokens=replace(tokens, id_token=None),  # which is stored nowhere
        pkce_binding="bound" if with_pkce else "off",
        settings=Settings(ca_bundle=server.ca_file),
        renewals=Renewals(logged_in_at=now, refresh_token_at=now),
    )
    return replace(profile, **changes)


def write_session(config_dir: Path, profile: Profile) -> None:
    """Put a profile on the disk, as a login would; the first one becomes the default."""
    store = ProfileStore(str(config_dir))
    store.prepare()
    is_first = not store.names()
    with store.lock(profile.name), store.replacement(profile.name) as replacement:
        store.write(profile, replacement)
    if is_first:
        write_default_profile(str(config_dir), profile.name)


def store_session(server: CellsServer, config_dir: Path, name: str = "work", **changes: Any) -> Profile:
    """Log in over HTTP and put the session on the disk; ``changes`` are fields of the `Profile`."""
    profile = make_session(server, name, **changes)
    write_session(config_dir, profile)
    return profile


def read_session(config_dir: Path, name: str = "work") -> Profile:
    """Return the session as it is stored now."""
    return ProfileStore(str(config_dir)).read(name)


def age_session(config_dir: Path, seconds: float, name: str = "work") -> Profile:
    """Make the stored access token that much older, by both clocks, and return the profile.

    The file is written past the store, so that nothing else happens to it: also what a killed process
    has left beside it only gets older.
    """
    store = ProfileStore(str(config_dir))
    path = store.path(name)
    with store.lock(name):
        for place in (path, temporary_path(path)):
            _age_file(place, seconds)
    return store.read(name)


def _age_file(path: str, seconds: float) -> None:
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read().rstrip(b"\0"))
    except (OSError, ValueError):  # there is no such file, or only a part of one
        return
    for clock in ("obtained_at", "obtained_uptime"):
        document["token"][clock] -= seconds
    aside = path + ".aged"
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(document, file)
    os.replace(aside, path)


def aged(profile: Profile, seconds: float) -> Profile:
    """Return a profile whose access token was obtained that many seconds earlier."""
    tokens = replace(
        profile.tokens,
        obtained_at=profile.tokens.obtained_at - seconds,
        obtained_uptime=profile.tokens.obtained_uptime - seconds,
    )
    return replace(profile, tokens=tokens)
