"""An IPython kernel that dies with the process that runs the notebook.

A kernel watches its parent only once a second, and from a thread; one that is busy in a long
computation would go on holding memory beside the next build's kernels.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from th_utils.build.processes import die_with_parent


def write_kernelspec(folder: Path) -> None:
    """Write below `folder` (a member of `JUPYTER_PATH`) a `python3` kernel run by this Python.

    It takes precedence over kernels that a user has installed under the same name, which may
    belong to another environment.
    """
    spec = folder / "kernels" / "python3"
    spec.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "th_utils.build.kernel", "-f", "{connection_file}"]
    argv.append("--log-level=CRITICAL")  # else it remarks on TCP and on its own end
    text = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(text))


def main() -> None:
    """Run the kernel; jupyter_client tells the parent's process id in `JPY_PARENT_PID`."""
    parent = os.environ.get("JPY_PARENT_PID")
    die_with_parent(int(parent) if parent else None)
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()


if __name__ == "__main__":
    main()
