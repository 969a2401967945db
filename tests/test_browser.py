"""The rendered book as a reader meets it: in a browser, without a network.

`book_page` (tests/conftest.py) opens a page; every test that uses it also fails if the page said an
error or a warning, or asked for anything that is not in the book. What belongs to one part of the
book (cite boxes, figures to explore) is tested beside that part, with the same fixture.
"""

from __future__ import annotations

import gzip
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from th_utils.build.layout import find_root
from th_utils.build.theme import WIDE

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


@pytest.mark.parametrize("page", PAGES)
def test_pictures_have_a_size_and_wait_until_seen(book_page, page):
    tab = book_page(page, width=360, height=740)
    for image in tab.locator("article img").all():
        said = {name: image.get_attribute(name) for name in ("width", "height", "loading")}
        assert all(said.values()) and said["loading"] == "lazy", image.get_attribute("src")
        image.scroll_into_view_if_needed()
        drawn = image.evaluate(
            "e => e.decode().then(() => [e.width / e.height, e.naturalWidth / e.naturalHeight])"
        )
        assert drawn[0] == pytest.approx(drawn[1], rel=0.02), "out of proportion"


BEFORE_INTERACTION = 1_500_000  # bytes, gzipped


@pytest.mark.parametrize("width", [320, 360])
@pytest.mark.parametrize("page", [PAGES[1], "book/figures.html"])
def test_a_wide_picture_scrolls_on_a_telephone(book_page, page, width):
    """In its place, by keyboard too; a narrow one shrinks. On paper both do."""
    tab = book_page(page, width=width, height=740)
    pictures = tab.locator("article img").evaluate_all(PICTURES)
    for made, shown, scrolls in pictures:
        assert scrolls == (made >= WIDE), f"{made} pixels shown as {shown}"
        assert shown >= 600 if scrolls else shown <= width
    assert {scrolls for *_, scrolls in pictures} == {False, True}
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= width
    frame = tab.locator(".wide-picture").first
    assert frame.get_attribute("role") and frame.get_attribute("aria-label")
    frame.focus()
    tab.keyboard.press("ArrowRight")
    tab.wait_for_function("e => e.scrollLeft > 0", arg=frame.element_handle())
    tab.emulate_media(media="print")
    for made, shown, scrolls in tab.locator("article img").evaluate_all(PICTURES):
        assert shown <= width and not scrolls, made


# Of each picture its own width and the one it is shown with, and whether it scrolls in its place.
PICTURES = """all => Promise.all(all.map(async e => {
    e.loading = 'eager';
    await e.decode();
    const frame = e.closest('.wide-picture');
    const scrolls = frame && getComputedStyle(frame).overflowX === 'auto' &&
        frame.scrollWidth > frame.clientWidth && frame.getBoundingClientRect().right <= innerWidth;
    return [e.naturalWidth, e.width, Boolean(scrolls)];
}))"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_message_of_a_caption_stands_out(book_page, dark):
    tab = book_page(PAGES[1], dark=dark)
    assert tab.locator("figcaption").first.evaluate(TYPE) == [tab.evaluate(TEXT), 700]
    tab = book_page("book/figures.html", dark=dark)
    entry = tab.locator(".gallery-entry > p:has(strong)").first
    assert entry.evaluate(TYPE) == [tab.evaluate(TEXT), 700]


TEXT = """() => {
    const { fontWeight, color } = getComputedStyle(document.querySelector('article p'));
    return `${fontWeight} ${color}`;
}"""
# Weight and colour of a caption, and the weight of its message.
TYPE = """e => {
    const { fontWeight, color } = getComputedStyle(e), bold = [...e.querySelectorAll('strong')];
    return [`${fontWeight} ${color}`, Number(getComputedStyle(bold.at(-1)).fontWeight)];
}"""


@pytest.mark.parametrize("page", PAGES)
def test_page_is_light(book_page, site, page):
    """What a browser asks for before the reader does anything, each file gzipped."""
    tab = book_page(page, served=True)
    names = tab.evaluate("performance.getEntriesByType('resource').map(one => one.name)")
    files = {unquote(urlsplit(name).path).lstrip("/") for name in names if name.startswith("http")}
    weights = {
        name: len(gzip.compress((site.folder / name).read_bytes())) for name in {page, *files}
    }
    assert sum(weights.values()) < BEFORE_INTERACTION, sorted(weights.items(), key=lambda x: -x[1])


def test_search_finds_a_figure(book_page, site):
    """By its permanent name, at its place; a click goes there, which takes a moment."""
    figure = site.pages[site.folder / PAGES[1]].find("figure", id=True)
    for served in (False, True):
        tab = book_page(f"search.html?q={figure['id']}", served=served)
        found = tab.locator(f"#search-results a[href$='{PAGES[1]}#{figure['id']}']")
        found.first.wait_for()
        found.first.click()
        tab.wait_for_url(f"**/{PAGES[1]}*#{figure['id']}")
        tab.locator(f"figure#{figure['id']}").wait_for()


def test_search_by_keyboard(book_page):
    tab = book_page(PAGES[0], served=True)
    tab.keyboard.press("Control+k")
    tab.keyboard.type("inhibition")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/search.html?*")
    tab.locator("#search-results li a").first.wait_for()


def test_colours_follow_the_system_and_the_reader(book_page):
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    for dark in (False, True):
        tab = book_page(PAGES[1], dark=dark)
        assert (tab.evaluate(brightness) < 100) == dark
    chosen = tab.locator("html").get_attribute("data-mode")
    tab.locator("button.theme-switch-button:visible").click()
    assert tab.locator("html").get_attribute("data-mode") != chosen
    still = tab.locator("html").get_attribute("data-theme")
    tab.reload()
    assert tab.locator("html").get_attribute("data-theme") == still


def test_readable_without_scripts(book_page):
    tab = book_page(PAGES[1], script=False)
    assert tab.locator("article figure img").first.is_visible()
    assert tab.locator("article math").first.is_visible()


def test_keyboard_reaches_the_text_and_shows_where_it_is(book_page):
    tab = book_page(PAGES[1])
    tab.keyboard.press("Tab")
    assert "main" in tab.evaluate("document.activeElement.textContent").lower()  # skip link
    tab.keyboard.press("Enter")
    seen = set()
    for _ in range(60):
        tab.keyboard.press("Tab")
        seen.add(tuple(tab.evaluate(FOCUS)))
    assert "main" in {where for where, _ in seen}
    assert all(shown for _, shown in seen), seen


# Whether what has the focus is in the text, and whether one can see that it has it.
FOCUS = """() => {
    const e = document.activeElement, style = getComputedStyle(e);
    const shown = style.outlineStyle !== 'none' || style.boxShadow !== 'none';
    return [e.closest('main') ? 'main' : 'around', shown];
}"""


def test_a_long_equation_scrolls_in_its_place(book_page):
    tab = book_page(PAGES[2], width=360, height=740)
    for equation in tab.locator("div.math").all():
        assert equation.evaluate("e => e.getBoundingClientRect().right <= innerWidth")
        assert equation.evaluate("e => getComputedStyle(e).overflowX") == "auto"
