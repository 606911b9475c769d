"""Sealed files of responses: `DATA/responses/TEAM/ID`, and `ID.open` of one that has no end in the ledger yet.

An id begins with the moment of its creation, so that a response expires without being opened.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from inferd.errors import SealedDataError
from inferd.sealed import PARTIAL, KeyRing, erase, write_synced
from inferd.serving.request_id import PREFIX
from inferd.wire.openai.responses.writer import ID_PREFIX

logger = logging.getLogger(__name__)

FOLDER = "responses"
MAX_TEAM_RESPONSES = 100_000
"""A folder of as many files is listed in half a second, which a start and the hourly expiry take for each team."""
MAX_TEAM_BYTES = 2**30
"""A tenth of a team's files of batches. A turn of an agent has some 10 KB, a turn of a chat 1 KB."""
_OPEN = ".open"
_KIND, _OPEN_KIND = "response", "open-response"
_ID = re.compile(ID_PREFIX + r"(?P<created_ms>[0-9a-f]{12})[0-9a-f]{20}")


class ResponseRecord(msgspec.Struct, frozen=True):
    """A stored response.

    Attributes:
        project: only keys of this project may read it.
        root: id of the first response of its conversation.
        input: as the request had it, without the turns before, JSON.
        response: the response object, JSON.
    """

    project: str
    root: str
    input: msgspec.Raw
    response: msgspec.Raw


_RECORD = msgspec.json.Decoder(ResponseRecord)


def request_id_of(response_id: str) -> str:
    """Return the id of the request that made a response."""
    return PREFIX + response_id.removeprefix(ID_PREFIX)


@dataclass(slots=True)
class _Space:
    num_files: int = 0
    num_bytes: int = 0


class ResponseStore:
    """Any thread may use it. Reads and writes raise OSError."""

    def __init__(self, data_dir: Path, keys: KeyRing) -> None:
        self.folder = data_dir / FOLDER
        self._keys = keys
        self._spaces: defaultdict[str, _Space] = defaultdict(_Space)
        # Guards the fields around it: a team's key is not erased while a file of the team is being written.
        self._lock = threading.Lock()
        self._num_writing: Counter[str] = Counter()

    def scan(self) -> None:
        """Count the files that are there, and delete those that a crash left half written. Call it once, at first."""
        for folder in self._team_folders():
            for path in list(folder.iterdir()):
                if path.name.startswith(PARTIAL):
                    path.unlink()
                else:
                    self._count(folder.name, 1, path.stat().st_size)

    def has_room(self, team: str) -> bool:
        """Return whether a team may store one more response."""
        with self._lock:
            space = self._spaces[team]
            return space.num_files < MAX_TEAM_RESPONSES and space.num_bytes < MAX_TEAM_BYTES

    def read(self, team: str, response_id: str) -> ResponseRecord | None:
        """Return a response that has ended; None if the team has none of this id. Raises SealedDataError."""
        return self._read(team, response_id) if _ID.fullmatch(response_id) else None

    def write_open(self, team: str, response_id: str, record: ResponseRecord) -> None:
        """Store a response that has no end in the ledger yet."""
        self._write(team, response_id, record, _OPEN)

    def publish(self, team: str, response_id: str, record: ResponseRecord) -> None:
        """Store a response that has ended. Erase the open one then, which takes time that no client need wait for."""
        self._write(team, response_id, record)

    def erase_open(self, team: str, response_id: str) -> None:
        """Erase the open file of a response, if there is one."""
        self._erase(team, response_id + _OPEN)

    def remove(self, team: str, response_id: str) -> bool:
        """Erase a response, open or ended. Return whether it was there."""
        if not _ID.fullmatch(response_id):
            return False
        found = [self._erase(team, response_id + ending) for ending in (_OPEN, "")]
        return any(found)

    def open_responses(self) -> Iterator[tuple[str, str, ResponseRecord]]:
        """Yield team, id and record of each response whose end a crash has cut off. A file that cannot be opened is
        left."""
        for folder in self._team_folders():
            for path in sorted(folder.glob(f"*{_OPEN}")):
                response_id = path.name.removesuffix(_OPEN)
                try:
                    record = self._read(folder.name, response_id, _OPEN)
                except SealedDataError as error:
                    logger.error("%s: %s", path, error.message)
                    continue
                if record is not None:
                    yield folder.name, response_id, record

    def expire(self, before_ms: int) -> int:
        """Erase the responses that were created before a moment, in ms since 1970, and the keys of teams that have no
        response left. Return how many were erased."""
        num_erased = 0
        for folder in self._team_folders():
            for path in list(folder.iterdir()):
                known = _ID.fullmatch(path.name.removesuffix(_OPEN))
                if known and int(known["created_ms"], 16) < before_ms:
                    num_erased += self._erase(folder.name, path.name)
            self._erase_key_if_empty(folder)
        return num_erased

    def _erase_key_if_empty(self, folder: Path) -> None:
        """Erase the key of a team without responses, so that copies of its files on the disk cannot be opened."""
        with self._lock:
            if not self._num_writing[folder.name] and not any(folder.iterdir()):
                folder.rmdir()
                self._keys.erase(folder.name)

    def _team_folders(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_dir()) if self.folder.is_dir() else []

    def _read(self, team: str, response_id: str, ending: str = "") -> ResponseRecord | None:
        try:
            sealed = (self.folder / team / (response_id + ending)).read_bytes()
        except FileNotFoundError:
            return None
        plain = self._keys.open(team, _OPEN_KIND if ending else _KIND, response_id, sealed)
        try:
            return _RECORD.decode(plain)
        except msgspec.ValidationError as error:
            raise SealedDataError(f"the response was stored by another version of inferd: {error}") from error

    def _write(self, team: str, response_id: str, record: ResponseRecord, ending: str = "") -> None:
        plain = msgspec.json.encode(record)
        path = self.folder / team / (response_id + ending)
        with self._lock:
            self._num_writing[team] += 1
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            sealed = self._keys.seal(team, _OPEN_KIND if ending else _KIND, response_id, plain)
            try:
                old_bytes: int | None = path.stat().st_size
            except FileNotFoundError:
                old_bytes = None
            write_synced(path, sealed)
            self._count(team, old_bytes is None, len(sealed) - (old_bytes or 0))
        finally:
            with self._lock:
                self._num_writing[team] -= 1

    def _erase(self, team: str, name: str) -> bool:
        num_bytes = erase(self.folder / team / name)
        if num_bytes is None:
            return False
        self._count(team, -1, -num_bytes)
        return True

    def _count(self, team: str, num_files: int, num_bytes: int) -> None:
        with self._lock:
            space = self._spaces[team]
            space.num_files += num_files
            space.num_bytes += num_bytes
