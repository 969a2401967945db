"""Progress that never enters a cell's output.

The runner names a file in `$TH_PROGRESS`, reads it while a notebook executes and draws the bar on
the terminal. Without that variable nothing is shown: outputs of notebooks stay the same from run
to run.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

# Five lines a second are as many as an eye can follow, and cost nothing.
_INTERVAL_S = 0.2


def track(iterable: Iterable[T], desc: str, total: int | None = None) -> Iterator[T]:
    """Yield from `iterable`, reporting how many items are done.

    Args:
        iterable: what to go through.
        desc: a few words for the bar, such as "prompts".
        total: the number of items; taken from `len(iterable)` where it has one.

    Each report is one JSON line `{"desc": …, "n": …, "total": …}`, appended to the file that
    `$TH_PROGRESS` names; a report that cannot be written is dropped, since work must not fail for
    want of a bar. The first item and the end are always reported.

    >>> list(track("abc", "letters"))
    ['a', 'b', 'c']
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    last = time.monotonic()
    _report(desc, 0, total)
    n = 0
    for item in iterable:
        yield item
        n += 1
        now = time.monotonic()
        if now - last >= _INTERVAL_S:
            last = now
            _report(desc, n, total)
    _report(desc, n, n if total is None else total)


def _report(desc: str, n: int, total: int | None) -> None:
    path = os.environ.get("TH_PROGRESS")
    if not path:
        return
    line = json.dumps({"desc": desc, "n": n, "total": total}, ensure_ascii=False) + "\n"
    with contextlib.suppress(OSError):
        # One write in append mode, so that lines of several processes do not mix.
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(handle, line.encode("utf-8"))
        finally:
            os.close(handle)
