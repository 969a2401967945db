"""No head and no component of a particular model stands in code, prose or notebooks.

The book asks for roles and gets the heads that a model has for them. Published heads are data, and
live in `data/`. Outputs of notebooks are measured, and may name heads.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from th_utils.build.layout import find_root

ROOT = find_root()

# In prose and in strings: L9H9, head 9.9, layer 9, head 9.
NAMES = re.compile(
    r"\bL\d+\s?H\d+\b"
    r"|\bheads?\s+`?\d+[.,]\s?\d+"
    r"|\b(?:layer|head|component)s?\s+`?\d+\b"
    r"|(?:layer|head|component)s?\s*==?\s*\d+\b",
    re.IGNORECASE,
)
IN_BACKTICKS = re.compile(r"`\d{1,2}\.\d{1,2}`")
# A string that is a head's name; matplotlib takes shades of grey as "0.5".
HEAD_STRING = re.compile(r"[1-9]\d?\.\d{1,2}")
# Words of arguments and variables that hold an index of a layer, head or component.
INDEX_WORDS = {"layer", "head", "kv_head", "component", "heads", "layers_and_heads", "components"}
# Arguments and variables whose pairs of numbers are no heads.
PAIRS = re.compile(
    r"size|shape|dim|axis|axes|lim|range|pad|margin|grid|ratios|version|ticks|dash|"
    r"anchor|xy|offset|aspect|order|percent|level|norm|slope|weights",
    re.IGNORECASE,
)
# Functions to which a pair of numbers says axes or a shape.
AXES = set(
    "sum mean std var norm amax amin any all permute transpose "
    "zeros ones full empty rand randn reshape view expand repeat".split()
)
ALLOWED = "not a head"  # a comment on the line that says why a number is harmless


def complaints_in_text(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        for found in (*NAMES.finditer(line), *IN_BACKTICKS.finditer(line)):
            yield f"line {number}: {found[0]}"


def _is_index(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value >= 0


def _is_pair(node: ast.AST) -> bool:
    """A pair such as (9, 9); pairs of zeros and ones are axes and shapes rather than heads."""
    return (
        isinstance(node, ast.Tuple)
        and len(node.elts) == 2
        and all(_is_index(element) for element in node.elts)
        and any(element.value > 1 for element in node.elts)
    )


def _harmless(tree: ast.Module) -> set[int]:
    """Ids of the nodes in places where a pair of numbers is no head."""
    values = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg and PAIRS.search(node.arg):
            values.append(node.value)
        elif isinstance(node, ast.Assign):
            (target, *_) = node.targets
            if isinstance(target, ast.Tuple):  # a, b = 16, 24 gives two numbers two names
                values.append(node.value)
            elif isinstance(target, ast.Name) and PAIRS.search(target.id):
                values.append(node.value)
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            values += node.args if called in AXES else []
    return {id(inner) for value in values for inner in ast.walk(value)}


def _without_examples(code: str) -> str:
    """The code with its doctests blanked: they run on small random models, which have no heads
    that anybody could mean."""
    kept, inside = [], False
    for line in code.splitlines():
        text = line.strip()
        inside = text.startswith(">>>") or (inside and text not in ("", '"""'))
        kept.append("" if inside else line)
    return "\n".join(kept)


def complaints_in_code(code: str) -> Iterator[str]:
    """What looks like an index of a particular head; in strings and comments too."""
    code = re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.MULTILINE)
    lines = ["", *_without_examples(code).splitlines()]
    tree = ast.parse(code)
    harmless = _harmless(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", None)
        if line is None or ALLOWED in lines[line]:
            continue
        if _is_pair(node) and id(node) not in harmless:
            yield f"line {line}: {ast.unparse(node)}"
        elif isinstance(node, ast.keyword) and node.arg in INDEX_WORDS and _is_index(node.value):
            yield f"line {line}: {node.arg}={node.value.value}"
        elif isinstance(node, ast.Assign) and _is_index(node.value):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id in INDEX_WORDS:
                    yield f"line {line}: {target.id} = {node.value.value}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if HEAD_STRING.fullmatch(node.value):
                yield f"line {line}: {node.value!r}"
    for number, line in enumerate(lines):
        for found in NAMES.finditer(line) if ALLOWED not in line else ():
            yield f"line {number}: {found[0]}"


def _sources() -> list[Path]:
    modules = [path for path in (ROOT / "th_utils").rglob("*.py") if "_data" not in path.parts]
    notebooks = (ROOT / "notebooks").glob("*.ipynb")
    pages = (ROOT / "book").rglob("*.md")
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return sorted([*modules, *notebooks, *pages, *documents])


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_head_is_named(path):
    found = []
    if path.suffix == ".py":
        found += complaints_in_code(path.read_text(encoding="utf-8"))
    elif path.suffix == ".md":
        found += complaints_in_text(path.read_text(encoding="utf-8"))
    else:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            look = complaints_in_code if cell["cell_type"] == "code" else complaints_in_text
            found += [f"cell {cell.get('id')}, {item}" for item in look("".join(cell["source"]))]
    assert not found


@pytest.mark.parametrize(
    "code",
    [
        "movers = [(9, 9), (10, 0)]",
        "weights.ov(layer=9, head=9)",
        "head = 6",
        "name = 'L9H9'",
        "show('head 9.9')",
        "roles['9.9']",
        "x = 1  # the strongest is head 9.6",
    ],
)
def test_planted_heads_are_found(code):
    assert list(complaints_in_code(code))


@pytest.mark.parametrize(
    "code",
    [
        "plt.subplots(figsize=(6, 4))",
        "x.sum(dim=(2, 3))",
        "x.mean((0, 2))",
        "COLOUR, SEQUENCES, BLOCK = '0.5', 16, 24",
        "layer, head = roles.mover[0]",
        "threshold = 0.9",
        "first = scores[0, 0]",
        "%pip install x\nWIDE_SIZE = (7, 3)",
        "grid = (3, 4)  # not a head",
        '"""Check.\n\n>>> index(12)\nhead 12 is out of range\n"""',
    ],
)
def test_harmless_numbers_pass(code):
    assert not list(complaints_in_code(code))


def test_planted_prose_is_found():
    assert list(complaints_in_text("The strongest mover is `9.9`, or L9H9, or head 9.6."))
    assert not list(complaints_in_text("An accuracy of 0.95 (0.91 to 0.97) on 64 prompts."))
