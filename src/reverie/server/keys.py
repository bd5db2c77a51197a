"""API keys in a file: whose web server may have tokens made for its players.

A key is 256 random bits, shown once. The file has its SHA-256 only: what makes slow, salted hashes
needed for passwords, that people choose few and short ones, does not hold for random bits.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reverie.core import ReverieError

VERSION = 1
PREFIX = "rv_"
_NAME = re.compile(r"[\w.@-]{1,64}")


@dataclass(frozen=True, slots=True)
class Key:
    """sha256: of the key, in hex. worlds: that it may have played; None for all. concurrency:
    sockets of all its tokens at the same time; None for any number. is_admin: sees figures of
    everybody.
    """

    name: str
    sha256: str
    created: str
    worlds: tuple[str, ...] | None = None
    concurrency: int | None = None
    is_admin: bool = False


class KeyFile:
    """The keys of a file, read again when it changes; a change that cannot be read changes nothing.
    Raises ReverieError where it cannot be read at first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}
        self._refresh()

    def find(self, text: str) -> Key | None:
        """The key that somebody shows, if it is one."""
        self._refresh()
        digest = hashlib.sha256(text.encode()).hexdigest()
        found = [key for key in self._keys.values() if hmac.compare_digest(key.sha256, digest)]
        return found[0] if found else None

    def named(self, name: str) -> Key | None:
        self._refresh()
        return self._keys.get(name)

    def _refresh(self) -> None:
        try:
            stat = self.path.stat()
        except OSError:
            if self._stamp is None:
                raise ReverieError(
                    f"{self.path} is not there; make it with: reverie key NAME --file {self.path}"
                ) from None
            self._keys = {}  # whoever removes the file wants nobody in
            return
        stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if stamp == self._stamp:
            return
        try:
            self._keys = {key.name: key for key in read_keys(self.path)}
        except ReverieError:
            if self._stamp is None:
                raise
        self._stamp = stamp


def read_keys(path: Path) -> list[Key]:
    """Raises ReverieError on a file that is not one of keys."""
    try:
        data = json.loads(path.read_text("utf-8"))
        if data["version"] != VERSION:
            raise ReverieError(f"{path} has version {data['version']!r}; expected {VERSION}")
        return [_key(**entry) for entry in data["keys"]]
    except OSError as error:
        raise ReverieError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ReverieError):
            raise
        raise ReverieError(f"{path} is not a file of keys, or it is damaged") from None


def add_key(
    path: Path,
    name: str,
    *,
    worlds: tuple[str, ...] | None = None,
    concurrency: int | None = None,
    is_admin: bool = False,
) -> str:
    """Put a new key into the file, which is made if need be; returns it. It is stored nowhere.

    Raises ReverieError on a name that is there already, or cannot be.
    """
    if not _NAME.fullmatch(name):
        raise ReverieError(f"name {name!r:.70}; expected up to 64 letters, digits, and . @ _ -")
    text = PREFIX + secrets.token_urlsafe(32)
    created = time.strftime("%Y-%m-%d", time.gmtime())
    digest = hashlib.sha256(text.encode()).hexdigest()
    with _locked(path):
        keys = read_keys(path) if path.exists() else []
        if any(key.name == name for key in keys):
            raise ReverieError(f"{path} has a key {name!r} already; remove it first with --remove")
        _write(path, [*keys, Key(name, digest, created, worlds, concurrency, is_admin)])
    return text


def remove_key(path: Path, name: str) -> None:
    """Raises ReverieError where there is none of that name."""
    with _locked(path):
        keys = read_keys(path)
        if all(key.name != name for key in keys):
            names = ", ".join(key.name for key in keys) or "none"
            raise ReverieError(f"{path} has no key {name!r}; it has {names}")
        _write(path, [key for key in keys if key.name != name])


def _key(**entry: Any) -> Key:
    worlds, concurrency = entry.pop("worlds"), entry.pop("concurrency")
    key = Key(**entry, worlds=None if worlds is None else tuple(worlds), concurrency=concurrency)
    if not (isinstance(key.name, str) and isinstance(key.sha256, str)):
        raise TypeError
    if not (isinstance(key.is_admin, bool) and isinstance(concurrency, int | None)):
        raise TypeError
    return key


def _write(path: Path, keys: list[Key]) -> None:
    """All or nothing, and for its owner only."""
    text = json.dumps({"version": VERSION, "keys": [asdict(key) for key in keys]}, indent=2)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    write_secret(new, f"{text}\n".encode())
    new.replace(path)


def write_secret(path: Path, content: bytes) -> None:
    """A new file that only its owner reads. Raises FileExistsError where there is one."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time, so that none undoes what another did."""
    if not path.parent.is_dir():
        raise ReverieError(f"{path}: there is no folder {path.parent}; make it")
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
