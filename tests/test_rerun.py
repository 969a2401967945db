"""A notebook alone in an empty folder, and where it writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from th_utils.build import rerun, watch
from th_utils.build.layout import Layout, find_root
from th_utils.errors import CompanionError

LAYOUT = Layout(find_root())


@pytest.fixture
def place(tmp_path) -> rerun.Place:
    return rerun.Place(Path(sys.executable), tmp_path / "place")


def notebook(path: Path, *cells: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)
    return path


def test_a_stranger_knows_nothing_of_this_project(place, monkeypatch):
    for name in ("TH_OUTPUT", "TALKING_HEADS_CACHE", "PYTHONPATH", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, "/somewhere")
    monkeypatch.setenv("PIP_TIMEOUT", "9")
    said = place.variables()
    assert said["PIP_TIMEOUT"] == "9"
    assert not [v for v in said.values() if v.startswith("/somewhere")]
    assert said["HOME"] == str(place.home) and place.home.is_dir()
    assert str(LAYOUT.root) not in "".join(said.values())


ACTS = {
    "open('{0}', 'w')": True,
    "open('{0}')": False,
    "import os; os.mkdir('{0}.d')": True,
    "import os; os.rename('{0}', '{0}2')": True,
    "import os; os.remove('{0}')": True,
    "import sqlite3; sqlite3.connect('{0}.db')": True,
    "import subprocess, sys; subprocess.run([sys.executable, '-c', 'open(\"{0}\", \"w\")'])": True,
}


@pytest.mark.parametrize("act", ACTS)
def test_what_is_noted(tmp_path, act):
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_bytes(Path(watch.__file__).read_bytes())
    file, log = tmp_path / "file", tmp_path / "log"
    file.write_text("")
    env = os.environ | {"PYTHONPATH": str(tmp_path / "watch"), "TH_WRITES": str(log)}
    subprocess.run([sys.executable, "-c", act.format(file)], env=env, check=True)
    assert (str(file) in log.read_text()) == ACTS[act]


@pytest.mark.slow
def test_writes_outside_are_found(place, tmp_path):
    outside = tmp_path / "outside.txt"
    source = notebook(
        tmp_path / "nb" / "a.ipynb",
        "open('beside.txt', 'w').close()",
        "import os, pathlib\n"
        "cache = pathlib.Path.home() / '.cache' / 'some'\n"
        "cache.mkdir(parents=True)\n"
        "(cache / 'kept.txt').touch()\n"
        "(pathlib.Path.home() / 'stray.txt').touch()",
        f"open({str(outside)!r}, 'w').close()",
    )
    folder = tmp_path / "alone"
    rerun.execute(place, source, folder, {})
    assert (folder / "beside.txt").exists()
    assert rerun.strays(place, folder) == sorted([str(outside), str(place.home / "stray.txt")])


@pytest.mark.slow
def test_a_failure_is_one_line(place, tmp_path):
    source = notebook(tmp_path / "nb" / "a.ipynb", "1 / 0")
    with pytest.raises(CompanionError, match="a: ZeroDivisionError: division by zero"):
        rerun.execute(place, source, tmp_path / "alone", {})


@pytest.mark.slow
def test_a_chapter_writes_beside_itself_only(place, tiny_gpt2, tmp_path):
    """From a wheel; all chapters in a new environment is `make test-rerun`."""
    wheel = rerun.build_wheel(LAYOUT.root, tmp_path / "wheel")
    library = tmp_path / "library"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(library)]
    subprocess.run([*pip, str(wheel)], check=True)
    (chapter,) = [name for name in LAYOUT.chapters() if name.startswith("12_")]
    cells = nbformat.read(LAYOUT.source(chapter), as_version=4)
    # This environment has the checkout installed: the wheel goes before it.
    first = nbformat.v4.new_code_cell(f"import sys; sys.path.insert(0, {str(library)!r})")
    cells.cells.insert(0, first)
    source = tmp_path / "nb" / f"{chapter}.ipynb"
    source.parent.mkdir()
    nbformat.write(cells, source)
    folder = tmp_path / "alone"
    done = rerun.execute(place, source, folder, {"edition": str(tiny_gpt2)})
    assert rerun.strays(place, folder, library) == []
    made = sorted(path.name for path in folder.rglob("*.svg"))
    assert "fig-12-layers.svg" in made
    text = str([output for cell in done.cells for output in cell.get("outputs", [])])
    assert "talking-heads-companion" in text  # the setup cell said what it found
