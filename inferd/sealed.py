"""Sealed data: AES-256-GCM with a key for each team, which lies beside the data, wrapped under one master key.

Sealed data begins with a version and a nonce. Its team, kind and name are authenticated with it, so that a file that
was moved to another team or name does not open. A team's key is random: once it is erased, nothing of the team opens.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import threading
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from inferd.errors import ConfigError, SealedDataError

MASTER_KEY_NAME = "master.key"
MASTER_KEY_VARIABLE = "INFERD_MASTER_KEY"
KEYS_FOLDER = "team-keys"
KEY_BYTES = 32
PARTIAL = "."
"""Prefix of a file that is being written. No team's name and no id begins with it."""
_VERSION = b"\x01"
_NONCE_BYTES = 12
"""Random nonces of 96 bits: a key seals 2**32 values before two of them are likely to share one."""
_TEAM_KEY = "team-key"
_PRIVATE_MODE = 0o600
_FOLDER_MODE = 0o700
_OTHERS = 0o077


def parse_master_key(text: str, origin: str) -> bytes:
    """Return the key that `text` has in base64.

    Args:
        origin: the variable or file of the text, for the message, which does not repeat the key.

    Raises:
        ConfigError: `text` is not the base64 of 32 bytes.
    """
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"{origin}: must be the base64 of {KEY_BYTES} random bytes (head -c {KEY_BYTES} /dev/urandom | base64 "
            "makes one)"
        )
    return key


def master_key_fault(data_dir: Path) -> str | None:
    """Return why the file of the master key is not private, and the remedy; None if it is, or if there is none."""
    path = data_dir / MASTER_KEY_NAME
    try:
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        return None
    if mode & _OTHERS:
        return f"{path}: has mode {mode:o}, so that other users may read it; chmod 600 it"
    return None


class KeyRing:
    """Keys of all teams of a data folder. Any thread may use it.

    Args:
        master_key: the key of the environment; None: that of the file `master.key`, which is made on first use.
    """

    def __init__(self, data_dir: Path, master_key: bytes | None = None) -> None:
        self._data_dir = data_dir
        self._folder = data_dir / KEYS_FOLDER
        self._given = master_key
        self._master: AESGCM | None = None
        self._keys: dict[str, AESGCM] = {}
        self._lock = threading.Lock()

    def check(self) -> None:
        """Open the keys of all teams, and make the master key if it is needed and not there. Call it before others.

        Raises:
            ConfigError: the master key is not private, or not the one that the keys were wrapped under.
            OSError: a key cannot be read or written.
        """
        with self._lock:
            paths = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
            for path in paths:
                if path.name.startswith(PARTIAL):
                    path.unlink()
                else:
                    self._key_of(path.name)
            self._master_key()

    def seal(self, team: str, kind: str, name: str, data: bytes) -> bytes:
        """Return `data` sealed for a team, as its object `name` of a kind. Raises ConfigError, OSError."""
        with self._lock:
            key = self._key_of(team)
        return _sealed(key, _context(team, kind, name), data)

    def open(self, team: str, kind: str, name: str, sealed: bytes) -> bytes:
        """Return what was sealed. Raises SealedDataError, and as `seal`."""
        with self._lock:
            key = self._key_of(team)
        return _opened(key, _context(team, kind, name), sealed)

    def erase(self, team: str) -> None:
        """Erase a team's key, so that nothing that was sealed for the team can be opened any more."""
        with self._lock:
            self._keys.pop(team, None)
            erase(self._folder / team)

    def _key_of(self, team: str) -> AESGCM:
        key = self._keys.get(team)
        if key is None:
            key = self._keys[team] = AESGCM(self._load(team))
        return key

    def _load(self, team: str) -> bytes:
        path = self._folder / team
        context = _context(team, _TEAM_KEY, team)
        try:
            wrapped = path.read_bytes()
        except FileNotFoundError:
            key = secrets.token_bytes(KEY_BYTES)
            master = self._master_key()
            self._folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            write_synced(path, _sealed(master, context, key))
            return key
        master = self._master_key()
        try:
            return _opened(master, context, wrapped)
        except SealedDataError as error:
            raise ConfigError(
                f"{path}: cannot be opened with the master key of {self._origin}: start with the key that it was made "
                f"with, or delete {self._folder} and the stored responses, which no other key opens"
            ) from error

    @property
    def _origin(self) -> str:
        return MASTER_KEY_VARIABLE if self._given is not None else str(self._data_dir / MASTER_KEY_NAME)

    def _master_key(self) -> AESGCM:
        if self._master is None:
            self._master = AESGCM(self._given if self._given is not None else self._read_master())
        return self._master

    def _read_master(self) -> bytes:
        path = self._data_dir / MASTER_KEY_NAME
        fault = master_key_fault(self._data_dir)
        if fault is not None:
            raise ConfigError(fault)
        try:
            text = path.read_text(encoding="ascii")
        except UnicodeDecodeError:
            text = ""
        except FileNotFoundError as error:
            if self._folder.is_dir() and any(self._folder.iterdir()):
                raise ConfigError(
                    f"{path}: is missing, and {self._folder} has keys that were made with it; restore it, or set "
                    f"{MASTER_KEY_VARIABLE}"
                ) from error
            text = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode() + "\n"
            write_synced(path, text.encode())
        return parse_master_key(text, str(path))


def _context(team: str, kind: str, name: str) -> bytes:
    """Return the data that is authenticated with a value; no part of it holds a NUL."""
    return "\0".join(("inferd", kind, team, name)).encode()


def _sealed(key: AESGCM, context: bytes, data: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _VERSION + nonce + key.encrypt(nonce, data, _VERSION + context)


def _opened(key: AESGCM, context: bytes, sealed: bytes) -> bytes:
    start = len(_VERSION) + _NONCE_BYTES
    if not sealed.startswith(_VERSION):
        raise SealedDataError("the data is not of a version that this inferd seals")
    try:
        return key.decrypt(sealed[len(_VERSION) : start], sealed[start:], _VERSION + context)
    except (InvalidTag, ValueError) as error:
        raise SealedDataError("the data was changed, moved, or sealed with another key") from error


def write_synced(path: Path, data: bytes) -> None:
    """Write a private file that is there, with all its data, or not at all, whatever happens. Raises OSError."""
    partial = path.with_name(PARTIAL + path.name)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE_MODE), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    _sync_folder(path.parent)


def erase(path: Path) -> int | None:
    """Overwrite a file with zeros, then delete it. Return its size in bytes; None if it is not there.

    The file is renamed first: of two threads that erase it one does, and a reader who comes now finds no file. A file
    system that copies on write, or a disk that remaps its blocks, may keep the old data, which is sealed.
    """
    hidden = path.with_name(f"{PARTIAL}erased-{path.name}")
    try:
        path.rename(hidden)
    except FileNotFoundError:
        return None
    with hidden.open("r+b") as file:
        num_bytes = os.fstat(file.fileno()).st_size
        file.write(bytes(num_bytes))
        file.flush()
        os.fsync(file.fileno())
    hidden.unlink()
    _sync_folder(path.parent)
    return num_bytes


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
