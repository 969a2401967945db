"""What must be true before a version is published: `make release-check`."""

from __future__ import annotations

from pathlib import Path

import yaml

from th_utils import __version__
from th_utils.build import published
from th_utils.build.layout import Layout
from th_utils.build.repository import PLACEHOLDER, address, commit, other_addresses


def problems(root: Path) -> list[str]:
    """Return one line for each thing that stands against a release; none when it can go out."""
    found = []
    if f"/{PLACEHOLDER}/" in address(root):
        found.append(
            f"pyproject.toml: [project.urls] Repository still has the placeholder {PLACEHOLDER}"
        )
    found += other_addresses(root)
    citation = root / "CITATION.cff"
    if not citation.exists():
        found.append("CITATION.cff is missing")
    else:
        stated = yaml.safe_load(citation.read_text(encoding="utf-8")).get("version")
        if stated is not None and str(stated) != __version__:
            found.append(f"CITATION.cff states version {stated}, the package is {__version__}")
    for name in ("LICENSE", "LICENSE-TEXT", "README.md", "CONTRIBUTING.md", "requirements.lock"):
        if not (root / name).exists():
            found.append(f"{name} is missing")
    listed, today = published.load(root), published.shown(Layout(root))
    found += published.problems(listed, today)
    if new := published.unlisted(listed, today):
        command = "python -m th_utils.build name-figures"
        found.append(f"{published.LIST} lacks {', '.join(new)}: `{command}` adds them")
    if "local changes" in commit(root):
        found.append("there are local changes that are not committed")
    return found
