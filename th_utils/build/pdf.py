"""The book as one PDF to print: the rendered pages, in order, put into one document.

A browser makes the PDF, twice: the first one tells on which pages the headings of the table of
contents are. Links between pages become links inside the document, headings its bookmarks.
"""

from __future__ import annotations

import html
import logging
import posixpath
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag
from pypdf import PdfReader, PdfWriter

from th_utils.build.browser import NAMES, find
from th_utils.build.layout import Layout
from th_utils.errors import CompanionError

# On paper: what must be clicked is left out, and so is code that a page keeps folded.
LEFT_OUT = "a.headerlink, button, script, details:not([open]), nav, iframe, dialog, .d-print-none"
STYLES = (
    "styles/pydata-sphinx-theme.css",
    "styles/sphinx-book-theme.css",
    "pygments.css",
    "book.css",
)
STYLE = """
@page { size: A4; margin: 20mm 20mm 22mm; @bottom-center { content: counter(page); } }
@page :first { @bottom-center { content: none; } }
html { font-size: 9.5pt; }
body { background: white; }
.sheet { break-before: page; }
.title { padding-top: 30vh; text-align: center; font-size: 1.2em; }
.title .name { font-size: 2em; }
.contents li { list-style: none; display: flex; justify-content: space-between; }
.contents .level-1 { font-weight: bold; margin-top: 0.6em; }
.contents .level-2 { padding-left: 1.5em; }
.contents a { color: inherit; text-decoration: none; }
h1, h2, h3, h4 { break-after: avoid; }
figure, pre, tr, div.math, .admonition { break-inside: avoid; }
figcaption, .caption-text { color: #333; }
figure img { max-height: 120mm; width: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
table { font-size: 0.85em; width: 100%; }
td, th { overflow-wrap: break-word; white-space: normal; }
* { overflow: visible !important; }
"""


@dataclass(frozen=True)
class Heading:
    """A line of the table of contents: of a page (level 1) or of one of its sections (level 2)."""

    level: int
    text: str
    anchor: str


def make_pdf(layout: Layout) -> Path:
    """Print the rendered book and return the PDF's path."""
    order = pages(yaml.safe_load((layout.stage / "_toc.yml").read_text(encoding="utf-8")))
    config = yaml.safe_load((layout.stage / "_config.yml").read_text(encoding="utf-8"))
    sheets, headings = collect(layout.html, order)
    layout.pdf.parent.mkdir(parents=True, exist_ok=True)
    # The document lies beside the pages, whose pictures and style sheets it uses.
    with tempfile.TemporaryDirectory(dir=layout.html, prefix=".pdf-") as folder:
        page, printed = Path(folder) / "book.html", Path(folder) / "book.pdf"
        numbers: dict[str, int] = {}
        for _ in range(2):
            title, stamp = config["title"], config["html"]["extra_footer"]
            text = document(title, stamp, contents(headings, numbers), sheets)
            page.write_text(text, encoding="utf-8")
            print_page(page, printed)
            numbers = page_numbers(printed)
        finish(printed, layout.pdf, config, headings, numbers)
    return layout.pdf


def pages(toc: dict) -> list[str]:
    """The pages of the book in order, as paths without suffix."""
    chapters = [entry["file"] for part in toc.get("parts", []) for entry in part["chapters"]]
    return [toc["root"], *chapters]


def collect(site: Path, order: list[str]) -> tuple[list[str], list[Heading]]:
    """Return the pages below the folder `site` as parts of one document, and their headings."""
    sheets, headings = [], []
    for page in order:
        soup = BeautifulSoup((site / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
        sheet = soup.find("article")
        for element in sheet.select(LEFT_OUT):
            element.decompose()
        localise(sheet, page, set(order))
        headings.append(Heading(1, text_of(sheet.find("h1")), anchor(page)))
        for heading in sheet.select("section > h2"):
            headings.append(Heading(2, text_of(heading), heading.parent["id"]))
        inside = sheet.decode_contents()
        sheets.append(f'<section class="sheet" id="{anchor(page)}">{inside}</section>')
    return sheets, headings


def text_of(element: Tag) -> str:
    """The text of an element in one line."""
    return " ".join(element.get_text().split())


def contents(headings: list[Heading], numbers: dict[str, int]) -> str:
    """The table of contents as HTML; `numbers` gives the pages that are known."""
    lines = [
        f'<li class="level-{one.level}"><a href="#{one.anchor}">{html.escape(one.text)}</a>'
        f"<span>{numbers.get(one.anchor, '')}</span></li>"
        for one in headings
    ]
    return f'<section class="sheet contents"><h1>Contents</h1><ul>{"".join(lines)}</ul></section>'


def document(title: str, stamp: str, listed: str, sheets: list[str]) -> str:
    """The whole book as one page, in a folder below the site's; `stamp` is HTML below the title."""
    styles = "".join(f'<link rel="stylesheet" href="../_static/{name}">' for name in STYLES)
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>{styles}<style>{STYLE}</style></head>"
        '<body><main class="bd-main"><article class="bd-article">'
        f'<section class="title"><p class="name">{html.escape(title)}</p>{stamp}</section>'
        f"{listed}{''.join(sheets)}</article></main></body></html>"
    )


def anchor(page: str, name: str = "") -> str:
    """The name in the document of a page, or of an anchor on it."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", page) + (f"--{name}" if name else "")


def localise(sheet: Tag, page: str, known: set[str]) -> None:
    """Make the links and pictures of a page right in the document; links to files are unwrapped."""
    for element in sheet.find_all(id=True):
        element["id"] = anchor(page, element["id"])
    for image in sheet.find_all("img"):
        image["src"] = f"../{_in_site(page, image['src'])}"
        image.attrs.pop("loading", None)
    for link in sheet.find_all("a", href=True):
        parts = urlsplit(link["href"])
        if parts.scheme:
            continue
        target = _in_site(page, parts.path).removesuffix(".html") if parts.path else page
        if target in known:
            link["href"] = f"#{anchor(target, unquote(parts.fragment))}"
        else:
            link.unwrap()


def _in_site(page: str, address: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), address))


def print_page(page: Path, target: Path) -> None:
    """Have the browser print an HTML file to the PDF `target`."""
    browser = find()
    if browser is None:
        raise CompanionError(f"a PDF needs a browser: none of {', '.join(NAMES)} is installed")
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--disable-gpu", "--no-sandbox", "--no-pdf-header-footer"]
        command += [f"--user-data-dir={profile}", f"--print-to-pdf={target}", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode or not target.exists():
        raise CompanionError(f"the browser printed nothing: {done.stderr.strip()[-300:]}")


def page_numbers(printed: Path) -> dict[str, int]:
    """The page, counted from 1, of each anchor that something in the PDF links to."""
    reader = PdfReader(printed)
    return {
        name.removeprefix("/"): reader.get_destination_page_number(target) + 1
        for name, target in reader.named_destinations.items()
    }


def finish(
    printed: Path, target: Path, config: dict, headings: list[Heading], numbers: dict[str, int]
) -> None:
    """Give the PDF its bookmarks, its title and its author, and no date.

    The browser's own bookmarks repeat a heading that stands first on its page.
    """
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it miscounts what it has cloned
    writer = PdfWriter(clone_from=printed)
    above = None
    for one in headings:
        if one.level == 1:
            above = writer.add_outline_item(one.text, numbers[one.anchor] - 1)
        else:
            writer.add_outline_item(one.text, numbers[one.anchor] - 1, parent=above)
    writer.pdf_header = PdfReader(printed).pdf_header
    writer.metadata = {"/Title": config["title"], "/Author": config["author"]}
    new = target.with_name(target.name + ".new")
    writer.write(new)
    new.replace(target)
