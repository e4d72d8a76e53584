"""``CONFIG_DIR/keepalive.json``: what the keep-alive did last, so that its next run and all others know.

No secret is in it. Whoever wants to change it holds its lock, which is how a notification or a browser
tab is counted across processes. A file that cannot be understood counts as empty.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from cells_loopback.store.lock import FileLock
from cells_loopback.store.private_file import Replacement, make_private_directory, read_private_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cells_loopback.keepalive.schedulers import Schedule

FORMAT_VERSION = 1

_MAX_MESSAGE = 300


@dataclass(frozen=True)
class Record:
    """What is known of one profile; instants in Unix seconds, None for never.

    ``exit_code`` and ``message`` are how the last renewal ended and ``failures`` how many in a row
    failed; it is not tried again before ``retry_at``. ``tried_of``, ``notified_of`` and ``browser_of``
    name a refresh token by when it came: the one that was tried, the last one of an ended session of
    which the person was told, and of one that had its tab.
    """

    tried_at: float | None = None
    tried_of: float | None = None
    exit_code: int = 0
    message: str = ""
    failures: int = 0
    retry_at: float | None = None
    notified_at: float | None = None
    notified_of: float | None = None
    browser_at: float | None = None
    browser_of: float | None = None

    def about(self, refresh_token_at: float) -> Record:
        """Return what counts for the refresh token that came then: no failure of another one."""
        if not self.failures or self.tried_of == refresh_token_at:
            return self
        return Record(
            notified_at=self.notified_at,
            notified_of=self.notified_of,
            browser_at=self.browser_at,
            browser_of=self.browser_of,
        )


@dataclass
class State:
    """When the keep-alive ran last and will run next, and a record for each profile it did anything for."""

    last_run: float | None = None
    next_run: float | None = None
    records: dict[str, Record] = field(default_factory=dict)

    def record(self, name: str) -> Record:
        """Return what is known of a profile."""
        return self.records.get(name, Record())


class Runs(NamedTuple):
    """When the keep-alive ran last and will run next; ``is_resident`` is a run without the scheduler."""

    last: float | None
    next: float | None
    is_resident: bool


def combine_runs(schedule: Schedule, state: State, now: float) -> Runs:
    """Return the runs of the scheduler and those that somebody started otherwise, as one.

    A run that stays tells when it is due next, and may have been ended since.
    """
    last = max((at for at in (schedule.last_run, state.last_run) if at is not None), default=None)
    is_resident = not schedule.active and state.next_run is not None and state.next_run > now
    return Runs(last, state.next_run if is_resident else schedule.next_run, is_resident)


class StateFile:
    """The state of the keep-alive of one config directory."""

    def __init__(self, config_dir: str) -> None:
        self._config_dir = config_dir
        self._path = os.path.join(config_dir, "keepalive.json")

    def read(self) -> State:
        """Return the state as it was last written. Raises `StoreError` when it cannot be read."""
        try:
            content, _ = read_private_file(self._path)
        except FileNotFoundError:
            return State()
        return _decode(content)

    @contextmanager
    def change(self) -> Iterator[State]:
        """Give the state out to be changed, and write it at the end; nobody else can meanwhile.

        Raises `StoreError`.
        """
        make_private_directory(self._config_dir)
        with FileLock(self._path + ".lock"):
            state = self.read()
            yield state
            content = _encode(state)
            with Replacement(self._path, len(content)) as replacement:
                replacement.commit(content)


def _encode(state: State) -> bytes:
    document = {
        "version": FORMAT_VERSION,
        "last_run": state.last_run,
        "next_run": state.next_run,
        "profiles": {name: _encode_record(record) for name, record in state.records.items()},
    }
    return json.dumps(document, indent=1).encode("ascii") + b"\n"


def _encode_record(record: Record) -> dict[str, Any]:
    """Return what differs from an empty record: there may be thousands of them."""
    members = {**asdict(record), "message": record.message[:_MAX_MESSAGE]}
    return {name: value for name, value in members.items() if value != _EMPTY[name]}


_EMPTY = asdict(Record())


def _decode(content: bytes) -> State:
    try:
        document = json.loads(content)
        if document["version"] != FORMAT_VERSION:
            return State()
        return State(
            last_run=_instant(document.get("last_run")),
            next_run=_instant(document.get("next_run")),
            records={str(name): _decode_record(members) for name, members in document["profiles"].items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return State()


def _decode_record(members: dict[str, Any]) -> Record:
    return Record(
        tried_at=_instant(members.get("tried_at")),
        tried_of=_instant(members.get("tried_of")),
        exit_code=int(members.get("exit_code", 0)),
        message=str(members.get("message", "")),
        failures=int(members.get("failures", 0)),
        retry_at=_instant(members.get("retry_at")),
        notified_at=_instant(members.get("notified_at")),
        notified_of=_instant(members.get("notified_of")),
        browser_at=_instant(members.get("browser_at")),
        browser_of=_instant(members.get("browser_of")),
    )


def _instant(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError("not an instant")
    return float(value)
