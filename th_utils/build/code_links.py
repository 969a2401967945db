"""Links between the code of the chapters and the reference of the package, both ways.

A Sphinx extension. A name of `th_utils` in a chapter's code leads to its place in the reference; a
function's place in the reference names the chapters that use it. Both come from the imports and
attributes that a chapter's source has, read without running or importing anything: the chapters are
short, and call the package by name.
"""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

PACKAGE = "th_utils"

# As pygments marks names in HTML: a name that stands alone, or an attribute of one.
NAMES = re.compile(
    r'(?<!<span class="o">\.</span>)<span class="n">(\w+)</span>'
    r'(?:<span class="o">\.</span><span class="n">(\w+)</span>)?'
)
BLOCK = re.compile(r'(<div class="highlight-i?python3?[ "][^>]*>.*?</pre>)', re.DOTALL)


def cells(notebook: Path) -> list[str]:
    """The sources of a notebook's code cells, without the lines that are not Python."""
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]
    return [re.sub(r"(?m)^(\s*)%.*$", r"\1pass", source) for source in sources]


def aliases(sources: Iterable[str]) -> dict[str, str]:
    """What names stand for in a chapter: modules and their contents, and instances of classes.

    >>> aliases(["from th_utils import svd as s", "from th_utils.runs import Run\\nrun = Run(1)"])
    {'s': 'th_utils.svd', 'Run': 'th_utils.runs.Run', 'run': 'th_utils.runs.Run'}
    """
    known: dict[str, str] = {}
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
                for name in node.names:
                    known[name.asname or name.name] = f"{node.module}.{name.name}"
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                made = getattr(node.value.func, "id", "")
                if made[:1].isupper() and made in known and isinstance(node.targets[0], ast.Name):
                    known[node.targets[0].id] = known[made]
    return known


def used(sources: Iterable[str]) -> set[str]:
    """The full names that a chapter uses: `th_utils.svd.ov_svd` for `svd.ov_svd`."""
    sources = list(sources)
    known = aliases(sources)
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Name) and node.id in known:
                found.add(known[node.id])
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id in known:
                    found.add(f"{known[node.value.id]}.{node.attr}")
    return found


def link(body: str, known: dict[str, str], address: dict[str, str]) -> str:
    """Link the names in a page's highlighted code.

    Args:
        body: the page, as HTML.
        known: what names stand for, see `aliases`.
        address: of each documented name, relative to the page.
    """

    def linked(match: re.Match) -> str:
        name, attribute = match[1], match[2]
        if name not in known:
            return match[0]
        full = f"{known[name]}.{attribute}" if attribute else known[name]
        if full not in address:
            return match[0]
        where = html.escape(address[full], quote=True)
        return f'<a class="code-link" href="{where}" title="{full}">{match[0]}</a>'

    return BLOCK.sub(lambda block: NAMES.sub(linked, block[1]), body)


def _collect(app: Sphinx) -> None:
    """Read the chapters once, before any page is."""
    app._th_aliases, app._th_users = {}, {}
    for path in sorted((Path(app.srcdir) / "notebooks").glob("*.ipynb")):
        sources, page = cells(path), f"notebooks/{path.stem}"
        app._th_aliases[page] = aliases(sources)
        for name in used(sources):
            app._th_users.setdefault(name, []).append(page)


def _name_users(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Say below a docstring which chapters use what it describes."""
    pages = [page for page in app._th_users.get(name, []) if page in app.env.found_docs]
    if pages and what != "module":
        lines += ["", "*Used in* " + ", ".join(f":doc:`/{page}`" for page in pages) + ".", ""]


def _link_page(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    known = app._th_aliases.get(page)
    if not known or "body" not in context:
        return
    objects = app.env.get_domain("py").objects
    address = {
        name: f"{app.builder.get_relative_uri(page, found.docname)}#{found.node_id}"
        for name, found in objects.items()
        if found.objtype != "module"
    }
    context["body"] = link(context["body"], known, address)


def setup(app: Sphinx) -> dict[str, Any]:
    """Join the steps of a build: chapters read, docstrings shown, pages written."""
    app.connect("builder-inited", _collect)
    app.connect("autodoc-process-docstring", _name_users)
    app.connect("html-page-context", _link_page)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
