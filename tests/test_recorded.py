"""Results that travel with the repository: whole, of the right model, and what comes out today."""

from __future__ import annotations

import json
import shutil

import pytest
import toy
from papermill import execute_notebook
from sameness import same

from th_utils import models, recorded
from th_utils.build import citation, ledger, ledger_page
from th_utils.build.kernel import write_kernelspec
from th_utils.build.layout import Layout
from th_utils.build.notebooks import read
from th_utils.claims import load_claims, verdict
from th_utils.digest import closure_of_notebook, digest
from th_utils.errors import CompanionError
from th_utils.paths import checkout_root, data_path
from th_utils.results import TOLERANCE, read_table

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


# --- computed again, where the weights are


@pytest.fixture(scope="module")
def gpt2():
    try:
        return models.attention_weights("gpt2")
    except CompanionError as error:
        pytest.skip(f"the weights of GPT-2 small are not here ({error})")


def chapter(edition: str, name: str):
    root = checkout_root()
    assert root is not None, "the tests run in a checkout"
    source = Layout(root, edition).source(name)
    assert source.exists(), f"no chapter {name}: {remedy(edition)}"
    return source


def test_recorded_results_are_of_todays_sources(gpt2):
    for name, said in claims_of("gpt2")["digests"].items():
        assert digest(closure_of_notebook(chapter("gpt2", name))) == said, remedy("gpt2")


@pytest.mark.slow
@pytest.mark.parametrize("name", claims_of("gpt2")["digests"])
def test_a_recorded_chapter_comes_out_again(gpt2, name, tmp_path, monkeypatch):
    """Every table and every claim that was recorded, from the chapter run again."""
    write_kernelspec(tmp_path / "jupyter")
    for variable, value in {
        "TH_OUTPUT": tmp_path / "output",
        "JUPYTER_PATH": tmp_path / "jupyter",
        "IPYTHONDIR": tmp_path / "ipython",
        "OMP_NUM_THREADS": 1,
    }.items():
        monkeypatch.setenv(variable, str(value))
    source = chapter("gpt2", name)
    execute_notebook(
        str(source),
        str(tmp_path / "executed.ipynb"),
        parameters={"edition": "gpt2", "size": claims_of("gpt2")["size"]},
        kernel_name="python3",
        progress_bar=False,
        cwd=str(source.parent),
    )
    folder = tmp_path / "output" / "results" / "gpt2"
    number, compared = name[:2], 0
    for path in sorted((RECORDED / "gpt2").glob(f"fig-{number}-*.json")):
        said, found = read_table(path), read_table(folder / path.name)
        where = f"{path.stem}, {remedy('gpt2')}"
        assert list(found.columns) == list(said.columns), where
        same(found.columns, said.columns, where)
        same(found.meta, said.meta, where)
        compared += 1
    own = [c for c in claims_of("gpt2")["claims"] if load_claims()[c["id"]].chapter == number]
    if own:
        found = json.loads((folder / f"claims-{number}.json").read_text(encoding="utf-8"))["claims"]
        values = {claim["id"]: claim["value"] for claim in found}
        expected = {claim["id"]: claim["value"] for claim in own}
        assert values == pytest.approx(expected, rel=0, abs=TOLERANCE["claims"])
    assert compared or own


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


SAID = citation.about(Layout(toy.ROOT))


def page(layout: Layout) -> str:
    measured = ledger.editions(layout, {})
    rows = ledger.rows(ledger.claims(layout.root), measured, [])
    return ledger_page.page(rows, measured, SAID, {})


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
