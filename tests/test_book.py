"""The rendered book: a small one, made of the committed notebooks, and looked at closely."""

from __future__ import annotations

import pytest
from htmlcheck import Site

from th_utils.build import notebooks
from th_utils.build.layout import Layout, find_root

LAYOUT = Layout(find_root())
CHAPTERS = LAYOUT.chapters()


def figures():
    for chapter in CHAPTERS:
        committed = notebooks.read(LAYOUT.source(chapter))
        for _, record in notebooks.marks(committed, "figure"):
            yield chapter, record["id"]


def test_every_image_has_alt_text(site):
    assert site.bad_alt_texts() == []


def test_no_internal_link_is_broken(site):
    assert site.broken_links() == []


def test_pages_have_language_title_and_one_heading(site):
    assert site.bad_outlines() == []


def test_no_markup_is_shown(site):
    assert site.literal_markup() == []


def test_every_figure_can_be_cited(site):
    found = list(figures())
    assert found, "the committed notebooks show no figures; `make refresh` brings them"
    for chapter, name in found:
        page = site.folder / "notebooks" / f"{chapter}.html"
        assert name in site.ids[page], f"{chapter} has no anchor {name}"
        figure = site.pages[page].find(id=name)
        assert figure.find("img") and figure.find("figcaption").get_text(strip=True)


def test_every_claim_has_its_row(site):
    import yaml

    ledger = yaml.safe_load((LAYOUT.root / "data" / "claims.yml").read_text())["claims"]
    page = site.folder / "book" / "claims.html"
    for claim in ledger:
        assert f"claim-{claim['id']}" in site.ids[page]


def test_commit_and_version_are_stamped(site):
    from th_utils import __version__

    for path, soup in site.pages.items():
        footer = soup.find(class_="extra_footer")
        if footer is not None:
            assert "commit" in footer.get_text() and __version__ in footer.get_text(), path


def test_injected_parameters_are_not_shown(site):
    for soup in site.pages.values():
        assert soup.find(class_="tag_injected-parameters") is None


# --- the checks themselves, on planted faults ---------------------------------------------------

PAGE = """<html lang="{lang}"><head><title>T</title></head><body><article>{body}</article></body>"""


@pytest.mark.parametrize(
    ("check", "body", "complaints"),
    [
        ("bad_alt_texts", '<img src="a.png" alt="A rising line">', 0),
        ("bad_alt_texts", '<img src="a.png">', 1),
        ("bad_alt_texts", '<img src="a.png" alt="../_images/a.png">', 1),
        ("broken_links", '<a href="there.html#here">x</a><a href="https://x.org/y">y</a>', 0),
        ("broken_links", '<a href="there.html#gone">x</a>', 1),
        ("broken_links", '<a href="gone.html">x</a><img src="gone.png" alt="y">', 2),
        ("bad_outlines", "<h1>One</h1>", 0),
        ("bad_outlines", "<h1>One</h1><h1>Two</h1>", 1),
        ("literal_markup", "<pre>{numref}</pre>", 0),
        ("literal_markup", "<p>see {numref}`x`</p>", 1),
    ],
)
def test_the_checks_find_planted_faults(tmp_path, check, body, complaints):
    (tmp_path / "page.html").write_text(PAGE.format(lang="en", body=body))
    (tmp_path / "there.html").write_text(PAGE.format(lang="en", body='<h1 id="here">There</h1>'))
    assert len(getattr(Site(tmp_path), check)()) == complaints
