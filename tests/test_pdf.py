"""The book as a PDF: the document made of its pages, and what a browser prints of it."""

from __future__ import annotations

import pytest
from browsing import executable
from bs4 import BeautifulSoup

from th_utils.build import pdf
from th_utils.build.layout import Layout
from th_utils.errors import CompanionError

ONE = """<html><body><nav>not this</nav><article><section id="one"><h1>One<a class="headerlink"
 href="#one">#</a></h1><p>See <a href="two.html#fig-b">b</a>, <a href="#here">here</a>,
 <a href="two.html">two</a>, <a href="../results/x.csv">CSV</a>, <a href="https://x.org">x</a>.</p>
 <p id="here">Here.</p><details><summary>Code</summary>folded</details></section></article>"""
TWO = """<html><body><article><section id="two"><h1>2. Two</h1><section id="part"><h2>2.1. A
 part</h2><p id="here">Also.</p><figure id="fig-b"><img loading="lazy" alt="b"
 src="../_images/b.png"></figure></section></section></article></body>"""
ORDER = ["book/one", "book/two"]


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    html = Layout(tmp_path).html
    (html / "book").mkdir(parents=True)
    (html / "book" / "one.html").write_text(ONE)
    (html / "book" / "two.html").write_text(TWO)
    (html / "_images").mkdir()
    Image.new("RGB", (40, 30), "red").save(html / "_images" / "b.png")
    return html


@pytest.fixture
def parts(folder):
    return pdf.collect(folder, ORDER)


def test_pages_come_in_the_order_of_the_book():
    toc = {"root": "a", "parts": [{"chapters": [{"file": "b"}]}, {"chapters": [{"file": "c"}]}]}
    assert pdf.pages(toc) == ["a", "b", "c"]


def test_every_link_inside_leads_somewhere(parts):
    sheets, headings = parts
    soup = BeautifulSoup(pdf.document("T", "", pdf.contents(headings, {}), sheets), "html.parser")
    names = [element["id"] for element in soup.find_all(id=True)]
    assert len(names) == len(set(names))  # both pages have an anchor `here`
    links = [link["href"] for link in soup.find_all("a", href=True)]
    assert {link[1:] for link in links if link.startswith("#")} <= set(names)
    assert "#book-two--fig-b" in links and "#book-one--here" in links and "#book-two" in links
    # What lies elsewhere stays a link, a file beside the page does not.
    assert [link for link in links if not link.startswith("#")] == ["https://x.org"]
    assert soup.find("img")["src"] == "../_images/b.png"


def test_what_is_clicked_or_folded_is_left_out(parts):
    text = " ".join(parts[0])
    for absent in ("not this", "headerlink", "folded", "loading"):
        assert absent not in text


def test_headings_and_their_pages(parts):
    headings = parts[1]
    assert [(one.level, one.text) for one in headings] == [
        (1, "One"),
        (1, "2. Two"),
        (2, "2.1. A part"),
    ]
    listed = pdf.contents(headings, {headings[1].anchor: 17})
    assert "2. Two</a><span>17</span>" in listed


def test_no_browser_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setattr(pdf, "find", lambda: None)
    with pytest.raises(CompanionError, match="needs a browser"):
        pdf.print_page(tmp_path / "x.html", tmp_path / "x.pdf")


@pytest.mark.chromium
def test_a_printed_book(folder, tmp_path):
    import yaml
    from pypdf import PdfReader

    executable()
    layout = Layout(tmp_path)
    layout.stage.mkdir(parents=True)
    toc = {"root": ORDER[0], "parts": [{"chapters": [{"file": ORDER[1]}]}]}
    config = {"title": "A book", "author": "People", "html": {"extra_footer": "<p>stamp</p>"}}
    (layout.stage / "_toc.yml").write_text(yaml.safe_dump(toc))
    (layout.stage / "_config.yml").write_text(yaml.safe_dump(config))
    reader = PdfReader(pdf.make_pdf(layout))
    texts = [" ".join(page.extract_text().split()) for page in reader.pages]
    assert "A book" in texts[0] and "stamp" in texts[0]
    assert "2. Two 4" in texts[1]  # the contents say on which page it is
    assert "Here." in texts[2] and "Also." in texts[3]
    one, two, inside = reader.outline
    assert (one.title, two.title, inside[0].title) == ("One", "2. Two", "2.1. A part")
    assert [reader.get_destination_page_number(at) for at in (one, two, inside[0])] == [2, 3, 3]
    assert reader.metadata.title == "A book" and "/CreationDate" not in reader.metadata
    assert not list(folder.glob(".pdf-*"))
