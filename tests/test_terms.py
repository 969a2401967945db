"""Words of the glossary: found in texts, and linked once on each page of a small book."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from th_utils.build.terms import Glossary, inflected

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = [
    [("component", "term-component")],
    [("mover", "term-mover"), ("mover head", "term-mover-head")],
    [("OV circuit", "term-OV-circuit")],
    [("lift", "term-lift")],
]

INDEX = """\
# A mover

Here `mover` is code and $mover$ is mathematics. Movers come first, *duplicate
components* next, and no mover and no mover
head again. An OV
circuit is not an ov circuit; to lift is not {term}`lift`, removers are no movers.
{term}`Back <component>`.

```{toctree}
words
other
```
"""
WORDS = """\
# Words

:::{glossary}
component
  A part. It has nothing of a mover.

mover
mover head
  A head.

OV circuit
  A matrix.

lift
  A ratio.
:::
"""
OTHER = """\
# Other

{term}`Mover <mover>` by hand, so that the mover head is known. Two components and a component-wise
sum.
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Movers and a component", ["Movers", "component"]),
        ("mover heads", ["mover heads"]),
        ("a mover\nhead", ["mover\nhead"]),
        ("remover, component-wise, re-component", []),
        ("the OV circuit and the ov circuit", ["OV circuit"]),
        ("to lift", []),
    ],
)
def test_words_are_found(text, found):
    glossary = Glossary(ENTRIES, by_hand=["lift"])
    assert [text[start:end] for start, end, *_ in glossary.find(text)] == found


def test_an_empty_glossary_finds_nothing():
    assert not list(Glossary([]).find("a mover"))


def test_plurals():
    assert inflected("loss")[1] == "losses" and inflected("array")[1] == "arrays"


CONF = """\
extensions = ["myst_parser", "th_utils.build.terms"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
glossary_page = "words"
glossary_by_hand = ["lift"]
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    folder = tmp_path_factory.mktemp("terms")
    (folder / "conf.py").write_text(CONF)
    for name, text in (("index", INDEX), ("words", WORDS), ("other", OTHER)):
        (folder / f"{name}.md").write_text(text)
    made = {}
    for builder in ("html", "singlehtml"):
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", builder, str(folder)]
        subprocess.run([*command, str(folder / builder)], check=True, cwd=ROOT)
        for page in (folder / builder).glob("*.html"):
            made[builder, page.stem] = BeautifulSoup(page.read_text(), "html.parser")
    return made


def links(soup):
    return [(" ".join(a.get_text().split()), a["href"]) for a in soup.select("a.glossary-term")]


def test_the_first_use_is_linked(book):
    assert links(book["html", "index"]) == [
        ("Movers", "words.html#term-mover"),
        ("components", "words.html#term-component"),
        ("OV circuit", "words.html#term-OV-circuit"),
    ]


def test_a_link_by_hand_counts_as_the_first_use(book):
    assert links(book["html", "other"]) == [("components", "words.html#term-component")]


def test_the_glossary_is_left_alone(book):
    assert links(book["html", "words"]) == []


def test_no_text_is_lost(book):
    text = " ".join(book["html", "index"].find("body").get_text().split())
    assert "Movers come first, duplicate components next, and no mover and no mover head" in text


def test_pages_of_a_single_file_are_pages(book):
    found = links(book["singlehtml", "index"])
    assert [word for word, _ in found] == ["Movers", "components", "OV circuit", "components"]
    anchors = {tag["id"] for tag in book["singlehtml", "index"].find_all(id=True)}
    assert {href.rpartition("#")[2] for _, href in found} <= anchors
