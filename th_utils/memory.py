"""Measurements that are costly to take again, kept in the cache and shared by all processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from th_utils.paths import atomic_write, cache_dir, file_lock


def remember(key: list[Any], measure: Callable[[], str]) -> str:
    """What `measure()` returns, from the cache when it was measured before.

    Two chapters that ask at once measure once: the second waits for the first.

    Args:
        key: everything the measurement depends on, as JSON can say it.
        measure: returns JSON text.
    """
    said = json.dumps(key, sort_keys=True)
    name = hashlib.sha256(said.encode("utf-8")).hexdigest()[:32]
    path = cache_dir() / "measurements" / f"{name}.json"
    with file_lock(path.with_suffix(".lock")):
        found = _kept(path)
        if found is None:
            found = measure()
            atomic_write(path, found)
    return found


def _kept(path: Path) -> str | None:
    """The JSON text in a file; None where there is no file, or a damaged one."""
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except (FileNotFoundError, ValueError):
        return None
    return text
