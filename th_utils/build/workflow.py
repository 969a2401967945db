"""Run the Snakemake workflow so that it can be killed at any moment and started again.

Snakemake alone, after being killed, refuses to go on (its lock is still there, its last outputs
count as incomplete) while the jobs it had started keep writing. Here one lock of ours, which dies
with its holder, makes it safe to remove Snakemake's; incomplete outputs are made again; and every
process dies with its parent.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from th_utils.build.display import COLLECTED, Board
from th_utils.build.layout import Layout
from th_utils.build.processes import build_lock, die_with_parent

MEMORY_MB = 5600  # two chapters with the default model at once, below 6 GiB in all
LOCKED = "TH_LOCKED"  # tells the Snakefile that the build lock is held for it


def build(layout: Layout, targets: list[str], cores: int, dry_run: bool = False) -> int:
    """Build `targets` (rules or files) and return Snakemake's exit status."""
    with build_lock(layout.lock) as descriptor:
        if any((layout.root / ".snakemake" / "locks").glob("*")):
            _run(_command(layout, ["--unlock"]), layout, descriptor, lambda line: None)
        options = ["--cores", str(cores), "--resources", f"mem_mb={MEMORY_MB}"]
        options += ["--rerun-incomplete", "--keep-going"]
        if dry_run:
            command = _command(layout, [*options, "--dry-run", "--", *targets])
            return _run(command, layout, descriptor, sys.stderr.write)
        options += ["--quiet", "rules", "progress", "host"]
        board = Board()
        collected = {COLLECTED: "1"} if board.in_place else {}
        command = _command(layout, [*options, "--", *targets])
        try:
            return _run(command, layout, descriptor, board.feed, collected)
        finally:
            board.close()


def _command(layout: Layout, options: list[str]) -> list[str]:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(layout.root / "Snakefile")]
    command += ["--directory", str(layout.root)]
    command += ["--config", f"edition={layout.edition}", f"size={layout.size}"]
    return command + options


def _run(
    command: list[str],
    layout: Layout,
    descriptor: int,
    feed: Callable[[str], object],
    variables: dict[str, str] | None = None,
) -> int:
    """Run Snakemake as a child that dies with us, and hand each line of its output to `feed`.

    It inherits the lock: were only we killed, the lock would hold until it is gone too.
    """
    me = os.getpid()
    child = subprocess.Popen(
        command,
        cwd=layout.root,
        env={**os.environ, LOCKED: "1"} | (variables or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=[descriptor],
        preexec_fn=lambda: die_with_parent(me),
    )
    try:
        for line in child.stdout:
            feed(line)
        return child.wait()
    except KeyboardInterrupt:
        # The terminal has sent the interrupt to every process; wait for them to end in order.
        try:
            child.wait(timeout=10)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            child.kill()
            child.wait()
        raise


def hold_lock(root: Path) -> None:
    """Hold the build lock for a plain `snakemake` until the process ends; for `onstart`."""
    if LOCKED not in os.environ:
        context = build_lock(root / "_build" / ".lock")
        context.__enter__()
        _held.append(context)


_held: list = []
