"""What is known about the project itself: its address, version and commit."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

PLACEHOLDER = "OWNER"


def address(root: Path) -> str:
    """The repository's address, written in `pyproject.toml` and nowhere else."""
    with open(root / "pyproject.toml", "rb") as stream:
        return tomllib.load(stream)["project"]["urls"]["Repository"]


def commit(root: Path) -> str:
    """The commit checked out at `root`, marked when tracked files differ from it.

    `"unknown"` outside a repository.
    """
    head = _git(root, "rev-parse", "--short=12", "HEAD")
    # A copy of the project inside somebody else's repository has no commit of its own.
    if not head or _git(root, "rev-parse", "--show-prefix"):
        return "unknown"
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{head} with local changes" if changed else head


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
