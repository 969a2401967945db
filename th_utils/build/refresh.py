"""Bring executed chapters back: into `notebooks/` for git, and into `data/recorded/`."""

from __future__ import annotations

import json
import shutil

import nbformat

from th_utils.build import front, notebooks
from th_utils.build.graph import needs
from th_utils.build.layout import Layout
from th_utils.digest import closure_of_notebook, digest
from th_utils.paths import atomic_write


def refresh(layout: Layout, chapters: list[str]) -> list[str]:
    """Give the committed notebooks the outputs of the executed ones; return those that changed.

    The files differ only where outputs differ: a rerun without changes leaves them as they are.
    """
    changed = []
    for chapter in chapters:
        source = layout.source(chapter)
        executed = notebooks.read(layout.executed(chapter))
        fresh = notebooks.for_git(executed, notebooks.read(source))
        text = nbformat.writes(fresh) + "\n"
        if text != source.read_text(encoding="utf-8"):
            atomic_write(source, text)
            changed.append(chapter)
    front.keep(layout)
    return changed


def record(layout: Layout) -> list[str]:
    """Copy an edition's results and claims into `data/recorded/<edition>/`; return file names.

    Each table carries its own provenance. The claims carry the digest of the chapter that measured
    them, so that a test can tell when they are stale.
    """
    target = layout.root / "data" / "recorded" / layout.folder
    target.mkdir(parents=True, exist_ok=True)
    for old in [*target.glob("*.json"), *target.glob("*.csv")]:
        old.unlink()
    written, claims, digests = [], [], {}
    for chapter in layout.chapters():
        # What depends on no edition is no result of this one.
        if not layout.executed(chapter).exists() or needs(layout, chapter) == "nothing":
            continue
        executed = notebooks.read(layout.executed(chapter))
        found = [mark for _, mark in notebooks.marks(executed, "claim")]
        claims += found
        figures = list(notebooks.marks(executed, "figure"))
        if found or figures:
            digests[chapter] = digest(closure_of_notebook(layout.source(chapter)))
        for _, mark in figures:
            shutil.copy(layout.results / f"{mark['id']}.json", target)
            written.append(f"{mark['id']}.json")
    content = {
        "edition": layout.edition,
        "size": layout.size,
        "digests": digests,
        "claims": sorted(claims, key=lambda mark: mark["id"]),
    }
    atomic_write(target / "claims.json", json.dumps(content, indent=1, sort_keys=True) + "\n")
    return [*written, "claims.json"]
