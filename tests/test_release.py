"""What stands against a release is said, each in a line; and when nothing does, nothing is."""

from __future__ import annotations

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from th_utils import __version__
from th_utils.build import release
from th_utils.build.layout import find_root
from th_utils.build.release import problems

ROOT = find_root()
HOME = "https://github.com/somebody/book"
INSTALL = f'%pip install "it @ git+{HOME}@v{__version__}"'
READY = {
    "pyproject.toml": f'[project.urls]\nRepository = "{HOME}"\n',
    "CITATION.cff": "title: A book\n",
    "CHANGELOG.md": f"# Changes\n\n## Unreleased\n\n## {__version__} (2026-01-31)\n\n- All.\n",
    "README.md": "# A book\n",
    "book/errata.md": "# Errata\n\nNo error is known so far.\n",
    "LICENSE": "",
    "LICENSE-TEXT": "",
    "CONTRIBUTING.md": "",
    "requirements.lock": "",
}


@pytest.fixture
def project(tmp_path):
    """A project that can be released."""
    for name, text in READY.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    write_chapter(tmp_path, INSTALL)
    return tmp_path


def write_chapter(root, code):
    cell = new_code_cell(code, metadata={"tags": ["setup"]})
    (root / "notebooks").mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=[cell]), root / "notebooks" / "01_a.ipynb")


def test_nothing_stands_against_what_is_ready(project):
    assert problems(project) == []


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("pyproject.toml", READY["pyproject.toml"].replace("somebody", "OWNER"), "placeholder"),
        ("CITATION.cff", "version: 77.0\n", "CITATION.cff states version 77.0"),
        (
            "CHANGELOG.md",
            READY["CHANGELOG.md"].replace("Unreleased\n", "Unreleased\n\n- New.\n"),
            "there are entries under Unreleased",
        ),
        ("CHANGELOG.md", "## Unreleased\n\n## 0.0.0 (2026-01-31)\n\n- Old.\n", "no heading"),
        ("CHANGELOG.md", f"## {__version__}\n\n- No day.\n", "no heading"),
        ("README.md", "There is no\nrelease and no DOI.\n", "README.md still says: There is no"),
        (
            "book/errata.md",
            "No error is known, and no version has been published\nyet.\n",
            "book/errata.md still says: no version has been published yet",
        ),
    ],
)
def test_what_stands_against_a_release(project, name, text, said):
    (project / name).write_text(text)
    found = problems(project)
    assert [line for line in found if said in line], found
    others = [line for line in found if said not in line]
    # Another address makes the chapter install from the wrong one as well.
    assert others == [] or name == "pyproject.toml"


@pytest.mark.parametrize("pin", ["", "@v0.0.0", "@main"])
def test_chapters_install_the_version(project, pin):
    write_chapter(project, INSTALL.replace(f"@v{__version__}", pin))
    (found,) = problems(project)
    assert "setup cells of 01_a do not install" in found and "th_utils.build pin" in found


@pytest.mark.parametrize("name", release.FILES)
def test_a_missing_file(project, name):
    (project / name).unlink()
    assert problems(project) == [f"{name} is missing"]


def test_the_words_are_those_of_this_project():
    """They are looked for in vain if the page says them otherwise, while nothing is published."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if re.search(r"^## \d", text, re.MULTILINE):
        pytest.skip("a version has been published")
    for name, words in release.UNPUBLISHED.items():
        assert words in " ".join((ROOT / name).read_text(encoding="utf-8").split()), name


def test_the_recipe_names_every_step():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    recipe = text.partition("To publish one:")[2].partition("\n## ")[0]
    steps = [
        "__version__", "CHANGELOG.md", "README", "book/errata.md", "name-figures", "make refresh",
        "make record", "th_utils.build pin`", "make release-check", "git tag", "one by one",
        "gh-pages", "pin --remove",
    ]  # fmt: skip
    places = [recipe.find(step) for step in steps]
    assert -1 not in places, steps[places.index(-1)]
    assert places == sorted(places), "in the order in which they are taken"
