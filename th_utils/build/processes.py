"""Processes that never outlive the build, and one build at a time.

A build killed at any moment must leave nothing running: an orphan would go on writing while the
next build does the same work. So every process below the build asks the kernel to be killed when
its parent goes, and the build holds a lock that dies with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PR_SET_PDEATHSIG = 1


def die_with_parent(expected: int | None = None) -> None:
    """Have this process killed as soon as its parent is gone, however the parent dies.

    `expected` is the parent's process id as the parent itself told it: when it is no longer our
    parent, it died before we could ask, and this process exits at once.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_poll, args=(os.getppid(),), daemon=True).start()
    if expected is not None and os.getppid() != expected:
        os._exit(1)


def _poll(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextlib.contextmanager
def build_lock(path: Path) -> Iterator[int]:
    """Hold the lock of the whole build; says so and waits while another build holds it.

    Yields the descriptor, for a child that must keep the lock too.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().decode(errors="replace").strip() or "unknown"
            print(f"another build is running (process {holder}); waiting for it", file=sys.stderr)
            fcntl.flock(stream, fcntl.LOCK_EX)
        stream.truncate(0)
        stream.write(str(os.getpid()).encode())
        stream.flush()
        yield stream.fileno()
