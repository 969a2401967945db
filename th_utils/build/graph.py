"""What the Snakefile asks: digests of chapters and of the book, and who needs the model."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from pathlib import Path

from th_utils import __version__
from th_utils.build.layout import Layout
from th_utils.build.repository import commit
from th_utils.digest import build_digest, closure_of_notebook
from th_utils.errors import CompanionError
from th_utils.paths import PACKAGE_DIR

# The packages whose versions the results state: another version of one is another result.
STATED = ("torch", "transformers", "transformer-lens", "numpy", "matplotlib")


def chapter_digest(layout: Layout, chapter: str) -> str:
    """Digest of all that can change an executed chapter: sources, data, stated versions.

    A chapter whose sources cannot be read gets a digest too: its job fails and says why, and the
    other chapters go on.
    """
    try:
        closure = build_digest(_closure(layout.source(chapter)))
    except CompanionError as error:
        closure = str(error)
    return _hash(closure, versions(), build_digest([PACKAGE_DIR / "build" / "run.py"]))


def book_digest(layout: Layout) -> str:
    """Digest of all that can change the rendered book besides its executed chapters."""
    root = layout.root
    pages = [root / "_config.yml", root / "_toc.yml", root / "pyproject.toml"]
    for folder in ("book", "data"):
        pages += [path for path in (root / folder).rglob("*") if path.is_file()]
    pages += (PACKAGE_DIR / "build").glob("*.py")
    contents = {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in pages if path.exists()
    }
    sources = [layout.source(chapter).name for chapter in layout.chapters()]
    return _hash(*sorted(contents.items()), *sources, commit(root), __version__)


@functools.cache
def versions() -> str:
    """The stated packages with their versions; one that is not installed counts as such."""
    found = [f"th_utils {__version__}"]
    for name in STATED:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} absent")
    return ", ".join(found)


def marker(layout: Layout) -> Path:
    """The file that says that the edition's model has been fetched and converted."""
    return layout.root / "_build" / "models" / f"{layout.folder}.ready"


def model_marker(layout: Layout, chapter: str):
    """The model's marker as an input of `chapter`, if its closure loads models at all."""
    try:
        closure = _closure(layout.source(chapter))
    except CompanionError:
        return []
    if PACKAGE_DIR / "models.py" not in closure:
        return []
    from snakemake.io import ancient

    return ancient(str(marker(layout)))


@functools.cache
def _closure(source: Path) -> tuple[Path, ...]:
    return tuple(closure_of_notebook(source))


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
