"""A month of an unattended machine, in seconds: three servers, outages, nights asleep, one revocation."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pytest
from kept_alive import KeptAlive
from moved_clock import MovedClock
from requires import thorough
from sessions import make_session, read_session, write_session

from cells_loopback.keepalive.services import PERIOD_HOURS
from cells_loopback.session.session import Session
from cells_loopback.testing import Behaviour, CellsServer, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOUR, DAY = 3600.0, 86400.0
MONTH = 30 * DAY
LIVES = {"sixty": 60 * DAY, "thirty": 30 * DAY, "two": 2 * DAY, "revoked": 60 * DAY}
KEPT = ("sixty", "thirty", "two")
REVOKED_AT = 11.3 * DAY
OUTAGES = ((4 * DAY, 5 * HOUR), (9.5 * DAY, 14 * HOUR), (17.1 * DAY, 2 * HOUR), (25 * DAY, 11 * HOUR))
# A server that says when it will be back is not asked again and again within one try: no time to lose here.
DOWN = Fault(status=503, headers={"Retry-After": "3600"}, times=None)


class MonthIsOver(BaseException):
    """Ends the resident run."""


@dataclass
class Month:
    """The servers, the clock, what happens when, and a person's machine that sleeps at night."""

    servers: dict[str, CellsServer]
    clock: MovedClock
    kept: KeptAlive
    asleep: tuple[float, float]
    passed: float = 0.0
    wakeups: int = 0
    happenings: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def plan(self) -> None:
        """Write down when the servers are down, and when one session is revoked."""
        for start, length in OUTAGES:
            for name, server in self.servers.items():
                if name != "revoked":
                    self.happenings.append((start, partial(server.fault, "/oidc/*", DOWN)))
                    self.happenings.append((start + length, server.clear_faults))
        self.happenings.append((REVOKED_AT, self.servers["revoked"].revoke_sessions))
        self.happenings.sort(key=lambda happening: happening[0])

    def pass_until(self, moment: float) -> None:
        """Let time pass, and happen what happens meanwhile."""
        while self.happenings and self.happenings[0][0] <= moment:
            at, happen = self.happenings.pop(0)
            self._pass(at)
            happen()
        self._pass(moment)

    def _pass(self, moment: float) -> None:
        self.clock.advance(max(0.0, moment - self.passed))
        self.passed = max(self.passed, moment)

    def awake_at(self, moment: float) -> float:
        """Return the moment, or the morning after when the machine is asleep then."""
        falls_asleep, wakes_up = self.asleep
        hour = moment % DAY
        if hour >= falls_asleep:
            return moment - hour + DAY + wakes_up
        return max(moment, moment - hour + wakes_up)

    def sleep(self, until: float) -> None:
        """Be the sleeper of the resident run: a suspended machine wakes it when it wakes up itself."""
        moment = self.awake_at(self.passed + until - self.clock.wall())
        self.pass_until(min(moment, MONTH))
        if self.passed >= MONTH:
            raise MonthIsOver
        self.wakeups += 1

    def close(self) -> None:
        """Nothing was lent."""


ALWAYS_ON, NIGHTS_ASLEEP = (24 * HOUR, 0.0), (19 * HOUR, 8 * HOUR)


@pytest.fixture(
    params=[
        pytest.param(ALWAYS_ON, id="always on", marks=thorough),
        pytest.param(NIGHTS_ASLEEP, id="asleep at night"),
    ]
)
def month(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Month]:
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(CellsServer(behaviour=Behaviour(refresh_token_lifetime=life)))
            for name, life in LIVES.items()
        }
        for name, server in servers.items():
            write_session(tmp_path, make_session(server, name))
        clock = MovedClock(monkeypatch, *servers.values())
        month = Month(servers, clock, KeptAlive(tmp_path), asleep=request.param)
        month.plan()
        yield month


def assert_all_is_kept_that_could_be(month: Month, config_dir: Path) -> None:
    for name in KEPT:
        server = month.servers[name]
        renewals = server.count("refresh", 200)
        assert MONTH / (28 * HOUR) - 2 <= renewals <= MONTH / (12 * HOUR), name
        assert server.count("refresh", 400) == 0, name
        token = Session.load(name, config_dir=str(config_dir)).token(refresh_now=True)
        assert server.is_live_access_token(token.access_token.reveal()), name
    assert read_session(config_dir, "revoked").needs_login
    assert month.servers["revoked"].count("refresh", 400) == 1, "a refused session is left alone"


def assert_the_person_was_told_once(month: Month) -> None:
    [(title, body)] = month.kept.desktop.shown
    assert title == f"Log in to {month.servers['revoked'].site.removeprefix('http://')} again"
    assert "cells-loopback login --profile revoked" in body.splitlines()


def test_a_resident_month(month: Month, tmp_path: Path) -> None:
    with pytest.raises(MonthIsOver):
        month.kept.keepalive().run(month)
    assert_all_is_kept_that_could_be(month, tmp_path)
    assert_the_person_was_told_once(month)
    # Some 27 renewals each, and the tries of four outages: no wake-up without a reason.
    assert month.wakeups < 200


def test_a_month_of_the_schedulers_runs(month: Month, tmp_path: Path) -> None:
    while month.passed < MONTH:
        month.kept.run_once()
        next_firing = (month.passed // (PERIOD_HOURS * HOUR) + 1) * PERIOD_HOURS * HOUR
        month.pass_until(month.awake_at(next_firing))
    assert_all_is_kept_that_could_be(month, tmp_path)
    assert_the_person_was_told_once(month)
