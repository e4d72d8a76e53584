"""`doctor` against real servers, sockets, files and environments that would stop a login, or would not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from program import Program
from requires import lacks, require_program
from sessions import make_session, store_session, write_session

import cells_loopback.doctor.store
from cells_loopback.cli import main
from cells_loopback.clock import wall
from cells_loopback.doctor.background import judge_schedule
from cells_loopback.doctor.finding import Check, ok, run_checks, warning
from cells_loopback.doctor.store import NEEDED_SPACE, SCARCE_SPACE, judge_space
from cells_loopback.keepalive.schedulers import Schedule
from cells_loopback.keepalive.state import Record, State, StateFile
from cells_loopback.protocol.client import ClientRegistration, parse_redirect_uri
from cells_loopback.protocol.site import parse_metadata, parse_site
from cells_loopback.protocol.tokens import given_tokens
from cells_loopback.secret import Secret
from cells_loopback.session.renewal_note import write_running
from cells_loopback.store.keyring_store import split_secrets
from cells_loopback.store.lock import STALE_AFTER, has_kernel_locks
from cells_loopback.store.profile_document import encode_profile
from cells_loopback.store.profiles import ProfileStore, Renewals, Settings
from cells_loopback.testing import Behaviour, CellsServer, Fault
from cells_loopback.testing.oidc import build_discovery_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cells_loopback.store.profiles import Profile

# Doctor holds the login's port for a moment, as a login does.
pytestmark = pytest.mark.xdist_group("port 3000")

DAY = 86400.0


@dataclass(frozen=True)
class Report:
    """What `doctor --json` said."""

    exit_code: int
    rows: list[dict[str, str]]

    def level(self, area: str) -> str:
        """Return the worst level that an area has; '' when nothing was said about it."""
        levels = {row["level"] for row in self.rows if row["area"] == area}
        return next((level for level in ("problem", "warning", "ok") if level in levels), "")

    def text(self, area: str) -> str:
        """Return all that was said about an area, mends included."""
        return "\n".join(f"{row['message']}\n{row['mend']}" for row in self.rows if row["area"] == area)

    @property
    def problems(self) -> set[str]:
        return {row["area"] for row in self.rows if row["level"] == "problem"}


class Doctor:
    """The command in this process, with a config directory of its own."""

    def __init__(self, config_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config_dir = config_dir
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Report:
        exit_code, stdout, _ = self.run("doctor", "--json", *arguments)
        return Report(exit_code, json.loads(stdout))

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        exit_code = main([*arguments, "--config-dir", str(self.config_dir)])
        said = self._capsys.readouterr()
        return exit_code, said.out, said.err


@pytest.fixture
def doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(tmp_path / "config", capsys)


@pytest.fixture
def profile(server: CellsServer, doctor: Doctor) -> Profile:
    return store_session(server, doctor.config_dir)


def snapshot(*roots: Path) -> dict[str, tuple[int, ...]]:
    """Return everything below ``roots`` by what changes when somebody touches it."""
    paths = [path for root in roots for path in (root, *root.rglob("*"))]
    return {str(path): state(os.lstat(path)) for path in paths}


def state(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_mode,
        status.st_ino,
        status.st_uid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


# What it says when all is well, and what it leaves alone


def test_all_is_well_before_the_first_login(doctor: Doctor, server: CellsServer) -> None:
    report = doctor(server.site)
    assert report.exit_code == 0
    assert not report.problems
    assert "is not there yet; the first login makes it" in report.text("directory")
    assert not doctor.config_dir.exists()


def test_without_a_site_and_a_session_it_says_that_no_server_was_looked_at(doctor: Doctor) -> None:
    report = doctor()
    assert report.exit_code == 0
    assert report.level("site") == "warning"
    assert "nobody has logged in yet" in report.text("site")
    assert "cells-loopback doctor SITE" in report.text("site")


def test_without_a_site_it_looks_at_the_default_profiles_server_and_at_all_profiles(
    doctor: Doctor, server: CellsServer, profile: Profile
) -> None:
    write_session(doctor.config_dir, replace(profile, name="other"))
    report = doctor()
    assert report.exit_code == 0
    assert report.level("discovery") == "ok"
    assert f"work: {server.user.name} at {server.site}, logged in 20" in report.text("profile")
    assert f"other: {server.user.name} at {server.site}" in report.text("profile")


def test_with_a_site_only_the_profile_that_the_login_would_use_is_looked_at(
    doctor: Doctor, server: CellsServer, profile: Profile
) -> None:
    assert doctor(server.site).text("profile") == ""
    assert "work: " in doctor(server.site, "-p", "work").text("profile")


def test_a_row_has_four_members_and_a_known_level(doctor: Doctor, server: CellsServer) -> None:
    for row in doctor(server.site).rows:
        assert list(row) == ["area", "level", "message", "mend"]
        assert row["level"] in {"ok", "warning", "problem"}
        assert bool(row["mend"]) == (row["level"] != "ok")


def test_it_changes_nothing_and_asks_the_server_for_nothing_but_public_documents(
    doctor: Doctor, server: CellsServer, profile: Profile, tmp_path: Path
) -> None:
    seen = len(server.requests)
    before = snapshot(tmp_path)
    assert doctor().exit_code == 0
    assert doctor(server.site).exit_code == 0
    assert snapshot(tmp_path) == before
    assert {(request.method, request.kind) for request in server.requests[seen:]} == {
        ("GET", "discovery"),
        ("GET", "jwks"),
    }


def test_it_opens_no_browser(
    doctor: Doctor, server: CellsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tmp_path / "opened"
    browser = make_program(tmp_path, "a-browser", f"echo > {opened}")
    monkeypatch.setenv("BROWSER", str(browser))
    report = doctor(server.site)
    assert f"{browser} ($BROWSER) would open" in report.text("browser")
    assert not opened.exists()


def test_it_says_nothing_secret(doctor: Doctor, server: CellsServer, profile: Profile) -> None:
    _, stdout, stderr = doctor.run("doctor", "-vv")
    assert not [secret for secret in server.secrets() if secret in stdout + stderr]


# What it looks like


def test_it_fits_a_terminal_and_puts_mends_under_their_lines(
    doctor: Doctor, server: CellsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.behaviour = replace(server.behaviour, clock_offset=7200)
    doctor.config_dir = Path("/tmp/nowhere")
    _, stdout, stderr = doctor.run("doctor", server.site)
    lines = stdout.splitlines()
    assert max(map(len, lines)) <= 80
    warned = next(index for index, line in enumerate(lines) if line.startswith("warning  clock "))
    assert lines[warned + 1].startswith(" " * 22)
    assert any(line.startswith(" " * 22 + "mend: ") for line in lines[warned : warned + 3])
    assert stderr == "a login would work\n"


def test_what_a_server_says_cannot_command_the_terminal(doctor: Doctor, server: CellsServer) -> None:
    server.behaviour = replace(server.behaviour, issuer="https://evil.example/\x1b[2J/oidc")
    exit_code, stdout, stderr = doctor.run("doctor", server.site)
    assert exit_code == 9
    assert "\x1b" not in stdout + stderr
    assert "evil.example" in stdout


def test_the_installed_command_tells_how_many_problems_there_are(tmp_path: Path) -> None:
    done = Program(tmp_path).run("doctor", "no-such-host.invalid")
    assert done.returncode == 7
    assert "problem  dns " in done.stdout
    assert "a login would not work: 1 problem\n" in done.stderr


@pytest.mark.parametrize("site", ["ftp://files.example.com", "files.example.com/cells", ""])
def test_a_site_that_cannot_be_meant_is_wrong_usage(doctor: Doctor, site: str) -> None:
    assert doctor.run("doctor", site)[0] == 2


# The config directory


def test_a_directory_that_others_can_write_to_is_a_problem(doctor: Doctor, profile: Profile) -> None:
    (doctor.config_dir / "profiles").chmod(0o777)
    report = doctor()
    assert report.exit_code == 8
    assert f"chmod 700 {doctor.config_dir}/profiles" in report.text("directory")


def test_a_directory_that_others_can_list_is_worth_a_warning(doctor: Doctor, profile: Profile) -> None:
    doctor.config_dir.chmod(0o755)
    report = doctor()
    assert report.exit_code == 0
    assert report.level("directory") == "warning"
    assert f"chmod 700 {doctor.config_dir}\n" in report.text("directory") + "\n"


def test_a_mend_for_a_path_with_a_space_is_quoted(
    server: CellsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor = Doctor(tmp_path / "my config", capsys)
    store_session(server, doctor.config_dir)
    doctor.config_dir.chmod(0o755)
    assert f"chmod 700 '{doctor.config_dir}'" in doctor().text("directory")


def test_a_link_in_place_of_the_profiles_is_a_problem(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    path = tmp_path / "config" / "profiles"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.symlink_to(tmp_path / "elsewhere")
    report = doctor()
    assert report.exit_code == 8
    assert f"{path} is a symbolic link" in report.text("directory")


def test_the_configuration_may_be_a_link_to_where_a_person_keeps_it(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "config").symlink_to(tmp_path / "elsewhere")
    assert "is a symbolic link" not in doctor().text("directory")


def test_a_file_in_place_of_a_directory_above_is_a_problem(doctor: Doctor, tmp_path: Path) -> None:
    doctor.config_dir = tmp_path / "file" / "config"
    (tmp_path / "file").touch()
    report = doctor()
    assert report.exit_code == 8
    assert f"{tmp_path}/file is not a directory" in report.text("directory")


def run_on_tmpfs(directory: Path, options: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a mount namespace of its own, with a file system of ours over ``directory``."""
    unshare = require_program("unshare")
    program = Program(directory)
    command = f'mount -t tmpfs -o "{options}" tmpfs "{directory}" && exec "$0" "$@"'
    executable = Path(sys.executable).with_name("cells-loopback")
    done = subprocess.run(
        [unshare, "--user", "--map-root-user", "--mount", "sh", "-c", command, executable, *arguments],
        env=program.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 1 and not done.stdout:
        lacks(f"mounts: {done.stderr.strip()}")
    return done


@pytest.mark.parametrize(
    ("options", "area", "words"),
    [
        ("ro", "directory", "cannot be written by this user"),
        ("size=32k,mode=700", "space", "only 32 KiB free"),
        ("nr_inodes=1,mode=700", "space", "room for no file more"),
    ],
    ids=["read-only", "full", "no-inodes"],
)
def test_a_file_system_that_takes_no_session_is_a_problem(
    tmp_path: Path, options: str, area: str, words: str
) -> None:
    done = run_on_tmpfs(tmp_path, options, "doctor", "--json", "--config-dir", str(tmp_path / "config"))
    report = Report(done.returncode, json.loads(done.stdout))
    assert report.exit_code == 8
    assert report.problems == {area}
    assert words in report.text(area)


@pytest.mark.parametrize(
    ("free_bytes", "free_files", "level"),
    [
        (NEEDED_SPACE - 1, 100, "problem"),
        (NEEDED_SPACE, 0, "problem"),
        (NEEDED_SPACE, 1, "warning"),
        (SCARCE_SPACE - 1, -1, "warning"),
        (SCARCE_SPACE, -1, "ok"),
    ],
)
def test_space_is_judged_by_bytes_and_by_files(free_bytes: int, free_files: int, level: str) -> None:
    assert judge_space("/somewhere", free_bytes, free_files).level == level


def test_the_file_systems_locks_are_tried_on_a_file_that_nobody_locks(
    doctor: Doctor, profile: Profile
) -> None:
    store = ProfileStore(str(doctor.config_dir))
    with store.lock("work"):
        assert doctor().text("locks") == "the file system has locks\n"


def test_a_file_system_without_locks_is_told_by_its_answer(tmp_path: Path) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(95, "Operation not supported")

    path = tmp_path / "file"
    path.touch()
    assert not has_kernel_locks(str(path), refuse)
    assert has_kernel_locks(str(path))


def test_stand_ins_for_locks_are_worth_a_warning(
    doctor: Doctor, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells_loopback.doctor.store, "has_kernel_locks", lambda path: False)
    report = doctor()
    assert (report.exit_code, report.level("locks")) == (0, "warning")


def test_what_a_killed_process_left_is_found_once_it_is_old(doctor: Doctor, profile: Profile) -> None:
    profiles = doctor.config_dir / "profiles"
    wanted, orphan = profiles / ".work.json.tmp", profiles / ".gone.json.tmp"
    stand_in = profiles / "work.lock.held"
    for path in (wanted, orphan, stand_in):
        path.touch()
    assert doctor().text("leftovers") == ""
    past = time.time() - STALE_AFTER - 1
    for path in (wanted, orphan, stand_in):
        os.utime(path, (past, past))
    report = doctor()
    assert report.exit_code == 0
    mends = {row["message"].split()[0]: row["mend"] for row in report.rows if row["area"] == "leftovers"}
    assert mends[str(orphan)] == f"nothing uses it: rm {orphan}"
    assert "rm" not in mends[str(wanted)].split()  # it may hold the only copy of a renewed session
    assert "rm" not in mends[str(stand_in)].split()


# config.toml


def test_a_config_file_that_cannot_be_parsed_is_a_problem(doctor: Doctor, profile: Profile) -> None:
    (doctor.config_dir / "config.toml").write_text("default_profile =")
    report = doctor()
    assert report.exit_code == 8
    assert "config.toml is not valid" in report.text("config")


def test_a_default_profile_that_is_not_there_stops_a_login_without_a_site(
    doctor: Doctor, server: CellsServer, profile: Profile
) -> None:
    (doctor.config_dir / "config.toml").write_text('default_profile = "gone"')
    report = doctor()
    assert report.exit_code == 3
    assert report.level("config") == "warning"
    assert "cells-loopback use NAME" in report.text("config")
    assert doctor(server.site).exit_code == 0


def test_the_preferred_browser_of_the_config_file_is_the_one_looked_at(
    doctor: Doctor, server: CellsServer
) -> None:
    doctor.config_dir.mkdir(mode=0o700)
    (doctor.config_dir / "config.toml").write_text('[login]\nbrowser = "no-such-browser"\n')
    assert "no-such-browser" in doctor(server.site).text("browser")


# Profiles


def test_a_damaged_profile_is_a_problem_told_once(doctor: Doctor, profile: Profile) -> None:
    path = doctor.config_dir / "profiles" / "work.json"
    path.write_bytes(path.read_bytes()[:100])
    report = doctor()
    assert report.exit_code == 8
    assert report.text("profile").count("is damaged") == 1
    assert f"mv {path}" in report.text("profile")


def test_behind_a_damaged_profile_the_typed_sites_server_is_looked_at_all_the_same(
    doctor: Doctor, server: CellsServer, profile: Profile
) -> None:
    (doctor.config_dir / "profiles" / "work.json").write_text("{")
    report = doctor(server.site, "-p", "work")
    assert report.exit_code == 8
    assert report.problems == {"profile"}
    assert report.level("discovery") == "ok"


def test_a_profile_that_others_can_read_is_a_problem(doctor: Doctor, profile: Profile) -> None:
    (doctor.config_dir / "profiles" / "work.json").chmod(0o644)
    report = doctor()
    assert report.exit_code == 8
    assert "chmod 600" in report.text("profile")


def test_a_session_that_is_no_longer_renewed_is_told_with_the_one_command(
    doctor: Doctor, server: CellsServer, profile: Profile
) -> None:
    renewals = Renewals(profile.renewals.logged_in_at, profile.renewals.refresh_token_at, rejected_at=wall())
    write_session(doctor.config_dir, replace(profile, renewals=renewals))
    report = doctor()
    assert report.exit_code == 0
    assert report.level("profile") == "warning"
    assert "log in again: cells-loopback login --profile work" in report.text("profile")


def test_a_session_that_will_soon_need_a_person_is_told(doctor: Doctor, profile: Profile) -> None:
    since = wall() - 29 * DAY
    write_session(doctor.config_dir, replace(profile, renewals=Renewals(since - DAY, since)))
    report = doctor()
    assert report.exit_code == 0
    assert report.level("profile") == "warning"
    assert ", renewed 20" in report.text("profile")
    assert "token --refresh --profile work" in report.text("profile")


def test_a_personal_access_token_is_a_session_that_cannot_be_renewed(
    doctor: Doctor, profile: Profile
) -> None:
    write_session(doctor.config_dir, replace(profile, tokens=given_tokens(Secret("personal"))))
    report = doctor()
    assert report.level("profile") == "ok"
    assert "its end is known to the server only" in report.text("profile")


def test_a_renewal_that_was_cut_off_long_ago_is_told(doctor: Doctor, profile: Profile) -> None:
    lock = ProfileStore(str(doctor.config_dir)).lock("work")
    with lock:
        write_running(lock)
    assert "cut off" not in doctor().text("profile")
    past = time.time() - STALE_AFTER - 1
    os.utime(lock.path, (past, past))
    assert "a renewal was cut off" in doctor().text("profile")


def test_a_profile_that_does_not_exist_stops_a_login_without_a_site(doctor: Doctor) -> None:
    report = doctor("-p", "nobody")
    assert report.exit_code == 3
    assert "cells-loopback login SITE --profile nobody" in report.text("profile")


def test_a_profile_of_another_site_stops_the_login_but_not_the_look_at_the_server(
    doctor: Doctor, server: CellsServer, profile: Profile
) -> None:
    with CellsServer() as other:
        report = doctor(other.site, "-p", "work")
    assert report.exit_code == 5
    assert f"belongs to {server.site}" in report.text("profile")
    assert report.level("discovery") == "ok"


def test_a_token_in_the_environment_is_told(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLS_LOOPBACK_TOKEN", "a-very-secret-token")
    report = doctor()
    assert report.level("environment") == "warning"
    assert "a-very-secret-token" not in str(report.rows)


# The server, and the way to it


def test_each_station_of_the_way_is_named(doctor: Doctor, server: CellsServer) -> None:
    report = doctor(server.site)
    assert "localhost is " in report.text("dns")
    assert f"port {server.site.rpartition(':')[2]} in " in report.text("connection")
    assert "plain http, which does not leave this machine" in report.text("tls")
    assert f"the issuer is {server.site}/oidc/" in report.text("discovery")
    assert report.level("pkce") == "ok"
    assert "agree" in report.text("clock")


def test_a_host_that_does_not_exist(doctor: Doctor) -> None:
    report = doctor("no-such-host.invalid")
    assert (report.exit_code, report.problems) == (7, {"dns"})


def test_a_port_that_nobody_listens_on(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    report = doctor(f"https://localhost:{port}")
    assert (report.exit_code, report.problems) == (7, {"connection"})
    assert report.level("dns") == "ok"
    assert f"nothing listens on port {port}" in report.text("connection")


def test_a_port_that_does_not_speak_tls(doctor: Doctor, server: CellsServer) -> None:
    report = doctor(server.site.replace("http:", "https:"))
    assert (report.exit_code, report.problems) == (7, {"tls"})


def test_a_loopback_site_typed_without_a_scheme_is_found_behind_plain_http(
    doctor: Doctor, server: CellsServer
) -> None:
    report = doctor(server.site.removeprefix("http://"))
    assert report.exit_code == 0
    assert f"the issuer is {server.site}/oidc/" in report.text("discovery")


def test_plain_http_to_another_machine_is_refused_unasked(doctor: Doctor) -> None:
    report = doctor("http://files.example.com")
    assert (report.exit_code, report.problems) == (9, {"tls"})


@pytest.mark.parametrize(
    ("fault", "exit_code"),
    [
        (Fault(status=502, body="<html>bad gateway</html>", times=None), 7),
        (Fault(status=503, headers={"Retry-After": "3600"}, times=None), 7),
        (Fault(status=404, times=None), 5),
        (Fault(status=200, body="<html>welcome</html>", times=None), 5),
        (Fault(status=302, headers={"Location": "https://elsewhere.example/"}, times=None), 5),
    ],
    ids=["502", "503", "404", "a-page", "redirect"],
)
def test_a_server_that_is_none_or_fails(
    doctor: Doctor, server: CellsServer, fault: Fault, exit_code: int
) -> None:
    server.fault("discovery", fault)
    report = doctor(server.site)
    assert (report.exit_code, report.problems) == (exit_code, {"discovery"})


def test_a_connection_that_is_cut(doctor: Doctor, server: CellsServer) -> None:
    server.fault("discovery", Fault(drop="before", times=None))
    report = doctor(server.site)
    assert (report.exit_code, report.problems) == (7, {"connection"})


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(issuer="https://elsewhere.example/oidc/"),
        Behaviour(discovery={"token_endpoint": "https://elsewhere.example/token"}),
    ],
    ids=["issuer", "endpoint"],
)
def test_a_discovery_document_of_another_server(
    doctor: Doctor, server: CellsServer, behaviour: Behaviour
) -> None:
    server.behaviour = behaviour
    report = doctor(server.site)
    assert (report.exit_code, report.problems) == (9, {"discovery"})
    assert "elsewhere.example" in report.text("discovery")


def test_keys_that_are_not_to_be_had(doctor: Doctor, server: CellsServer) -> None:
    server.fault("jwks", Fault(status=404, times=None))
    report = doctor(server.site)
    assert (report.exit_code, report.problems) == (9, {"keys"})


def test_a_self_signed_certificate_comes_with_three_ways_out(doctor: Doctor) -> None:
    with CellsServer(tls="self-signed") as server:
        report = doctor(server.site)
        assert (report.exit_code, report.problems) == (9, {"tls"})
        assert "for localhost, self-signed, valid until 20" in report.text("tls")
        for way in ("the system's store", "--ca-bundle FILE", "--insecure"):
            assert way in report.text("tls")
        assert {request.kind for request in server.requests} == {"discovery"}


@pytest.mark.parametrize(
    ("kind", "words"),
    [("expired", "certificate has expired"), ("other-host", "for elsewhere.example, by Cells-like test")],
)
def test_a_certificate_that_is_wrong_is_described(
    doctor: Doctor, kind: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CellsServer(tls=kind) as server:
        assert server.ca_file is not None
        monkeypatch.setenv("SSL_CERT_FILE", server.ca_file)
        report = doctor(server.site)
    assert (report.exit_code, report.problems) == (9, {"tls"})
    assert words in report.text("tls")


def test_a_trusted_certificate_is_told_with_its_end(doctor: Doctor) -> None:
    with CellsServer(tls=True) as server:
        store_session(server, doctor.config_dir)
        report = doctor()
    assert report.exit_code == 0
    assert report.level("tls") == "ok"
    assert "TLSv1.3; the certificate is for localhost, by Cells-like test authority" in report.text("tls")


def test_an_authority_file_that_is_gone_is_a_problem(doctor: Doctor) -> None:
    with CellsServer(tls=True) as server:
        store_session(server, doctor.config_dir, settings=Settings(ca_bundle="/no/such/file"))
        report = doctor()
    assert (report.exit_code, report.problems) == (9, {"tls"})
    assert "/no/such/file" in report.text("tls")


@pytest.mark.parametrize(
    ("kind", "words"), [("self-signed", "the certificate is not checked"), ("expired", "has to be renewed")]
)
def test_a_session_that_checks_no_certificate_is_warned_about(doctor: Doctor, kind: Any, words: str) -> None:
    with CellsServer(tls=kind) as server:
        metadata = parse_metadata(
            build_discovery_document(server.site, f"{server.site}/oidc/", server.behaviour),
            parse_site(server.site),
        )
        with CellsServer() as other:
            profile = make_session(other)
        settings = Settings(insecure=True)
        write_session(
            doctor.config_dir,
            replace(profile, site=parse_site(server.site), metadata=metadata, settings=settings),
        )
        report = doctor()
    assert report.exit_code == 0
    assert report.level("tls") == "warning"
    assert words in report.text("tls")


def test_a_certificate_file_of_the_environment_that_is_not_there_is_told(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    with CellsServer(tls=True) as server:
        report = doctor(server.site)
    assert report.exit_code == 9
    assert "SSL_CERT_FILE names /no/such/file" in report.text("tls")


@pytest.mark.parametrize(
    ("offset", "words"),
    [(7200, "2.0 h behind"), (-7200, "2.0 h ahead of"), (-600, "10 min ahead"), (90 * DAY, "90 days behind")],
)
def test_a_clock_that_is_wrong_is_told_and_stops_no_login(
    doctor: Doctor, server: CellsServer, offset: float, words: str
) -> None:
    server.behaviour = replace(server.behaviour, clock_offset=offset)
    report = doctor(server.site)
    assert report.exit_code == 0
    assert report.level("clock") == "warning"
    assert words in report.text("clock")


def test_a_clock_that_differs_by_less_than_a_minute_is_fine(doctor: Doctor, server: CellsServer) -> None:
    server.behaviour = replace(server.behaviour, clock_offset=50)
    assert doctor(server.site).level("clock") == "ok"


@pytest.mark.parametrize("methods", [None, ("plain",)], ids=["absent", "plain-only"])
def test_pkce_is_tried_where_a_server_does_not_advertise_it(
    doctor: Doctor, server: CellsServer, methods: tuple[str, ...] | None
) -> None:
    server.behaviour = replace(server.behaviour, code_challenge_methods_supported=methods)
    report = doctor(server.site)
    assert report.exit_code == 0
    assert "does not say whether it supports S256" in report.text("pkce")


@pytest.mark.parametrize(
    ("policy", "binding", "exit_code", "level"),
    [
        ("auto", "bound", 0, "ok"),
        ("auto", "unbound", 0, "warning"),
        ("auto", "foreign", 0, "warning"),
        ("off", "off", 0, "warning"),
        ("required", "bound", 0, "ok"),
        ("required", "unbound", 9, "problem"),
        ("required", "foreign", 9, "problem"),
    ],
)
def test_what_the_last_login_learned_about_pkce(
    doctor: Doctor, profile: Profile, policy: Any, binding: Any, exit_code: int, level: str
) -> None:
    write_session(doctor.config_dir, replace(profile, pkce_binding=binding, settings=Settings(pkce=policy)))
    report = doctor()
    assert (report.exit_code, report.level("pkce")) == (exit_code, level)


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("http://127.0.0.1:1", "127.0.0.1:1 cannot be reached"),
        (
            "http://someone:password@no-such-proxy.invalid:3128",
            "no-such-proxy.invalid:3128 cannot be reached",
        ),
        ("gopher://proxy:70", "its address is not valid"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    doctor: Doctor, proxy: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    report = doctor("files.example.com")
    assert (report.exit_code, report.problems) == (7, {"proxy"})
    assert words in report.text("proxy")
    assert "password" not in str(report.rows)


def test_a_proxy_in_use_is_told(doctor: Doctor, server: CellsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # To a proxy a client of plain http sends the whole address, which this server takes as well.
    site = parse_site("http://files.example.com")
    issuer = f"{site.url}/oidc/"
    document = build_discovery_document(site.url, issuer, server.behaviour)
    profile = make_session(server)
    server.behaviour = replace(server.behaviour, issuer=issuer, discovery=document)
    write_session(
        doctor.config_dir,
        replace(
            profile, site=site, metadata=parse_metadata(document, site), settings=Settings(insecure=True)
        ),
    )
    monkeypatch.setenv("HTTP_PROXY", server.site)
    report = doctor()
    assert report.exit_code == 0
    assert f"through the proxy {server.site.removeprefix('http://')}" in report.text("proxy")
    assert "clear text" in report.text("tls")


def test_no_proxy_is_asked_on_the_way_to_this_machine(
    doctor: Doctor, server: CellsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert doctor(server.site).exit_code == 0


# Ports


# Another login on this machine may have the port for a moment.
LISTEN_ON_3000 = """
import socket, sys, time
deadline = time.monotonic() + 20
while True:
    try:
        server = socket.create_server(("127.0.0.1", 3000))
        break
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.05)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def port_3000() -> Iterator[int]:
    """Let another process listen on port 3000; yield its id."""
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN_ON_3000], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        if child.stdout.readline() != "ready\n":
            lacks("port 3000: another program of this machine has it")
        yield child.pid
        child.stdin.close()


def test_a_busy_port_3000_is_told_with_its_holder_and_the_port_taken_instead(
    doctor: Doctor, server: CellsServer, port_3000: int
) -> None:
    report = doctor(server.site)
    assert report.exit_code == 0
    assert report.level("port") == "warning"
    assert "port 3000 is in use by" in report.text("port")
    assert f"(pid {port_3000})" in report.text("port") or sys.platform != "linux"
    assert "the client cells-sync" in report.text("port")
    assert "/servers/callback" in report.text("port")


def test_no_free_port_at_all_is_a_problem(doctor: Doctor, profile: Profile) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        redirect_uri = parse_redirect_uri(f"http://localhost:{port}/servers/callback")
        client = ClientRegistration("our-own", (redirect_uri,))
        write_session(doctor.config_dir, replace(profile, client=client))
        report = doctor()
    assert (report.exit_code, report.problems) == (5, {"port"})
    assert f"free port {port}" in report.text("port")
    assert "--paste" in report.text("port")


def test_nothing_listens_afterwards(doctor: Doctor, profile: Profile) -> None:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    redirect_uri = parse_redirect_uri(f"http://localhost:{port}/servers/callback")
    write_session(doctor.config_dir, replace(profile, client=ClientRegistration("own", (redirect_uri,))))
    assert f"port {port} is free on 127.0.0.1" in doctor().text("port")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


# The browser


def make_program(directory: Path, name: str, script: str = "") -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PATH to put programs on, and a display."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME", "container"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("DISPLAY", ":0")
    return programs


def test_the_systems_browser_is_named(doctor: Doctor, desktop: Path) -> None:
    opener = make_program(desktop, "xdg-open")
    report = doctor()
    assert report.level("browser") == "ok"
    assert f"{opener} (the system's) would open" in report.text("browser")


def test_a_text_mode_browser_is_told_to_open_nothing(
    doctor: Doctor, desktop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_program(desktop, "w3m")
    monkeypatch.setenv("BROWSER", "w3m")
    report = doctor()
    assert report.exit_code == 0
    assert report.level("browser") == "warning"
    assert "w3m is a text-mode browser" in report.text("browser")
    assert "--browser" in report.text("browser")


def test_without_a_display_no_browser_opens(
    doctor: Doctor, desktop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_program(desktop, "xdg-open")
    monkeypatch.delenv("DISPLAY")
    report = doctor()
    assert report.exit_code == 0
    assert report.level("browser") == "warning"
    assert "display" in report.text("browser")
    assert "cells-loopback login --paste SITE" in report.text("browser")


def test_over_ssh_the_line_that_brings_the_port_to_the_browser_is_given(
    doctor: Doctor, server: CellsServer, desktop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY")
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 2222")
    monkeypatch.setenv("USER", "alice")
    monkeypatch.setenv("LOGNAME", "alice")
    text = doctor(server.site).text("browser")
    assert "this is an SSH session without a display" in text
    assert "ssh -p 2222 -L 3" in text
    assert "alice@192.0.2.2" in text


def test_over_ssh_a_user_without_a_name_gets_the_line_without_one(
    doctor: Doctor, server: CellsServer, desktop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.delenv("DISPLAY")
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22")
    monkeypatch.setattr("getpass.getuser", unknown)
    assert " 192.0.2.2; or log in with:" in doctor(server.site).text("browser")


def test_over_ssh_with_a_display_it_says_on_which_machine_the_browser_is(
    doctor: Doctor, desktop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_program(desktop, "xdg-open")
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22")
    assert "on this machine, which you are at over SSH" in doctor().text("browser")


@pytest.mark.parametrize("installed", [True, False])
def test_for_a_headless_relogin_the_chromium_of_its_own_is_looked_for(
    doctor: Doctor, profile: Profile, desktop: Path, installed: bool
) -> None:
    make_program(desktop, "chromium" if installed else "firefox")
    write_session(doctor.config_dir, replace(profile, settings=Settings(relogin="headless")))
    report = doctor()
    assert report.exit_code == 0
    assert report.level("browser") == ("ok" if installed else "warning")
    assert (f"{desktop}/chromium would open" if installed else "no Chromium") in report.text("browser")
    assert not (doctor.config_dir / "browser").exists()


def test_in_wsl_a_chromium_of_its_own_needs_a_display_as_the_login_does(
    doctor: Doctor, profile: Profile, desktop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_program(desktop, "chromium")
    write_session(doctor.config_dir, replace(profile, settings=Settings(relogin="headless")))
    monkeypatch.setenv("WSL_DISTRO_NAME", "Debian")
    assert doctor().level("browser") == "ok"
    monkeypatch.delenv("DISPLAY")
    report = doctor()
    assert report.level("browser") == "warning"
    assert "display" in report.text("browser")


def test_in_wsl_the_browser_of_windows_is_named(
    doctor: Doctor, desktop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = make_program(desktop, "wslview")
    monkeypatch.setenv("WSL_DISTRO_NAME", "Debian")
    assert f"{opener} (the system's) would open from WSL" in doctor().text("browser")


# The keyring


@pytest.fixture
def keyring_user(server: CellsServer, tmp_path: Path) -> Program:
    """A person whose session was stored with ``--store keyring``: the file has all but the secrets."""
    program = Program(tmp_path)
    profile = store_session(server, program.config_dir)
    document, _ = split_secrets(encode_profile(replace(profile, settings=Settings(store="keyring"))))
    program.profile_path("work").write_text(json.dumps(document))
    return program


def report_with_keyring(program: Program, backend: str) -> Report:
    done = program.run("doctor", "--json", environment={"PYTHON_KEYRING_BACKEND": backend})
    return Report(done.returncode, json.loads(done.stdout))


def test_a_session_whose_keyring_is_gone_is_a_problem(keyring_user: Program) -> None:
    report = report_with_keyring(keyring_user, "keyring.backends.fail.Keyring")
    assert (report.exit_code, report.problems) == (8, {"keyring"})
    assert "no keyring answers" in report.text("keyring")
    assert "work: " in report.text("profile")


def test_a_keyring_that_might_want_a_password_is_not_asked(keyring_user: Program) -> None:
    report = report_with_keyring(keyring_user, "keyring.backends.null.Keyring")
    assert report.exit_code == 0
    assert "was not asked" in report.text("keyring")


WITH_A_REAL_KEYRING = """
import sys, secretstorage
from cells_loopback.cli import main
from cells_loopback.store.keyring_store import write_secrets

config_dir = sys.argv[1]
print(main(["doctor", "--config-dir", config_dir]))
secrets = {"token": {"access_token": "access", "refresh_token": "refresh"}, "client": {"client_secret": None}}
write_secrets(config_dir, "work", secrets)
print(main(["doctor", "--config-dir", config_dir]))
secretstorage.get_collection_by_alias(secretstorage.dbus_init(), "default").lock()
print(main(["doctor", "--config-dir", config_dir]))
"""


def test_gnome_keyring_is_asked_only_while_it_is_open(keyring_user: Program, tmp_path: Path) -> None:
    session_bus, daemon = require_program("dbus-run-session"), require_program("gnome-keyring-daemon")
    unlock = f'printf password | {daemon} --unlock --components=secrets >&2; exec "$@"'
    python = [sys.executable, "-c", WITH_A_REAL_KEYRING, str(keyring_user.config_dir)]
    done = subprocess.run(
        [session_bus, "--", "sh", "-c", unlock, "sh", *python],
        env={**keyring_user.environment, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.splitlines()
    said = [line.split(maxsplit=2)[::2] for line in lines if " keyring " in line]
    assert said == [
        ["warning", "the keyring does not hold the secrets of profile 'work'"],
        ["ok", "SecretService Keyring is open"],
        ["ok", "SecretService Keyring is open"],
        ["warning", "SecretService Keyring is locked"],
    ]
    assert [line for line in lines if line.isdigit()] == ["0", "0", "0"]


def test_nobody_asks_about_a_keyring_that_no_session_uses(doctor: Doctor, profile: Profile) -> None:
    assert doctor().text("keyring") == ""


# The keep-alive


RUNS = State(last_run=1.8e9, next_run=2.1e9)


@pytest.mark.parametrize(
    ("schedule", "state", "level", "words"),
    [
        (Schedule("systemd", installed=False), State(), "ok", "not installed"),
        (
            Schedule("systemd", installed=False),
            RUNS,
            "ok",
            "without a scheduler, last run 2027-01-15T08:00:00Z",
        ),
        (Schedule("systemd", True, True, 2e9, 1.9e9), RUNS, "ok", "next run 2033-05-18T03:33:20Z"),
        (Schedule("launchd", True, True, 2e9), RUNS, "ok", "last run 2027-01-15T08:00:00Z"),
        (Schedule("launchd", True, False), State(), "warning", "cells-loopback keepalive install"),
        (Schedule("systemd", True, True, last_exit_code=8), State(), "warning", "ended with 8"),
    ],
    ids=["absent", "resident", "active", "no-last-run", "inactive", "failing"],
)
def test_the_keepalives_runs_are_told_and_stop_no_login(
    schedule: Schedule, state: State, level: str, words: str
) -> None:
    finding = judge_schedule(schedule, state, now=1.95e9)
    assert finding.level == level
    assert words in f"{finding.message} {finding.mend}"


def test_a_session_that_the_keepalive_fails_to_renew_is_told(doctor: Doctor, profile: Profile) -> None:
    with StateFile(str(doctor.config_dir)).change() as state:
        tried_of = profile.renewals.refresh_token_at
        state.records["work"] = Record(
            exit_code=7, message="the server is failing", failures=3, tried_of=tried_of
        )
        state.records["gone"] = Record(exit_code=7, message="nobody cares", failures=1)
    report = doctor()
    assert report.exit_code == 0
    assert "work: renewing it failed 3 times in a row: the server is failing" in report.text("keepalive")
    assert "gone" not in report.text("keepalive")

    with StateFile(str(doctor.config_dir)).change() as state:
        state.records["work"] = replace(state.record("work"), tried_of=tried_of - DAY)
    assert "work" not in doctor().text("keepalive"), "that was a refresh token of before"


# Time


def test_a_check_that_hangs_is_left_behind_and_said_to_be_late() -> None:
    release = threading.Event()

    def hang() -> list[Any]:
        release.wait(30)
        return []

    late = warning("slow", "has not answered", "wait")
    checks = [Check(hang, late), Check(lambda: [ok("quick", "fine")], late)]
    begin = time.monotonic()
    assert run_checks(checks, 0.05) == [late, ok("quick", "fine")]
    assert time.monotonic() - begin < 10
    release.set()


def test_a_disk_that_does_not_answer_is_a_problem(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells_loopback.doctor, "DISK_TIMEOUT", 0.3)
    doctor.config_dir.mkdir(mode=0o700)
    os.mkfifo(doctor.config_dir / "config.toml")  # a reader waits for a writer
    report = doctor()
    assert (report.exit_code, report.problems) == (8, {"directory"})
    assert f"{doctor.config_dir} has not answered" in report.text("directory")


def test_a_server_that_takes_the_connection_and_says_nothing_is_unreachable(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells_loopback.doctor, "TIMEOUT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        report = doctor(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert (report.exit_code, report.problems) == (7, {"connection"})
    assert "has not answered for 1 s" in report.text("connection")


# The login itself


def break_modes(doctor: Doctor, server: CellsServer) -> None:
    (doctor.config_dir / "profiles").chmod(0o777)


def damage_profile(doctor: Doctor, server: CellsServer) -> None:
    (doctor.config_dir / "profiles" / "work.json").write_text("{")


def change_issuer(doctor: Doctor, server: CellsServer) -> None:
    server.behaviour = replace(server.behaviour, issuer="https://elsewhere.example/oidc/")


def fail_discovery(doctor: Doctor, server: CellsServer) -> None:
    server.fault("discovery", Fault(status=503, headers={"Retry-After": "3600"}, times=None))


def no_cells(doctor: Doctor, server: CellsServer) -> None:
    server.fault("discovery", Fault(status=404, times=None))


@pytest.mark.parametrize(
    "spoil",
    [break_modes, damage_profile, change_issuer, fail_discovery, no_cells],
    ids=lambda spoil: spoil.__name__,
)
def test_it_ends_with_what_the_login_ends_with(
    doctor: Doctor,
    server: CellsServer,
    profile: Profile,
    spoil: Callable[[Doctor, CellsServer], None],
) -> None:
    spoil(doctor, server)
    # A site that is known is not asked for its discovery document again by a login.
    name = "work" if spoil is damage_profile else "new"
    said = doctor(server.site, "-p", name).exit_code
    login = ("login", server.site, "-p", name, "--no-browser", "--timeout", "5", "--json")
    assert doctor.run(*login)[0] == said != 0
