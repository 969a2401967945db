"""What is known about the project itself: its address, version and commit."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

PLACEHOLDER = "OWNER"
TEXTS = {".md", ".yml", ".toml", ".cff", ".ipynb", ".py", ".bib"}
# Built, fetched or installed; tests name other addresses on purpose.
PASSED_OVER = {"_build", ".venv", ".snakemake", ".git", ".ipynb_checkpoints", "tests"}


def address(root: Path) -> str:
    """The repository's address, written in `pyproject.toml` and nowhere else."""
    with open(root / "pyproject.toml", "rb") as stream:
        return tomllib.load(stream)["project"]["urls"]["Repository"]


def site(root: Path) -> str:
    """Where the book is published: the pages of the repository, so that no second address exists.

    Every version lies below it at an address of its own, the newest once more under `/latest`.
    """
    *_, owner, name = address(root).split("/")
    return f"https://{owner.lower()}.github.io/{name}"


def is_published(root: Path, version: str) -> bool:
    """Whether what is checked out is a published version: its tag, unchanged, with an address."""
    tags = _git(root, "tag", "--points-at", "HEAD").split()
    changed = "local changes" in commit(root)
    return f"v{version}" in tags and not changed and f"/{PLACEHOLDER}/" not in address(root)


def other_addresses(root: Path) -> Iterator[str]:
    """Yield a line for each place that names the repository by another owner than `address` does.

    Readers and other programs need it in full here and there: to clone, to open a chapter in Colab
    (`.../github/<owner>/<name>/...`), to cite.
    """
    *_, owner, name = address(root).split("/")
    pattern = re.compile(rf"github(?:\.com)?[/:]([\w.-]+)/{re.escape(name)}\b")
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - PASSED_OVER)
        for path in (Path(folder, file) for file in sorted(files)):
            if path.suffix in TEXTS:
                text = path.read_text(encoding="utf-8")
                for found in sorted({match[1] for match in pattern.finditer(text)} - {owner}):
                    where = path.relative_to(root).as_posix()
                    yield f"{where} names {found}/{name}, pyproject.toml {owner}/{name}"


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
