"""The reference of the package: which modules stand on which page.

The pages are in `book/api/`; staging puts the modules where a page has a line such as
`<!-- generated: api_weights -->`. Docstrings become text when Sphinx reads the pages.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

PAGES = {
    "weights": "weights rotary svd composition pairs nulls search planted checkpoint scan "
    "scan_store",
    "runs": "engine transformer replay fullforward changes sweeps edges attribution edge_removal "
    "patching steering runs list_trees attention",
    "models": "models bridge hub store roles recorded",
    "tasks": "tasks.ioi tasks.lists tasks.text enumerations",
    "figures": "figures plots.",
    "chapters": "setup chapter parameters results claims bootstrap memory paths digest display "
    "progress terminal threads checks errors",
}
REST = "measurements"  # where all other modules stand, by name: what chapters are made of
LEFT_OUT = ("build.", "prose.")  # how the book is put together, and its sentences


def modules(package: Path) -> list[str]:
    """The names of the documented modules below the folder of the package, in order."""
    names = (
        ".".join(path.relative_to(package).with_suffix("").parts)
        for path in sorted(package.rglob("*.py"))
    )
    return [
        name
        for name in names
        if not name.endswith("__init__") and not name.startswith((*LEFT_OUT, "_"))
    ]


def pages(names: list[str]) -> dict[str, list[str]]:
    """The modules of each page; a name that ends in a point stands for a whole folder.

    >>> pages(["svd", "plots.line", "line", "weights"])["weights"]
    ['weights', 'svd']
    """
    found: dict[str, list[str]] = {}
    for page, wanted in PAGES.items():
        found[page] = [
            name
            for one in wanted.split()
            for name in names
            if name == one or (one.endswith(".") and name.startswith(one))
        ]
    placed = {name for page in found.values() for name in page}
    found[REST] = [name for name in names if name not in placed]
    return found


def block(name: str) -> str:
    """One module's part of a page."""
    return f"## {name}\n\n```{{eval-rst}}\n.. automodule:: th_utils.{name}\n   :members:\n```"


def parts(root: Path) -> dict[str, Callable[[], str]]:
    """What stands in the place of each marker."""
    listed = pages(modules(root / "th_utils"))
    return {
        f"api_{page}": lambda names=names: "\n\n".join(map(block, names))
        for page, names in listed.items()
    }
