"""What the Snakefile asks: digests of chapters and of the book, and who needs the model."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from pathlib import Path

from th_utils import __version__, models
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
    runner = build_digest([PACKAGE_DIR / "build" / "run.py"])
    weights = ()
    if loads_model(layout, chapter):
        weights = (local_weights(layout.edition), can_run(layout, chapter))
    return _hash(closure, versions(), runner, weights)


def can_run(layout: Layout, chapter: str) -> bool:
    """Whether the edition has what the chapter needs; of some models only weights are at hand."""
    try:
        return needs(layout, chapter) != "forward" or models.can_run(layout.edition)
    except CompanionError:
        return True  # its job will say what is wrong


def needs(layout: Layout, chapter: str) -> str:
    """What a chapter needs of an edition: a "forward" pass, its "weights", or "nothing".

    The notebook's metadata say so, under `talking_heads.needs`. "nothing" means that its results
    are the same for all editions: no model is fetched for it, and none of them is recorded.
    """
    try:
        metadata = json.loads(layout.source(chapter).read_text(encoding="utf-8"))["metadata"]
        return metadata.get("talking_heads", {}).get("needs", "forward")
    except (OSError, ValueError, KeyError):
        return "forward"


def local_weights(edition: str) -> tuple[str, int, int]:
    """What tells one local checkpoint from another: path, size in bytes, time of change in ns.

    Zeros for an edition whose weights are known by name alone, or that is unknown.
    """
    try:
        path = models.resolve(edition).path
    except CompanionError:
        path = None
    if path is None:
        return "", 0, 0
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    stats = [file.stat() for file in files]
    newest = max((stat.st_mtime_ns for stat in stats), default=0)
    return str(path), sum(stat.st_size for stat in stats), newest


def book_digest(layout: Layout) -> str:
    """Digest of all that can change the rendered book besides its executed chapters."""
    root = layout.root
    pages = [root / "_config.yml", root / "_toc.yml", root / "pyproject.toml"]
    for folder in ("book", "data"):
        pages += [path for path in (root / folder).rglob("*") if path.is_file()]
    pages += (PACKAGE_DIR / "build").glob("*.py")
    # The page of timed kernels shows what was timed before, in a figure made with the page.
    pages += (root / "benchmarks" / "results").glob("*.json")
    pages.append(PACKAGE_DIR / "plots" / "benchmarks.py")
    if (root / "book" / "api").is_dir():  # docstrings are shown there
        pages += PACKAGE_DIR.rglob("*.py")
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


def loads_model(layout: Layout, chapter: str) -> bool:
    """Whether `chapter` can load a model: whether its closure contains the module that does.

    The closure of every chapter does, by way of `th_utils.chapter`; one that says that it needs
    nothing of an edition is believed.
    """
    try:
        closure = _closure(layout.source(chapter))
        return PACKAGE_DIR / "models.py" in closure and needs(layout, chapter) != "nothing"
    except CompanionError:
        return False


def model_marker(layout: Layout, chapter: str):
    """The model's marker as an input of `chapter`, if it loads a model."""
    if not loads_model(layout, chapter):
        return []
    from snakemake.io import ancient

    return ancient(str(marker(layout)))


@functools.cache
def _closure(source: Path) -> tuple[Path, ...]:
    return tuple(closure_of_notebook(source))


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
