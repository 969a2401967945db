"""Executed notebooks: reading what they record, and preparing them for the book and for git.

Chapters mark what they show in the metadata of their outputs, under `talking_heads`: a `figure`
with its id, caption and alt text, a `claim` with its value and verdict. The book reads those marks
and no pixels, so that it can be built from a fresh run and from the committed notebooks alike.
"""

from __future__ import annotations

import ast
import base64
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat

from th_utils.errors import CompanionError

MARK = "talking_heads"
INJECTED = "injected-parameters"
ADMONITION = ":::{admonition}"


def read(path: Path) -> nbformat.NotebookNode:
    """Read a notebook; CompanionError with one line when it is not one."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise CompanionError(f"{path.name} is not a notebook ({error})") from error


def tags(cell: Any) -> list[str]:
    """The tags of a cell."""
    return list(cell.get("metadata", {}).get("tags", []))


def title(notebook: Any) -> str:
    """The text of the first heading."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("# "):
                    return line[2:].strip()
    return ""


def marks(notebook: Any, kind: str) -> Iterator[tuple[Any, dict]]:
    """Yield (cell, record) for each output marked as a `figure` or a `claim`."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            record = output.get("metadata", {}).get(MARK, {}).get(kind)
            if record:
                yield cell, record


def figures(notebook: Any) -> list[dict]:
    """The figures that a notebook shows, as its book page shows them.

    Each has `id`, `edition`, `caption`, `alt`, and `width` and `height` in pixels where they are
    known. CompanionError where a caption or an alternative text is missing.
    """
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if record := _figure_of(output):
                size = output.metadata.get("image/png", {})
                sized = {side: size[side] for side in ("width", "height") if side in size}
                found.append({**record, **_words(cell, record), **sized})
    return found


def pictures(notebook: Any) -> Iterator[tuple[str, bytes]]:
    """(name, PNG) of each figure that a notebook shows."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if record := _figure_of(output):
                yield record["id"], base64.b64decode(output.get("data", {}).get("image/png", ""))


def parameters(notebook: Any) -> dict[str, Any]:
    """The parameters that the notebook ran with: the defaults, overridden by injected ones."""
    values: dict[str, Any] = {}
    for wanted in ("parameters", INJECTED):
        for cell in notebook.cells:
            if wanted in tags(cell):
                values |= {name: ast.literal_eval(node) for name, node in _assigned(cell.source)}
    return values


def _assigned(source: str) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            yield node.target.id, node.value
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def with_values(source: str, values: dict[str, Any]) -> str:
    """Rewrite the literals of a parameters cell; types, comments and the rest stay.

    >>> print(with_values('size: str = "quick"  # how much', {"size": "book"}))
    size: str = "book"  # how much
    """
    lines = source.splitlines()
    for name, node in _assigned(source):
        if name in values and node.lineno == node.end_lineno:
            line = lines[node.lineno - 1].encode()  # ast counts bytes
            new = repr(values[name])
            if isinstance(values[name], str) and '"' not in new:
                new = f'"{values[name]}"'
            line = line[: node.col_offset] + new.encode() + line[node.end_col_offset :]
            lines[node.lineno - 1] = line.decode()
    return "\n".join(lines)


def for_git(executed: Any, committed: Any) -> Any:
    """Return `committed` with the outputs of `executed`, and nothing that a rerun would change."""
    outputs = {cell.id: cell for cell in executed.cells if INJECTED not in tags(cell)}
    fresh = copy.deepcopy(committed)
    counter = 0
    for cell in fresh.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        counter += 1
        if cell.id not in outputs or outputs[cell.id].source != cell.source:
            raise CompanionError(
                f"cell {cell.id} is not the one that was run; run the chapter again"
            )
        cell.outputs = copy.deepcopy(outputs[cell.id].outputs)
        # Counted without the injected cell, as in a plain run from top to bottom.
        cell.execution_count = counter
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = counter
    for key in ("papermill", "widgets"):
        fresh.metadata.pop(key, None)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    fresh.metadata["kernelspec"] = nbformat.from_dict(kernel)
    # No version of Python: it would differ from machine to machine.
    fresh.metadata["language_info"] = nbformat.from_dict({"name": "python"})
    return fresh


def not_run(notebook: Any, edition: str) -> Any:
    """Return the page of a chapter that cannot run on `edition`: its title, and why it stops.

    Attention weights alone have no forward pass; the book of such an edition has its weight-only
    chapters, and says of the others that they are missing.
    """
    page = copy.deepcopy(notebook)
    first = next(cell for cell in page.cells if cell.cell_type == "markdown")
    text = (
        ":::{admonition} Not run on this edition\n:class: warning\n"
        f"This chapter needs a forward pass, and of `{edition}` only the attention weights were "
        "there when this book was built.\n:::"
    )
    page.cells = [first, nbformat.v4.new_markdown_cell(text, id="not-run")]
    return page


def for_book(executed: Any, below: Callable[[dict], str]) -> Any:
    """Return `executed` as the book shows it.

    Captions and alt text come from the run; parameters are shown as they were; below each figure
    stands what `below(record)` returns as HTML (empty for nothing).
    """
    notebook = copy.deepcopy(executed)
    values = parameters(notebook)
    cells = []
    for cell in notebook.cells:
        if INJECTED in tags(cell):
            cell.metadata["tags"] = [*tags(cell), "remove-cell"]
        elif "parameters" in tags(cell):
            cell.source = with_values(cell.source, values)
        _name_verdicts(cell)
        for part in _one_figure_each(cell):
            cells.append(part)
            record = _label_figure(part)
            if record and (line := below(record)):
                name = f"line-{record['id']}"[:64]
                cells.append(nbformat.v4.new_markdown_cell(line, id=name))
    notebook.cells = cells
    if values:
        _state_run(notebook, values)
    return notebook


def _figure_of(output: Any) -> dict | None:
    return output.get("metadata", {}).get(MARK, {}).get("figure")


def _one_figure_each(cell: Any) -> list[Any]:
    """Split a cell so that a figure stands alone: a caption goes to all outputs of its cell.

    The first part keeps the source; the others show outputs only.
    """
    outputs = cell.get("outputs", [])
    if len(outputs) < 2 or not any(map(_figure_of, outputs)):
        return [cell]
    parts: list[Any] = []
    for output in outputs:
        if parts and not _figure_of(output) and not _figure_of(parts[-1].outputs[0]):
            parts[-1].outputs.append(output)
            continue
        part = copy.deepcopy(cell)
        part.outputs = [output]
        if parts:
            part.id = f"{cell.id}-{len(parts)}"[-64:]
            part.metadata["tags"] = [*tags(cell), "remove-input"]
        if not _figure_of(output):
            part.metadata.pop("mystnb", None)
        parts.append(part)
    return parts


def _words(cell: Any, record: dict) -> dict[str, str]:
    """Caption and alternative text: what the run found, and how the cell explains the figure."""
    figure = cell.metadata.get("mystnb", {}).get("figure", {})
    if not figure.get("caption") or not record.get("message") or not record.get("alt"):
        raise CompanionError(f"figure {record['id']} has no caption, no message or no alt text")
    return {"caption": f"**{record['message']}** {figure['caption']}", "alt": record["alt"]}


def _label_figure(cell: Any) -> dict | None:
    """Put id, caption and alt text of the figure that a cell shows into its `mystnb` metadata."""
    record = next(filter(None, map(_figure_of, cell.get("outputs", []))), None)
    if record is None:
        return None
    words = _words(cell, record)
    mystnb = cell.metadata.setdefault("mystnb", nbformat.from_dict({}))
    figure = mystnb.setdefault("figure", nbformat.from_dict({}))
    figure["name"], figure["caption"] = record["id"], words["caption"]
    mystnb.setdefault("image", nbformat.from_dict({}))["alt"] = words["alt"]
    return record


def _name_verdicts(cell: Any) -> None:
    """Give the box of each claim an anchor, to which the ledger leads."""
    for output in cell.get("outputs", []):
        record = output.get("metadata", {}).get(MARK, {}).get("claim")
        text = output.get("data", {}).get("text/markdown")
        if record and text and text.startswith(ADMONITION):
            first, rest = text.split("\n", 1)
            output.data["text/markdown"] = f"{first}\n:name: {verdict_name(record['id'])}\n{rest}"


def verdict_name(claim: str) -> str:
    """The anchor of a claim's verdict on its chapter's page."""
    return f"verdict-{claim}"


def _state_run(notebook: Any, values: dict[str, Any]) -> None:
    """Say below the title on what, and for how long, the chapter ran."""
    run = notebook.metadata.get(MARK, {})
    text = f"Edition `{values['edition']}`, size `{values['size']}`"
    if "seconds" in run:
        text += f"; this run took {duration(run['seconds'])} on one processor core"
    line = f"```{{div}} run-line\n{text}.\n```"
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source += f"\n\n{line}"
            return


def duration(seconds: float | int) -> str:
    """Say a time in words.

    >>> duration(8.4), duration(130)
    ('8 s', '2 min 10 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
