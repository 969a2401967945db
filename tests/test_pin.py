"""A published chapter installs the version that it is of, not what is newest on the main branch."""

from __future__ import annotations

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from th_utils.build import notebooks
from th_utils.build.layout import Layout, find_root
from th_utils.build.pin import pin, unpinned
from th_utils.digest import digest
from th_utils.errors import CompanionError

ROOT = find_root()
HOME = "https://github.com/somebody/book"


@pytest.fixture
def layout(tmp_path):
    """Two chapters as they are committed, in a project at another address."""
    (tmp_path / "pyproject.toml").write_text(f'[project.urls]\nRepository = "{HOME}"\n')
    (tmp_path / "notebooks").mkdir()
    for name in ("01_a", "02_b"):
        write(tmp_path / "notebooks" / f"{name}.ipynb", HOME)
    return Layout(tmp_path)


def write(path, home):
    code = f'try:\n    import it\nexcept ImportError:\n    %pip install "it @ git+{home}"'
    cells = [new_code_cell(code, id="s", metadata={"tags": ["setup"]}), new_code_cell("1", id="c")]
    path.write_text(nbformat.writes(new_notebook(cells=cells)) + "\n")


def contents(layout):
    return {name: layout.source(name).read_text() for name in layout.chapters()}


def test_pinned_and_unpinned_again(layout):
    before = contents(layout)
    assert unpinned(layout, "1.2.0") == ["01_a", "02_b"]
    assert pin(layout, "1.2.0") == ["01_a", "02_b"]
    assert unpinned(layout, "1.2.0") == [] and unpinned(layout, "1.2.1") == ["01_a", "02_b"]
    assert pin(layout, "1.2.0") == []
    source = notebooks.read(layout.source("01_a")).cells[0].source
    assert source.endswith(f'"it @ git+{HOME}@v1.2.0"')
    for name, text in contents(layout).items():
        assert text.replace("@v1.2.0", "") == before[name]
        json.loads(text)
    pin(layout, "1.3.0")
    assert unpinned(layout, "1.3.0") == []
    assert pin(layout, None) == ["01_a", "02_b"] and contents(layout) == before


@pytest.mark.parametrize("home", [f"{HOME}-of-another", "https://github.com/other/book"])
def test_another_address_is_refused_and_nothing_is_written(layout, home):
    write(layout.source("02_b"), home)
    before = contents(layout)
    with pytest.raises(CompanionError, match=f"02_b: its setup cell .* git\\+{HOME}$"):
        pin(layout, "1.2.0")
    assert contents(layout) == before
    assert unpinned(layout, "1.2.0") == ["01_a", "02_b"]


def test_a_pin_changes_no_result(layout):
    """What was computed before a release is not stale because of its number in the setup cell."""
    path = layout.source("01_a")
    before = digest([path])
    pin(layout, "1.2.0")
    assert digest([path]) == before
    path.write_text(path.read_text().replace('"1"', '"2"'))
    assert digest([path]) != before


def test_every_chapter_of_this_book_can_be_pinned(tmp_path):
    (tmp_path / "notebooks").mkdir()
    for name in ("pyproject.toml", *(f"notebooks/{c}.ipynb" for c in Layout(ROOT).chapters())):
        (tmp_path / name).write_text((ROOT / name).read_text())
    copy = Layout(tmp_path)
    pin(copy, "9.9.9")
    assert copy.chapters() and unpinned(copy, "9.9.9") == []
