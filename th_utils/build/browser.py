"""A browser of this machine: it prints the book and, in the tests, reads it."""

from __future__ import annotations

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find() -> str | None:
    """Return the path of a Chromium or Chrome; None where there is neither."""
    return next(filter(None, map(shutil.which, NAMES)), None)
