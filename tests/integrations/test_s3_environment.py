"""The environment that programs get from ``exec`` and shells from ``s3 env``."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells_loopback.integrations.s3_environment import clear_the_way, environment, render_exports

if TYPE_CHECKING:
    from pathlib import Path

SITE = "https://files.example.com"


def test_the_environment_is_the_one_of_the_contract() -> None:
    assert environment(SITE, "TOKEN") == {
        "CELLS_SITE": SITE,
        "CELLS_ACCESS_TOKEN": "TOKEN",
        "AWS_ACCESS_KEY_ID": "TOKEN",
        "AWS_SECRET_ACCESS_KEY": "gatewaysecret",
        "AWS_ENDPOINT_URL_S3": SITE,
        "AWS_REGION": "us-east-1",
    }


def test_each_shell_gets_its_own_words() -> None:
    variables = {"A": "plain", "B": "it's \\ $HOME"}
    assert render_exports(variables, "sh") == "export A=plain\nexport B='it'\"'\"'s \\ $HOME'"
    assert render_exports(variables, "fish") == "set -gx A 'plain'\nset -gx B 'it\\'s \\\\ $HOME'"
    assert render_exports(variables, "powershell") == "$env:A = 'plain'\n$env:B = 'it''s \\ $HOME'"
    assert render_exports({"A": "\u2018\u2019"}, "powershell") == "$env:A = '\u2018\u2018\u2019\u2019'"


@settings(deadline=None, max_examples=30)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_a_posix_shell_reads_any_value_as_it_is(value: str) -> None:
    script = render_exports({"VALUE": value}, "sh") + '\nprintf %s "$VALUE"'
    shell = shutil.which("sh")
    assert shell is not None
    assert subprocess.run([shell, "-c", script], capture_output=True, check=True).stdout.decode() == value


def test_variables_of_other_credentials_are_unset() -> None:
    names = ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CREDENTIAL_EXPIRATION")
    environ = {**dict.fromkeys(names, "x"), "AWS_CA_BUNDLE": "mine", "AWS_ACCESS_KEY_ID": "x"}
    assert clear_the_way(environ, "/nowhere") == dict.fromkeys(names)


def test_a_clean_environment_is_left_alone() -> None:
    assert clear_the_way({"HOME": "/nowhere"}, "/nowhere") == {}


@pytest.mark.parametrize(
    ("old_region", "text", "changes"),
    [
        ("eu-west-1", "", {"AWS_DEFAULT_REGION": "us-east-1"}),
        ("us-east-1", "[default]\nregion = eu-west-1\n", {}),
        (None, "[default]\nregion = eu-west-1\n", {"AWS_DEFAULT_REGION": "us-east-1"}),
        (None, "[profile default]\nREGION=eu-west-1\n", {"AWS_DEFAULT_REGION": "us-east-1"}),
        (None, "[default]\noutput = json\n[profile work]\nregion = eu-west-1\n", {}),
        (None, "[default]\nregion = us-east-1\n", {}),
    ],
)
def test_clients_that_know_the_old_region_only_are_told_ours(
    tmp_path: Path, old_region: str | None, text: str, changes: dict[str, str]
) -> None:
    config = tmp_path / ".aws" / "config"
    config.parent.mkdir()
    config.write_text(text)
    environ = {} if old_region is None else {"AWS_DEFAULT_REGION": old_region}
    assert clear_the_way(environ, str(tmp_path)) == changes
    assert clear_the_way({**environ, "AWS_CONFIG_FILE": str(config)}, "/nowhere") == changes


def test_a_configuration_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    assert clear_the_way({"AWS_CONFIG_FILE": str(tmp_path)}, "/nowhere") == {}


def test_each_shell_unsets_in_its_own_words() -> None:
    assert render_exports({"A": None}, "sh") == "unset A"
    assert render_exports({"A": None}, "fish") == "set -e A"
    assert render_exports({"A": None}, "powershell") == "Remove-Item Env:A"
