"""The built page that is committed: it belongs to the sources, is small, and asks nobody else."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from reverie.server.app import STATIC_DIR

WEB = Path(__file__).resolve().parents[2] / "web"
SINGLE = (
    "admin.html",
    "index.html",
    "package-lock.json",
    "package.json",
    "tsconfig.json",
    "vite.config.ts",
)
MAX_BYTES = 100_000


def stamp() -> str:
    """The hash that the build writes, over the same files as in web/vite.config.ts."""
    under = [path for folder in ("public", "src") for path in (WEB / folder).rglob("*")]
    names = [path.relative_to(WEB).as_posix() for path in under if path.is_file()]
    names = [name for name in names if not name.endswith(".test.ts")]
    digest = hashlib.sha256()
    for name in sorted([*SINGLE, *names]):
        text = (WEB / name).read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name}\n{len(text)}\n".encode() + text)
    return digest.hexdigest()


def test_the_page_was_built_from_these_sources():
    built = (STATIC_DIR / "stamp.txt").read_text().strip()
    assert built == stamp(), "web/ changed since the page was built: run `make web` and commit"


def test_the_page_is_small():
    assert sum(path.stat().st_size for path in STATIC_DIR.rglob("*")) < MAX_BYTES


def test_the_page_asks_no_other_server():
    for path in STATIC_DIR.rglob("*"):
        if path.is_file():
            addresses = set(re.findall(r"https?://[^\s\"'`<>)]+", path.read_text("utf-8")))
            assert addresses <= {"http://www.w3.org/2000/svg"}, path.name


def test_the_lock_file_names_no_machine():
    lock = (WEB / "package-lock.json").read_text("utf-8")
    assert '"resolved": "file:' not in lock
    assert '"integrity"' in lock
