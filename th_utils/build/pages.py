"""The parts of the book's pages that are generated: what fills them in, tables, models.

A page is written by hand; where it has a line `<!-- generated: claims -->`, staging puts the
table of that name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MARKER = re.compile(r"^<!-- generated: (\w+) -->[ \t]*$", re.MULTILINE)


def fill(text: str, parts: dict[str, Callable[[], str]]) -> str:
    """Replace every marker line of a page by the part it names."""
    return MARKER.sub(lambda match: parts[match[1]]() if match[1] in parts else match[0], text)


def title(page: Path) -> str:
    """The first heading of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return next((line[2:].strip() for line in lines if line.startswith("# ")), page.stem)


MODEL_ROWS = {
    "model": "Model",
    "runs": "What runs",
    "licence": "Licence",
    "size": "Size",
    "source": "Source",
    "sha256": "SHA-256",
    "notes": "Notes",
}


def models(known: Iterable[dict]) -> str:
    """The known editions, each with a list of what is said of it.

    Lists, because one table with a column for each would fit no telephone.
    """
    blocks = []
    for entry in known:
        blocks.append(f"## `{entry['edition']}`")
        said = [(name, entry[key], key) for key, name in MODEL_ROWS.items() if key in entry]
        blocks += [f"{name}\n: {_model_cell(key, value)}" for name, value, key in said]
    return "\n\n".join(blocks)


def _model_cell(key: str, value: Any) -> str:
    return f"`{value}`" if key == "sha256" else " ".join(str(value).split())


def table(head: list[str], rows: list[list[str]], style: str = "") -> str:
    """A Markdown table; `style` is its class."""
    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)
    return f":::{{table}}\n:class: {style}\n\n{text}\n:::" if style else text


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
