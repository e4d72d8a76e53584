"""That a site has bound PKCE is remembered beyond its sessions, and never half."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cells_loopback.errors import StoreError
from cells_loopback.protocol.site import Site
from cells_loopback.store.pkce_memory import has_bound, remember_bound

FILES, OTHER = Site("https", "files.example.com", 443), Site("https", "files.example.com", 8443)


@pytest.fixture
def config_dir(tmp_path: Path) -> str:
    return str(tmp_path / "config")


def file_in(config_dir: str) -> Path:
    return Path(config_dir) / "pkce.json"


def test_nothing_is_known_of_a_site_before(config_dir: str) -> None:
    assert not has_bound(config_dir, FILES)
    assert not os.path.exists(config_dir)


def test_each_site_is_remembered_once_and_for_itself(config_dir: str) -> None:
    remember_bound(config_dir, FILES)
    assert (has_bound(config_dir, FILES), has_bound(config_dir, OTHER)) == (True, False)
    remember_bound(config_dir, OTHER)
    before = file_in(config_dir).stat()
    remember_bound(config_dir, FILES)
    assert (has_bound(config_dir, FILES), has_bound(config_dir, OTHER)) == (True, True)
    assert file_in(config_dir).stat().st_ino == before.st_ino
    assert before.st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"bound": 5}', '{"bound": [5]}', "[" * 100_000])
def test_a_damaged_memory_is_no_permission(config_dir: str, content: str) -> None:
    remember_bound(config_dir, FILES)
    file_in(config_dir).write_text(content)
    with pytest.raises(StoreError) as caught:
        has_bound(config_dir, FILES)
    assert str(file_in(config_dir)) in caught.value.hint
    assert file_in(config_dir).read_text() == content
