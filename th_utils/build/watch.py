"""What a process writes, and where: loaded as `sitecustomize` into an environment under test.

Every file that Python opens for writing, makes, renames or removes is noted, one path a line, in
the file that `$TH_WRITES` names; processes started from it do the same. Code that writes without
Python escapes this. Only the standard library is used, and nothing is done without the variable.
"""

from __future__ import annotations

import os
import sys

MADE = {"os.mkdir": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1, "os.truncate": 0}
MADE |= {"os.remove": 0, "os.rmdir": 0, "sqlite3.connect": 0}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def watch(log: str) -> None:
    """Note from now on what this process writes; cannot be undone."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def note(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if not flags & WRITES:
                return
        elif event in MADE:
            path = arguments[MADE[event]]
        else:
            return
        # A number is a file that was open before.
        if isinstance(path, (str, bytes, os.PathLike)):
            os.write(handle, os.path.abspath(os.fsencode(path)) + b"\n")

    sys.addaudithook(note)


if __name__ == "sitecustomize" and os.environ.get("TH_WRITES"):
    watch(os.environ["TH_WRITES"])
