"""Credentials for S3 clients, and what is written into their configuration."""

from __future__ import annotations

import asyncio
import configparser
import json
import re
import shlex
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from cells_loopback.clock import uptime, wall
from cells_loopback.errors import LoginRequiredError, ServerUnavailableError, StoreError, UsageError
from cells_loopback.integrations.s3 import (
    fetch_credentials,
    refreshable_credentials,
    render_credential_process,
)
from cells_loopback.integrations.s3_clients import CLIENTS, Connection, find_file
from cells_loopback.protocol.tokens import TokenSet
from cells_loopback.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cells_loopback.integrations.s3_clients import ClientSetup

SITE = "https://files.example.com"


class Source:
    """A token source whose tokens are numbered, and which says what it was asked for."""

    site = SITE

    def __init__(self, lifetime: float | None = 600.0, age: float = 0.0) -> None:
        self.lifetime = lifetime
        self.age = age
        self.asked: list[float | None] = []
        self.failure: Exception | None = None

    def token(self, *, min_valid: float | None = None, rejected: str | None = None) -> TokenSet:
        self.asked.append(min_valid)
        if self.failure and min_valid is not None:
            raise self.failure
        return TokenSet(
            access_token=Secret(f"token-{len(self.asked)}"),
            token_type="Bearer",
            scope="openid",
            lifetime=self.lifetime,
            obtained_at=wall() - self.age,
            obtained_uptime=uptime() - self.age,
        )


def seconds_until(instant: str) -> float:
    return datetime.fromisoformat(instant.replace("Z", "+00:00")).timestamp() - wall()


@pytest.mark.parametrize(
    ("lifetime", "age", "expected"),
    [(600, 0, 570), (3600, 60, 3510), (600, 560, 20), (3, 0, 1.5), (3, 2, 0.5)],
)
def test_credentials_expire_before_the_token_and_never_in_the_past(
    lifetime: float, age: float, expected: float
) -> None:
    document = json.loads(render_credential_process(Source(lifetime, age)))
    assert document["Version"] == 1
    assert document["AccessKeyId"] == ("token-1" if age < lifetime / 2 else "token-2")
    assert document["SecretAccessKey"] == "gatewaysecret"
    assert document["Expiration"].endswith("Z")
    assert seconds_until(document["Expiration"]) == pytest.approx(expected, abs=0.3)


def test_credentials_of_a_token_without_a_known_end_have_no_expiration() -> None:
    assert "Expiration" not in json.loads(render_credential_process(Source(lifetime=None)))


def test_a_token_that_lives_long_is_renewed_when_an_sdk_first_asks() -> None:
    source = Source(lifetime=3600, age=3000)
    render_credential_process(source)
    assert source.asked == [None, 960.0]


def test_a_token_that_lives_shorter_than_an_sdk_wants_is_renewed_at_its_half() -> None:
    young, old = Source(lifetime=600, age=290), Source(lifetime=600, age=310)
    render_credential_process(young)
    render_credential_process(old)
    assert (young.asked, old.asked) == ([None], [None, 300.0])


@pytest.mark.parametrize(
    "failure", [ServerUnavailableError("down"), LoginRequiredError("over"), StoreError("full")]
)
def test_an_early_renewal_that_fails_leaves_the_token_that_is_still_good(failure: Exception) -> None:
    source = Source(lifetime=600, age=310)
    source.failure = failure
    assert json.loads(render_credential_process(source))["AccessKeyId"] == "token-1"
    assert source.asked == [None, 300.0]


def test_a_source_without_a_token_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()

    def refuse(**_: object) -> TokenSet:
        raise LoginRequiredError("over")

    monkeypatch.setattr(source, "token", refuse)
    with pytest.raises(LoginRequiredError):
        fetch_credentials(source)


def test_credentials_never_show_the_token() -> None:
    assert "token-1" not in repr(fetch_credentials(Source()))


# botocore's credentials in botocore itself; the gateway's side is in test_testing_s3.py.


def test_botocore_does_not_ask_again_before_each_request() -> None:
    source = Source()
    credentials = refreshable_credentials(source)
    frozen = {credentials.get_frozen_credentials().access_key for _ in range(100)}
    assert frozen == {"token-1"}
    assert source.asked == [None]
    assert credentials.get_frozen_credentials().secret_key == "gatewaysecret"
    assert credentials.get_frozen_credentials().token is None


@pytest.mark.parametrize(("lifetime", "age"), [(600, 520), (3, 0), (3, 2.5)])
def test_botocore_asks_again_towards_the_end(lifetime: float, age: float) -> None:
    source = Source(lifetime, age)
    credentials = refreshable_credentials(source)
    assert [credentials.get_frozen_credentials().access_key for _ in range(2)] == ["token-2", "token-3"]


def test_botocore_never_asks_again_for_a_token_without_a_known_end() -> None:
    source = Source(lifetime=None)
    credentials = refreshable_credentials(source)
    assert credentials.get_frozen_credentials().access_key == "token-1"
    assert source.asked == [None]


def test_botocore_lives_with_a_session_that_loses_its_end() -> None:
    source = Source(lifetime=3)
    credentials = refreshable_credentials(source)
    source.lifetime = None
    assert credentials.get_frozen_credentials().access_key == "token-2"
    assert credentials.get_frozen_credentials().access_key == "token-2"


def test_without_botocore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.credentials", None)
    with pytest.raises(UsageError) as caught:
        refreshable_credentials(Source())
    assert "cells-loopback[s3]" in caught.value.hint


# The clients' files


@pytest.mark.parametrize("client", ["s3cmd", "mc"])
def test_a_recipe_names_the_session_whose_site_it_goes_to(client: str) -> None:
    options = ("--config-dir", "/my tools", "--profile", "files")
    notes = "\n".join(configure(client, session_options=options).notes)
    assert "cells-loopback exec --config-dir '/my tools' --profile files -- " in notes


def configure(
    client: str, environ: dict[str, str] | None = None, home: str = "/home/alice", **connection: Any
) -> ClientSetup:
    described = Connection(
        **{
            "site": SITE,
            "name": "files",
            "program": ("/opt/my tools/cells-loopback",),
            "session_options": ("--profile", "files"),
            "fetch_credentials": lambda: fetch_credentials(Source()),
            **connection,
        }
    )
    return CLIENTS[client].configure(described, environ or {}, home)


def read_ini(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(default_section="")
    parser.read_string(text)
    return parser


def test_aws_gets_a_profile_that_asks_us() -> None:
    (file,) = configure("aws").files
    assert file.path == "/home/alice/.aws/config"
    profile = read_ini(file.text)["profile files"]
    assert shlex.split(profile["credential_process"])[0] == "/opt/my tools/cells-loopback"
    assert profile["endpoint_url"] == SITE
    assert profile["region"] == "us-east-1"
    assert "addressing_style = path" in profile["s3"]
    assert "ca_bundle" not in profile
    assert file.merge("") == file.text


def test_aws_is_told_of_an_authority_of_ones_own() -> None:
    setup = configure("aws", ca_bundle="/etc/ca.pem")
    assert read_ini(setup.files[0].text)["profile files"]["ca_bundle"] == "/etc/ca.pem"
    assert any("--no-verify-ssl" in note for note in configure("aws", insecure=True).notes)


@pytest.mark.parametrize("key", ["aws_access_key_id", "role_arn", "sso_session", "web_identity_token_file"])
def test_an_aws_profile_with_other_credentials_is_left_alone(key: str) -> None:
    (file,) = configure("aws").files
    with pytest.raises(UsageError, match=key) as caught:
        file.merge(f'[profile "files"]\n{key} = x\n')
    assert "--name" in caught.value.hint


@pytest.mark.parametrize(
    ("process", "is_ours"),
    [
        ("/opt/other-helper --account 1", False),
        ("/home/alice/.local/bin/cells-loopback --profile old s3 credentials", True),
        ("/usr/bin/python3 -m cells_loopback --profile files s3 credentials", True),
    ],
)
def test_a_program_of_ones_own_for_credentials_is_left_alone(process: str, is_ours: bool) -> None:
    (file,) = configure("aws").files
    before = f"[profile files]\ncredential_process = {process}\n"
    if is_ours:
        assert "my tools" in file.merge(before)
        return
    with pytest.raises(UsageError, match="credential_process") as caught:
        file.merge(before)
    assert "--name" in caught.value.hint


def test_keys_that_aws_would_take_first_are_told(tmp_path: Path) -> None:
    keys = tmp_path / "credentials"
    (file,) = configure("aws", {"AWS_SHARED_CREDENTIALS_FILE": str(keys)}).files
    keys.write_text("[other]\naws_access_key_id = AKIA\n")
    assert file.merge("")
    keys.write_text("[files]\naws_access_key_id = AKIA\n")
    with pytest.raises(UsageError, match=re.escape(f"[files] in {keys} has keys")):
        file.merge("")


def test_rclone_gets_a_remote_and_a_profile_of_its_own() -> None:
    aws, rclone = configure("rclone", ca_bundle="/etc/ca.pem").files
    assert (aws.path, rclone.path) == ("/home/alice/.aws/config", "/home/alice/.config/rclone/rclone.conf")
    remote = read_ini(rclone.text)["files"]
    profile = read_ini(aws.text)[f"profile {remote['profile']}"]
    assert "credential_process" in profile
    assert "ca_bundle" not in profile
    assert (remote["type"], remote["env_auth"], remote["endpoint"]) == ("s3", "true", SITE)
    assert aws.merge(aws.text) == aws.text
    assert rclone.merge(rclone.text) == rclone.text


def test_rclone_is_told_what_it_has_no_setting_for() -> None:
    assert any("--ca-cert /ca" in note for note in configure("rclone", ca_bundle="/ca").notes)
    assert any("--no-check-certificate" in note for note in configure("rclone", insecure=True).notes)
    assert any("AWS_CA_BUNDLE" in note for note in configure("rclone", {"AWS_CA_BUNDLE": "x"}).notes)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[files]\ntype = drive\n", "--name"),
        ("[files]\ntype = s3\naccess_key_id = x\n", "--name"),
        ("[files]\ntype = s3\nprovider = AWS\nenv_auth = true\nprofile = corp\n", "--name"),
        ("[files]\ntype = s3\nprovider = AWS\nenv_auth = true\n", "--name"),
        ("[files]\ntype = s3\nprovider = Other\nendpoint = https://s3.example.org\n", "--name"),
        ("# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nabc", "rclone config create files s3"),
    ],
)
def test_a_file_of_rclone_that_is_not_ours_to_change_is_left_alone(text: str, hint: str) -> None:
    rclone = configure("rclone").files[-1]
    with pytest.raises(UsageError) as caught:
        rclone.merge(text)
    assert hint in caught.value.hint


def test_rclone_follows_a_site_that_moved() -> None:
    former = configure("rclone", site="https://old.example.com").files[-1].text
    assert f"endpoint = {SITE}\n" in configure("rclone").files[-1].merge(former)


def test_s3cmd_gets_all_but_the_keys() -> None:
    (file,) = configure("s3cmd").files
    assert file.path == "/home/alice/.s3cfg"
    section = read_ini(file.text)["default"]
    assert (section["host_base"], section["use_https"]) == ("files.example.com", "True")
    assert "access_key" not in section
    assert file.merge("") == file.text


def test_s3cmd_forgets_the_keys_it_had_for_this_site() -> None:
    (file,) = configure("s3cmd", ca_bundle="/ca.pem").files
    merged = file.merge(
        "host_base = files.example.com\naccess_key = OLD\nsecret_key = OLD\nprogress_meter = False\n"
    )
    assert "access_key =\nsecret_key =\nprogress_meter = False\n" in merged
    assert "ca_certs_file = /ca.pem\n" in merged
    assert file.merge(merged) == merged
    assert "check_ssl_certificate = False" in configure("s3cmd", insecure=True).files[0].text


@pytest.mark.parametrize("text", ["host_base = s3.amazonaws.com\n", "[default]\naccess_key = AKIA\n"])
def test_a_file_of_s3cmd_for_another_server_is_left_alone(text: str) -> None:
    (file,) = configure("s3cmd").files
    with pytest.raises(UsageError) as caught:
        file.merge(text)
    assert "--file /home/alice/.s3cfg-cells" in caught.value.hint


def test_mc_gets_the_token_of_the_moment() -> None:
    setup = configure("mc")
    (file,) = setup.files
    assert file.path == "/home/alice/.mc/config.json"
    document = json.loads(file.text)
    assert document["version"] == "10"
    assert document["aliases"]["files"]["accessKey"] == "token-1"
    assert "token-1" not in repr(setup)
    assert file.merge(file.text) == file.text
    both = json.loads(file.merge('{"version": "10", "aliases": {"play": {}}}'))
    assert list(both["aliases"]) == ["play", "files"]
    assert any("MC_HOST_files=https://$AWS_ACCESS_KEY_ID:" in note for note in setup.notes)
    assert any("--insecure" in note for note in configure("mc", insecure=True).notes)
    assert any("/home/alice/.mc/certs/CAs" in note for note in configure("mc", ca_bundle="/ca").notes)


@pytest.mark.parametrize("url", ["https://s3.example.org", ["odd"]], ids=str)
def test_an_alias_of_mc_for_another_server_is_left_alone(url: object) -> None:
    (file,) = configure("mc").files
    before = json.dumps({"version": "10", "aliases": {"files": {"url": url}}})
    with pytest.raises(UsageError, match="alias files"):
        file.merge(before)


@pytest.mark.parametrize("text", ["{", "[]", '{"hosts": {}}'])
def test_a_file_that_is_none_of_mc_is_left_alone(text: str) -> None:
    (file,) = configure("mc").files
    with pytest.raises(StoreError, match="not a configuration of mc"):
        file.merge(text)


@pytest.mark.parametrize(
    ("client", "name", "cleaned"),
    [
        ("aws", "localhost:8080", "localhost:8080"),
        ("aws", "[::1]:8080", "::1-:8080"),
        ("aws", "default", "cells"),
        ("rclone", "localhost:8080", "localhost-8080"),
        ("rclone", "[::]", "cells"),
        ("s3cmd", "localhost:8080", "localhost:8080"),
        ("mc", "files.example-1.com", "files_example_1_com"),
        ("mc", "127.0.0.1:8080", "cells_127_0_0_1_8080"),
    ],
)
def test_a_name_is_made_to_fit_the_client(client: str, name: str, cleaned: str) -> None:
    clean = CLIENTS[client].clean_name
    assert clean(name) == cleaned
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    ("client", "environ", "expected"),
    [
        ("aws", {"AWS_CONFIG_FILE": "/x/aws"}, "/x/aws"),
        ("rclone", {"RCLONE_CONFIG": "/x/rclone"}, "/x/rclone"),
        ("rclone", {"XDG_CONFIG_HOME": "/xdg"}, "/xdg/rclone/rclone.conf"),
        ("s3cmd", {"S3CMD_CONFIG": "/x/s3cfg"}, "/x/s3cfg"),
        ("mc", {"MC_CONFIG_DIR": "/x/mc"}, "/x/mc/config.json"),
    ],
)
def test_a_file_is_where_the_client_looks_for_it(client: str, environ: dict[str, str], expected: str) -> None:
    assert configure(client, environ).files[-1].path == expected
    assert configure(client, environ, file="/mine").files[-1].path == "/mine"


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("rclone", "/appdata/rclone/rclone.conf"),
        ("s3cmd", "/appdata/s3cmd.ini"),
        ("mc", "/home/alice/mc/config.json"),
    ],
)
def test_windows_has_other_places(client: str, expected: str) -> None:
    environ = {"APPDATA": "/appdata"}
    assert configure(client, environ, windows=True).files[-1].path == expected
    assert configure(client, environ, windows=False).files[-1].path != expected


def test_the_first_file_that_exists_is_the_one(tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    assert find_file({}, "NAME", first, second) == first
    (tmp_path / "second").touch()
    assert find_file({}, "NAME", first, second) == second
    assert find_file({"NAME": first}, "NAME", second) == first


def test_a_command_line_is_quoted_for_the_platform_that_splits_it() -> None:
    def command(*argv: str, windows: bool) -> str:
        text = configure("aws", program=argv, session_options=(), windows=windows).files[0].text
        return read_ini(text)["profile files"]["credential_process"]

    argv = ("/opt/my tools/x", "--config-dir", "it's")
    assert shlex.split(command(*argv, windows=False)) == [*argv, "s3", "credentials"]
    windows = command("C:\\Program Files\\x.exe", windows=True)
    assert windows == '"C:\\Program Files\\x.exe" s3 credentials'


def test_credentials_are_fetched_only_for_the_client_that_cannot_ask() -> None:
    def fail() -> Any:
        raise AssertionError("not needed")

    for client in ("aws", "rclone", "s3cmd"):
        configure(client, fetch_credentials=fail)


def run_in_threads(calls: list[Callable[[], str]]) -> set[str]:
    async def run() -> set[str]:
        return set(await asyncio.gather(*(asyncio.to_thread(call) for call in calls)))

    return asyncio.run(run())


def test_botocore_may_be_used_from_many_threads() -> None:
    source = Source()
    credentials = refreshable_credentials(source)
    assert run_in_threads([lambda: credentials.get_frozen_credentials().access_key] * 32) == {"token-1"}
    assert datetime.now(timezone.utc) < credentials._expiry_time
