"""Names of figures are for ever: compared with the list of those published before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from th_utils.build import published
from th_utils.build.layout import Layout, find_root
from th_utils.build.published import Published
from th_utils.claims import load_claims
from th_utils.errors import CompanionError

LAYOUT = Layout(find_root())
A = Published("fig-a", "01", "0.1", "areas", ["a-claim"])
B = Published("fig-b", "02", "0.1", "bars")


def test_no_published_name_is_lost_or_given_to_another_figure():
    listed = published.load(LAYOUT.root)
    assert listed
    assert published.problems(listed, published.shown(LAYOUT)) == []


def test_claims_of_the_list_are_in_the_ledger_and_of_the_chapter():
    ledger = load_claims()
    for entry in published.load(LAYOUT.root).values():
        for claim in entry.claims:
            assert ledger[claim].chapter == entry.chapter, entry.id


def test_every_name_leads_to_its_anchor(site):
    anchors = {name for ids in site.ids.values() for name in ids}
    for entry in published.load(LAYOUT.root).values():
        assert (entry.id in anchors) != bool(entry.withdrawn), entry.id


@pytest.mark.parametrize(
    ("listed", "today", "said"),
    [
        ([A, B], [A, B], []),
        ([A], [A, B], []),
        ([A, B], [A], ["fig-b, published since 0.1, is lost"]),
        ([A], [replace(A, drawn_by="bars")], ["drawn by areas; now it is chapter 01's, drawn by"]),
        ([A], [replace(A, chapter="02")], ["another figure, another name"]),
        ([replace(A, withdrawn="0.2")], [], []),
        ([replace(A, withdrawn="0.2")], [A], ["fig-a was withdrawn in 0.2"]),
        ([A], [replace(A, since="0.3", claims=[])], []),
    ],
)
def test_problems(listed, today, said):
    found = published.problems({e.id: e for e in listed}, {e.id: e for e in today})
    assert len(found) == len(said)
    assert all(text in line for text, line in zip(said, found, strict=True))


def test_new_names_are_appended_and_nothing_else_changes(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data").mkdir()
    path = tmp_path / published.LIST
    before = "# Head.\nfigures:\n" + published.line(A) + "\n"
    path.write_text(before)
    notebook = (
        '{"cells": [{"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], '
        '"execution_count": null, "source": "chapter.figure(\\"fig-b\\", table, draw.bars)"}], '
        '"metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
    )
    (tmp_path / "notebooks" / "02_b.ipynb").write_text(notebook)
    layout = Layout(tmp_path)
    assert published.add(layout) == ["fig-b"]
    assert path.read_text().startswith(before)
    assert published.load(tmp_path)["fig-b"].drawn_by == "bars"
    assert published.add(layout) == []


def test_a_figure_is_drawn_by_a_named_function(tmp_path):
    with pytest.raises(CompanionError, match="drawn by a named function"):
        list(published._drawn('chapter.figure("fig-a", table, lambda table: None)'))


def test_a_name_stands_once(tmp_path):
    (tmp_path / "data").mkdir()
    text = "figures:\n" + "\n".join([published.line(A)] * 2)
    (tmp_path / published.LIST).write_text(text)
    with pytest.raises(CompanionError, match="lists a name twice"):
        published.load(tmp_path)
    assert yaml.safe_load(text)["figures"][0]["claims"] == ["a-claim"]
