"""API keys in a file: whose web server may have tokens made for its players.

A key is 256 random bits, shown once. The file has its SHA-256 only: what makes slow, salted hashes
needed for passwords, that people choose few and short ones, does not hold for random bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
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
_SHA256 = re.compile(r"[0-9a-f]{64}")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """sha256: of the key, in hex. worlds: that it may have played; None for all. concurrency:
    sockets of all its tokens at the same time; None for any number. is_admin: sees figures of
    everybody. Raises ValueError where a value cannot be.
    """

    name: str
    sha256: str
    created: str
    worlds: tuple[str, ...] | None = None
    concurrency: int | None = None
    is_admin: bool = False

    def __post_init__(self) -> None:
        texts = (self.name, self.sha256, self.created, *(self.worlds or ()))
        is_number = type(self.concurrency) is int and self.concurrency > 0
        if not (
            all(isinstance(text, str) for text in texts)
            and _NAME.fullmatch(self.name)
            and _SHA256.fullmatch(self.sha256)
            and (self.concurrency is None or is_number)
            and isinstance(self.is_admin, bool)
        ):
            raise ValueError(f"{self.name!r:.70} is not whole")


class KeyFile:
    """The keys of a file, read again when it changes. Whoever removes the file wants nobody in; a
    change that cannot be read changes nothing, and is logged. Raises ReverieError where it cannot
    be read at first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int, int] | None = None
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
        stamp, is_first = _stamp(self.path), self._stamp is None
        if stamp == self._stamp:
            return
        self._stamp = stamp
        if stamp == _GONE and not is_first:
            self._keys = {}
            return
        try:
            self._keys = {key.name: key for key in read_keys(self.path)}
        except ReverieError as error:
            if is_first:
                raise
            # Whoever took a key out must learn that it still opens doors.
            logger.error("%s; keys stay as they were", error)


_GONE = (0, 0, 0, 0)


def _stamp(path: Path) -> tuple[int, int, int, int]:
    """Differs when the file does. Of its status change, too: a file that could not be read may be
    one whose owner was wrong.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        return _GONE
    except OSError as error:
        return (error.errno or 1, 0, 0, 0)
    return (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size)


def read_keys(path: Path) -> list[Key]:
    """Raises ReverieError on a file that is not one of keys."""
    try:
        data = json.loads(path.read_text("utf-8"))
        if data["version"] != VERSION:
            raise ReverieError(f"{path} has version {data['version']!r}; expected {VERSION}")
        return [_key(**entry) for entry in data["keys"]]
    except FileNotFoundError:
        raise ReverieError(
            f"{path} is not there; make it with: reverie key NAME --file {path}"
        ) from None
    except OSError as error:
        raise ReverieError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
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
    with locked(path):
        keys = read_keys(path) if path.exists() else []
        if any(key.name == name for key in keys):
            raise ReverieError(f"{path} has a key {name!r} already; remove it first with --remove")
        _write(path, [*keys, Key(name, digest, created, worlds, concurrency, is_admin)])
    return text


def remove_key(path: Path, name: str) -> None:
    """Raises ReverieError where there is none of that name."""
    with locked(path):
        keys = read_keys(path)
        if all(key.name != name for key in keys):
            names = ", ".join(key.name for key in keys) or "none"
            raise ReverieError(f"{path} has no key {name!r}; it has {names}")
        _write(path, [key for key in keys if key.name != name])


def _key(**entry: Any) -> Key:
    worlds = entry.pop("worlds")
    if not isinstance(worlds, list | None):  # a text is a list of letters, too
        raise TypeError
    return Key(**entry, worlds=None if worlds is None else tuple(worlds))


def _write(path: Path, keys: list[Key]) -> None:
    text = json.dumps({"version": VERSION, "keys": [asdict(key) for key in keys]}, indent=2)
    write_secret(path, f"{text}\n".encode())


def write_secret(path: Path, content: bytes) -> None:
    """In place of the file, all or nothing, for its owner only."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(new, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError, PermissionError):
            # Root adds a key: the server, which is somebody else, must still read the file.
            old = path.stat()
            os.chown(new, old.st_uid, old.st_gid)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One writer at a time, so that none undoes what another did."""
    import fcntl  # not everywhere; and who only plays has no keys

    if not path.parent.is_dir():
        raise ReverieError(f"{path}: there is no folder {path.parent}; make it")
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
