"""Results that travel with the repository: whole, of the right model, and what comes out today."""

from __future__ import annotations

import json
import shutil

import pytest
import toy

from th_utils import channels, composition, models, recorded, roles
from th_utils.build import stage
from th_utils.build.layout import Layout
from th_utils.build.notebooks import read
from th_utils.claims import load_claims, verdict
from th_utils.digest import closure_of_notebook, digest
from th_utils.errors import CompanionError
from th_utils.paths import checkout_root, data_path
from th_utils.results import Results, as_results, read_table
from th_utils.weights import q4_1

RECORDED = data_path("recorded")
EDITIONS = sorted(folder.name for folder in RECORDED.iterdir() if folder.is_dir())
TABLES = sorted(p for p in RECORDED.glob("*/*.json") if p.name != "claims.json")


def claims_of(edition: str) -> dict:
    return json.loads((RECORDED / edition / "claims.json").read_text(encoding="utf-8"))


def remedy(edition: str) -> str:
    return f"recorded from other sources than today's: run `make record EDITION={edition}`"


# --- what is there


def test_find():
    found = recorded.find("gpt2", "fig-02-areas")
    assert found is not None and len(found) > 0
    assert found.columns == read_table(RECORDED / "gpt2" / "fig-02-areas.json").columns
    assert recorded.find("gpt2", "fig-99-nowhere") is None
    assert recorded.find("no-such-edition", "fig-02-areas") is None


def test_every_recorded_edition_has_its_claims():
    assert "gpt2" in EDITIONS
    for edition in EDITIONS:
        assert claims_of(edition)["edition"] == edition


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recorded_table_is_whole_and_says_where_it_is_from(path):
    edition = path.parent.name
    table = recorded.find(edition, path.stem)
    assert table is not None and len(table) > 0
    provenance, entry = table.provenance, models.editions()[edition]
    assert provenance.edition == edition == provenance.parameters["edition"]
    known = [entry.get("sha256"), entry.get("checkpoint", {}).get("sha256")]
    assert provenance.checksum in [sha for sha in known if sha]
    assert provenance.digest in claims_of(edition)["digests"].values()
    assert json.loads(path.read_text(encoding="utf-8"))["id"] == path.stem


def test_recorded_verdicts_follow_from_values_and_ledger():
    ledger = load_claims()
    for edition in EDITIONS:
        for said in claims_of(edition)["claims"]:
            found = verdict(ledger[said["id"]], said["value"], said["low"], said["high"])
            assert found == said["verdict"], said["id"]


def test_recorded_claims_are_those_of_the_recorded_tables():
    """Value for value what the figures behind them show."""
    areas = channels.one_edition(recorded.find("gpt2", "fig-02-areas").columns)
    expected = {
        channels.CLAIMS[kind, score]: auc
        for kind, score, auc in zip(areas["kind"], areas["score"], areas["auc"], strict=True)
        if auc is not None
    }
    ranked = recorded.find("gpt2", "fig-02-mover-query").columns
    expected["inhibition-component-is-an-outlier"] = channels.best_of(ranked, "inhibition")["z"]
    said = {claim["id"]: claim["value"] for claim in claims_of("gpt2")["claims"]}
    assert said == pytest.approx(expected, rel=1e-6)


# --- computed again, where the weights are


@pytest.fixture(scope="module")
def gpt2():
    try:
        return models.attention_weights("gpt2")
    except CompanionError as error:
        pytest.skip(f"the weights of GPT-2 small are not here ({error})")


@pytest.fixture(scope="module")
def scan(gpt2):
    return channels.scan(gpt2)


def chapter(edition: str, name: str):
    root = checkout_root()
    assert root is not None, "the tests run in a checkout"
    source = Layout(root, edition).source(name)
    assert source.exists(), f"no chapter {name}: {remedy(edition)}"
    return source


def test_recorded_results_are_of_todays_sources(gpt2):
    for name, said in claims_of("gpt2")["digests"].items():
        assert digest(closure_of_notebook(chapter("gpt2", name))) == said, remedy("gpt2")


def same(found, expected, where: str) -> None:
    """Equal but for rounding: numbers within 1e-5 (of the larger), everything else exactly.

    A rank, or the count in a bin, may move by one where two scores differ in their last digit.
    """
    if isinstance(expected, dict):
        assert set(found) == set(expected), where
        for name in expected:
            same(found[name], expected[name], f"{where}, {name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            same(one, other, f"{where} {i}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-5, rel=1e-5), where
    elif isinstance(expected, int) and not isinstance(expected, bool):
        assert abs(found - expected) <= 1, where
    else:
        assert found == expected, where


def compare(table, figure: str) -> None:
    said = recorded.find("gpt2", figure)
    found = as_results(table)
    where = f"{figure}, {remedy('gpt2')}"
    assert list(found.columns) == list(said.columns), where
    same(found.columns, said.columns, where)
    same(found.meta, said.meta, where)


def test_recorded_tables_come_out_again(gpt2, scan):
    """What chapter 02 computes, with its parameters."""
    found, seed = roles.published("gpt2"), 0
    columns, known = channels.distribution_table(scan, found)
    compare(Results(columns, {"known": known}), "fig-02-known-pairs")
    pairs = channels.pair_table(scan, found, seed=seed)
    compare(channels.side_by_side({"gpt2\npublished roles": pairs}), "fig-02-areas")
    reader = found.main("mover")
    level = composition.random_level(gpt2.d_model)
    ranked = channels.component_table(scan, found, "Q", reader)
    meta = dict(reader=roles.label(reader), random_level=level)
    compare(Results(channels.first(ranked, 15), meta), "fig-02-mover-query")
    heads = channels.reader_table(scan, "Q", found["inhibition"][:4], reader)
    meta = dict(mover=roles.label(reader), random_level=level)
    compare(Results(heads, meta), "fig-02-inhibition-heads")


def test_recorded_rounding_comes_out_again(scan):
    rounded = channels.scan(models.attention_weights("gpt2", rounding=q4_1))
    table = channels.rounding_table(scan, rounded, roles.published("gpt2"))
    compare(table, "fig-02-rounding")


# --- what the book says of results that are not of today's sources


@pytest.fixture
def book(tmp_path):
    """A small project with one recorded edition, beside the one that is built."""
    root = toy.make(tmp_path / "project")
    layout = Layout(root, "mine")
    name = layout.chapters()[0]
    folder = root / "data" / "recorded" / "gpt2"
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    claim = {**claims_of("gpt2")["claims"][0], "value": 0.25}
    content = {
        "digests": {name: digest(closure_of_notebook(layout.source(name)))},
        "claims": [claim],
    }
    (folder / "claims.json").write_text(json.dumps(content))
    ledger = data_path("claims.yml").read_text(encoding="utf-8")
    (root / "data" / "claims.yml").write_text(ledger, encoding="utf-8")
    return layout, name


def page(layout: Layout) -> str:
    return stage._claims(layout, [])


def test_the_claims_page_says_what_is_recorded(book):
    layout, _ = book
    text = page(layout)
    assert "`gpt2`, recorded |" in text and "0.25" in text
    assert "earlier sources" not in text


def test_the_claims_page_says_what_is_stale(book):
    """As soon as the chapter's code changes, or the chapter is gone; its prose does not count."""
    layout, name = book
    source = layout.source(name)
    notebook = json.loads(source.read_text(encoding="utf-8"))
    notebook["cells"][0]["source"] = "# Another title"
    source.write_text(json.dumps(notebook))
    assert "earlier sources" not in page(layout)
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    code["source"] = "import th_utils.svd"
    source.write_text(json.dumps(notebook))
    assert read(source)
    assert "`gpt2`, recorded from earlier sources |" in page(layout)
    source.unlink()
    assert "recorded from earlier sources" in page(layout)
