"""Objects on disk: a file of bytes for each, and beside it a JSON file that says what it is.

An object is there from the moment its JSON file is, so a body that fails a check leaves nothing.
Keys never become file names: any key that S3 allows is stored, ``a`` beside ``a/`` included.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from .answers import S3Error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class StoredObject:
    """An object without its bytes."""

    key: str
    blob: str
    """The name of the file that holds the bytes."""
    size: int
    etag: str
    modified: float
    headers: Mapping[str, str]
    """What was said of it at upload and is said again at download: content type, metadata."""


@dataclass(frozen=True)
class Part:
    """An uploaded part of an object to be."""

    number: int
    blob: str
    size: int
    etag: str
    modified: float


@dataclass
class Upload:
    """A multipart upload under way."""

    upload_id: str
    key: str
    headers: Mapping[str, str]
    initiated: float
    parts: dict[int, Part] = field(default_factory=dict)


class ObjectStore:
    """The one bucket. Objects outlive the process when `root` does, unfinished uploads do not."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)
        self._objects: dict[str, StoredObject] = {}
        self._uploads: dict[str, Upload] = {}
        self._load()

    def keys(self) -> list[str]:
        """Return all keys in S3's order, that of their UTF-8 bytes."""
        return sorted(self._objects, key=lambda key: key.encode(errors="surrogateescape"))

    def find(self, key: str) -> StoredObject | None:
        """Return an object, or None."""
        return self._objects.get(key)

    def get(self, key: str) -> StoredObject:
        """Return an object; `NoSuchKey` when there is none."""
        if (stored := self._objects.get(key)) is None:
            raise S3Error("NoSuchKey", "The specified key does not exist.")
        return stored

    @contextlib.contextmanager
    def new_blob(self) -> Iterator[tuple[str, BinaryIO]]:
        """Open a new file of bytes, and remove it again if what follows fails."""
        blob = uuid.uuid4().hex
        try:
            with (self._root / blob).open("wb") as file:
                yield blob, file
        except BaseException:
            self._remove(blob)
            raise

    def open_blob(self, blob: str) -> BinaryIO:
        """Open the bytes of an object or a part."""
        return (self._root / blob).open("rb")

    def put(self, key: str, blob: str, *, size: int, etag: str, headers: Mapping[str, str]) -> StoredObject:
        """Make a finished file of bytes the object of this key, in place of the one before."""
        stored = StoredObject(key, blob, size, etag, time.time(), dict(headers))
        record = json.dumps(dataclasses.asdict(stored))
        (self._root / f"{blob}.json").write_text(record, encoding="utf-8")
        self.delete(key)
        self._objects[key] = stored
        return stored

    def copy_blob(self, source: str) -> str:
        """Copy a file of bytes and return the copy's name."""
        with self.new_blob() as (blob, file), self.open_blob(source) as original:
            shutil.copyfileobj(original, file)
        return blob

    def join_blobs(self, sources: Iterable[str]) -> str:
        """Write files of bytes one after the other into a new one and return its name."""
        with self.new_blob() as (blob, file):
            for source in sources:
                with self.open_blob(source) as original:
                    shutil.copyfileobj(original, file)
        return blob

    def delete(self, key: str) -> None:
        """Remove an object if it is there."""
        if stored := self._objects.pop(key, None):
            self._remove(f"{stored.blob}.json")
            self._remove(stored.blob)

    def uploads(self) -> list[Upload]:
        """Return the unfinished uploads, by key."""
        return sorted(self._uploads.values(), key=lambda upload: (upload.key, upload.initiated))

    def create_upload(self, key: str, headers: Mapping[str, str]) -> Upload:
        """Begin a multipart upload."""
        upload = Upload(uuid.uuid4().hex, key, dict(headers), time.time())
        self._uploads[upload.upload_id] = upload
        return upload

    def upload(self, upload_id: str, key: str) -> Upload:
        """Return an unfinished upload of this key; `NoSuchUpload` when there is none."""
        upload = self._uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise S3Error("NoSuchUpload", "The specified multipart upload does not exist.")
        return upload

    def put_part(self, upload: Upload, number: int, blob: str, *, size: int, etag: str) -> Part:
        """Make a finished file of bytes a part, in place of the one before of this number."""
        if before := upload.parts.get(number):
            self._remove(before.blob)
        part = upload.parts[number] = Part(number, blob, size, etag, time.time())
        return part

    def drop_upload(self, upload: Upload) -> None:
        """Forget an upload and its parts."""
        del self._uploads[upload.upload_id]
        for part in upload.parts.values():
            self._remove(part.blob)

    def _load(self) -> None:
        for record in self._root.glob("*.json"):
            stored = StoredObject(**json.loads(record.read_text(encoding="utf-8")))
            self._objects[stored.key] = stored

    def _remove(self, name: str) -> None:
        # Windows does not remove a file that a download still reads; a leftover harms nobody.
        with contextlib.suppress(PermissionError):
            (self._root / name).unlink(missing_ok=True)
