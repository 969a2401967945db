"""The first cell of every chapter: what it needs once the package is there.

On a hosted notebook the cell installs the package into a session that is running. pip leaves the
versions that the runtime ships where our bounds allow it; where it had to replace one that the
session had loaded already, old and new code would be mixed, and that is said before anything of it
is imported. Nothing large is imported here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.version import Version

from th_utils import __version__
from th_utils.display import show
from th_utils.errors import CompanionError
from th_utils.paths import checkout_root

if TYPE_CHECKING:
    from th_utils.chapter import Chapter

PROJECT = "talking-heads-companion"


def ready() -> type[Chapter]:
    """Check the versions of this session, say what was installed, and return `Chapter`.

    Says nothing in a checkout, whose environment was made before.

    Raises:
        CompanionError: a package was replaced after this session had loaded it, or is of a version
            that does not fit.
    """
    needed = requirements()
    check_loaded(needed)
    check_bounds(needed)
    if checkout_root() is None:
        show({"text/markdown": (text := said(needed, installed_now()))}, text, {})
    from th_utils.chapter import Chapter

    return Chapter


def requirements() -> list[Requirement]:
    """What the installed package needs of others; nothing where it was not installed by pip."""
    try:
        lines = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        return []
    return [r for r in map(Requirement, lines) if r.marker is None or r.marker.evaluate()]


def check_loaded(needed: list[Requirement]) -> None:
    """Refuse to go on with a package that was loaded before pip put another version in its place.

    Raises:
        CompanionError: naming it, and saying to restart.
    """
    for requirement in needed:
        module = sys.modules.get(requirement.name.replace("-", "_"))
        loaded, here = getattr(module, "__version__", None), version(requirement.name)
        if loaded and here and Version(str(loaded)).public != Version(here).public:
            raise CompanionError(
                f"{requirement.name} {here} has been installed, but this session had loaded "
                f"{loaded} before: restart the session and run all cells again"
            )


def check_bounds(needed: list[Requirement]) -> None:
    """Refuse versions that the package was not made for.

    Raises:
        CompanionError: naming each, with the versions that fit.
    """
    wrong = [
        f"{r.name} {here or 'is missing'} ({r.name}{r.specifier} is needed)"
        for r in needed
        if not (here := version(r.name)) or not r.specifier.contains(here, prereleases=True)
    ]
    if wrong:
        raise CompanionError(
            f"this environment does not fit: {'; '.join(wrong)}; install {PROJECT} again with pip, "
            "in an environment of its own if others need these versions"
        )


def said(needed: list[Requirement], new: set[str]) -> str:
    """What was installed in this session, from where, and what was left as it was."""
    names = [requirement.name for requirement in needed]
    fresh = [name for name in names if normal(name) in new]
    kept = [name for name in names if normal(name) not in new]
    text = f"{PROJECT} {__version__}"
    text += f" installed{source()}" if normal(PROJECT) in new else " was here already"
    text += f", Python {'.'.join(map(str, sys.version_info[:3]))}."
    if fresh:
        text += f" Installed or replaced for it: {versions(fresh)}"
        others = len(new - {normal(name) for name in [*names, PROJECT]})
        text += f" (and {others} that those need)." if others else "."
    return text + (f" As found: {versions(kept)}." if kept else "")


def source() -> str:
    """Where pip had the package from: " from <address>, commit <commit>", or nothing."""
    text = metadata.distribution(PROJECT).read_text("direct_url.json")
    said = json.loads(text) if text else {}
    commit = said.get("vcs_info", {}).get("commit_id", "")
    return (f" from {said['url']}" if "url" in said else "") + (
        f", commit {commit[:12]}" if commit else ""
    )


def installed_now() -> set[str]:
    """Normal names of the packages that were installed since this process started.

    Empty where its start is not known, for want of psutil, which every Jupyter kernel needs.
    """
    try:
        import psutil
    except ImportError:
        return set()
    start = psutil.Process().create_time()
    return {normal(name) for name, time in times() if time >= start}


def times() -> Iterator[tuple[str, float]]:
    """Name and time of installation of every package beside this one."""
    for record in Path(__file__).resolve().parents[1].glob("*.dist-info/RECORD"):
        yield record.parent.name.partition("-")[0], record.stat().st_mtime


def version(name: str) -> str | None:
    """The installed version of a package, None where it is missing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def versions(names: list[str]) -> str:
    """Names and installed versions of packages, as the setup cell prints them."""
    return ", ".join(f"{name} {version(name)}" for name in names)


def normal(name: str) -> str:
    """
    >>> normal("Transformer-Lens")
    'transformer_lens'
    """
    return name.lower().replace("-", "_").replace(".", "_")
