"""Where Chromium is, and how the tests and benchmarks start it."""

from __future__ import annotations

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
ADVICE = (
    "the browser tests need Chromium or Chrome: apt-get install chromium on Debian or Ubuntu, "
    "elsewhere set CHROMIUM=/path/to/chrome"
)


class NoChromiumError(RuntimeError):
    """There is none; the message says what to install."""


def find_chromium() -> str:
    """Path of $CHROMIUM, or of the first browser that is installed. Raises NoChromiumError."""
    wish = os.environ.get("CHROMIUM")
    for name in [wish] if wish else NAMES:
        path = shutil.which(name)
        if path:
            return path
    raise NoChromiumError(f"CHROMIUM={wish} cannot be run; {ADVICE}" if wish else ADVICE)
