"""The names of figures that were published before, and what stands against those of today.

A name is for ever: it is never given to another figure, and never lost without a word. The list is
`data/published_figures.yml`; its head says how it is kept.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from th_utils import __version__
from th_utils.build import notebooks
from th_utils.build.layout import Layout
from th_utils.errors import CompanionError

LIST = Path("data") / "published_figures.yml"
NO_FUNCTION = "a figure is drawn by a named function: chapter.figure(id, table, module.function)"


@dataclass(frozen=True)
class Published:
    """A name that was given.

    Attributes:
        id: the name.
        chapter: number of the chapter that shows it, "" for a page of the book.
        since: the first version that has it.
        drawn_by: name of the function that draws it.
        claims: ids of the claims that it is evidence for, in `data/claims.yml`.
        withdrawn: the version from which it is gone; why, the errata page says.
    """

    id: str
    chapter: str
    since: str
    drawn_by: str
    claims: list[str] = field(default_factory=list)
    withdrawn: str = ""


def load(root: Path) -> dict[str, Published]:
    """The list by name; empty where a project has none."""
    path = root / LIST
    if not path.exists():
        return {}
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["figures"]
        listed = [Published(**entry) for entry in entries]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise CompanionError(f"{LIST} is not a list of figures ({error})") from error
    found = {entry.id: entry for entry in listed}
    if len(found) < len(listed):
        raise CompanionError(f"{LIST} lists a name twice")
    return found


def shown(layout: Layout) -> dict[str, Published]:
    """The figures that the chapters' notebooks would show today, read off their code."""
    found = {}
    for chapter in layout.chapters():
        notebook = notebooks.read(layout.source(chapter))
        for name, function in (pair for code in _code(notebook) for pair in _drawn(code)):
            if name in found:
                raise CompanionError(f"two figures are named {name}")
            found[name] = Published(name, chapter[:2], __version__, function)
    return found


def problems(listed: dict[str, Published], today: dict[str, Published]) -> list[str]:
    """One line for each name that was lost or given to something else."""
    found = []
    for name, entry in listed.items():
        here = today.get(name)
        if entry.withdrawn and here:
            found.append(f"{name} was withdrawn in {entry.withdrawn}: its name is not to be reused")
        elif not entry.withdrawn and not here and entry.chapter:
            found.append(f"{name}, published since {entry.since}, is lost")
        elif here and (here.chapter, here.drawn_by) != (entry.chapter, entry.drawn_by):
            found.append(
                f"{name} was chapter {entry.chapter}'s, drawn by {entry.drawn_by}; now it is "
                f"chapter {here.chapter}'s, drawn by {here.drawn_by}: another figure, another name"
            )
    return found


def unlisted(listed: dict[str, Published], today: dict[str, Published]) -> list[str]:
    """Names of today's figures that the list does not have yet."""
    return [name for name in today if name not in listed]


def line(entry: Published) -> str:
    """An entry as a line of the list."""
    return (
        f'- {{id: {entry.id}, chapter: "{entry.chapter}", since: "{entry.since}", '
        f"drawn_by: {entry.drawn_by}, claims: [{', '.join(entry.claims)}]}}"
    )


def add(layout: Layout) -> list[str]:
    """Append today's new figures to the list; return their names."""
    listed, today = load(layout.root), shown(layout)
    new = unlisted(listed, today)
    if new:
        path = layout.root / LIST
        lines = [line(today[name]) for name in new]
        text = path.read_text(encoding="utf-8").rstrip("\n")
        path.write_text("\n".join([text, *lines]) + "\n", encoding="utf-8")
    return new


def _code(notebook: Any) -> Iterator[str]:
    """The cells that show a figure; others may hold what only IPython can read."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and ".figure(" in cell.source:
            yield cell.source


def _drawn(code: str) -> Iterator[tuple[str, str]]:
    """(name, function) of each call of `chapter.figure`."""
    for node in ast.walk(ast.parse(code)):
        if not (isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "figure"):
            continue
        name, draw = (node.args[0], node.args[2]) if len(node.args) == 3 else (None, None)
        function = getattr(draw, "attr", getattr(draw, "id", None))
        if not isinstance(name, ast.Constant) or function is None:
            raise CompanionError(f"{ast.unparse(node)[:60]}: {NO_FUNCTION}")
        yield name.value, function
