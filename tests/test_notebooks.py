"""Every chapter has the cells that every chapter has; nbval runs them (see the Makefile)."""

from __future__ import annotations

import ast
import re

import pytest

from th_utils import __version__
from th_utils.build import notebooks
from th_utils.build.layout import DEFAULT_EDITION, DEFAULT_SIZE, SIZES, Layout, find_root
from th_utils.build.repository import address

LAYOUT = Layout(find_root())
SETUP = """\
try:
    from th_utils.setup import ready
except ModuleNotFoundError:
    %pip install --quiet "talking-heads-companion @ git+{address}"
    from th_utils.setup import ready
Chapter = ready()"""

chapters = pytest.mark.parametrize("name", LAYOUT.chapters())


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in notebooks.tags(cell)]


def test_there_are_chapters():
    assert LAYOUT.chapters()


@chapters
def test_setup_is_the_same_everywhere(name):
    """While a version is released, with its tag after the address (see `build/pin.py`)."""
    (cell,) = tagged(notebooks.read(LAYOUT.source(name)), "setup")
    home = address(LAYOUT.root)
    allowed = [SETUP.format(address=home + tag) for tag in ("", f"@v{__version__}")]
    assert cell.source.strip() in allowed


def test_all_chapters_install_the_same():
    cells = [tagged(notebooks.read(LAYOUT.source(name)), "setup") for name in LAYOUT.chapters()]
    assert len({cell.source.strip() for (cell,) in cells}) == 1


@chapters
def test_parameters_are_typed_commented_literals(name):
    (cell,) = tagged(notebooks.read(LAYOUT.source(name)), "parameters")
    lines = cell.source.splitlines()
    found = {}
    for node in ast.parse(cell.source).body:
        assert isinstance(node, ast.AnnAssign), ast.unparse(node)
        found[node.target.id] = ast.literal_eval(node.value)
        assert "#" in lines[node.end_lineno - 1], f"{node.target.id} has no comment"
    assert found["edition"] == DEFAULT_EDITION
    assert found["size"] == DEFAULT_SIZE
    assert {"seed", "device"} <= set(found)


@chapters
def test_help_reads_like_a_manual(name):
    """What `papermill --help-notebook` says: type, default, and which values there are."""
    from papermill import inspect_notebook

    said = inspect_notebook(str(LAYOUT.source(name)))
    for parameter, entry in said.items():
        text = entry["help"]
        assert entry["inferred_type_name"] in ("str", "int", "float"), parameter
        assert len(text) >= 20, f"{parameter}: {text}"
        if "by convention" in text:  # it changes nothing in this chapter
            continue
        if entry["inferred_type_name"] in ("int", "float"):
            limits = re.search(r"\d+ to \d+|\d or more|above \d|0 otherwise", text)
            assert limits, f"{parameter} does not say between what it lies: {text}"
    assert all(choice in said["size"]["help"] for choice in SIZES)
    assert re.search(r"cpu|by convention", said["device"]["help"], re.IGNORECASE)


def test_common_parameters_are_explained_alike():
    """Two chapters do not say different things of the same parameter, where they mean the same."""
    from papermill import inspect_notebook

    said = [inspect_notebook(str(LAYOUT.source(name))) for name in LAYOUT.chapters()]
    texts = [entry["edition"]["help"] for entry in said]
    usual = [text for text in texts if "by convention" not in text]
    assert len(set(usual)) == 1 and len(usual) >= len(texts) - 1


@chapters
def test_a_chapter_calls_and_does_not_define(name):
    notebook = notebooks.read(LAYOUT.source(name))
    assert notebooks.title(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "setup" not in notebooks.tags(cell):
            for node in ast.walk(ast.parse(cell.source)):
                assert not isinstance(node, ast.FunctionDef | ast.ClassDef), cell.id


@chapters
def test_committed_as_executed_and_without_times(name):
    notebook = notebooks.read(LAYOUT.source(name))
    assert not tagged(notebook, notebooks.INJECTED)
    assert "papermill" not in notebook.metadata
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in notebook.cells:
        assert not {"papermill", "execution"} & set(cell.metadata)
        for output in cell.get("outputs", []):
            assert output.output_type not in ("error", "stream"), f"cell {cell.id} prints"


@chapters
def test_figures_have_captions_and_alt_text(name):
    notebook = notebooks.read(LAYOUT.source(name))
    for cell, record in notebooks.marks(notebook, "figure"):
        mystnb = cell.metadata.get("mystnb", {})
        assert mystnb.get("figure", {}).get("name") == record["id"]
        assert mystnb["figure"].get("caption")
        assert not record["alt"].lower().startswith(("image of", "figure"))
