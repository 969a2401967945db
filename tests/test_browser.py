"""The rendered book as a reader meets it: in a browser, without a network.

`book_page` (tests/conftest.py) opens a page; every test that uses it also fails if the page said an
error or a warning, or asked for anything that is not in the book. What belongs to one part of the
book (cite boxes, figures to explore) is tested beside that part, with the same fixture.
"""

from __future__ import annotations

import pytest
import yaml

from th_utils.build.layout import find_root

pytestmark = pytest.mark.chromium


def pages() -> list[str]:
    """Every page of the book, those that Sphinx adds among them."""
    toc = yaml.safe_load((find_root() / "_toc.yml").read_text(encoding="utf-8"))
    files = [toc["root"]] + [one["file"] for part in toc["parts"] for one in part["chapters"]]
    return [f"{file}.html" for file in files] + ["search.html", "genindex.html"]


PAGES = pages()


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("served", [False, True], ids=["file", "served"])
def test_page_loads(book_page, page, served):
    tab = book_page(page, served=served)
    assert tab.locator("main h1:visible").count() == 1


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_wider_than_a_telephone(book_page, page):
    tab = book_page(page, width=360, height=740)
    wide = tab.evaluate("document.scrollingElement.scrollWidth")
    assert wide <= 360, f"{wide} px: {tab.evaluate(TOO_WIDE)}"


# The elements that reach beyond the window and are not inside one that scrolls or hides.
TOO_WIDE = """() => [...document.body.querySelectorAll('*')].filter(e => {
    if (e.getBoundingClientRect().right <= innerWidth + 1) return false;
    for (let p = e; p && p !== document.body; p = p.parentElement)
        if (getComputedStyle(p).overflowX !== 'visible') return false;
    return true;
}).slice(0, 5).map(e => e.outerHTML.slice(0, 120))"""
