"""The warm path of ``token``: the same answers as the ordinary command, for a fraction of its work."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from examples import PROFILE, TOKENS
from requires import require_program

from cells_loopback import __main__, cli
from cells_loopback.clock import uptime, wall
from cells_loopback.errors import StoreError
from cells_loopback.secret import Secret
from cells_loopback.session.renewal_note import Failure, RenewalNote, write_note
from cells_loopback.store.lock import FileLock
from cells_loopback.store.preferences import write_default_profile
from cells_loopback.store.profile_document import encode_profile
from cells_loopback.store.profiles import ProfileStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cells_loopback.store.profiles import Profile

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="modes, links and signals of POSIX")

TOKEN = "ory_at_the-access-token"


@pytest.fixture(autouse=True)
def same_signal_handlers() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    return tmp_path / "config"


def profile_aged(seconds: float, name: str = "work") -> Profile:
    tokens = replace(
        TOKENS, obtained_at=wall() - seconds, obtained_uptime=uptime() - seconds, renew_early=20.0
    )
    return replace(PROFILE, name=name, tokens=tokens)


def write(config_dir: Path, profile: Profile) -> Path:
    store = ProfileStore(str(config_dir))
    store.prepare()
    with store.replacement(profile.name) as replacement:
        store.write(profile, replacement)
    return Path(store.path(profile.name))


@pytest.fixture
def work(config_dir: Path) -> Path:
    path = write(config_dir, profile_aged(100))
    write_default_profile(str(config_dir), "work")
    return path


class Answer:
    """What a call said and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Answer) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # compared, never kept

    def __repr__(self) -> str:
        return f"Answer({self.code}, {self.out!r}, {self.err!r})"


class Calls:
    """Both ways to run a command in this process."""

    def __init__(self, config_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._config_dir = config_dir
        self._capsys = capsys

    def arguments(self, arguments: Sequence[str]) -> list[str]:
        return ["--config-dir", str(self._config_dir), *arguments]

    def warm(self, *arguments: str) -> Answer:
        code = __main__._run(self.arguments(arguments))
        return Answer(code, *self._capsys.readouterr())

    def ordinary(self, *arguments: str) -> Answer:
        code = cli.main(self.arguments(arguments))
        return Answer(code, *self._capsys.readouterr())


@pytest.fixture
def calls(config_dir: Path, capsys: pytest.CaptureFixture[str]) -> Calls:
    return Calls(config_dir, capsys)


@pytest.fixture
def no_ordinary_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a call fail that the warm path leaves to the ordinary command."""

    def fail(arguments: Sequence[str], lock: object = None) -> int:
        raise AssertionError(f"{arguments} is not answered by the warm path")

    monkeypatch.setattr(cli, "main", fail)


PLAIN_CALLS = [
    ("token",),
    ("token", "-p", "work"),
    ("-p", "work", "token"),
    ("--profile", "work", "token"),
    ("token", "--profile=work"),
    ("token", "--format", "raw"),
    ("token", "--format", "header"),
    ("token", "--format=curl"),
    ("token", "--format", "json"),
    ("token", "--min-valid", "300"),
    ("token", "--min-valid=0"),
    ("token", "--min-valid", "498"),
    ("-p", "home", "token", "-p", "work"),
    ("token", "--format", "raw", "--format", "header"),
]

OTHER_CALLS = [
    ("token", "--format", "xml"),
    ("token", "--min-valid", "-1"),
    ("token", "--min-valid", "1.5"),
    ("token", "--min-valid", "9999999999"),
    ("token", "--min-valid", ""),
    ("token", "--min-valid"),
    ("token", "--min-valid", "1_0"),
    ("token", "-p"),
    ("token", "-p", ""),
    ("token", "-p", "-v"),
    ("token", "-p", "home"),
    ("token", "-p", "../config"),
    ("token", "-p", "work."),
    ("token", "-p", "con"),
    ("token", "-p=work"),
    ("token", "-pwork"),
    ("token", "--prof", "work"),
    ("token", "--config-dir"),
    ("token", "--config-dir", "-v"),
    ("token", "--config-dir", ""),
    ("token", "--config-dir", "/nonexistent"),
    ("token", "token"),
    ("token", "extra"),
    ("token", "--"),
    ("--", "token"),
    ("token", "-v"),
    ("token", "-q"),
    ("token", "--no-color"),
    ("token", "--nonsense"),
    ("-p", "token"),
    ("-p", "token", "token"),
    ("list", "-p", "token"),
]


def call_id(call: tuple[str, ...]) -> str:
    return " ".join(call)


class TestCalls:
    @pytest.mark.parametrize("call", PLAIN_CALLS, ids=call_id)
    @pytest.mark.usefixtures("work", "no_ordinary_command")
    def test_the_plain_ones_are_answered_at_once(self, calls: Calls, call: tuple[str, ...]) -> None:
        answer = calls.warm(*call)
        assert (answer.code, answer.err) == (0, "")
        assert TOKEN in answer.out

    @pytest.mark.parametrize("call", PLAIN_CALLS + OTHER_CALLS, ids=call_id)
    @pytest.mark.usefixtures("work")
    def test_each_has_the_answer_of_the_ordinary_command(self, calls: Calls, call: tuple[str, ...]) -> None:
        assert calls.warm(*call) == calls.ordinary(*call)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("CELLS_LOOPBACK_PROFILE", "work"),
            ("CELLS_LOOPBACK_PROFILE", "home"),
            ("CELLS_LOOPBACK_PROFILE", ""),
            ("CELLS_LOOPBACK_PROFILE", "../config"),
            ("CELLS_LOOPBACK_TOKEN", "given"),
            ("CELLS_LOOPBACK_TOKEN", ""),
            ("CELLS_LOOPBACK_TOKEN", "not a token"),
            ("CELLS_LOOPBACK_CONFIG_DIR", "/nonexistent"),
        ],
    )
    @pytest.mark.parametrize("call", [("token",), ("token", "-p", "work")], ids=call_id)
    @pytest.mark.usefixtures("work")
    def test_the_environment_means_the_same(
        self, calls: Calls, call: tuple[str, ...], name: str, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, value)
        assert calls.warm(*call) == calls.ordinary(*call)

    def test_the_config_directory_is_found_the_same_way(
        self, config_dir: Path, calls: Calls, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CELLS_LOOPBACK_CONFIG_DIR", str(config_dir))
        assert __main__._run(["token"]) == 0
        monkeypatch.delenv("CELLS_LOOPBACK_CONFIG_DIR")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(config_dir.parent))
        config_dir.rename(config_dir.parent / "cells-loopback")
        if sys.platform == "linux":
            assert __main__._run(["token"]) == 0


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = copy.deepcopy(encode_profile(profile_aged(100)))
    document["token"]["lifetime"] = 86_400.0  # the whole suite may take longer than a token's usual life
    change(document)
    return json.dumps(document).encode()


def setting(path: str, value: object) -> Callable[[dict[str, Any]], object]:
    *sections, name = path.split(".")

    def change(document: dict[str, Any]) -> None:
        for section in sections:
            document = document[section]
        document[name] = value

    return change


def removing(path: str) -> Callable[[dict[str, Any]], object]:
    *sections, name = path.split(".")

    def change(document: dict[str, Any]) -> None:
        for section in sections:
            document = document[section]
        del document[name]

    return change


WHOLE = changed(lambda document: None)
AS_JSON = ("token", "--format", "json")
CONTENTS: dict[str, bytes] = {
    "as written": WHOLE,
    "empty": b"",
    "cut off": WHOLE[: len(WHOLE) // 2],
    "rubbish behind": WHOLE + b"x",
    "zeros behind": WHOLE + b"\0" * 100,
    "twice": WHOLE + WHOLE,
    "space around": b"\n " + WHOLE + b" \n",
    "byte order mark": b"\xef\xbb\xbf" + WHOLE,
    "UTF-16": WHOLE.decode().encode("utf-16"),
    "not UTF-8": WHOLE.replace(b"alice", b"\xff\xfe"),
    "a list": b"[]",
    "nested too deep": b"[" * 100_000,
    "newer version": changed(setting("version", 2)),
    "older than the first version": changed(setting("version", 0)),
    "version of another kind": changed(setting("version", "1")),
    "no version": changed(removing("version")),
    "unknown members": changed(setting("plugin", {"a": [1]})),
    "no settings": changed(removing("settings")),
    "in the keyring": changed(setting("settings.store", "keyring")),
    "store of another kind": changed(setting("settings.store", ["file"])),
    "no token": changed(removing("token")),
    "no access token": changed(removing("token.access_token")),
    "empty access token": changed(setting("token.access_token", "")),
    "access token with a space": changed(setting("token.access_token", "ory at")),
    "access token with a quotation mark and a backslash": changed(setting("token.access_token", 'a"b\\n')),
    "access token of another kind": changed(setting("token.access_token", 7)),
    "no expiry": changed(setting("token.lifetime", None)),
    "lifetime of another kind": changed(setting("token.lifetime", "599")),
    "lifetime without end": changed(setting("token.lifetime", float("inf"))),
    "lifetime is no number": changed(setting("token.lifetime", float("nan"))),
    "lifetime longer than a float": changed(setting("token.lifetime", 10**400)),
    "obtained at no time": changed(setting("token.obtained_at", None)),
    "no jitter": changed(removing("token.renew_early")),
    "another token type": changed(setting("token.token_type", "MAC")),
    "refused by the server": changed(setting("renewals.rejected_at", 5.0)),
    "cannot be renewed": changed(setting("token.refresh_token", None)),
    "no site": changed(removing("site")),
    "no metadata": changed(removing("metadata")),
    "no client": changed(removing("client")),
    "no user": changed(removing("user")),
    "no renewals": changed(removing("renewals")),
    "user of another kind": changed(setting("user", [])),
    "a user with an odd name": changed(setting("user.name", 'al\u00efce\u202e "\\\ud800')),
    "a user without a name": changed(setting("user.name", "")),
    "a site in capitals": changed(setting("site", "HTTPS://files.example.com")),
    "a site with a slash": changed(setting("site", "https://files.example.com/")),
    "a site with its scheme's own port": changed(setting("site", "https://files.example.com:443")),
    "a clock that is off": changed(setting("token.clock_offset", -7200.5)),
    "a clock that is off for ever": changed(setting("token.clock_offset", 1e15)),
    "renewals of another kind": changed(setting("renewals", "never")),
}

CONFIGS = {
    "as written": 'default_profile = "work"\n',
    "with comments": '# mine\n\ndefault_profile = "work"\n\n[login]\ntimeout = 5\n',
    "comment on the line": 'default_profile = "work" # mine\n',
    "other quotes": "default_profile = 'work'\n",
    "an escape": 'default_profile = "w\\u006frk"\n',
    "something before": 'x = 1\ndefault_profile = "work"\n',
    "windows": '# ü\r\ndefault_profile = "work"\r\n',
    "byte order mark": '\ufeffdefault_profile = "work"\n',
    "in a long string": 'x = """\ndefault_profile = "home"\n"""\n',
    "in a table": '[x]\ndefault_profile = "home"\n',
    "another profile": 'default_profile = "home"\n',
    "no name": 'default_profile = ""\n',
    "no profile's name": 'default_profile = "../config"\n',
    "of another kind": "default_profile = 7\n",
    "none": "",
    "not TOML": "nonsense\n",
    "not TOML further down": 'default_profile = "work"\nnonsense\n',
    "chosen twice": 'default_profile = "work"\ndefault_profile = "home"\n',
}


def replace_by_link(path: Path) -> None:
    real = path.with_name(path.name + ".real")
    path.rename(real)
    path.symlink_to(real)


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


class TestFiles:
    @pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
    def test_whatever_the_file_holds_both_answer_the_same(
        self, calls: Calls, work: Path, content: bytes
    ) -> None:
        work.write_bytes(content)
        assert calls.warm("token") == calls.ordinary("token")
        assert calls.warm(*AS_JSON) == calls.ordinary(*AS_JSON)
        assert work.read_bytes() == content

    @pytest.mark.parametrize(
        "change", [setting("user.name", 7), setting("token.clock_offset", "1")], ids=["name", "clock offset"]
    )
    def test_what_json_has_of_another_kind_is_left_to_the_ordinary_command(
        self, calls: Calls, work: Path, change: Callable[[dict[str, Any]], object]
    ) -> None:
        work.write_bytes(changed(change))
        assert calls.warm(*AS_JSON) == calls.ordinary(*AS_JSON)
        assert calls.warm(*AS_JSON).code == 8

    @pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
    def test_whatever_config_toml_holds_both_answer_the_same(
        self, config_dir: Path, calls: Calls, work: Path, text: str
    ) -> None:
        (config_dir / "config.toml").write_bytes(text.encode())
        assert calls.warm("token") == calls.ordinary("token")

    def test_curl_reads_the_token_as_it_is(self, calls: Calls, work: Path) -> None:
        work.write_bytes(changed(setting("token.access_token", 'a"b\\n')))
        assert calls.warm("token", "--format", "curl").out == (
            'header = "Authorization: Bearer a\\"b\\\\n"\n'  # its escapes are \\ and \" (curl(1), --config)
        )

    @pytest.mark.parametrize("text", ["as written", "with comments", "windows"])
    @pytest.mark.usefixtures("no_ordinary_command")
    def test_comments_and_preferences_do_not_slow_it_down(
        self, config_dir: Path, calls: Calls, work: Path, text: str
    ) -> None:
        (config_dir / "config.toml").write_bytes(CONFIGS[text].encode())
        assert TOKEN in calls.warm("token").out

    @POSIX
    @pytest.mark.parametrize(
        "spoil",
        [
            pytest.param(lambda path: path.chmod(0o640), id="others may read it"),
            pytest.param(lambda path: path.chmod(0o602), id="others may write it"),
            pytest.param(lambda path: path.parent.chmod(0o777), id="others may replace it"),
            pytest.param(lambda path: path.parent.chmod(0o755), id="others may list it"),
            pytest.param(lambda path: path.unlink(), id="it is gone"),
            pytest.param(replace_by_link, id="it is a link"),
            pytest.param(lambda path: replace_by_link(path.parent), id="its directory is a link"),
            pytest.param(
                lambda path: replace_by_link(path.parent.parent), id="the config directory is a link"
            ),
            pytest.param(replace_by_fifo, id="it is a FIFO"),
            pytest.param(lambda path: os.truncate(path, 1 << 20), id="it is huge"),
        ],
    )
    def test_modes_and_links_are_judged_the_same(
        self, calls: Calls, work: Path, spoil: Callable[[Path], object]
    ) -> None:
        spoil(work)
        answer = calls.warm("token")
        assert answer == calls.ordinary("token")
        assert answer.code in {0, 3, 8}

    @pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root gives files away")
    @pytest.mark.parametrize("what", ["file", "directory"])
    def test_owners_are_judged_the_same(self, calls: Calls, work: Path, what: str) -> None:
        os.chown(work if what == "file" else work.parent, 12345, -1)
        answer = calls.warm("token")
        assert answer == calls.ordinary("token")
        assert answer.code == 8

    @pytest.mark.parametrize("number", range(3))
    def test_any_number_of_profiles_is_looked_up_the_same(
        self, config_dir: Path, calls: Calls, number: int
    ) -> None:
        for name in ("home", "work", "cron")[:number]:
            write(config_dir, profile_aged(1, name))
        assert calls.warm("token") == calls.ordinary("token")


class TestTime:
    @pytest.mark.parametrize(
        ("age", "call", "is_fresh"),
        [
            (0, ("token",), True),
            (599 - 81, ("token",), True),  # a minute, and this token's jitter of 20 s
            (599 - 79, ("token",), False),
            (599 - 2, ("token", "--min-valid", "0"), True),
            (600, ("token", "--min-valid", "0"), False),
            (599 - 301, ("token", "--min-valid", "300"), True),
            (599 - 299, ("token", "--min-valid", "300"), False),
            (0, ("token", "--min-valid", "100000"), False),
            (-3600, ("token",), False),
        ],
    )
    def test_both_renew_at_the_same_moment(
        self,
        config_dir: Path,
        age: float,
        call: tuple[str, ...],
        is_fresh: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        profile = profile_aged(age)
        if age < 0:  # set back by an hour, and restarted since
            tokens = replace(profile.tokens, obtained_uptime=uptime() + 1000)
            profile = replace(profile, tokens=tokens)
        path = write(config_dir, profile)
        options = __main__._read_options(call)
        min_valid = float(options["min_valid"]) if "min_valid" in options else None
        assert profile.tokens.is_fresh(min_valid, wall(), uptime()) is is_fresh
        assert (__main__._fresh_document(str(path), min_valid) is not None) == is_fresh

    def test_a_renewal_that_is_due_is_handed_over_with_the_lock(
        self, config_dir: Path, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(config_dir, profile_aged(590))
        handed: list[bool] = []

        def take(arguments: Sequence[str], lock: FileLock | None = None) -> int:
            assert lock is not None
            handed.append(FileLock(lock.path).try_acquire())
            return 0

        monkeypatch.setattr(cli, "main", take)
        assert __main__._run(["--config-dir", str(config_dir), "token"]) == 0
        assert handed == [False]
        assert FileLock(str(work.with_suffix(".lock"))).try_acquire()

    @pytest.mark.usefixtures("no_ordinary_command")
    def test_a_renewal_by_another_process_is_all_it_waits_for(
        self, config_dir: Path, work: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(config_dir, profile_aged(590))
        holder = FileLock(str(work.with_suffix(".lock")))
        assert holder.try_acquire()
        sleep = time.sleep

        def renew_meanwhile(seconds: float) -> None:
            fresh = profile_aged(0)
            write(config_dir, replace(fresh, tokens=replace(fresh.tokens, access_token=Secret("new-token"))))
            sleep(seconds)

        monkeypatch.setattr(time, "sleep", renew_meanwhile)
        assert calls.warm("token").out == "new-token\n"
        holder.release()

    def test_a_failed_renewal_by_another_process_is_left_to_the_ordinary_command_without_the_lock(
        self, config_dir: Path, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(config_dir, profile_aged(590))
        holder = FileLock(str(work.with_suffix(".lock")))
        assert holder.try_acquire()
        yesterday = Failure(wall() - 86400, "the server is failing", "try again later", "status_503", False)
        write_note(holder, RenewalNote(failure=yesterday))
        sleep = time.sleep
        pauses: list[float] = []

        def fail_meanwhile(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:  # what had failed before was no reason to stop waiting
                write_note(holder, RenewalNote(failure=replace(yesterday, at=wall())))
            sleep(seconds)

        monkeypatch.setattr(time, "sleep", fail_meanwhile)
        handed: list[bool] = []

        def take(arguments: Sequence[str], lock: FileLock | None = None) -> int:
            assert lock is not None
            handed.append(lock.is_held)
            return 7

        monkeypatch.setattr(cli, "main", take)
        assert __main__._run(["--config-dir", str(config_dir), "token"]) == 7
        assert (handed, len(pauses), holder.is_held) == ([False], 3, True)

    def test_a_refusal_found_while_waiting_does_not_keep_the_lock(
        self, config_dir: Path, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(config_dir, profile_aged(600))
        acquire = FileLock.acquire

        def acquire_after_a_refusal(lock: FileLock, **options: Any) -> bool:
            expired = profile_aged(600)
            write(config_dir, replace(expired, renewals=replace(expired.renewals, rejected_at=wall())))
            return acquire(lock)

        monkeypatch.setattr(FileLock, "acquire", acquire_after_a_refusal)
        free: list[bool] = []

        def look(arguments: Sequence[str], lock: FileLock | None = None) -> int:
            assert lock is None
            free.append(FileLock(str(work.with_suffix(".lock"))).try_acquire())
            return 4

        monkeypatch.setattr(cli, "main", look)
        assert __main__._run(["--config-dir", str(config_dir), "token"]) == 4
        assert free == [True]

    @pytest.mark.usefixtures("no_ordinary_command")
    def test_a_lock_that_stays_held_is_waited_for_once(
        self, config_dir: Path, work: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(config_dir, profile_aged(600))

        def give_up(lock: FileLock, **options: Any) -> bool:
            raise StoreError("still locked", hint="wait for it", code="locked")

        monkeypatch.setattr(FileLock, "acquire", give_up)
        assert calls.warm("token") == Answer(8, "", "error: still locked\nhint: wait for it\n")


OBSERVE = """
import json, sys
opened, config_dir = [], sys.argv[2]
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(config_dir):
        opened.append(arguments[0][len(config_dir) + 1:])
sys.addaudithook(note)
before = set(sys.modules)
from cells_loopback.__main__ import _run
code = _run(sys.argv[1:])
loaded = sorted(set(sys.modules) - before)
sys.stderr.write(repr([code, loaded, opened]))
"""

ALLOWED_MODULES = {
    "__future__", "_json", "errno", "stat", "time",
    "cells_loopback", "cells_loopback.__main__", "cells_loopback.clock", "cells_loopback.store.config_dir",
    "cells_loopback.errors", "cells_loopback.store", "cells_loopback.store.private_file",
    "cells_loopback.store.snapshot",
}  # fmt: skip


def observe(config_dir: Path, *arguments: str) -> tuple[str, list[Any]]:
    """Run a call in a child; return its output, its exit code, the modules it loaded, the files it opened."""
    child = subprocess.run(
        [sys.executable, "-c", OBSERVE, "--config-dir", str(config_dir), *arguments],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    from ast import literal_eval

    return child.stdout, literal_eval(child.stderr)


class TestCost:
    """Counts are stable where times are not."""

    @pytest.mark.parametrize(
        "call",
        [("token",), ("token", "-p", "work", "--format", "curl"), ("token", "--format", "json")],
        ids=call_id,
    )
    def test_a_call_loads_a_handful_of_modules_and_opens_one_file_or_two(
        self, config_dir: Path, work: Path, call: tuple[str, ...]
    ) -> None:
        out, (code, loaded, opened) = observe(config_dir, *call)
        assert (TOKEN in out, code) == (True, 0)
        assert set(loaded) <= ALLOWED_MODULES | ({"cells_loopback.early_json"} if "json" in call else set())
        assert opened == ([] if "-p" in call else ["config.toml"]) + ["profiles/work.json"]

    def test_a_thousand_profiles_cost_nothing_more(self, config_dir: Path, work: Path) -> None:
        alone = observe(config_dir, "token")
        add_many(work)
        assert observe(config_dir, "token") == alone

    def test_a_thousand_profiles_cost_no_system_call_more(self, config_dir: Path, work: Path) -> None:
        strace = require_program("strace")
        alone = count_system_calls(strace, config_dir)
        add_many(work)
        assert count_system_calls(strace, config_dir) == alone


def add_many(path: Path) -> None:
    content = path.read_bytes()
    for number in range(1000):
        other = path.with_name(f"other-{number}.json")
        other.write_bytes(content)
        other.chmod(0o600)


def count_system_calls(strace: str, config_dir: Path) -> Mapping[str, int]:
    """Return how often ``token`` calls the system with something of the config directory."""
    traced = subprocess.run(
        [strace, "-f", "-y", "-e", "trace=file,read,getdents64,fstat", sys.executable, "-m", "cells_loopback",
         "--config-dir", str(config_dir), "token"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert traced.stdout == TOKEN + "\n"
    counts: dict[str, int] = {}
    for line in traced.stderr.splitlines():
        if str(config_dir) in line and not line.startswith("execve"):
            name = line.partition("(")[0]
            counts[name] = counts.get(name, 0) + 1
    assert counts
    return counts


@POSIX
class TestEnds:
    """However the streams and the signals are, a call ends with its code and without a traceback."""

    @staticmethod
    def shell(command: str, config_dir: Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "CELLS_LOOPBACK_CONFIG_DIR": str(config_dir), "PY": sys.executable}
        return subprocess.run(
            ["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    @pytest.mark.parametrize(
        ("streams", "code"),
        [
            ("2>&-", 0),
            ("2>/dev/full", 0),
            ("</dev/null", 0),
            ("<&-", 0),
            (">&-", 1),
            (">/dev/full", 1),
        ],
    )
    @pytest.mark.usefixtures("work")
    def test_streams_that_are_closed_or_full(self, config_dir: Path, streams: str, code: int) -> None:
        done = self.shell(f'"$PY" -m cells_loopback token {streams}', config_dir)
        assert done.returncode == code
        assert "Traceback" not in done.stderr
        assert done.stdout == (TOKEN + "\n" if code == 0 else "")

    @pytest.mark.usefixtures("work")
    def test_a_reader_that_is_gone_is_no_error(self, config_dir: Path) -> None:
        command = '{ "$PY" -m cells_loopback token; echo "code $?" >&2; } | true'
        assert self.shell(command, config_dir).stderr == "code 0\n"

    def test_ctrl_c_while_it_waits(self, config_dir: Path, work: Path) -> None:
        write(config_dir, profile_aged(600))
        holder = FileLock(str(work.with_suffix(".lock")))
        assert holder.try_acquire()
        child = subprocess.Popen(
            [sys.executable, "-m", "cells_loopback", "--config-dir", str(config_dir), "token"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_until_open(child.pid, str(work.with_suffix(".lock")))
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
        holder.release()
        assert (child.returncode, out, err) == (130, "", "")


def wait_until_open(pid: int, path: str, timeout: float = 30) -> None:
    """Wait until a process has been seen with a file open, which it opens again and again."""
    deadline = time.monotonic() + timeout
    directory = f"/proc/{pid}/fd"
    if not os.path.isdir(directory):
        pytest.skip("/proc is not there")
    while time.monotonic() < deadline:
        for name in os.listdir(directory):
            try:
                if os.readlink(f"{directory}/{name}") == path:
                    return
            except OSError:  # closed meanwhile
                continue
    raise TimeoutError(f"process {pid} has not opened {path}")
