"""What follows when a session can no longer be renewed: a browser, or a word to the person, and only one."""

from __future__ import annotations

import os
import shlex
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from examples import NOW, PROFILE
from hypothesis import given
from hypothesis import strategies as st
from kept_alive import KeptAlive, rest_session
from moved_clock import MovedClock
from sessions import read_session, store_session, write_session

from cells_loopback.clock import wall
from cells_loopback.desktop.browser import open_browser
from cells_loopback.keepalive import relogin
from cells_loopback.keepalive.relogin import (
    BROWSER_PAUSE,
    BROWSER_TIMEOUT,
    HEADLESS_TIMEOUT,
    NOTIFY_PAUSE,
    describe,
    may_notify,
    may_open,
    next_step_at,
)
from cells_loopback.keepalive.services import SANDBOX_MARK
from cells_loopback.keepalive.state import Record
from cells_loopback.loopback_login.opening import may_stand
from cells_loopback.loopback_login.options import LoginOptions, LoginPlan
from cells_loopback.protocol.client import ClientRegistration, parse_redirect_uri
from cells_loopback.store.preferences import read_default_profile
from cells_loopback.store.profiles import Settings
from cells_loopback.testing import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from cells_loopback.store.profiles import Profile, ReloginPolicy
    from cells_loopback.testing import CellsServer

HOUR, DAY = 3600.0, 86400.0
ENDED = NOW - DAY
ANY_PORT = ClientRegistration("any-port", (parse_redirect_uri("http://127.0.0.1:0/servers/callback"),))
SCREEN = {"DISPLAY": ":0", "PATH": os.environ["PATH"]}
SCRIPT = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "browser", "link_opener.py"
)


# -- the rules


@pytest.mark.parametrize(
    ("record", "may"),
    [
        pytest.param(Record(), True, id="the first"),
        pytest.param(Record(browser_at=NOW - HOUR, browser_of=ENDED), False, id="this session had its tab"),
        pytest.param(Record(browser_at=NOW - HOUR, browser_of=1.0), True, id="that was another session's"),
        pytest.param(Record(browser_at=NOW - HOUR + 1, browser_of=1.0), False, id="within the hour"),
        pytest.param(Record(browser_at=NOW - HOUR + 1), False, id="within the hour, and the server was away"),
        pytest.param(Record(browser_at=NOW + DAY), True, id="in a time to come: the clock was set back"),
    ],
)
def test_a_session_has_one_tab_and_a_profile_at_most_one_an_hour(record: Record, may: bool) -> None:
    assert may_open(record, ENDED, NOW) is may


@pytest.mark.parametrize(
    ("record", "may"),
    [
        pytest.param(Record(), True, id="the first"),
        pytest.param(Record(notified_at=NOW - 9 * DAY, notified_of=ENDED), False, id="told already"),
        pytest.param(Record(notified_at=NOW - DAY, notified_of=1.0), True, id="that was another session"),
        pytest.param(Record(notified_at=NOW - DAY + 1, notified_of=1.0), False, id="within the day"),
    ],
)
def test_the_person_is_told_once_of_a_session_and_at_most_once_a_day(record: Record, may: bool) -> None:
    assert may_notify(record, ENDED, NOW) is may


@pytest.mark.parametrize(
    ("policy", "record", "next_step"),
    [
        ("never", Record(), None),
        ("notify", Record(), NOW),
        ("notify", Record(notified_at=NOW, notified_of=ENDED), None),
        ("notify", Record(notified_at=NOW, notified_of=1.0), NOW + NOTIFY_PAUSE),
        ("browser", Record(), NOW),
        ("browser", Record(browser_at=NOW), NOW + BROWSER_PAUSE),
        ("browser", Record(notified_at=NOW, notified_of=ENDED), NOW),
        ("browser", Record(notified_at=NOW, notified_of=ENDED, browser_at=NOW), NOW + BROWSER_PAUSE),
        ("headless", Record(browser_at=NOW, browser_of=ENDED), NOW),
        ("headless", Record(NOW, notified_at=NOW, notified_of=ENDED, browser_of=ENDED), None),
    ],
)
def test_there_is_a_next_step_until_it_is_the_persons_turn(
    policy: ReloginPolicy, record: Record, next_step: float | None
) -> None:
    assert next_step_at(policy, record, ENDED, NOW) == next_step


optional_instants = st.none() | st.floats(NOW - 10 * DAY, NOW + 10 * DAY)
endings = st.none() | st.just(ENDED) | st.just(1.0)


@given(
    st.sampled_from(["notify", "browser", "headless"]),
    st.builds(
        Record,
        browser_at=optional_instants,
        browser_of=endings,
        notified_at=optional_instants,
        notified_of=endings,
    ),
)
def test_the_next_step_is_possible_when_its_moment_comes(policy: ReloginPolicy, record: Record) -> None:
    moment = next_step_at(policy, record, ENDED, NOW)
    if moment is not None:
        assert moment >= NOW
        opens = policy != "notify" and may_open(record, ENDED, moment)
        assert opens or may_notify(record, ENDED, moment)


def test_the_notification_names_the_one_command() -> None:
    title, body = describe([PROFILE])
    assert title == "Log in to files.example.com again"
    assert body.splitlines()[-1] == "cells-loopback login --profile files.example.com"


def test_several_sessions_that_end_together_share_a_notification() -> None:
    title, body = describe([replace(PROFILE, name=f"p{number}") for number in range(9)])
    assert title == "Log in again: 9 sessions have ended"
    assert body.splitlines()[1:] == [
        *(f"cells-loopback login --profile p{number}" for number in range(5)),
        "cells-loopback status",
    ]


@pytest.mark.parametrize(
    ("before", "after", "stands"),
    [
        ("notify", "browser", True),
        ("headless", "headless", True),
        ("headless", "notify", True),
        pytest.param("notify", "headless", False, id="its own Chromium has to be logged in to first"),
    ],
)
def test_a_session_that_works_is_kept_when_the_setting_changes_unless_a_login_is_its_point(
    before: ReloginPolicy, after: ReloginPolicy, stands: bool
) -> None:
    known = replace(PROFILE, settings=Settings(relogin=before))
    plan = LoginPlan("work", PROFILE.site, False, PROFILE.client, Settings(relogin=after), known)
    assert may_stand(plan, LoginOptions(relogin=after)) is stands


# -- the deeds


class Tabs:
    """The person's browser: how often it was opened."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "tabs"

    def command(self, user: str = "", password: str = "") -> str:
        person = ["--user", user, "--password", password] if user else []
        return shlex.join([sys.executable, SCRIPT, "--log", str(self._log), *person]) + " %s"

    def opened(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []


@pytest.fixture
def tabs(tmp_path: Path) -> Tabs:
    return Tabs(tmp_path)


@pytest.fixture
def kept(tmp_path: Path) -> KeptAlive:
    return KeptAlive(tmp_path, SCREEN)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to wait for two minutes to see that nobody comes."""
    for policy, (browser, _) in list(relogin._BROWSERS.items()):
        monkeypatch.setitem(relogin._BROWSERS, policy, (browser, 0.5))


def end_session(server: CellsServer, config_dir: Path, name: str = "work", **settings: Any) -> Profile:
    """Store a session that the server has refused to renew."""
    profile = store_session(server, config_dir, name, client=ANY_PORT)
    kept = replace(profile.settings, **settings)
    renewals = replace(profile.renewals, rejected_at=profile.renewals.refresh_token_at)
    profile = replace(profile, settings=kept, renewals=renewals)
    write_session(config_dir, profile)
    return profile


def test_the_browser_that_is_still_logged_in_needs_no_person(
    server: CellsServer, tmp_path: Path, kept: KeptAlive, tabs: Tabs
) -> None:
    store_session(server, tmp_path, "first")
    command = tabs.command(server.user.name, server.user.password)
    ended = end_session(server, tmp_path, relogin="browser", browser=command)

    assert kept.run_once() == 0

    again = read_session(tmp_path)
    assert again.tokens.access_token.reveal() in server.access_tokens()
    assert again.renewals.rejected_at is None
    assert (again.settings, again.client, again.user.sub) == (ended.settings, ANY_PORT, ended.user.sub)
    assert len(tabs.opened()) == 1
    assert kept.desktop.shown == []
    assert kept.said == ["work: logged in again"]
    assert read_default_profile(str(tmp_path)) == "first"


def test_the_address_on_the_browsers_command_line_tells_nothing(
    server: CellsServer, tmp_path: Path, kept: KeptAlive, tabs: Tabs
) -> None:
    command = tabs.command(server.user.name, server.user.password)
    end_session(server, tmp_path, relogin="browser", browser=command)
    kept.run_once()
    [url] = tabs.opened()
    assert url.startswith("http://127.0.0.1:")
    assert "state" not in url


@pytest.mark.usefixtures("impatient")
def test_a_tab_that_nobody_answers_stays_the_only_one_and_the_person_is_told_once(
    server: CellsServer, tmp_path: Path, kept: KeptAlive, tabs: Tabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = MovedClock(monkeypatch, server)
    end_session(server, tmp_path, relogin="browser", browser=tabs.command())
    for _ in range(5):
        assert kept.run_once() == 4
        clock.advance(DAY)
    assert len(tabs.opened()) == 1
    assert [title for title, _ in kept.desktop.shown] == [f"Log in to {server.site[7:]} again"]


@pytest.mark.usefixtures("impatient")
def test_however_many_processes_see_the_end_there_is_one_tab_and_one_notification(
    server: CellsServer, tmp_path: Path, kept: KeptAlive, tabs: Tabs
) -> None:
    end_session(server, tmp_path, relogin="browser", browser=tabs.command())
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        kept.keepalive().run_once()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tabs.opened()) == 1
    assert len(kept.desktop.shown) == 1


@pytest.mark.usefixtures("impatient")
def test_a_session_that_ends_after_a_new_login_has_a_tab_of_its_own_an_hour_later(
    server: CellsServer, tmp_path: Path, kept: KeptAlive, tabs: Tabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = MovedClock(monkeypatch, server)
    end_session(server, tmp_path, relogin="browser", browser=tabs.command())
    kept.run_once()
    clock.advance(HOUR / 2)
    end_session(server, tmp_path, relogin="browser", browser=tabs.command())
    kept.run_once()
    assert len(tabs.opened()) == 1
    clock.advance(3 * HOUR)
    kept.run_once()
    assert len(tabs.opened()) == 2


@pytest.mark.parametrize("policy", ["browser", "headless"])
def test_without_a_display_or_an_own_chromium_the_person_is_told(
    policy: str, server: CellsServer, tmp_path: Path, tabs: Tabs
) -> None:
    kept = KeptAlive(tmp_path)
    end_session(server, tmp_path, relogin=policy, browser=tabs.command())
    assert kept.run_once() == 4
    assert tabs.opened() == []
    assert len(kept.desktop.shown) == 1


def test_in_wsl_the_screen_is_that_of_windows(server: CellsServer, tmp_path: Path, tabs: Tabs) -> None:
    kept = KeptAlive(tmp_path, {"WSL_DISTRO_NAME": "Debian"})
    command = tabs.command(server.user.name, server.user.password)
    end_session(server, tmp_path, relogin="browser", browser=command)
    assert kept.run_once() == 0
    assert len(tabs.opened()) == 1


def test_no_browser_is_opened_on_a_server_that_is_down(
    server: CellsServer, tmp_path: Path, kept: KeptAlive, tabs: Tabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = MovedClock(monkeypatch, server)
    command = tabs.command(server.user.name, server.user.password)
    end_session(server, tmp_path, relogin="browser", browser=command)
    server.fault("/oidc/*", Fault(status=503, headers={"Retry-After": "60"}, times=None))
    assert kept.run_once() == 4
    assert kept.state.read().record("work").exit_code == 7
    assert (tabs.opened(), kept.desktop.shown) == ([], [])
    server.clear_faults()
    clock.advance(3 * HOUR)
    assert kept.run_once() == 0
    assert len(tabs.opened()) == 1


def test_an_answer_that_the_server_could_not_go_on_with_is_tried_again_an_hour_later(
    server: CellsServer, tmp_path: Path, kept: KeptAlive, tabs: Tabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = MovedClock(monkeypatch, server)
    command = tabs.command(server.user.name, server.user.password)
    end_session(server, tmp_path, relogin="browser", browser=command)
    server.fault("exchange", Fault(status=503, headers={"Retry-After": "60"}, times=None))
    kept.run_once()
    server.clear_faults()
    clock.advance(HOUR / 2)
    kept.run_once()
    assert len(tabs.opened()) == 1
    clock.advance(3 * HOUR)
    assert kept.run_once() == 0
    assert len(tabs.opened()) == 2
    assert kept.desktop.shown == []


def test_a_browser_that_somebody_else_is_logged_in_with_changes_nothing(
    server: CellsServer, tmp_path: Path, kept: KeptAlive, tabs: Tabs
) -> None:
    ended = end_session(server, tmp_path, relogin="browser", browser=tabs.command("bob", "open-barley"))
    assert kept.run_once() == 4
    assert read_session(tmp_path).tokens == ended.tokens
    assert len(tabs.opened()) == 1
    assert len(kept.desktop.shown) == 1


def test_a_login_that_came_from_elsewhere_meanwhile_is_enough(
    server: CellsServer, tmp_path: Path, kept: KeptAlive, tabs: Tabs
) -> None:
    ended = end_session(server, tmp_path, relogin="browser", browser=tabs.command())
    write_session(tmp_path, replace(ended, renewals=replace(ended.renewals, rejected_at=None)))
    assert kept.relogin.log_in(ended)
    assert tabs.opened() == []


def test_what_another_program_put_into_the_profile_survives(
    server: CellsServer, tmp_path: Path, kept: KeptAlive, tabs: Tabs
) -> None:
    command = tabs.command(server.user.name, server.user.password)
    ended = end_session(server, tmp_path, relogin="browser", browser=command)
    write_session(tmp_path, replace(ended, unknown={"note": "mine"}))
    assert kept.run_once() == 0
    assert read_session(tmp_path).unknown == {"note": "mine"}


def test_never_means_not_a_word_on_the_desktop(server: CellsServer, tmp_path: Path, kept: KeptAlive) -> None:
    end_session(server, tmp_path, relogin="never")
    assert kept.run_once() == 4
    assert kept.desktop.shown == []


def test_sessions_that_are_found_ended_together_are_told_together(
    server: CellsServer, tmp_path: Path, kept: KeptAlive
) -> None:
    for name in ("a", "b"):
        end_session(server, tmp_path, name)
    kept.run_once()
    [(title, body)] = kept.desktop.shown
    assert title == "Log in again: 2 sessions have ended"
    assert body.count("cells-loopback login --profile") == 2


def test_where_nothing_can_be_shown_it_is_tried_again_until_it_can(
    server: CellsServer, tmp_path: Path, kept: KeptAlive, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = MovedClock(monkeypatch, server)
    end_session(server, tmp_path)
    kept.desktop.is_there = False
    for _ in range(3):
        kept.run_once()
        clock.advance(3 * HOUR)
    kept.desktop.is_there = True
    for _ in range(10):
        kept.run_once()
        clock.advance(12 * HOUR)
    assert len(kept.desktop.shown) == 1
    assert len(kept.said) == 1, "cron would mail it again and again"


def test_a_profile_whose_sessions_end_again_and_again_is_told_of_once_a_day(
    server: CellsServer, tmp_path: Path, kept: KeptAlive, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = MovedClock(monkeypatch, server)
    for _ in range(16):
        end_session(server, tmp_path)
        kept.run_once()
        clock.advance(3 * HOUR)
    assert len(kept.desktop.shown) == 2


def test_an_end_that_a_run_finds_is_said_there_although_the_desktop_has_had_its_word_today(
    server: CellsServer, tmp_path: Path, kept: KeptAlive
) -> None:
    store_session(server, tmp_path)
    rest_session(tmp_path, 2 * DAY)
    server.revoke_sessions()
    with kept.state.change() as state:
        state.records["work"] = Record(notified_at=wall() - HOUR, notified_of=1.0)
    assert (kept.run_once(), kept.run_once()) == (4, 4)
    assert kept.desktop.shown == []
    assert len(kept.said) == 1
    assert "cells-loopback login --profile work" in kept.said[0]


def test_a_browser_opened_from_inside_the_hardened_unit_is_started_outside_of_it(tmp_path: Path) -> None:
    caught = tmp_path / "caught"
    fake = tmp_path / "bin" / "systemd-run"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {caught}.new; mv {caught}.new {caught}\n')
    fake.chmod(0o700)
    environ = {**SCREEN, SANDBOX_MARK: "systemd", "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    command = relogin._escaping_command(f"{sys.executable} -x", environ)
    assert command is not None
    process = open_browser("http://127.0.0.1:1/start/x", command, environ=environ)
    while process.poll() is None:
        threading.Event().wait(0.01)
    words = caught.read_text().splitlines()
    assert words[0] == "--user"
    assert words[words.index("--") + 1 :] == [sys.executable, "-x", "http://127.0.0.1:1/start/x"]


def test_waiting_is_bounded() -> None:
    assert (BROWSER_TIMEOUT, HEADLESS_TIMEOUT) == (120, 60)
    assert {policy: timeout for policy, (_, timeout) in relogin._BROWSERS.items()} == {
        "browser": BROWSER_TIMEOUT,
        "headless": HEADLESS_TIMEOUT,
    }


def test_what_the_profile_never_said_is_notify() -> None:
    assert Settings().relogin == "notify"
