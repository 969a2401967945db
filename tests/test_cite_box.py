"""The line under each figure, the box that cites it, and the gallery, in the built book."""

from __future__ import annotations

import json
import re

import pytest

from th_utils import models
from th_utils.build.catalogue import RANDOM

PAGE = "notebooks/03_components.html"
FIGURE = "fig-03-panels"
CITE = f"details.cite:has(.cite-name:text-is('{FIGURE}'))"


@pytest.fixture(scope="module")
def figures(site):
    said = json.loads((site.folder / "book" / "figures.json").read_text(encoding="utf-8"))
    return {figure["id"]: figure for figure in said["figures"]}


def test_every_figure_has_its_line(site, figures):
    for figure in figures.values():
        page = site.pages[site.folder / figure["page"]]
        (box,) = [
            box
            for box in page.find_all("details", class_="cite")
            if box.find(class_="cite-name").get_text() == figure["id"]
        ]
        texts = [pre.get_text() for pre in box.find_all("pre")]
        assert texts == [figure["citation"]["bibtex"], figure["citation"]["text"]]
        line = box.parent.get_text()
        assert "commit" in line and all(edition in line for edition in figure["editions"])
        assert figure["address"].endswith(f"/{figure['page']}#{figure['id']}")


def test_every_edition_of_a_figure_is_one_that_exists(site, figures):
    """In figures.json and in the gallery's form, where each leads to a figure."""
    content = json.loads((site.folder / "book" / "figures.json").read_text(encoding="utf-8"))
    named = {edition for figure in figures.values() for edition in figure["editions"]}
    assert named <= {*models.editions(), content["edition"], RANDOM}
    page = site.pages[site.folder / "book" / "figures.html"]
    options = {option.get_text() for option in page.select("select[name=edition] option")}
    assert options == named | {"all"}
    entries = [entry["data-editions"].split("|") for entry in page.select(".gallery-entry")]
    assert {edition for entry in entries for edition in entry} == named


def test_a_citation_says_the_size_of_its_figure(site, figures):
    for name, figure in figures.items():
        size = ((figure["provenance"] or {}).get("parameters") or {}).get("size")
        for text in figure["citation"].values():
            own = text.split("\n\n")[0]
            first = next(iter(re.findall(r"\bsize (\w+)", own)), None)
            assert first == size, name
            assert all(edition.replace("_", "") in own.replace("\\_", "").replace("_", "")
                       for edition in figure["editions"]), name  # fmt: skip


def test_files_are_those_that_are_listed(site, figures):
    import hashlib

    for figure in figures.values():
        assert figure["files"], figure["id"]
        for file in figure["files"]:
            content = (site.folder / file["path"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file["sha256"], file["path"]


@pytest.mark.chromium
@pytest.mark.parametrize("served", [False, True], ids=["file", "served"])
@pytest.mark.parametrize(("number", "kind"), [(0, "bibtex"), (1, "text")])
def test_the_box_copies_the_right_text(book_page, figures, number, kind, served):
    """By keyboard alone: open the box, go to the button, press it."""
    tab = book_page(PAGE, served=served, permissions=("clipboard-read", "clipboard-write"))
    box = tab.locator(CITE)
    box.locator("summary").focus()
    tab.keyboard.press("Enter")
    assert box.get_attribute("open") is not None
    for _ in range(number + 1):
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    box.locator(".cite-said:has-text('Copied')").wait_for(timeout=5000)
    copied = tab.evaluate("navigator.clipboard.readText()")
    assert copied == figures[FIGURE]["citation"][kind]
    assert f"#{FIGURE}" in copied and "Talking Heads" in copied and "Merullo" in copied


@pytest.mark.chromium
def test_the_box_opens_without_a_script(book_page, figures):
    tab = book_page(PAGE, script=False)
    box = tab.locator(CITE)
    box.locator("summary").click()
    assert box.locator("pre").first.inner_text() == figures[FIGURE]["citation"]["bibtex"]
    assert box.locator("button:visible").count() == 0


@pytest.mark.chromium
def test_the_gallery_is_filtered(book_page, figures):
    tab = book_page("book/figures.html")
    entries = tab.locator(".gallery-entry:visible")
    assert entries.count() == len(figures)
    claim = figures[FIGURE]["claims"][0]
    expected = [figure for figure in figures.values() if claim in figure["claims"]]
    tab.get_by_label("Claim").select_option(claim)
    assert entries.count() == len(expected) < len(figures)
    assert tab.locator(".gallery-count").inner_text().startswith(f"{len(expected)} of ")
    assert tab.locator("article section section:visible").count() == 1
    assert "matches" not in tab.locator(".gallery-count").inner_text()
    tab.get_by_label("Claim").select_option("")
    tab.get_by_label("Edition").select_option("random models")
    random = [figure for figure in figures.values() if "random models" in figure["editions"]]
    assert entries.count() == len(random) > 0


@pytest.mark.chromium
def test_an_empty_choice_says_so_and_is_cleared(book_page, figures):
    tab = book_page("book/figures.html")
    clear = tab.get_by_role("button", name="Show all")
    assert clear.is_disabled()
    tab.get_by_label("Claim").select_option(figures[FIGURE]["claims"][0])
    tab.get_by_label("Edition").select_option(RANDOM)
    assert tab.locator(".gallery-entry:visible").count() == 0
    said = tab.locator(".gallery-count").inner_text()
    assert "nothing matches" in said and "Show all" in said
    clear.focus()
    tab.keyboard.press("Enter")
    assert tab.locator(".gallery-entry:visible").count() == len(figures)
    assert (
        tab.get_by_label("Claim").input_value() == tab.get_by_label("Edition").input_value() == ""
    )
    assert clear.is_disabled()


@pytest.mark.chromium
def test_an_address_can_ask_for_a_claim(book_page, figures):
    claim = figures[FIGURE]["claims"][0]
    tab = book_page(f"book/figures.html?claim={claim}")
    expected = [figure for figure in figures.values() if claim in figure["claims"]]
    assert tab.locator(".gallery-entry:visible").count() == len(expected)


@pytest.mark.chromium
def test_without_a_script_the_gallery_shows_all(book_page, figures):
    tab = book_page("book/figures.html", script=False)
    assert tab.locator(".gallery-entry:visible").count() == len(figures)
    assert tab.locator(".gallery-form:visible").count() == 0
