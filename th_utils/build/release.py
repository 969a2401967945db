"""What must be true before a version is published: `make release-check`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from th_utils import __version__
from th_utils.build import pin, published
from th_utils.build.layout import Layout
from th_utils.build.repository import PLACEHOLDER, address, commit, other_addresses

FILES = ("LICENSE", "LICENSE-TEXT", "README.md", "CONTRIBUTING.md", "requirements.lock")
# What is said until the first version is published, and where.
UNPUBLISHED = {
    "README.md": "There is no release",
    "book/errata.md": "no version has been published yet",
}


def problems(root: Path) -> list[str]:
    """Return one line for each thing that stands against a release; none when it can go out."""
    parts = (_address, _citation, _files, _changelog, _words, _pins, _figures, _changes)
    return [line for part in parts for line in part(root)]


def _address(root: Path) -> Iterator[str]:
    if f"/{PLACEHOLDER}/" in address(root):
        yield f"pyproject.toml: [project.urls] Repository still has the placeholder {PLACEHOLDER}"
    yield from other_addresses(root)


def _citation(root: Path) -> Iterator[str]:
    citation = root / "CITATION.cff"
    if not citation.exists():
        yield "CITATION.cff is missing"
        return
    stated = yaml.safe_load(citation.read_text(encoding="utf-8")).get("version")
    if stated is not None and str(stated) != __version__:
        yield f"CITATION.cff states version {stated}, the package is {__version__}"


def _files(root: Path) -> Iterator[str]:
    for name in FILES:
        if not (root / name).exists():
            yield f"{name} is missing"


def _changelog(root: Path) -> Iterator[str]:
    text = _text(root / "CHANGELOG.md")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    for section in sections:
        heading, _, entries = section.partition("\n")
        if heading.strip() == "Unreleased" and entries.strip():
            yield "CHANGELOG.md: there are entries under Unreleased; give them a version and a date"
    if not re.search(rf"^## {re.escape(__version__)} \(\d{{4}}-\d\d-\d\d\)", text, re.MULTILINE):
        yield f"CHANGELOG.md: no heading `## {__version__} (2026-01-31)`, with the day of release"


def _words(root: Path) -> Iterator[str]:
    for name, words in UNPUBLISHED.items():
        if words in " ".join(_text(root / name).split()):
            yield f"{name} still says: {words}"


def _pins(root: Path) -> Iterator[str]:
    if wrong := pin.unpinned(Layout(root), __version__):
        command = "python -m th_utils.build pin"
        yield (
            f"notebooks: the setup cells of {', '.join(wrong)} do not install v{__version__}: "
            f"`{command}` has them do so"
        )


def _figures(root: Path) -> Iterator[str]:
    listed, today = published.load(root), published.shown(Layout(root))
    yield from published.problems(listed, today)
    if new := published.unlisted(listed, today):
        command = "python -m th_utils.build name-figures"
        yield f"{published.LIST} lacks {', '.join(new)}: `{command}` adds them"


def _changes(root: Path) -> Iterator[str]:
    if "local changes" in commit(root):
        yield "there are local changes that are not committed"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
