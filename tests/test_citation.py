"""How the book and its figures are cited, and the line under each figure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bs4 import BeautifulSoup

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


def make(tmp_path, said=SAID, table='{"provenance": {"edition": "gpt2", "checksum": "c"}}'):
    files = {}
    for kind, text in (("json", table), ("csv", "a\n1\n"), ("svg", "<svg/>"), ("png", "x")):
        path = f"results/my_model/fig-03-x.{kind}"
        files[path] = tmp_path / f"fig-03-x.{kind}"
        files[path].write_text(text)
    other = tmp_path / "fig-03-xy.svg"
    other.write_text("another figure")
    listed = {"fig-03-x": Published("fig-03-x", "03", "1.0", "x", ["a-claim"])}
    return catalogue.entry(
        RECORD, said, source="notebooks/03_it.ipynb", title="It",
        files=files | {"figures/my_model/fig-03-xy.svg": other}, listed=listed,
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
    ("table", "editions", "model"),
    [
        ('{"provenance": {"edition": "gpt2", "checksum": "c"}}', ["gpt2"], "edition gpt2"),
        ('{"provenance": {"edition": "a", "checksum": "random"}}', ["random models"], "random"),
        (
            '{"provenance": {"edition": "b", "checksum": "c"}, "columns": ["x", "edition"], '
            '"rows": [[1, "b"], [2, "a"]]}',
            ["b", "a"],
            "edition b",
        ),
        ("{}", ["my_model"], "edition my_model"),
    ],
)
def test_which_models_a_figure_shows(tmp_path, table, editions, model):
    entry = make(tmp_path, table=table)
    assert entry["editions"] == editions and entry["model"].startswith(model)


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
    import json

    entry = make(tmp_path)
    said = json.loads(catalogue.as_json([entry], SAID))
    assert said["figures"] == [entry] and said["published"] is True
    text = catalogue.gallery([entry], {"fig-03-x": "LINE"}, ["another", "a-claim"])
    assert 'data-claims="a-claim" data-editions="gpt2"' in text
    assert "<option>a-claim</option>" in text and "<option>another</option>" not in text
    assert 'alt="A &lt; B."' in text and "LINE" in text and "## It" in text
    assert text.count("<div") == text.count("</div>")
