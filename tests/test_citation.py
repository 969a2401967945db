"""How the book and its figures are cited, and the line under each figure."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from bs4 import BeautifulSoup

from th_utils import models
from th_utils.build import catalogue, citation, credit
from th_utils.build.layout import Layout, find_root
from th_utils.build.published import Published
from th_utils.build.repository import is_published, site

ROOT = find_root()
SAID = citation.About(
    title="T",
    author="the people",
    year="2026",
    version="1.2",
    commit="abc123 with local changes",
    edition="my_model",
    size="book",
    repository="https://github.com/Someone/it",
    site="https://someone.github.io/it/v1.2",
    paper="",
    draft=False,
)
RECORD = {"id": "fig-03-x", "edition": "my_model", "caption": "It **rises**.", "alt": "A < B."}


def provenance(edition, size="quick", checksum="c"):
    return {"edition": edition, "checksum": checksum, "parameters": {"size": size}}


def compared(*labels, **options):
    """A table that compares editions; its own is the first."""
    own = provenance(labels[0].partition("\n")[0], **options)
    return {"provenance": own, "columns": ["x", "edition"], "rows": [[1, e] for e in labels]}


def make(tmp_path, said=SAID, table=None, sizes=None):
    table = {"provenance": provenance("gpt2")} if table is None else table
    files = {}
    for kind, text in (
        ("json", json.dumps(table)),
        ("csv", "a\n1\n"),
        ("svg", "<svg/>"),
        ("png", "x"),
    ):
        path = f"results/my_model/fig-03-x.{kind}"
        files[path] = tmp_path / f"fig-03-x.{kind}"
        files[path].write_text(text)
    other = tmp_path / "fig-03-xy.svg"
    other.write_text("another figure")
    listed = {"fig-03-x": Published("fig-03-x", "03", "1.0", "x", ["a-claim"])}
    return catalogue.entry(
        RECORD, said, source="notebooks/03_it.ipynb", title="It",
        files=files | {"figures/my_model/fig-03-xy.svg": other}, listed=listed,
        sizes=sizes or {},
    )  # fmt: skip


def test_the_book():
    assert citation.of_book(SAID) == (
        "@software{talkingheadscompanion,\n  title   = {T},\n  author  = {{the people}},\n"
        "  year    = {2026},\n  version = {1.2},\n"
        "  note    = {Commit abc123 with local changes, edition my\\_model, size book},\n"
        "  url     = {https://someone.github.io/it/v1.2}\n}"
    )


def test_a_figure_has_version_address_and_the_paper_beside_it(tmp_path):
    paper = citation.entry(ROOT / "book" / "references.bib", citation.PAPER)
    cited = make(tmp_path, replace(SAID, paper=paper))["citation"]
    address = "https://someone.github.io/it/v1.2/notebooks/03_it.html#fig-03-x"
    own, beside = cited["bibtex"].split("\n\n")
    assert own.startswith("@misc{talkingheads:fig-03-x,") and f"{{{address}}}" in own
    assert "version = {1.2}" in own and "Commit abc123" in own and "edition gpt2" in own
    assert beside == paper and beside.startswith("@inproceedings{merullo2024talking,")
    own, beside = cited["text"].split("\n\n")
    assert own.startswith("The people (2026). Figure fig-03-x. In: T, version 1.2. Commit abc123")
    assert own.endswith(address)
    assert beside.startswith("Jack Merullo, Carsten Eickhoff and Ellie Pavlick (2024). Talking")
    assert beside.endswith("Systems, 37, 61372–61418.")


def test_an_entry_knows_its_own_files_and_no_others(tmp_path):
    entry = make(tmp_path)
    assert [file["kind"] for file in entry["files"]] == ["csv", "json", "png", "svg"]
    assert entry["claims"] == ["a-claim"] and entry["since"] == "1.0"
    # SHA-256 of the letter x.
    assert entry["files"][2]["sha256"].startswith("2d711642b726b04401627ca9fbac32f5")


@pytest.mark.parametrize(
    ("table", "editions"),
    [
        ({"provenance": provenance("gpt2")}, ["gpt2"]),
        ({"provenance": provenance("a", checksum="random")}, ["random models"]),
        (compared("b", "a"), ["b", "a"]),
        (compared("b\nmeasured roles", "a\npublished roles"), ["b", "a"]),
        ({}, ["my_model"]),
    ],
)
def test_which_models_a_figure_shows(tmp_path, table, editions):
    entry = make(tmp_path, table=table)
    assert entry["editions"] == editions
    line = credit.line(entry, SAID, "../")
    assert all(f">{name}<" in line or f" {name}<" in line for name in editions)


@pytest.mark.parametrize(
    ("table", "sizes", "made"),
    [
        ({"provenance": provenance("gpt2")}, {}, "edition gpt2, size quick"),
        ({"provenance": provenance("a", "book", "random")}, {}, "random models, size book"),
        ({"provenance": {"edition": "shape", "checksum": "random"}}, {}, "random models"),
        ({}, {}, "edition my_model"),
        (compared("b", "a"), {"a": "quick"}, "edition b and edition a, size quick"),
        (
            compared("b", "a", size="book"),
            {"a": "quick"},
            "edition b at size book and edition a at size quick",
        ),
        (compared("b", "a"), {}, "edition b at size quick and edition a"),
    ],
)
def test_a_citation_has_all_editions_and_the_size_of_the_figure(tmp_path, table, sizes, made):
    """Never the build's: a book of size `book` shows figures that were recorded at `quick`."""
    assert SAID.size == "book"
    cited = make(tmp_path, table=table, sizes=sizes)["citation"]
    assert f" changes, {made}. CC BY" in cited["text"]
    assert f" changes, {made}}},".replace("_", "\\_") in cited["bibtex"]


def test_a_recorded_table_names_editions_that_exist(tmp_path):
    """Real tables: some say below the name which roles were taken."""
    known, compare = set(models.editions()), 0
    for path in sorted((ROOT / "data" / "recorded").glob("*/fig-*.json")):
        table = json.loads(path.read_text(encoding="utf-8"))
        compare += any("\n" in str(cell) for row in table["rows"] for cell in row)
        assert {*make(tmp_path, table=table)["editions"]} <= known | {"random models"}, path.name
    assert compare, "no table says more than the name: this test checks nothing"


def test_the_line_under_a_figure(tmp_path):
    line = credit.line(make(tmp_path), SAID, "../")
    assert "\n\n" not in line, "an empty line ends a block of HTML"
    soup = BeautifulSoup(line, "html.parser")
    links = {link.get_text(): link["href"] for link in soup.find_all("a")}
    assert links == {
        "Chapter 03": "https://github.com/Someone/it/blob/abc123/notebooks/03_it.ipynb",
        "gpt2": "../book/models.html",
        "CSV": "../results/my_model/fig-03-x.csv",
        "JSON": "../results/my_model/fig-03-x.json",
        "SVG": "../results/my_model/fig-03-x.svg",
        "PNG": "../results/my_model/fig-03-x.png",
    }
    assert "abc123 with local changes" in soup.get_text()
    copied = [pre.get_text() for pre in soup.find_all("pre")]
    cited = make(tmp_path)["citation"]
    assert copied == [cited["bibtex"], cited["text"]]
    assert all(button.has_attr("hidden") for button in soup.find_all("button"))
    assert "draft" not in soup.get_text()
    draft = credit.line(make(tmp_path), replace(SAID, draft=True), "../")
    assert "This is a draft: version 1.2 is not published" in draft


def test_what_is_no_published_version_is_a_draft(tmp_path):
    said = citation.about(Layout(ROOT))
    assert said.draft == (not is_published(ROOT, said.version))
    assert said.site == f"{site(ROOT)}/v{said.version}" and said.paper
    assert not is_published(ROOT, "no-such-version")


def test_figures_json_and_gallery(tmp_path):
    entry = make(tmp_path)
    said = json.loads(catalogue.as_json([entry], SAID))
    assert said["figures"] == [entry] and said["published"] is True
    text = catalogue.gallery([entry], {"fig-03-x": "LINE"}, ["another", "a-claim"])
    assert 'data-claims="a-claim" data-editions="gpt2"' in text
    assert "<option>a-claim</option>" in text and "<option>another</option>" not in text
    assert 'alt="A &lt; B."' in text and "LINE" in text and "## It" in text
    assert text.count("<div") == text.count("</div>")
