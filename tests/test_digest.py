"""The static import closure and its digests."""

from __future__ import annotations

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from th_utils import digest, paths
from th_utils.digest import (
    ClosureError,
    build_digest,
    closure_of_module,
    closure_of_notebook,
)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the same name, with every kind of import in it, and its data."""
    package, data = tmp_path / "th_utils", tmp_path / "data"
    sources = {
        "__init__.py": "",
        "leaf.py": "x = 1\n",
        "relative.py": "from . import leaf\n",
        "lazy.py": "def f():\n    from th_utils.sub import inner\n",
        "sub/__init__.py": "",
        "sub/inner.py": "from ..leaf import x\n",
        "reader.py": "from th_utils.paths import data_path\ndata_path('table.yml')\n",
        "folder.py": "from th_utils.paths import data_path\ndata_path('recorded')\n",
        "styled.py": "STYLE = 'look.mplstyle'\n",
        "look.mplstyle": "font.size: 8\n",
        "guess.py": "from th_utils.paths import data_path\ndef f(n):\n    data_path(n)\n",
        "declared.py": "DATA_FILES = ('many/*.yml',)\ndef f(n):\n    data_path(n)\n",
        "paths.py": "def data_path(*parts): ...\n",
    }
    for name, text in sources.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    for name in ("table.yml", "many/a.yml", "many/b.yml", "many/c.txt", "recorded/gpt2/r.json"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(name)
    monkeypatch.setattr(digest, "PACKAGE_DIR", package)
    monkeypatch.setattr(digest, "data_path", lambda *parts: data.joinpath(*parts))
    return tmp_path


def names(files):
    return {path.name for path in files} - {"__init__.py", "paths.py"}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("leaf", {"leaf.py"}),
        ("relative", {"relative.py", "leaf.py"}),
        ("lazy", {"lazy.py", "inner.py", "leaf.py"}),
        ("reader", {"reader.py", "table.yml"}),
        ("folder", {"folder.py", "r.json"}),
        ("styled", {"styled.py", "look.mplstyle"}),
        ("declared", {"declared.py", "a.yml", "b.yml"}),
    ],
)
def test_closure_of_module(package, module, expected):
    assert names(closure_of_module(f"th_utils.{module}")) == expected


def test_importing_a_submodule_counts_its_packages(package):
    found = closure_of_module("th_utils.sub.inner")
    assert package / "th_utils" / "sub" / "__init__.py" in found
    assert package / "th_utils" / "__init__.py" in found


def test_undeclared_data_is_refused(package):
    with pytest.raises(ClosureError, match=r"guess\.py, line 3.*DATA_FILES"):
        closure_of_module("th_utils.guess")


def test_unknown_module(package):
    with pytest.raises(ClosureError, match="no module th_utils.nothing"):
        closure_of_module("th_utils.nothing")


def write(path, code, prose="# Title", output="1"):
    cell = new_code_cell(code, id="code")
    cell.outputs = [nbformat.v4.new_output("stream", text=output)]
    notebook = new_notebook(cells=[new_markdown_cell(prose, id="prose"), cell])
    nbformat.write(notebook, path)
    return path


def test_closure_of_notebook(package):
    code = "try:\n    import th_utils\nexcept ImportError:\n    %pip install it\n!ls\n"
    code += "from th_utils import lazy as l, reader\nimport th_utils.styled\n"
    code += "from th_utils.leaf import x"
    found = names(closure_of_notebook(write(package / "01_a.ipynb", code)))
    assert found == {
        "01_a.ipynb",
        *("lazy.py", "inner.py", "leaf.py"),
        *("reader.py", "table.yml", "styled.py", "look.mplstyle"),
    }


def test_what_counts_of_a_notebook(package):
    path = package / "01_a.ipynb"

    def both(**changes):
        files = closure_of_notebook(write(path, **({"code": "x = 1"} | changes)))
        return digest.digest(files), build_digest(files)

    results, build = both()
    assert both(output="2") == (results, build)
    assert both(prose="# Other")[0] == results
    assert both(prose="# Other")[1] != build
    assert both(code="x = 2")[0] != results
    assert both(code="x = 2")[1] != build


def test_recorded_results_do_not_identify_results(package):
    files = closure_of_module("th_utils.folder")
    results, build = digest.digest(files), build_digest(files)
    (package / "data" / "recorded" / "gpt2" / "r.json").write_text("other")
    assert digest.digest(files) == results
    assert build_digest(files) != build


def test_content_and_not_time_or_place_decides(package):
    files = closure_of_module("th_utils.reader")
    before = digest.digest(files)
    (package / "th_utils" / "reader.py").touch()
    assert digest.digest(reversed(files)) == before
    (package / "data" / "table.yml").write_text("changed")
    assert digest.digest(files) != before


def test_each_chapter_of_this_book_has_a_closure():
    root = paths.checkout_root()
    if root is None:
        pytest.skip("not a checkout")
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        found = {file.name for file in closure_of_notebook(path)}
        assert {path.name, "chapter.py"} <= found
        others = {file for file in found if file.endswith(".ipynb")} - {path.name}
        assert not others
        # The build is not part of what a chapter computes.
        assert not any("build" in file.parts for file in closure_of_notebook(path))


def test_every_module_of_this_package_has_a_closure():
    for path in sorted(digest.PACKAGE_DIR.rglob("*.py")):
        parts = path.relative_to(digest.PACKAGE_DIR.parent).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        assert path in closure_of_module(name)
