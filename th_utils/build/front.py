"""The picture on the front page, drawn when the book is put together.

It shows what chapter 03 found, from the tables of two of its figures: those of the run that the
book is made of, or else, in a book of the committed notebooks or of an edition that cannot run,
those that were brought back with the committed chapter (`make refresh`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from th_utils import figures
from th_utils.build.layout import DEFAULT_EDITION, Layout
from th_utils.plots.finding import finding
from th_utils.prose import finding as words
from th_utils.results import read_table

NAME = "front"
TABLES = ("fig-03-panels", "fig-03-removal")
KEPT = Path("book") / "front"  # the tables of the committed chapter


def tables(layout: Layout) -> list[Path]:
    """The two tables: of this run if it made both, else the kept ones; none where neither is."""
    for folder in (layout.results, layout.root / KEPT):
        found = [folder / f"{name}.json" for name in TABLES]
        if all(path.exists() for path in found):
            return found
    return []


def keep(layout: Layout) -> None:
    """Bring the tables of a run of the default edition back into the repository."""
    found = [layout.results / f"{name}.json" for name in TABLES]
    if layout.edition != DEFAULT_EDITION or not all(path.exists() for path in found):
        return
    (layout.root / KEPT).mkdir(parents=True, exist_ok=True)
    for path in found:
        shutil.copy(path, layout.root / KEPT)


def parts(layout: Layout, page: Path) -> dict[str, Callable[[], str]]:
    """What stands in the place of the front page's marker; `page` is the staged page's folder."""
    return {"finding": lambda: _block(layout, page)}


def _block(layout: Layout, page: Path) -> str:
    found = tables(layout)
    if not found:
        return ""
    panels, removal = map(read_table, found)
    with figures.style():
        drawn = finding(panels, removal)
    (page / f"{NAME}.png").write_bytes(figures.render(drawn, "png"))
    shown = words.leading(panels, removal)
    width = round(drawn.get_size_inches()[0] * 100)
    return (
        f"```{{figure}} {NAME}.png\n:width: {width}px\n:alt: {words.alt(shown)}\n\n"
        f"{words.caption(shown, panels.provenance.edition)}\n```"
    )
