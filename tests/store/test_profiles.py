"""What is stored comes back, what is damaged is told and left alone, what is unknown is kept."""

from __future__ import annotations

import copy
import errno
import json
import os
import re
import stat
import sys
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from examples import NOW, PROFILE, TOKENS
from hypothesis import given
from hypothesis import strategies as st

from cells_loopback.errors import CellsLoopbackError, NotLoggedInError, StoreError, UsageError
from cells_loopback.protocol.client import CELLS_SYNC, ClientRegistration
from cells_loopback.secret import Secret
from cells_loopback.store import profiles
from cells_loopback.store.keyring_store import delete_secrets, withhold_secrets
from cells_loopback.store.private_file import temporary_path
from cells_loopback.store.profile_document import FORMAT_VERSION, decode_profile, encode_profile
from cells_loopback.store.profiles import ProfileStore, Settings, User, check_profile_name, file_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from cells_loopback.store.profiles import Profile

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="modes and links of POSIX")

WORK = replace(PROFILE, name="work")


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    store = ProfileStore(str(tmp_path / "config"))
    store.prepare()
    return store


def write(store: ProfileStore, profile: Profile) -> Path:
    with store.lock(profile.name), store.replacement(profile.name) as replacement:
        store.write(profile, replacement)
    return Path(store.path(profile.name))


def document_of(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def make_link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def let_others_read(path: Path) -> None:
    path.chmod(0o640)


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "work", "files.example.com", "files.example.com:8443", "[::1]:8080", "[2001:db8::1]", "a",
            "Alice@work+2_3-4", "console", "a" * 100, "0",
        ],
    )  # fmt: skip
    def test_these_can_be_names(self, name: str) -> None:
        assert check_profile_name(name) == name

    @pytest.mark.parametrize(
        "name",
        [
            "", ".", "..", ".hidden", "-p", "a/b", "../a", "a\\b", "a b", "a\n", "a\0b", "ü", "a" * 101,
            "a.", "con", "NUL", "com1", "lpt9.txt", "Aux.json", "[::1", "a*", "~", "$HOME",
        ],
    )  # fmt: skip
    def test_these_cannot(self, name: str) -> None:
        with pytest.raises(UsageError) as raised:
            check_profile_name(name)
        assert raised.value.exit_code == 2
        assert raised.value.hint.endswith("e.g. -p work")

    @pytest.mark.parametrize(
        ("name", "message", "hint"),
        [
            (
                "a b",
                "'a b' cannot be a profile's name",
                "use letters, digits and . _ - @ + :, at most 100 of them, e.g. -p work",
            ),
            ("NUL", "'NUL' is a reserved file name on Windows", "choose another, e.g. -p work"),
        ],
    )
    def test_the_reason_is_told(self, name: str, message: str, hint: str) -> None:
        with pytest.raises(UsageError) as raised:
            check_profile_name(name)
        assert (raised.value.message, raised.value.hint) == (message, hint)

    def test_a_very_long_name_is_not_repeated_in_full(self) -> None:
        with pytest.raises(UsageError) as raised:
            check_profile_name("a" * 5000)
        assert raised.value.message == f"'{'a' * 100}' cannot be a profile's name"

    def test_no_name_leads_out_of_the_directory(self, store: ProfileStore) -> None:
        for use in (store.path, store.read, store.exists, store.lock, store.stamp, store.replacement):
            with pytest.raises(UsageError):
                use("../config")

    def test_a_colon_is_encoded_where_windows_forbids_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert file_name("files.example.com:8443") == "files.example.com:8443"
        monkeypatch.setattr(os, "name", "nt")
        assert file_name("files.example.com:8443") == "files.example.com%3A8443"


class TestStore:
    def test_what_is_written_is_read(self, store: ProfileStore) -> None:
        write(store, WORK)
        assert store.read("work") == WORK

    @POSIX
    def test_only_the_owner_can_read_it(self, store: ProfileStore) -> None:
        path = write(store, WORK)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_there_is_no_such_profile(self, store: ProfileStore, tmp_path: Path) -> None:
        for place in (store, ProfileStore(str(tmp_path / "missing"))):
            with pytest.raises(NotLoggedInError) as raised:
                place.read("home")
            assert raised.value.exit_code == 3
            assert raised.value.message == "there is no profile 'home'"
            assert raised.value.hint == "log in: cells-loopback login SITE; or see cells-loopback list"
            assert not place.exists("home")
            assert place.stamp("home") == (0, 0, 0)

    def test_what_could_not_be_read_again_is_not_written(self, store: ProfileStore) -> None:
        write(store, WORK)
        claims = {"groups": ["ü" * 1000] * 200}  # six bytes each, as JSON in ASCII
        with pytest.raises(StoreError, match="too large to be stored") as raised:
            write(store, replace(WORK, user=replace(WORK.user, claims=claims)))
        assert raised.value.code == "too_large"
        assert store.read("work") == WORK

    def test_profiles_are_listed_by_name_and_nothing_else_is(self, store: ProfileStore) -> None:
        for name in ("work", "home", "files.example.com:8443"):
            write(store, replace(WORK, name=name))
        Path(store.path("work")).with_name(".half.json.tmp").touch()
        Path(store.path("work")).with_name("a b.json").touch()
        Path(store.path("work")).with_name("work.json.old").touch()
        assert store.names() == ["files.example.com:8443", "home", "work"]

    def test_a_directory_that_cannot_be_listed_is_told(
        self, store: ProfileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(path: str) -> list[str]:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(os, "listdir", fail)
        with pytest.raises(StoreError) as raised:
            store.names()
        assert raised.value.message == f"cannot read {store.directory}: {os.strerror(errno.EACCES)}"

    def test_one_that_cannot_be_removed_is_told(
        self, store: ProfileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(store, WORK)

        def fail(path: str) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        with store.lock("work") as lock, monkeypatch.context() as patch:
            patch.setattr(os, "unlink", fail)
            with pytest.raises(StoreError) as raised:
                store.remove("work", lock)
        assert raised.value.message == f"cannot write {path}: {os.strerror(errno.EACCES)}"
        assert path.exists()

    def test_its_lock_lies_beside_it(self, store: ProfileStore) -> None:
        assert store.lock("work").path == store.path("work").removesuffix(".json") + ".lock"

    def test_a_name_that_was_encoded_for_windows_is_listed_as_it_is(self, store: ProfileStore) -> None:
        Path(store.directory, "files.example.com%3A8443.json").touch()
        assert store.names() == ["files.example.com:8443"]

    def test_before_the_first_login_there_are_none(self, tmp_path: Path) -> None:
        assert ProfileStore(str(tmp_path / "missing")).names() == []

    @POSIX
    def test_a_directory_that_others_can_write_to_is_refused(self, store: ProfileStore) -> None:
        path = write(store, WORK)
        path.parent.chmod(0o777)
        for use in (store.names, store.prepare, lambda: store.read("work")):
            with pytest.raises(StoreError, match="can be written by others"):
                use()
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o777

    @POSIX
    @pytest.mark.parametrize("spoil", [let_others_read, make_link])
    def test_an_unsafe_file_is_refused_and_left_as_it_is(
        self, store: ProfileStore, spoil: Callable[[Path], object]
    ) -> None:
        path = write(store, WORK)
        spoil(path)
        before = (path.lstat().st_mode, path.lstat().st_mtime_ns, path.read_bytes())
        with pytest.raises(StoreError) as raised:
            store.read("work")
        assert raised.value.exit_code == 8
        assert str(path) in raised.value.message
        assert (path.lstat().st_mode, path.lstat().st_mtime_ns, path.read_bytes()) == before
        assert store.exists("work")

    def test_the_stamp_changes_with_every_write(self, store: ProfileStore) -> None:
        stamps = set()
        for _ in range(5):
            write(store, WORK)
            stamps.add(store.stamp("work"))
        assert len(stamps) == 5

    def test_removed_is_removed_with_lock_and_leftover(self, store: ProfileStore) -> None:
        path = write(store, WORK)
        Path(temporary_path(str(path))).write_text("half of a session", encoding="utf-8")
        with store.lock("work") as lock:
            store.remove("work", lock)
        assert list(path.parent.iterdir()) == []
        with store.lock("work") as lock:
            store.remove("work", lock)  # nothing is there any more, and that is no error

    def test_the_file_ends_with_a_newline_and_is_ascii(self, store: ProfileStore) -> None:
        content = write(store, replace(WORK, user=User("1", "Ünal", {"name": "Ünal"}))).read_bytes()
        assert content.isascii()
        assert content.endswith(b"}\n")
        assert store.read("work").user.name == "Ünal"

    def test_a_lone_surrogate_in_something_the_server_said_can_be_stored(self, store: ProfileStore) -> None:
        odd = replace(
            WORK, user=User("1", "\ud83d", {"name": "\ud83d"}), tokens=replace(TOKENS, scope="offline \udc00")
        )
        write(store, odd)
        assert store.read("work") == odd


class TestLeftovers:
    """A renewed session that a killed process had written is taken over, and nothing else is."""

    RENEWED = replace(WORK, tokens=replace(TOKENS, access_token=Secret("at-2"), refresh_token=Secret("rt-2")))

    @staticmethod
    def leave(store: ProfileStore, content: bytes) -> None:
        path = Path(temporary_path(store.path("work")))
        path.write_bytes(content)
        path.chmod(0o600)

    @staticmethod
    def encoded(profile: Profile) -> bytes:
        return json.dumps(encode_profile(profile)).encode()

    def after_next_writer(self, store: ProfileStore) -> Profile:
        with store.lock("work"), store.replacement("work"):
            return store.read("work")

    @pytest.mark.parametrize("rest", [b"", b"\n", b"\n" + b"\0" * 9000])
    def test_a_renewal_is_taken_over(self, store: ProfileStore, rest: bytes) -> None:
        write(store, WORK)
        self.leave(store, self.encoded(self.RENEWED) + rest)
        assert self.after_next_writer(store) == self.RENEWED
        assert not os.path.exists(temporary_path(store.path("work")))

    def test_a_part_of_one_is_not(self, store: ProfileStore) -> None:
        write(store, WORK)
        content = self.encoded(self.RENEWED)
        for length in range(0, len(content), 97):
            self.leave(store, content[:length] + b"\0" * 100)
            assert self.after_next_writer(store) == WORK

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param(WORK, id="the same tokens: settings, or a refusal on record"),
            pytest.param(
                replace(RENEWED, renewals=replace(WORK.renewals, logged_in_at=1.0)), id="another login"
            ),
            pytest.param(replace(RENEWED, client=CELLS_SYNC), id="another client"),
        ],
    )
    def test_what_is_not_a_renewal_of_the_stored_session_is_not(
        self, store: ProfileStore, other: Profile
    ) -> None:
        write(store, WORK)
        self.leave(store, self.encoded(replace(other, settings=Settings(pkce="off"))))
        assert self.after_next_writer(store) == WORK

    def test_after_logout_nothing_comes_back(self, store: ProfileStore) -> None:
        self.leave(store, self.encoded(self.RENEWED))
        with store.lock("work"), store.replacement("work"):
            assert not store.exists("work")


ONE_WORD = "the-client-secret"

PROFILES = [
    pytest.param(WORK, id="plain"),
    pytest.param(
        replace(WORK, client=ClientRegistration("mine", CELLS_SYNC.redirect_uris, Secret(ONE_WORD), "a b")),
        id="confidential client",
    ),
    pytest.param(
        replace(
            WORK, client=ClientRegistration("", ()), tokens=replace(TOKENS, refresh_token=None, scope="")
        ),
        id="personal access token",
    ),
    pytest.param(replace(WORK, tokens=replace(TOKENS, lifetime=None)), id="no expiry"),
    pytest.param(replace(WORK, user=User()), id="nobody knows who"),
    pytest.param(replace(WORK, pkce_binding=None, redirect_uri=None), id="nothing optional"),
    pytest.param(
        replace(WORK, renewals=replace(WORK.renewals, rejected_at=5.0, refused_rest=7.0)), id="refused"
    ),
    pytest.param(
        replace(
            WORK,
            settings=Settings("off", "headless", "file", True, "/ca.pem", "firefox %s", "Tool"),
        ),
        id="every setting",
    ),
]


class TestDocument:
    @pytest.mark.parametrize("profile", PROFILES)
    def test_a_profile_survives_the_round_trip(self, profile: Profile) -> None:
        document = json.loads(json.dumps(encode_profile(profile)))
        assert decode_profile("work", document) == profile

    def test_other_programs_find_what_the_format_promises(self) -> None:
        document = encode_profile(WORK)
        assert document["version"] == FORMAT_VERSION == 1
        assert document["site"] == "https://files.example.com"
        assert document["user"]["name"] == "alice"
        assert document["client"]["client_id"] == "cells-client"
        assert document["metadata"]["token_endpoint"].startswith("https://files.example.com/")
        assert document["token"]["access_token"] == "ory_at_the-access-token"
        assert document["token"]["expires_at"] == TOKENS.expires_at

    def test_neither_repr_nor_str_of_a_profile_holds_a_secret(self) -> None:
        profile = replace(WORK, client=replace(WORK.client, client_secret=Secret(ONE_WORD)))
        for text in (repr(profile), str(profile), f"{profile}"):
            for secret in (ONE_WORD, "the-access-token", "the-refresh-token"):
                assert secret not in text

    def test_unknown_members_are_kept_at_every_place(self, store: ProfileStore) -> None:
        path = write(store, WORK)
        document = document_of(path)
        document["plugin"] = {"colour": "blue"}
        for section in ("user", "client", "metadata", "token", "settings", "renewals"):
            document[section]["later"] = {"version": section}
        path.write_text(json.dumps(document), encoding="utf-8")
        profile = store.read("work")
        write(store, replace(profile, tokens=replace(profile.tokens, access_token=Secret("new"))))
        after = document_of(path)
        assert after["token"].pop("access_token") == "new"
        assert document["token"].pop("access_token") != "new"
        assert after == document

    @pytest.mark.parametrize("section", ["settings", "renewals"])
    def test_members_that_an_earlier_version_did_not_write_have_their_defaults(self, section: str) -> None:
        document = encode_profile(WORK)
        document[section] = {}
        profile = decode_profile("work", document)
        assert getattr(profile, section) == type(getattr(profile, section))()


def spoiled(path: str, value: object) -> dict[str, Any]:
    """Return a document with one member of another value."""
    document = copy.deepcopy(encode_profile(WORK))
    *sections, name = path.split(".")
    inner = document
    for section in sections:
        inner = inner[section]
    inner[name] = value
    return document


DAMAGED = [
    ("site", None), ("site", "ftp://x"), ("site", 7), ("user", None), ("user", []), ("user.name", 7),
    ("user.sub", None), ("user.claims", []), ("client", "x"), ("client.client_id", 7),
    ("client.redirect_uris", None), ("client.redirect_uris", ["nonsense"]), ("client.redirect_uris", [7]),
    ("client.scope", ""), ("client.scope", 7), ("client.client_secret", 7), ("client.redirect_uri", 7),
    ("metadata", None), ("metadata.issuer", "https://elsewhere.example/oidc/"),
    ("metadata.token_endpoint", "https://elsewhere.example/token"), ("metadata.token_endpoint", None),
    ("token", None), ("token", []), ("token.access_token", ""), ("token.access_token", None),
    ("token.access_token", 7), ("token.token_type", None), ("token.refresh_token", ""),
    ("token.refresh_token", 7), ("token.lifetime", "600"), ("token.lifetime", True),
    ("token.lifetime", float("nan")), ("token.lifetime", float("inf")), ("token.lifetime", 10**400),
    ("token.obtained_at", None), ("token.obtained_uptime", "1"), ("token.clock_offset", []),
    ("token.renew_early", None), ("pkce_binding", "maybe"), ("pkce_binding", 7), ("pkce_binding", []),
    ("settings", None), ("settings", []), ("settings.pkce", "maybe"), ("settings.store", "moon"),
    ("settings.relogin", None), ("settings.insecure", "yes"), ("settings.insecure", None),
    ("settings.ca_bundle", 7), ("settings.browser", 7), ("settings.app_name", []), ("settings.pkce", []),
    ("renewals", None), ("renewals", []), ("renewals.logged_in_at", None),
    ("renewals.refresh_token_at", "yesterday"), ("renewals.longest_rest", []),
    ("renewals.rejected_at", "never"), ("renewals.refused_rest", float("nan")),
    ("version", 0), ("version", "1"), ("version", None), ("version", -1),
]  # fmt: skip


class TestDamage:
    @pytest.mark.parametrize(("member", "value"), DAMAGED)
    def test_a_member_of_the_wrong_kind_is_damage(
        self, store: ProfileStore, member: str, value: object
    ) -> None:
        self.is_told_and_left_alone(store, json.dumps(spoiled(member, value)).encode())

    @pytest.mark.parametrize("member", sorted(set(encode_profile(WORK)) - {"settings", "pkce_binding"}))
    def test_a_missing_part_is_damage(self, store: ProfileStore, member: str) -> None:
        document = encode_profile(WORK)
        del document[member]
        self.is_told_and_left_alone(store, json.dumps(document).encode())

    @pytest.mark.parametrize(
        "content",
        [
            b"", b"\n", b"{}", b"[]", b"null", b"7", b'"version"', b"{", b"not json", b"\xff\xfe\x00",
            b"\0" * 5000, b"[" * 200_000, b'{"version": 1}', b'{"version": 1} {"version": 1}',
        ],
        ids=lambda content: content[:16].hex() or "nothing",
    )  # fmt: skip
    def test_what_is_no_document_is_damage(self, store: ProfileStore, content: bytes) -> None:
        self.is_told_and_left_alone(store, content)

    def test_every_cut_off_file_is_damage(self, store: ProfileStore) -> None:
        content = json.dumps(encode_profile(WORK)).encode()
        path = write(store, WORK)
        for length in range(1, len(content), 53):
            path.write_bytes(content[:length])
            with pytest.raises(StoreError, match="damaged"):
                store.read("work")

    @staticmethod
    def is_told_and_left_alone(store: ProfileStore, content: bytes) -> None:
        path = write(store, WORK)
        path.write_bytes(content)
        with pytest.raises(StoreError, match="damaged") as raised:
            store.read("work")
        assert raised.value.exit_code == 8
        assert raised.value.code == "damaged"
        assert raised.value.message == f"{path} is damaged"
        assert raised.value.hint == (
            f"restore it from a backup, or move it away and log in again: mv {path} {path}.old"
        )
        assert path.read_bytes() == content

    def test_a_newer_version_is_told_and_left_alone(self, store: ProfileStore) -> None:
        path = write(store, WORK)
        path.write_text(json.dumps({"version": 2, "sessions": []}), encoding="utf-8")
        with pytest.raises(StoreError) as raised:
            store.read("work")
        assert raised.value.code == "newer_format"
        assert raised.value.message == f"{path} was written by a newer cells-loopback (format 2)"
        assert raised.value.hint == "upgrade this one: pip install --upgrade cells-loopback"
        assert document_of(path) == {"version": 2, "sessions": []}

    @given(st.data())
    def test_whatever_stands_in_the_file_it_is_read_or_refused(self, data: st.DataObject) -> None:
        leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
        values = st.recursive(
            leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5
        )
        document = copy.deepcopy(encode_profile(WORK))
        for _ in range(data.draw(st.integers(1, 3))):
            section = document
            name = data.draw(st.sampled_from(sorted(section)))
            if isinstance(section[name], dict) and section[name] and data.draw(st.booleans()):
                section = section[name]
                name = data.draw(st.sampled_from(sorted(section)))
            section[name] = data.draw(values)
        refusals = (KeyError, TypeError, ValueError, AttributeError, OverflowError, CellsLoopbackError)
        try:
            profile = decode_profile("work", document)
        except refusals:
            return
        # What was believed can be written, and comes back the same.
        again = decode_profile("work", json.loads(json.dumps(encode_profile(profile))))
        assert encode_profile(again) == encode_profile(profile)


class FakeKeyring:
    """A keyring in memory, in the place of the system's."""

    name = "in memory"

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, entry: str) -> str | None:
        return self.entries.get((service, entry))

    def set_password(self, service: str, entry: str, secret: str) -> None:
        self.entries[service, entry] = secret

    def delete_password(self, service: str, entry: str) -> None:
        del self.entries[service, entry]


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> FakeKeyring:
    fake = FakeKeyring()
    monkeypatch.setattr("cells_loopback.store.keyring_store._backend", lambda: fake)
    return fake


class TestKeyring:
    KEPT = replace(
        WORK,
        settings=Settings(store="keyring"),
        client=replace(WORK.client, client_secret=Secret(ONE_WORD)),
    )

    def test_the_secrets_are_there_and_the_rest_is_in_the_file(
        self, store: ProfileStore, keyring: FakeKeyring
    ) -> None:
        text = write(store, self.KEPT).read_text(encoding="utf-8")
        for secret in (ONE_WORD, "the-access-token", "the-refresh-token"):
            assert secret not in text
            assert any(secret in entry for entry in keyring.entries.values())
        assert store.read("work") == self.KEPT

    def test_secrets_that_belong_to_the_file_are_not_waited_for(
        self, store: ProfileStore, keyring: FakeKeyring, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(store, self.KEPT)
        pauses: list[float] = []
        monkeypatch.setattr("time.sleep", pauses.append)
        assert store.read("work") == self.KEPT
        assert pauses == []

    @pytest.mark.parametrize("cut", [0, 1, 2, 3, 4])
    def test_a_write_that_is_cut_off_leaves_the_old_or_the_new_secrets(
        self, store: ProfileStore, keyring: FakeKeyring, cut: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        long = "x" * 2000  # more than one entry can hold
        old = replace(self.KEPT, tokens=replace(TOKENS, access_token=Secret("old-" + long)))
        new = replace(self.KEPT, tokens=replace(TOKENS, access_token=Secret("new-" + long)))
        write(store, old)
        left = [None] * cut

        def set_until_cut(service: str, entry: str, secret: str) -> None:
            if not left:
                raise OSError("the session bus is gone")
            left.pop()
            keyring.entries[service, entry] = secret

        monkeypatch.setattr(keyring, "set_password", set_until_cut)
        refused = pytest.raises(StoreError, match=re.escape("the keyring refuses (OSError)"))
        with refused if cut < 3 else nullcontext():  # two parts, and last the head that names them
            write(store, new)
        assert store.read("work") == (new if cut >= 3 else old)

    def test_a_reader_between_the_two_writes_waits_for_the_file(
        self, store: ProfileStore, keyring: FakeKeyring
    ) -> None:
        new = replace(self.KEPT, tokens=replace(TOKENS, access_token=Secret("new"), obtained_at=NOW + 600))
        path = write(store, self.KEPT)
        old_file = path.read_bytes()
        new_file = write(store, new).rename(path.with_name("new"))
        path.touch(mode=0o600)
        path.write_bytes(old_file)
        written = threading.Timer(0.1, lambda: new_file.rename(path))
        written.start()
        assert store.read("work") == new
        written.join()

    def test_where_the_writer_was_killed_in_between_the_newer_secrets_count(
        self, store: ProfileStore, keyring: FakeKeyring, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(profiles, "_WRITING_TIMEOUT", 0.1)
        path = write(store, self.KEPT)
        old_file = path.read_bytes()
        write(store, replace(self.KEPT, tokens=replace(TOKENS, access_token=Secret("new"), obtained_at=1)))
        path.write_bytes(old_file)
        tokens = store.read("work").tokens
        assert (tokens.access_token.reveal(), tokens.obtained_at) == ("new", TOKENS.obtained_at)

    def test_deleted_is_deleted(self, store: ProfileStore, keyring: FakeKeyring) -> None:
        for length in (10, 3000, 10):
            write(store, replace(self.KEPT, tokens=replace(TOKENS, access_token=Secret("x" * length))))
        delete_secrets(store.config_dir, "work")
        delete_secrets(store.config_dir, "work")
        assert keyring.entries == {}

    @pytest.mark.parametrize("head", ["", "garbage", "1 x", "1", "7 7", "1 99999999999999999999"])
    def test_secrets_that_cannot_be_found_are_told(
        self, store: ProfileStore, keyring: FakeKeyring, head: str
    ) -> None:
        write(store, self.KEPT)
        keyring.entries["cells-loopback", f"{store.config_dir}/work"] = head
        with pytest.raises(StoreError, match="does not hold the secrets of profile 'work'") as raised:
            store.read("work")
        assert raised.value.exit_code == 8

    @pytest.mark.parametrize("why", ["lost", "locked"])
    def test_a_login_takes_a_session_without_its_secrets_for_an_ended_one(
        self, store: ProfileStore, keyring: FakeKeyring, why: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(store, self.KEPT)
        assert store.read_for_login("work") == self.KEPT
        if why == "lost":
            keyring.entries.clear()
        else:
            monkeypatch.setattr(keyring, "get_password", lambda *_: os.close(-1))
        with pytest.raises(StoreError):
            store.read("work")
        ended = store.read_for_login("work")
        assert ended.needs_login
        assert (ended.tokens.refresh_token, ended.client.client_secret) == (None, None)
        assert (ended.site, ended.user, ended.settings) == (WORK.site, WORK.user, self.KEPT.settings)

    def test_a_damaged_session_is_no_ended_one(self, store: ProfileStore) -> None:
        write(store, WORK).write_text("{")
        with pytest.raises(StoreError, match="damaged"):
            store.read_for_login("work")

    def test_that_there_is_no_refresh_token_is_seen_without_the_keyring(
        self, store: ProfileStore, keyring: FakeKeyring
    ) -> None:
        for refresh_token in (None, Secret("the-refresh-token"), None):
            tokens = replace(TOKENS, refresh_token=refresh_token)
            write(store, replace(self.KEPT, tokens=tokens))
            assert store.read("work").tokens == tokens
            looking = ProfileStore(store.config_dir, withhold_secrets)
            assert looking.read("work").tokens.renewable is (refresh_token is not None)
