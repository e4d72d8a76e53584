"""The keep-alive in this process, with a desktop that remembers what it was shown."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sessions import aged, read_session, write_session

from cells_loopback.keepalive.keepalive import Keepalive
from cells_loopback.keepalive.relogin import Relogin
from cells_loopback.keepalive.state import StateFile
from cells_loopback.store.profiles import ProfileStore

if TYPE_CHECKING:
    from pathlib import Path

    from cells_loopback.store.profiles import Profile


class Desktop:
    """Shows notifications, or cannot."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, str]] = []
        self.is_there = True

    def notify(self, title: str, body: str) -> bool:
        if self.is_there:
            self.shown.append((title, body))
        return self.is_there


class KeptAlive:
    """One config directory and the keep-alive that looks after it."""

    def __init__(self, config_dir: Path, environ: dict[str, str] | None = None) -> None:
        self.desktop = Desktop()
        self.said: list[str] = []
        self.state = StateFile(str(config_dir))
        self.store = ProfileStore(str(config_dir))
        self.relogin = Relogin(str(config_dir), self.state, environ=environ or {}, notify=self.desktop.notify)

    def keepalive(self, only: str | None = None) -> Keepalive:
        """Return another process, so to speak."""
        return Keepalive(
            self.store,
            self.state,
            self.relogin,
            say=self.said.append,
            complain=lambda error: self.said.append(f"{error.message}; {error.hint}"),
            only=only,
        )

    def run_once(self) -> int:
        return self.keepalive().run_once()


def rest(profile: Profile, seconds: float) -> Profile:
    """Return a profile whose last renewal is that much longer ago."""
    earlier = profile.renewals.refresh_token_at - seconds
    return replace(aged(profile, seconds), renewals=replace(profile.renewals, refresh_token_at=earlier))


def rest_session(config_dir: Path, seconds: float, name: str = "work") -> Profile:
    """Let a stored session have rested that much longer."""
    profile = rest(read_session(config_dir, name), seconds)
    write_session(config_dir, profile)
    return profile
