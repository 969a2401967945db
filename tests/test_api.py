"""The reference of the package: complete, and linked with the chapters both ways."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

from th_utils.build import api
from th_utils.build.code_links import aliases, cells, link, used
from th_utils.build.layout import Layout, find_root

LAYOUT = Layout(find_root())
MODULES = api.modules(LAYOUT.root / "th_utils")
SOURCE = [
    "from th_utils import svd as taken, runs\nfrom th_utils.chapter import Chapter",
    'chapter = Chapter("01")\nother = dict(chapter=1)',
    "found = taken.ov_svd(chapter.weights)\nother.items()\nruns = taken",
]


def public(name: str) -> list[str]:
    """The full names of a module's own functions and classes that it offers, and describes."""
    module = importlib.import_module(f"th_utils.{name}")
    offered = getattr(module, "__all__", vars(module))
    return [
        f"{module.__name__}.{key}"
        for key, value in vars(module).items()
        if not key.startswith("_")
        and key in offered
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
        and value.__doc__
    ]


def test_every_module_has_one_page():
    listed = [name for page in api.pages(MODULES).values() for name in page]
    assert sorted(listed) == sorted(MODULES) and len(set(listed)) == len(listed)
    known = {one for wanted in api.PAGES.values() for one in wanted.split()}
    gone = [one for one in known if not any(name == one or one.endswith(".") for name in MODULES)]
    assert not gone, f"th_utils/build/api.py names modules that are gone: {gone}"
    for page in api.pages(MODULES):
        text = (LAYOUT.root / "book" / "api" / f"{page}.md").read_text(encoding="utf-8")
        assert f"<!-- generated: api_{page} -->" in text


def test_names_stand_for_modules_their_contents_and_instances():
    known = aliases(SOURCE)
    assert known["taken"] == "th_utils.svd" and known["chapter"] == "th_utils.chapter.Chapter"
    assert "other" not in known
    assert {"th_utils.svd.ov_svd", "th_utils.chapter.Chapter.weights"} <= used(SOURCE)
    assert not [name for name in used(SOURCE) if "items" in name]


def test_lines_that_are_not_python_are_left_out(tmp_path):
    import nbformat

    cell = nbformat.v4.new_code_cell("try:\n    import th_utils\nexcept:\n    %pip install x")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "one.ipynb")
    (source,) = cells(tmp_path / "one.ipynb")
    assert source.endswith("    pass")


@pytest.mark.parametrize(
    ("code", "links"),
    [
        ('<span class="n">s</span><span class="o">.</span><span class="n">f</span>', 1),
        ('<span class="n">s</span><span class="o">.</span><span class="n">g</span>', 0),
        ('<span class="n">t</span><span class="o">.</span><span class="n">s</span>', 0),
        ('<span class="n">h</span>', 1),
    ],
)
def test_names_in_code_are_linked(code, links):
    known, address = {"s": "th_utils.s", "h": "th_utils.h"}, {"th_utils.s.f": "p#f"}
    address["th_utils.h"] = "p#h"
    page = f'<p>{code}</p><div class="highlight-python notranslate"><pre>{code}</pre></div>'
    linked = link(page, known, address)
    assert linked.count("<a ") == links
    assert linked.startswith(f"<p>{code}</p>"), "text outside code is left alone"


def test_everything_public_is_described(site):
    ids = set().union(*(ids for page, ids in site.ids.items() if "api" in page.parts))
    missing = [name for module in MODULES for name in public(module) if name not in ids]
    assert not missing


def test_code_and_reference_lead_to_each_other(site):
    described = {name for module in MODULES for name in public(module)}
    page_of = {name: page for page, ids in site.ids.items() for name in ids if "api" in page.parts}
    for chapter in LAYOUT.chapters():
        page = site.folder / "notebooks" / f"{chapter}.html"
        names = used(cells(LAYOUT.source(chapter))) & described
        linked = {a["title"] for a in site.pages[page].select("a.code-link")}
        assert len(names) > 5 and names <= linked, names - linked
        for name in names:
            entry = site.pages[page_of[name]].find(id=name).parent
            assert entry.find("a", href=re.compile(f"{chapter}.html")), f"{name}: {chapter}"
