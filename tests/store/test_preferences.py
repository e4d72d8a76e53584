"""config.toml belongs to the person: what we change is one line, and what is wrong is told and left alone."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import tomlkit
from examples import PROFILE
from hypothesis import given
from hypothesis import strategies as st

from cells_loopback.errors import NotLoggedInError, StoreError, UsageError
from cells_loopback.store import preferences
from cells_loopback.store.preferences import (
    find_default_profile,
    read_default_profile,
    read_login_options,
    write_default_profile,
)
from cells_loopback.store.profiles import ProfileStore

if TYPE_CHECKING:
    from pathlib import Path

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="links of POSIX")

COMMENTED = """\
# My own notes on this file.

# Which account I use most.
default_profile = "home" # the kids' one

[login]   # how to log in
browser = "firefox --new-window"   # not the work one
timeout = 120

# Nothing below this line is known to cells-loopback yet.
[future]
list = [
    1,  # one
    2,
]
"""


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "config"
    directory.mkdir(mode=0o700)
    return directory


def write(config_dir: Path, text: str) -> Path:
    path = config_dir / "config.toml"
    path.write_bytes(text.encode())
    return path


def read(config_dir: Path) -> str:
    return (config_dir / "config.toml").read_bytes().decode()


def add_profiles(config_dir: Path, *names: str) -> ProfileStore:
    store = ProfileStore(str(config_dir))
    store.prepare()
    for name in names:
        with store.replacement(name) as replacement:
            store.write(replace(PROFILE, name=name), replacement)
    return store


class TestDefaultProfile:
    def test_what_is_chosen_is_read(self, config_dir: Path) -> None:
        assert read_default_profile(str(config_dir)) is None
        write_default_profile(str(config_dir), "work")
        assert read_default_profile(str(config_dir)) == "work"
        write_default_profile(str(config_dir), None)
        assert read_default_profile(str(config_dir)) is None

    def test_the_first_choice_makes_the_directory(self, tmp_path: Path) -> None:
        write_default_profile(str(tmp_path / "new"), "work")
        assert read_default_profile(str(tmp_path / "new")) == "work"

    @pytest.mark.parametrize(
        "text",
        [
            'default_profile = "work"\n', "default_profile = 'work'\n", 'default_profile="work"',
            '  default_profile   =   "work" # c\n', '# c\r\n\r\ndefault_profile = "work"\r\n',
            'x = 1\ndefault_profile = "work"\n', 'default_profile = """work"""\n',
            '"default_profile" = "work"\n', '\ufeffdefault_profile = "work"\n',
            '# ü\ndefault_profile = "work"\n',
            'default_profile = "w\\u006frk"\n', '[login]\ntimeout = 1\n[x]\ny = 2\n',
        ],
    )  # fmt: skip
    def test_it_is_found_however_it_is_written(self, config_dir: Path, text: str) -> None:
        write(config_dir, text)
        assert read_default_profile(str(config_dir)) == ("work" if "default" in text else None)

    @pytest.mark.parametrize(
        "text", ['x = """\ndefault_profile = "work"\n"""\n', '[x]\ndefault_profile = "work"\n']
    )
    def test_the_same_words_elsewhere_are_not_it(self, config_dir: Path, text: str) -> None:
        write(config_dir, text)
        assert read_default_profile(str(config_dir)) is None

    @pytest.mark.parametrize(
        "text",
        [
            "default_profile = 7\n",
            "default_profile = \n",
            "nonsense\n",
            "[default_profile]\n",
            "x = 1\nx = 2\n",
        ],
    )
    def test_what_is_wrong_is_told_with_its_place_and_left_alone(self, config_dir: Path, text: str) -> None:
        path = write(config_dir, text)
        with pytest.raises(StoreError, match="is not valid") as raised:
            read_default_profile(str(config_dir))
        assert str(path) in raised.value.message
        assert raised.value.exit_code == 8
        if "default_profile" not in text:
            with pytest.raises(StoreError, match="is not valid"):
                write_default_profile(str(config_dir), "work")
        assert read(config_dir) == text

    def test_a_file_that_is_no_text_is_told(self, config_dir: Path) -> None:
        (config_dir / "config.toml").write_bytes(b"x = \xff\n")
        with pytest.raises(StoreError, match="is not valid"):
            read_default_profile(str(config_dir))

    def test_a_file_that_cannot_be_read_is_told(self, config_dir: Path) -> None:
        (config_dir / "config.toml").mkdir()
        with pytest.raises(StoreError, match="cannot read"):
            read_default_profile(str(config_dir))


class TestFinding:
    def test_the_environment_comes_first_then_the_choice_then_the_only_one(
        self, config_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = add_profiles(config_dir, "home")
        assert find_default_profile(store) == "home"
        add_profiles(config_dir, "work")
        write_default_profile(str(config_dir), "work")
        assert find_default_profile(store) == "work"
        monkeypatch.setenv("CELLS_LOOPBACK_PROFILE", "cron")
        assert find_default_profile(store) == "cron"
        monkeypatch.setenv("CELLS_LOOPBACK_PROFILE", "")
        assert find_default_profile(store) == "work"

    def test_of_several_none_is_guessed(self, config_dir: Path) -> None:
        store = add_profiles(config_dir, "home", "work")
        with pytest.raises(NotLoggedInError, match="several profiles") as raised:
            find_default_profile(store)
        assert raised.value.hint == "name one: -p home; or choose the default: cells-loopback use home"

    def test_without_any_nobody_has_logged_in(self, config_dir: Path) -> None:
        with pytest.raises(NotLoggedInError, match="nobody has logged in"):
            find_default_profile(ProfileStore(str(config_dir)))

    def test_a_name_that_cannot_be_one_is_refused(
        self, config_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CELLS_LOOPBACK_PROFILE", "../x")
        with pytest.raises(UsageError):
            find_default_profile(ProfileStore(str(config_dir)))

    def test_a_choice_that_cannot_be_a_name_is_the_files_mistake(self, config_dir: Path) -> None:
        write(config_dir, 'default_profile = "../x"\n')
        with pytest.raises(
            StoreError, match=r"config\.toml is not valid: '\.\./x' cannot be a profile's name"
        ):
            find_default_profile(ProfileStore(str(config_dir)))


class TestTheRestStays:
    def test_a_choice_changes_its_line_and_nothing_else(self, config_dir: Path) -> None:
        write(config_dir, COMMENTED)
        write_default_profile(str(config_dir), "work")
        assert read(config_dir) == COMMENTED.replace('"home"', '"work"')

    @pytest.mark.parametrize(
        "text",
        [
            "", "# only a comment", "# c\n\n[login]\nbrowser = \"x\"\n", "[login]\nbrowser = \"x\"",
            "x = 1\n# tail\n[login]\n", "a.b = 1\n[login]\n", "# head\n\n# about login\n[login]\n",
        ],
    )  # fmt: skip
    def test_the_first_choice_adds_one_line_and_keeps_the_others(self, config_dir: Path, text: str) -> None:
        write(config_dir, text)
        write_default_profile(str(config_dir), "work")
        after = read(config_dir)
        assert tomlkit.parse(after)["default_profile"] == "work"
        assert [line for line in text.splitlines() if line.strip()] == [
            line for line in after.splitlines() if line.strip() and not line.startswith("default_profile")
        ]

    def test_windows_line_endings_stay(self, config_dir: Path) -> None:
        write(config_dir, "# a\r\n[login]\r\ntimeout = 5\r\n")
        write_default_profile(str(config_dir), "work")
        assert read(config_dir).count("\n") == read(config_dir).count("\r\n") >= 4

    @POSIX
    def test_a_link_into_somebodys_dotfiles_stays_a_link(self, config_dir: Path, tmp_path: Path) -> None:
        real = tmp_path / "dotfiles.toml"
        real.write_text(COMMENTED, encoding="utf-8")
        (config_dir / "config.toml").symlink_to(real)
        write_default_profile(str(config_dir), "work")
        assert (config_dir / "config.toml").is_symlink()
        assert read_default_profile(str(config_dir)) == "work"
        assert real.read_text(encoding="utf-8") == COMMENTED.replace('"home"', '"work"')

    def test_choices_made_at_once_lose_nothing(self, config_dir: Path) -> None:
        write(config_dir, COMMENTED)
        names = [f"profile-{number}" for number in range(8)]
        threads = [
            threading.Thread(target=write_default_profile, args=(str(config_dir), name)) for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        chosen = read_default_profile(str(config_dir))
        assert chosen in names
        assert read(config_dir) == COMMENTED.replace("home", str(chosen))
        assert sorted(os.listdir(config_dir)) == ["config.toml", "config.toml.lock"]

    @given(st.lists(st.text("abc# =\"'[]\n.1\\", max_size=30), max_size=4))
    def test_whatever_stands_there_it_is_kept_or_refused(
        self, tmp_path_factory: pytest.TempPathFactory, lines: list[str]
    ) -> None:
        directory = tmp_path_factory.mktemp("config")
        text = "\n".join(lines)
        write(directory, text)
        try:
            before = tomlkit.parse(text).unwrap()
        except tomlkit.exceptions.TOMLKitError:
            with pytest.raises(StoreError):
                write_default_profile(str(directory), "work")
            assert read(directory) == text
            return
        write_default_profile(str(directory), "work")
        assert tomlkit.parse(read(directory)).unwrap() == {**before, "default_profile": "work"}


class TestLoginOptions:
    def test_they_are_read_with_their_kinds(self, config_dir: Path) -> None:
        write(config_dir, COMMENTED)
        options = read_login_options(str(config_dir))
        assert options == {"browser": "firefox --new-window", "timeout": 120}
        assert {name: type(value) for name, value in options.items()} == {"browser": str, "timeout": int}

    def test_there_may_be_none(self, config_dir: Path) -> None:
        assert read_login_options(str(config_dir)) == {}

    @pytest.mark.parametrize(
        "text",
        [
            "login = 1",
            "[login]\nbrowser = 7",
            "[login]\ntimeout = true",
            "[login]\ntimeout = -1",
            "[login]\ntimeout = inf",
            "[login]\ntimeout = nan",
            "[login]\npkce = 'never'",
            "[login]\nstore = 'cloud'",
            "[login]\nrelogin = ''",
            "[login]\ncolour = 'red'",
        ],
    )
    def test_unknown_ones_and_wrong_kinds_and_values_are_told(self, config_dir: Path, text: str) -> None:
        write(config_dir, text)
        with pytest.raises(StoreError, match="is not valid") as raised:
            read_login_options(str(config_dir))
        assert raised.value.code == "config"

    @POSIX
    def test_a_browser_is_no_choice_of_others(
        self, config_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(config_dir, COMMENTED)
        path.chmod(0o666)
        with pytest.raises(StoreError, match="can be written by others") as raised:
            read_login_options(str(config_dir))
        assert raised.value.hint == f"close it: chmod o-w {path}"
        path.chmod(0o664)
        assert read_login_options(str(config_dir))
        owner = path.stat().st_uid
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        if owner == 0:
            assert read_login_options(str(config_dir))  # root's own may be for everybody
        else:
            with pytest.raises(StoreError, match="belongs to another user"):
                read_login_options(str(config_dir))

    def test_each_is_an_option_of_login(self) -> None:
        from cells_loopback.loopback_login.options import LoginOptions

        assert set(preferences.LOGIN_OPTIONS) <= set(LoginOptions.__dataclass_fields__)
